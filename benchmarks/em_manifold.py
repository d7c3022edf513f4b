"""A curve in five dimensions learned from two numbers of each of its points, by expectation
maximisation: how far the images of each lap are from the truth.

    python benchmarks/em_manifold.py [--observations 4096] [--laps 12] [--steps 1500] [--truth]

The toy of Rozet et al. (2024): a smooth random curve, each coordinate in [-2, 2], two linear
observations of each point with noise 0.01, a network of three layers of 256. Smaller than theirs
(65536 observations, 64 laps of 65536 steps, 4096 sampling steps), and with observations along
orthonormal directions, of which there are 128 pairs.

The divergence: W2^2(truth, images) - W2^2(truth, other truth), by optimal assignment of 2048
points; images beyond 3 are left out, and counted. It is theirs with the entropy gone to 0. The
floor is that of true points that were observed: off 0 by chance alone. With ``--truth`` the network
is trained once, on the true points: what its own images are worth, and those that the E-step draws
with it, is the best that a lap of as many steps and levels can come to.
"""

from __future__ import annotations

import argparse
import copy
import time
from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import posteriori as po
from posteriori.operators.base import LinearOperator
from posteriori.operators.spectrum import Spectrum
from posteriori.priors.unet import NoiseEmbedding
from posteriori.training import em
from posteriori.training.gaussian_family import fit_gaussian
from posteriori.training.objectives import score_matching

FEATURES, OBSERVED, STD, PAIRS, POINTS = 5, 2, 0.01, 128, 2048


def curve(count: int, seed: int = 0) -> Tensor:
    """Points of a smooth random curve: sums of ten sines whose amplitudes fall as k^-3."""
    rng = np.random.default_rng(seed)
    k = np.arange(1, 11)
    a, b, c = rng.random((3, FEATURES, 10))
    z = rng.random((count, 1, 1))
    x = (a / k**3 * np.sin(2 * np.pi * (k * b * z + c))).sum(-1)
    low, high = x.min(0), x.max(0)
    return torch.from_numpy(4 * (x - low) / (high - low) - 2).float()


class Projection(LinearOperator):
    """The first two coordinates along an orthonormal basis, the rows of a matrix (5, 5)."""

    def __init__(self, basis: Tensor) -> None:
        super().__init__((FEATURES,))
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.basis[:OBSERVED].T.to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.basis[:OBSERVED].to(y.dtype)

    def spectrum(self) -> Spectrum:
        return Spectrum(
            torch.ones(OBSERVED),
            V=lambda c: c @ self.basis.to(c.dtype),
            Vh=lambda x: x @ self.basis.T.to(x.dtype),
            U=lambda c: c,
            Uh=lambda y: y,
        )


class Layers(nn.Module):
    """Three layers of 256, given the noise label beside the point."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.embed = NoiseEmbedding(64)
        sizes = [FEATURES + 64, width, width, width]
        layers = [
            part
            for n, m in pairwise(sizes)
            for part in (nn.Linear(n, m), nn.SiLU(), nn.LayerNorm(m))
        ]
        self.stack = nn.Sequential(*layers, nn.Linear(width, FEATURES))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.stack(torch.cat([x, self.embed(label)], 1))


class Maximise:
    """The M-step: denoising score matching that goes on with the network of the lap before, its
    rate falling from 1e-3 in each."""

    def __init__(self, steps: int) -> None:
        torch.manual_seed(0)
        self.net, self.steps, self.done = Layers(), steps, 0
        noise = SimpleNamespace(log_mean=-1.5, log_std=1.8)
        self.config = SimpleNamespace(noise=noise, seed=0, sigma_data=1.2, autocast="none")

    def __call__(self, images: Tensor, _: po.priors.Prior | None = None) -> po.priors.Prior:
        inside = images[(images.abs() < 3).all(1)].float()
        self.net.requires_grad_(True).train()
        optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        rates = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, self.steps)
        for _ in range(self.steps):
            rows = np.random.default_rng([1, self.done]).integers(0, len(inside), 512)
            loss = score_matching.loss(self.net, inside[rows], self.config, self.done)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimizer.step()
            rates.step()
            self.done += 1
        return po.priors.Network(
            copy.deepcopy(self.net),
            shape=(FEATURES,),
            sigma_data=1.2,
            variance=float(inside.var(0).mean()),
            range=None,
            sigma_max=10.0,
            sigma_min=1e-3,
        )


def assigned(u: Tensor, v: Tensor) -> float:
    """W2^2 of two sets of as many points, by optimal assignment."""
    squares = torch.cdist(u.double(), v.double()).square().numpy()
    return float(squares[linear_sum_assignment(squares)].mean())


def divergence(images: Tensor, truth: Tensor, other: Tensor) -> tuple[float, float]:
    """The divergence, and the share of images left out."""
    inside = images[(images.abs() < 3).all(1)]
    n = min(POINTS, len(inside))
    gap = assigned(truth[:n], inside[:n]) - assigned(truth[:n], other[:n])
    return gap, 1 - len(inside) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=int, default=4096, help="(default: 4096)")
    parser.add_argument("--laps", type=int, default=12, help="(default: 12)")
    parser.add_argument("--steps", type=int, default=1500, help="of training a lap (default: 1500)")
    parser.add_argument("--levels", type=int, default=48, help="of the E-step (default: 48)")
    parser.add_argument("--truth", action="store_true", help="train on the true points, once")
    asked = parser.parse_args()
    x = curve(asked.observations + 2 * POINTS)
    truth, other = x[-POINTS:], x[-2 * POINTS : -POINTS]
    generator = torch.Generator().manual_seed(1)
    operators = [
        Projection(torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator))[0].T)
        for _ in range(PAIRS)
    ]
    likes = []
    for i in range(asked.observations):
        A = operators[i % PAIRS]
        y = A(x[i : i + 1])[0] + STD * torch.randn(OBSERVED, generator=generator)
        likes.append(po.Likelihood(y, A, po.noise.Gaussian(STD), check=False))
    method = po.methods.MMPS(iterations=OBSERVED)
    if asked.truth:
        prior = Maximise(asked.steps)(x[: asked.observations])
        own = prior.sample(POINTS, steps=asked.levels, seed=0)
        drawn = em.expectation(prior, likes, method, steps=asked.levels, seed=0)
        for name, images in (("of the network", own), ("of the E-step", drawn)):
            gap, outside = divergence(images, truth, other)
            print(f"images {name}: divergence {gap:.4f}, left out {100 * outside:.2f} %")
        return
    start = fit_gaussian(likes, po.priors.Gaussian(torch.zeros(FEATURES), 1.0), iterations=100)
    course = em.laps(start.prior, likes, Maximise(asked.steps), method, steps=asked.levels)
    floor, _ = divergence(x[:POINTS], truth, other)
    print(f"floor {floor:.4f}; W2^2 of two sets of true points {assigned(truth, other):.4f}")
    began = time.process_time()
    print("lap  divergence  left out  seconds of the processor", flush=True)
    for lap, (_, images) in enumerate(islice(course, asked.laps)):
        gap, outside = divergence(images, truth, other)
        seconds = time.process_time() - began
        print(f"{lap:3d}  {gap:10.4f}  {100 * outside:6.2f} %  {seconds:8.0f}", flush=True)


if __name__ == "__main__":
    main()
