"""Digits from their Fourier magnitudes: the shipped digits prior, two times oversampled, noise 0.01
of [0, 1], one run per digit.

    python benchmarks/phase_digits.py [--mnist mnist.npz] [--first 2000] [--count 20] [--seed 11]
        [--methods DAPS PnPDM DPS]

Truths are drawn by the prior itself, or are MNIST's test digits from ``first`` on (an npz file with
``test`` (n, 28, 28) uint8). A run succeeds when its PSNR is above 25 dB once aligned for what
magnitudes cannot tell: a shift, to an eighth of a pixel, and a half turn. It is flagged when
chi-square lies more than four standard deviations above 1. Nothing is run twice and nothing is
chosen among runs.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch

import posteriori as po
from posteriori import methods
from posteriori.methods import Method
from posteriori.rng import Streams

SIGMA, SIDE, GOOD = 0.01, 32, 25.0
PLAN: dict[str, tuple[Method, torch.Tensor]] = {
    "DAPS": (methods.DAPS(inner_steps=20), po.grid.log(200, 5.0, 0.02)),
    # 0.45 is the standard deviation of a pixel of this prior, in [-1, 1].
    "PnPDM": (methods.PnPDM(prior_steps=4, inner_steps=20), methods.PnPDM.curved(0.45)),
    "DPS": (methods.DPS(), po.grid.karras(100, 20.0, 0.002)),
}


def drawn(prior: po.Prior, count: int, seed: int) -> torch.Tensor:
    """Digits (count, 1, 32, 32) in [0, 1] that the prior draws."""
    blank = po.Likelihood(
        torch.zeros(1, SIDE, SIDE),
        po.operators.Identity((1, SIDE, SIDE)),
        po.noise.Gaussian(1e4),
        range=(0, 1),
    )
    return po.sample(
        po.Posterior(prior, blank), methods.Unconditional(), n=count, steps=20, seed=seed
    ).samples.clamp(0, 1)


def mnist(file: str, first: int, count: int) -> torch.Tensor:
    """Test digits with a border of 2 pixels."""
    x = torch.from_numpy(np.load(file)["test"][first : first + count]).float() / 255
    return torch.nn.functional.pad(x, (2, 2, 2, 2))[:, None]


def aligned_psnr(x: torch.Tensor, truth: torch.Tensor, up: int = 8) -> torch.Tensor:
    """PSNR in dB of each row, the best over shifts by 1 / up pixel and the half turn: (B, 1, h, w),
    (1, 1, h, w) or (B, ...) -> (B,)."""
    height, width = truth.shape[-2:]
    extra = [n * (up - 1) for n in (width, width, height, height)]

    def spectrum(v: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(v, s=(2 * height, 2 * width))

    def overlap(v: torch.Tensor) -> torch.Tensor:
        cross = spectrum(truth) * spectrum(v).conj()
        fine = torch.nn.functional.pad(torch.fft.fftshift(cross, dim=(-2, -1)), extra)
        return (
            torch.fft.ifft2(torch.fft.ifftshift(fine, dim=(-2, -1))).real.flatten(1).amax(1) * up**2
        )

    best = torch.maximum(overlap(x), overlap(x.flip(-1, -2)))
    error = (x.square().flatten(1).sum(1) + truth.square().flatten(1).sum(1) - 2 * best) / (
        height * width
    )
    return -10 * error.clamp(min=1e-12).log10()


def retrieve(
    prior: po.Prior, truth: torch.Tensor, method: Method, levels: torch.Tensor, seed: int
) -> tuple[float, float, po.Run]:
    """PSNR and chi-square of one run on one digit (1, 1, 32, 32), and the run."""
    A = po.operators.PhaseRetrieval((1, SIDE, SIDE), oversampling=2.0)
    law = po.noise.Gaussian(SIGMA)
    y = law.sample(A(truth), Streams(seed + 2**20, [0]))[0]
    post = po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1)))
    run = po.sample(post, method, n=1, grid=levels, seed=seed)
    return float(aligned_psnr(run.samples, truth)), float(post.given.chi2(run.samples)), run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mnist", help="digits to measure; by default the prior draws them")
    parser.add_argument("--first", type=int, default=2000)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--methods", nargs="*", default=[*PLAN])
    args = parser.parse_args()
    prior = po.priors.digits()
    truths = (
        mnist(args.mnist, args.first, args.count)
        if args.mnist
        else drawn(prior, args.count, args.seed)
    )
    bound = 1 + 4 * math.sqrt(2 / (4 * SIDE**2))
    heads = ("found", "lost", "lost, flagged", "found, flagged", "PSNR", "chi2", "D", "VJP", "s")
    print(f"{'method':8}" + "".join(f"{head:>15}" for head in heads))
    for name in args.methods:
        method, levels = PLAN[name]
        rows = [
            retrieve(prior, truths[k : k + 1], method, levels, args.seed + k)
            for k in range(args.count)
        ]
        psnr, chi2 = (torch.tensor([row[i] for row in rows]) for i in (0, 1))
        good, flagged = psnr > GOOD, chi2 > bound
        calls, seconds = rows[0][2].counts, sum(run.seconds for _, _, run in rows) / len(rows)
        whole = (
            int(good.sum()),
            int((~good).sum()),
            int((~good & flagged).sum()),
            int((good & flagged).sum()),
        )
        parts = (
            *(f"{v}" for v in whole),
            f"{float(psnr.quantile(0.5)):.1f}",
            f"{float(chi2.quantile(0.5)):.2f}",
            f"{calls['denoiser']:g}",
            f"{calls['vjp']:g}",
            f"{seconds:.1f}",
        )
        print(f"{name:8}" + "".join(f"{part:>15}" for part in parts))
        print(
            "  PSNR "
            + " ".join(f"{v:.1f}" for v in psnr.tolist())
            + "\n  chi2 "
            + " ".join(f"{v:.2f}" for v in chi2.tolist()),
            flush=True,
        )


if __name__ == "__main__":
    main()
