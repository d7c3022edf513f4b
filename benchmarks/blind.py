"""A photograph behind a blur that is not known: the shipped photos prior, noise 0.02 of [0, 1].

    python benchmarks/blind.py width [--side 48] [--steps 20] [--samples 2] [--methods DCDP DAPS]
    python benchmarks/blind.py kernel ...

width: a Gaussian blur of 1.6 pixels whose width is believed to be 1.2, within a factor of 1.6.
kernel: a motion kernel of 9 x 9 pixels; the belief is a mixture around 512 others of the same kind
or, for methods that need one Gaussian, the Gaussian of their mean and covariance. Every method runs
once, by its default settings but those that are printed; nothing is chosen among runs.
"""

from __future__ import annotations

import argparse
import math

import torch

import posteriori as po
from posteriori import methods
from posteriori.diagnostics import quiet
from posteriori.evaluation import summary
from posteriori.packing import pack
from posteriori.priors import Gaussian, GaussianMixture, kernel_family, motion_kernels

SIGMA, WIDTH = 0.02, 1.6
PLAN = {
    "DCDP": methods.DCDP(),
    "DAPS": methods.DAPS(),
    "BlindDPS": methods.BlindDPS(),
    "BlindPnPDM": methods.BlindPnPDM(prior_steps=4),
    "GibbsDiffusion": methods.GibbsDiffusion(prior_steps=4, floor=0.05),
    "GibbsDDRM": methods.GibbsDDRM(cycles=1),
    "FastDiffusionEM": methods.FastDiffusionEM(samples=2),
}


def one_gaussian(family: GaussianMixture) -> Gaussian:
    """The Gaussian of a mixture's mean and covariance."""
    return Gaussian(family.mean, family.covariance)


def problem(kind: str, x: torch.Tensor, gaussian: bool) -> tuple[po.Posterior, torch.Tensor]:
    """The posterior of image and blur, and the truth of both, packed."""
    if kind == "width":
        A = po.operators.BlindGaussianBlur(tuple(x.shape), 13)
        phi = torch.tensor([math.log(WIDTH)])
        belief: po.Prior = Gaussian(torch.tensor([math.log(1.2)]), math.log(1.6) ** 2)
    else:
        A = po.operators.BlindConvolution(tuple(x.shape), (9, 9))
        family = kernel_family(motion_kernels(512, 9, 0).float(), 0.005)
        phi = motion_kernels(1, 9, 1)[0].float()
        belief = one_gaussian(family) if gaussian else family
    noise = po.noise.Gaussian(SIGMA)
    y = noise.sample(A.apply(x[None], phi), po.rng.Streams(1, [2**31]))[0]
    prior = po.priors.Joint(
        {"image": po.priors.photos(), A.name: belief},
        ranges={"image": (0, 1)},
        shapes={"image": tuple(x.shape)},
    )
    post = po.Posterior(prior, po.Likelihood(y, A, noise))
    return post, pack({"image": x[None], A.name: phi[None]})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("width", "kernel"))
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=PLAN, default=list(PLAN))
    args = parser.parse_args()
    path = po.__path__[0] + "/measurements/photos/coffee.png"
    x, _ = po.measurements.read_image(path, channels=3)
    x = x[:, 100 : 100 + args.side, 100 : 100 + args.side].contiguous()
    post, _ = problem(args.kind, x, False)
    blurred = 10 * math.log10(1 / float((post.given.y - x).square().mean()))
    print(f"{args.side} x {args.side}, {args.steps} steps; blurred: {blurred:.2f} dB")
    print(f"{'method':16}{'PSNR':>8}{'of mean':>8}{'chi2':>7}{'found':>24}{'D':>6}{'s':>6}")
    for name in args.methods:
        method = PLAN[name]
        post, truth = problem(args.kind, x, False)
        if method.refuses(post):
            post, truth = problem(args.kind, x, True)
        if method.refuses(post):
            continue
        with quiet():
            run = po.sample(post, method, n=args.samples, steps=args.steps, seed=1)
        record = summary(run, post, truth)
        kernel = record["kernel"]
        told = record["parameters"][0]
        found = f"width {told['mean']:.2f}"
        if kernel is not None:
            found = f"correlation {kernel['correlation']:.2f}"
        print(
            f"{name:16}{record['psnr_sample']:8.2f}{record['psnr_mean']:8.2f}"
            f"{record['chi2_samples']:7.2f}{found:>24}"
            f"{run.counts['denoiser']:6.0f}{run.seconds:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
