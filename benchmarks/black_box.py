"""Simulators that can only be called: a compound degradation with unknown settings, and a fluid.

    python benchmarks/black_box.py compound [--images 4] [--particles 256]
    python benchmarks/black_box.py fluid [--side 16] [--particles 256]

compound: a digit of 32 x 32 pixels is blurred (1 pixel), gets noise of 0.03, is coded as a JPEG
file of unknown quality by Pillow and shown through a tone curve of unknown exponent. Image, quality
and exponent are sampled together from y by EnKG and CBG, which call the simulator and have no
derivative of it; the noise stands in the likelihood, at about its level after the curve (0.04).

fluid: the vorticity of a plane flow (``operators.NavierStokes``) from every second point of it, 1
time unit later, with noise of 0.1 of its standard deviation; the prior is the Gaussian field that
the truth is drawn from. CRPS in standard deviations of the vorticity, and spread-skill ratio.
"""

from __future__ import annotations

import argparse
import io
import math
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import posteriori as po
from posteriori import methods
from posteriori.diagnostics import quiet
from posteriori.evaluation.ensembles import crps, spread_skill
from posteriori.operators import Blur, NavierStokes, Operator, gaussian_kernel
from posteriori.packing import pack, unpack
from posteriori.priors import Gaussian, Joint

F64 = torch.float64
SIDE, BLUR, INNER, OUTER = 32, 1.0, 0.03, 0.04


class Compound(Operator):
    """(image, quality, log exponent) -> the picture that a file shows: blur, JPEG by Pillow, tone
    curve. No derivative."""

    def __init__(self) -> None:
        self.parts = {"image": (1, SIDE, SIDE), "quality": (1,), "log_gamma": (1,)}
        super().__init__((SIDE**2 + 2,))
        self.blur = Blur(gaussian_kernel(BLUR), (1, SIDE, SIDE))
        self.__dict__["_out_shape"] = (1, SIDE, SIDE)

    @property
    def in_parts(self):
        return self.parts

    def forward(self, x: Tensor) -> Tensor:
        return self.shown(x, 0.0)

    def shown(self, x: Tensor, noise: Tensor | float) -> Tensor:
        """With noise between blur and coding."""
        parts = unpack(x.detach(), self.parts)
        seen = (self.blur(parts["image"]) + noise).clamp(0, 1)
        files = [coded(row[0], quality(q)) for row, q in zip(seen, parts["quality"], strict=True)]
        exponent = parts["log_gamma"].exp()[..., None, None]
        return torch.stack(files)[:, None].to(x).clamp(min=1e-3) ** exponent


def quality(q: Tensor) -> int:
    """A JPEG quality from 5 to 95 of any number: 50 at 0."""
    return round(5 + 90 * float(torch.sigmoid(q)))


def coded(picture: Tensor, q: int) -> Tensor:
    file = io.BytesIO()
    eight = picture.mul(255).round().to(torch.uint8).numpy()
    Image.fromarray(eight).save(file, "JPEG", quality=q)
    return torch.from_numpy(np.array(Image.open(file))).float() / 255


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a.clamp(0, 1) - b).square().mean()))


def compound(args: argparse.Namespace) -> None:
    A, prior = (
        Compound(),
        Joint(
            {
                "image": po.priors.digits(),
                "quality": Gaussian(torch.zeros(1), 1.0),
                "log_gamma": Gaussian(torch.zeros(1), 0.3**2),
            },
            ranges={"image": (0, 1)},
            shapes={"image": (1, SIDE, SIDE)},
        ),
    )
    with np.load(args.file) as data:
        digits = data["test"][: args.images]
    room = (SIDE - digits.shape[1]) // 2
    truth = torch.from_numpy(np.pad(digits, ((0, 0), (room, room), (room, room)))).float() / 255
    g = torch.Generator().manual_seed(0)
    print("image, quality, exponent, PSNR of y; method: PSNR of the mean, quality, exponent, s")
    for k, image in enumerate(truth):
        hidden = {
            "image": image[None, None],
            "quality": torch.randn(1, 1, generator=g),
            "log_gamma": 0.3 * torch.randn(1, 1, generator=g),
        }
        y = A.shown(pack(hidden), INNER * torch.randn(1, 1, SIDE, SIDE, generator=g))[0]
        post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(OUTER)))
        said = f"{k:<7}{quality(hidden['quality'][0]):8d}{float(hidden['log_gamma'].exp()):9.2f}"
        print(f"{said}{psnr(y, image[None]):8.2f}", flush=True)
        for name, method, n in (
            ("EnKG", methods.EnKG(args.particles, scale=args.scale), args.particles),
            ("CBG", methods.CBG(args.particles, "gaussian"), 4),
        ):
            began = time.perf_counter()
            with quiet():
                run = po.sample(post, method, n=n, steps=args.steps, seed=k)
            x = run.parts["image"].mean
            q, e = run.parts["quality"].mean, run.parts["log_gamma"].samples.exp().mean()
            spent = time.perf_counter() - began
            print(
                f"{'':32}   {name:5}{psnr(x, image[None]):7.2f}{quality(q):6d}{float(e):6.2f}"
                f"{spent:6.0f}",
                flush=True,
            )


def field(side: int) -> Gaussian:
    """Smooth vorticity of variance 1 on the torus, correlated over about a seventh of its side."""
    t = torch.arange(side, dtype=F64)
    along = torch.exp(1.5 * (torch.cos(2 * math.pi * t / side) - 1))
    row = along[(t[:, None] - t).long() % side]
    C = torch.kron(row, row)
    return Gaussian(torch.zeros(1, side, side, dtype=F64), C + 1e-4 * torch.eye(side**2, dtype=F64))


def fluid(args: argparse.Namespace) -> None:
    prior = field(args.side)
    A = NavierStokes((1, args.side, args.side), time=1.0, viscosity=1e-2, steps=10, stride=2)
    print(f"{'seed':6}{'method':12}{'CRPS':>8}{'spread-skill':>14}{'RMSE':>8}{'s':>6}")
    for seed in range(args.images):
        x = prior.sample(1, seed)
        y = A(x)[0]
        y = y + 0.1 * po.rng.Streams(seed + 1, [0]).normal(y[None])[0]
        post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.1)))
        tries = (
            ("prior", methods.Unconditional()),
            ("EnKG", methods.EnKG(args.particles, scale=args.scale)),
        )
        for name, method in tries:
            began = time.perf_counter()
            with quiet():
                run = po.sample(post, method, n=args.particles, steps=args.steps, seed=seed)
            error = float((run.mean - x[0]).square().mean().sqrt())
            print(
                f"{seed:<6}{name:12}{crps(run.samples, x[0]):8.3f}"
                f"{spread_skill(run.samples, x[0]):14.2f}{error:8.3f}"
                f"{time.perf_counter() - began:6.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("compound", "fluid"))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--particles", type=int, default=256)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--file", default="../shared/data/mnist.npz")
    args = parser.parse_args()
    compound(args) if args.kind == "compound" else fluid(args)


if __name__ == "__main__":
    main()
