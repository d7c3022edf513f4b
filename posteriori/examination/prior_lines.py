"""The lines on a prior by itself, on a few images that it draws.

Where images may have any size they are of the size of training, where that is known, or of 64
pixels a side. Limits are those of docs/results/doctor.md: of the priors that ship, and of the same
ones with a planted fault.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.examination.denoising import Consistency, asymmetry, consistency
from posteriori.examination.finding import Finding, Verdict
from posteriori.priors.base import Prior
from posteriori.rng import Streams

_SIDE = 64
# The noise level, in standard deviations of one number of the prior, from which it draws.
TOP = 40.0
# Noise levels, in standard deviations of one number of the prior.
LEVELS = (0.05, 0.25, 0.5, 1.0, 2.0)
# The error over what the denoiser promises of it, on its own draws: 1.0 to 1.55 on the priors that
# ship, whose draws in few steps lack a little.
RATIO = (0.67, 1.8)
# ||J v - J^T v|| / ||J v||: 0.08 to 0.64 on the priors that ship, sqrt(2) where J is unrelated to
# its transpose.
ASYMMETRY = 1.2
# How far the denoiser moves its own draws at sigma_min, in sigma_min: 0.02 to 0.9 on the same.
MOVED = 3.0
# How far the outer per cents of its draws may lie outside its range, in widths of the range: 0.05
# on the same, 0.3 for white noise around a picture, which is warned of.
OUTSIDE, WIDE = 0.4, 0.15
# The variance of its draws over the stated one: 0.7 to 1.6 on the same, of few draws each.
VARIANCE = 4.0
# A denoiser call that takes longer is not repeated fifty times for a line of a table.
SLOWEST = 4.0


@dataclass
class _Drawn:
    """A prior, and a few images that it drew, (B, *E) in its coordinates."""

    prior: Prior
    images: Tensor
    levels: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        p, spread = self.prior, math.sqrt(self.prior.know().variance)
        wanted = [min(max(f * spread, p.sigma_min), p.sigma_max) for f in LEVELS]
        self.levels = sorted(set(wanted))


def prior_findings(prior: Prior) -> tuple[Finding, ...]:
    """The lines on a prior: "tweedie", "symmetry", "idempotence" and "samples"."""
    with warnings.catch_warnings(action="ignore"):
        try:
            drawn = drawn_from(prior)
            tweedie = tweedie_line(drawn)
        except TimeoutError as slow:
            return _unjudged(str(slow), "tweedie", "symmetry", "idempotence", "samples")
        except (ArithmeticError, RuntimeError, ValueError, TypeError) as error:
            lost = Finding("tweedie", "fail", "it draws no images", remedy=str(error))
            return lost, *_unjudged(WITHOUT, "symmetry", "idempotence", "samples")
        found = (tweedie, symmetry_line(drawn), idempotence_line(drawn))
        if tweedie.verdict == "fail":
            return *found, *_unjudged(WITHOUT, "samples")
        return *found, samples_line(drawn)


WITHOUT = "the line tweedie failed"


def _unjudged(reason: str, *names: str) -> tuple[Finding, ...]:
    return tuple(Finding(name, "skip", "not judged", remedy=reason) for name in names)


def drawn_from(prior: Prior) -> _Drawn:
    """A few draws: 4096 numbers of images or more, in eight steps of Heun's rule; two images at
    least, and one in five steps where an image has over 50 000 numbers.

    Raises ``TimeoutError`` saying how long where a denoiser call takes over ``SLOWEST`` seconds.
    """
    usual = getattr(prior, "train_size", None) or (_SIDE, _SIDE)
    sides = (_SIDE,) * (len(prior.shape) - 2) + tuple(usual)
    shape = (
        tuple(usual if own is None else own for own, usual in zip(prior.shape, sides, strict=True))
        if None in prior.shape
        else tuple(side for side in prior.shape if side is not None)
    )
    numbers = math.prod(shape)
    large = numbers > 50_000
    held = next((t for t in [*prior.parameters(), *prior.buffers()]), None)
    blank = torch.zeros(
        1,
        *shape,
        dtype=torch.complex64 if prior.complex else torch.float32,
        device=None if held is None else held.device,
    )
    began = time.perf_counter()
    with torch.no_grad():
        prior.denoise(blank, torch.tensor(math.sqrt(prior.variance), dtype=torch.float64))
    took = time.perf_counter() - began
    if took > SLOWEST:
        raise TimeoutError(
            f"a denoiser call takes {took:.1f} s here, and these lines need over thirty of them"
        )
    rows = 1 if large else min(256, max(2, -(-4096 // numbers)))
    if prior.know().closed is not None:
        return _Drawn(prior, prior.sample(rows, shape=shape))
    return _Drawn(prior, _drawn(prior, blank.expand(rows, *shape), 5 if large else 8))


@torch.no_grad()
def _drawn(prior: Prior, blank: Tensor, steps: int) -> Tensor:
    """Draws by Heun's rule from TOP standard deviations on: from higher levels, where many
    schedules begin, so few steps would lose the width of the images."""
    spread = math.sqrt(prior.variance)
    levels = grids.karras(steps, min(TOP * spread, prior.sigma_max), prior.sigma_min)
    x = prior.start(Streams(0, range(len(blank))).normal(blank), levels[0])
    for sigma, s in pairwise(levels):
        slope = (x - prior.denoise(x, sigma)) / float(sigma)
        there = x + float(s - sigma) * slope
        if float(s) > 0:
            slope = (slope + (there - prior.denoise(there, s)) / float(s)) / 2
        x = x + float(s - sigma) * slope
    if not bool(x.abs().isfinite().all()):
        raise ArithmeticError("its draws are not finite")
    return x


def tweedie_line(drawn: _Drawn) -> Finding:
    """E ||x0 - D||^2 = sigma^2 tr J on the prior's own draws, noised, at five levels."""
    found = [
        consistency(drawn.prior, drawn.images, s, 1000 + k) for k, s in enumerate(drawn.levels)
    ]
    wrong = [c for c in found if c.beyond(*RATIO)]
    return Finding(
        "tweedie",
        "fail" if wrong else "pass",
        f"error / promised {_ratios(found)}",
        f"{RATIO[0]:g} to {RATIO[1]:g}, and 4 standard errors, at each sigma",
        "D is no denoiser of its noise level: check the parametrisation, sigma_data, the schedule "
        "and the range that the network was trained with",
    )


def symmetry_line(drawn: _Drawn) -> Finding:
    """J = J^T on one draw, noised, at the second of the five levels."""
    sigma = drawn.levels[min(1, len(drawn.levels) - 1)]
    image = drawn.images[:1]
    noised = image + sigma * torch.randn(
        image.shape, dtype=image.dtype, generator=torch.Generator().manual_seed(0)
    ).to(image.device)
    try:
        found = asymmetry(drawn.prior, noised, sigma)
    except RuntimeError as error:  # a denoiser that automatic differentiation cannot follow
        return Finding("symmetry", "skip", "no derivative", remedy=str(error).splitlines()[0])
    return Finding(
        "symmetry",
        "fail" if not found <= ASYMMETRY else "pass",
        f"||J v - J^T v|| / ||J v|| = {found:.2f} at sigma {sigma:.3g}",
        f"0 of an exact denoiser, below {ASYMMETRY:g}",
        "the vector-Jacobian products of D are not those of its values: is a part of the network "
        "run without a graph (detach, no_grad), or linearize of another denoiser?",
    )


@torch.no_grad()
def idempotence_line(drawn: _Drawn) -> Finding:
    """D(x0, sigma_min) = x0 but for a few sigma_min."""
    level = drawn.prior.sigma_min
    moved = drawn.prior.denoise(drawn.images, torch.tensor(level, dtype=torch.float64))
    found = float((moved - drawn.images).abs().square().mean().sqrt()) / level
    return Finding(
        "idempotence",
        "pass" if found <= MOVED else "fail",
        f"its own images are moved by {found:.2g} sigma_min",
        f"below {MOVED:g}",
        f"at sigma_min = {level:.3g} D must leave an image as it is: check the parametrisation, "
        "or state a larger sigma_min",
    )


def samples_line(drawn: _Drawn) -> Finding:
    """Range and variance of the draws against the stated ones."""
    prior, images = drawn.prior, drawn.images
    real = images.abs() if images.is_complex() else images
    ratio = (
        float(images.abs().double().var()) / prior.variance
        if images.is_complex()
        else (float(images.double().var()) / prior.variance)
    )
    low, high = quantiles(real, 0.01)
    value = f"values {low:.3g} to {high:.3g}, variance {ratio:.2g} of the stated"
    ends = prior.range
    outside = 0.0 if ends is None else max(ends[0] - low, high - ends[1], 0.0) / (ends[1] - ends[0])
    expected = f"variance within a factor {VARIANCE:g}"
    if ends is not None:
        expected = f"in [{ends[0]:g}, {ends[1]:g}], {expected}"
    if outside > WIDE:
        verdict: Verdict = "fail" if outside > OUTSIDE else "warn"
        remedy = "the range of the prior is not that of its images"
        return Finding("samples", verdict, value, expected, remedy)
    if not 1 / VARIANCE <= ratio <= VARIANCE:
        return Finding(
            "samples", "warn", value, expected, "state the variance of the images it draws"
        )
    return Finding("samples", "pass", value, expected)


def quantiles(values: Tensor, share: float) -> tuple[float, float]:
    """Between which all but a ``share`` at either end lie."""
    ordered = values.detach().flatten().double().cpu().sort().values
    k = int(share * (len(ordered) - 1))
    return float(ordered[k]), float(ordered[len(ordered) - 1 - k])


def _ratios(found: list[Consistency]) -> str:
    return ", ".join(f"{c.ratio:.2f}" for c in found) + (
        f" at sigma {found[0].sigma:.2g} to {found[-1].sigma:.2g}"
    )
