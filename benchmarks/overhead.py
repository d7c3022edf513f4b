"""What the driver costs: time per DPS step over a hand-written torch loop that does the same
arithmetic.

    python benchmarks/overhead.py

Both loops alternate in one process, so that a busy machine slows both. Printed is the ratio of
their median times per step.
"""

from __future__ import annotations

import itertools
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

import posteriori as po
from posteriori.priors.base import Prior

SIZE, STEPS, SIGMA_Y, REPEATS = (3, 64, 64), 30, 0.05, 15


class Shrink(Prior):
    """An identity-like denoiser: the closed form for white images of variance 1/4."""

    def __init__(self) -> None:
        super().__init__(SIZE, variance=0.25, sigma_max=20.0, sigma_min=0.01)

    def denoise(self, x, sigma):
        return x * (0.25 / (0.25 + sigma**2))


class TinyConv(Prior):
    """Two 3x3 convolutions with 16 channels."""

    def __init__(self) -> None:
        super().__init__(SIZE, variance=0.25, sigma_max=20.0, sigma_min=0.01)
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1)
        ).requires_grad_(False)

    def denoise(self, x, sigma):
        c = 0.25 / (0.25 + sigma**2)
        return c * x + 0.1 * (1 - c) * self.net(x / (0.25 + sigma**2).sqrt())


def by_hand(denoise, y, levels, batch):
    """DPS with the bounded weight, ancestral sampling and 2x2 averaging, as one would write it in a
    notebook."""
    x = levels[0] * torch.randn(batch, *SIZE)
    for sigma, s in itertools.pairwise(levels):
        x = x.requires_grad_()
        x0 = denoise(x, sigma)
        r2 = 0.25 * sigma**2 / (0.25 + sigma**2)
        loss = (y - F.avg_pool2d(x0, 2)).square().sum() / (2 * (SIGMA_Y**2 + r2 / 4))
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x0 = x0 - sigma**2 * gradient
            std = s * (1 - s**2 / sigma**2).sqrt()
            x = x0 + (s**2 - std**2).clamp(min=0).sqrt() / sigma * (x - x0)
            if s > 0:
                x = x + std * torch.randn_like(x)
            assert x.isfinite().all()
    return x.detach()


def measure(prior: Prior, batch: int) -> tuple[float, float, float]:
    """Median milliseconds per step by hand and driven, and their ratio."""
    y = torch.rand(3, 32, 32)
    A = po.operators.Downsample(SIZE, 2, kind="box")
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(SIGMA_Y)))
    levels = po.grid.karras(STEPS, prior.sigma_max, prior.sigma_min)
    times: dict[str, list[float]] = {"hand": [], "driven": []}
    for k in range(REPEATS + 2):
        for name in ("hand", "driven"):
            began = time.perf_counter()
            if name == "hand":
                by_hand(prior.denoise, y, levels, batch)
            else:
                po.sample(post, po.methods.DPS(), n=batch, batch=batch, steps=STEPS, seed=k)
            if k >= 2:
                times[name].append(1e3 * (time.perf_counter() - began) / STEPS)
    hand, driven = (statistics.median(times[name]) for name in ("hand", "driven"))
    return (
        hand,
        driven,
        statistics.median(d / h for d, h in zip(times["driven"], times["hand"], strict=True)),
    )


def main() -> None:
    print(f"{'denoiser':12} {'batch':>5} {'by hand, ms':>12} {'driven, ms':>11} {'ratio':>6}")
    for prior in (Shrink(), TinyConv()):
        for batch in (1, 64):
            hand, driven, ratio = measure(prior, batch)
            print(f"{type(prior).__name__:12} {batch:5d} {hand:12.3f} {driven:11.3f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
