"""The lines on a restoration of y in a few steps: whether A and y belong together, and whether the
image is one of the prior's world."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.examination.data_lines import (
    BETTER,
    better_orientation,
    pixel_variance,
    turned,
)
from posteriori.examination.denoising import Consistency, consistency
from posteriori.examination.finding import Finding
from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import dot
from posteriori.methods import DiffPIR
from posteriori.methods.base import Method
from posteriori.operators import PhaseRetrieval
from posteriori.operators.base import solve
from posteriori.operators.gain import gain
from posteriori.priors.base import Prior
from posteriori.rng import Streams

_STEPS = 8
# Its last noise level, and how near y may draw it afterwards, in standard deviations of one number
# of the prior: from a lower level few steps would leave no room to meet y.
END, NEAR = 0.1, 0.1
# Larger images of a prior of any size are judged by their middle.
_SIDE = 128
# Levels, in the same unit, at which a restoration is noised; they drown what NEAR lets in.
LEVELS = (0.3, 0.6, 1.0)
# The most that the error on a restoration may be over what the denoiser promises there, 0.4 to 1.8
# on sound problems, and over that on images of the prior, at most 2.1 there; 13 to 34 on pictures
# under the prior of digits.
SURPRISE, UNUSUAL = 3.0, 6.0
# The most that the residual may be over that of the noise and of images around the restoration, and
# four standard errors: at most 1.3 on sound problems; over the noise alone where A is not linear.
MISFIT, CHI2 = 1.4, 3.0
# The level at which orientations of an image are compared, how often, and how many times smaller
# the denoising error of the right one is: 1.0 on sound problems, 1.2 to 4.4 on digits that lie.
TURNING, DRAWS, ORIENTATION = 4.0, 2, 1.5


@dataclass(frozen=True)
class Restoration:
    """images: (B, *E) in the range of the likelihood. coordinates: the same in the prior's, after
    what y says of them where it says much. chi2: mean squared residual over that of the noise.
    misfit: the same, where the image may be off by a standard deviation of the prior; None where A
    is not linear or the noise not Gaussian."""

    images: Tensor
    coordinates: Tensor
    chi2: float
    misfit: float | None


def restore(post: Posterior, method: Method[Any] | None) -> Restoration | None:
    """In ``STEPS`` steps of DiffPIR where it applies, else of ``method``. None for Fourier
    magnitudes, which take hundreds, and where neither applies."""
    if any(isinstance(part, PhaseRetrieval) for part in post.given.A.modules()):
        return None
    quick = DiffPIR()
    chosen = quick if post.given.conjugate and quick.refuses(post) is None else method
    straight = post.chart.straight
    if chosen is None or straight is None or chosen.refuses(post) is not None:
        return None
    small = math.prod(post.shape) < 1024
    last = max(END * math.sqrt(post.prior.know().variance), post.prior.sigma_min)
    levels = grids.karras(_STEPS, post.prior.sigma_max, last)
    with quiet():
        run = sample(
            post, chosen, n=4 * chosen.returned if small else 1, grid=levels, progress=False
        )
    given, x = post.given, run.samples.to(post.given.y.device)
    a, b = (v.to(x.real.dtype) if isinstance(v, Tensor) else v for v in straight)
    shown = (_followed(given, x, NEAR**2 * pixel_variance(post)) - b) / a
    return Restoration(x, shown, float(given.chi2(x).mean()), _misfit(post, x))


@torch.no_grad()
def _followed(given: Likelihood, x: Tensor, r2: float) -> Tensor:
    """x + r2 A^H (r2 A A^H + sigma^2)^-1 (y - A x): y is met where it knows an image better than
    r2, with noise of a variance of r2 / 4 at most in any direction."""
    if not given.conjugate or given.std == 0:
        return x
    return x + r2 * gain(given.linear, given.residual(x), r2, given.std**2)


@torch.no_grad()
def _misfit(post: Posterior, x: Tensor) -> float | None:
    """r^H (c A A^H + sigma^2)^-1 r over the numbers of y, r = y - A x, c the variance of the
    prior: about 1 in directions that no image reaches, less in all others."""
    given = post.given
    if not given.conjugate:
        return None
    r = given.residual(x)
    weighed = solve(given.linear, r, pixel_variance(post), given.std**2, rtol=1e-3)
    return float(dot(r, weighed).mean()) / real_count(given)


def real_count(given: Likelihood) -> int:
    """Measured real numbers."""
    return given.y.numel() * (2 if given.y.is_complex() else 1)


def fit_line(post: Posterior, found: Restoration | None) -> Finding:
    """Whether images near the restoration measure like y."""
    if found is None:
        return Finding("fit", "skip", "no quick restoration", remedy=NO_QUICK)
    limit = CHI2 if found.misfit is None else MISFIT + 4 * math.sqrt(2 / real_count(post.given))
    value = f"chi-square of the restoration {found.chi2:.3g}"
    if found.misfit is not None:
        value = f"{value}, of images around it {found.misfit:.3g}"
    met = unmet(post, found) <= 1
    if not met and found.misfit is None:
        return Finding("fit", "warn", value, f"at most {limit:.3g}", FEW)
    return Finding(
        "fit",
        "pass" if met else "fail",
        value,
        f"at most {limit:.3g}",
        "no image measures like y: is A the instrument that made it (geometry, centre of rotation, "
        "kernel, mask, order of the axes)?",
    )


NO_QUICK = "no method restores this kind of measurement in a few steps"
FEW = (
    "a few steps do not meet y: of an A that is not linear, or of counts, that may be for want of "
    "steps; look at chi-square after a run"
)


def unmet(post: Posterior, found: Restoration) -> float:
    """What ``fit`` judges, over its limit."""
    if found.misfit is None:
        return found.chi2 / CHI2
    return found.misfit / (MISFIT + 4 * math.sqrt(2 / real_count(post.given)))


def surprises(post: Posterior, found: Restoration) -> list[Consistency]:
    """The denoiser's error on the restoration, noised, against what it promises there."""
    u, spread = _middle_part(post, found.coordinates), math.sqrt(post.prior.know().variance)
    if len(u) == 1 and u.numel() < 4096:
        u = u.expand(min(16, -(-4096 // u.numel())), *u.shape[1:])
    p = post.prior
    levels = [min(max(f * spread, p.sigma_min), p.sigma_max) for f in LEVELS]
    return [consistency(p, u, s, 2000 + k) for k, s in enumerate(sorted(set(levels)))]


def unusual(prior: Prior, found: list[Consistency]) -> list[float]:
    """The error on the restoration over that on images of the prior, at each level."""
    return [c.error / (c.numbers * prior.know().error(c.sigma)) for c in found]


def astonished(prior: Prior, found: list[Consistency]) -> bool:
    """Whether the error exceeds what the denoiser promises of it, or what the prior's own images
    have, by the limit and four standard errors."""
    return any(
        c.beyond(0.0, SURPRISE)
        or not c.error <= UNUSUAL * c.numbers * prior.know().error(c.sigma) + 4 * c.chance
        for c in found
    )


def world_line(post: Posterior, found: Restoration | None) -> Finding:
    """Whether the denoiser errs on the restoration as it does on images of its own world."""
    if found is None:
        return Finding("world", "skip", "no quick restoration", remedy=NO_QUICK)
    if found.misfit is None and not unmet(post, found) <= 1:
        return Finding("world", "skip", "not judged", remedy=FEW)
    seen = surprises(post, found)
    promised = ", ".join(f"{c.ratio:.2f}" for c in seen)
    usual = ", ".join(f"{ratio:.2g}" for ratio in unusual(post.prior, seen))
    return Finding(
        "world",
        "fail" if astonished(post.prior, seen) else "pass",
        f"error / promised {promised}, / usual {usual} "
        f"at sigma {seen[0].sigma:.2g} to {seen[-1].sigma:.2g}",
        f"at most {SURPRISE:g} and {UNUSUAL:g}, and 4 standard errors",
        "what was measured does not look like the images of this prior: take one of its domain, "
        "and see that y has its contrast and its scale",
    )


def axes_line(post: Posterior, found: Restoration | None) -> Finding:
    """Whether y, or the restored image, would be better off in another orientation."""
    data, image = better_orientation(post), None
    if data is not None and data[0] > BETTER:
        return _turn(f"y is met {data[0]:.3g} times better {data[1]}", "y")
    if found is not None:
        image = _likelier(post, found)
        if image is not None and image[0] > ORIENTATION:
            return _turn(f"the image is {image[0]:.2g} times likelier {image[1]}", "the image")
    if data is None and image is None:
        return Finding("axes", "skip", "nothing to turn", remedy="no two axes of one length")
    told = [f"y {data[0]:.2g}"] if data else []
    told += [f"image {image[0]:.2g}"] if image else []
    return Finding("axes", "pass", f"best gain by turning: {', '.join(told)}", _TURNED)


_TURNED = f"y at most {BETTER:g}, the image at most {ORIENTATION:g}"


def _turn(value: str, what: str) -> Finding:
    return Finding(
        "axes", "fail", value, _TURNED, f"check the order and the direction of the axes of {what}"
    )


@torch.no_grad()
def _likelier(post: Posterior, found: Restoration) -> tuple[float, str] | None:
    """How much smaller the denoising error of the best orientation of the image is, under one and
    the same noise turned with it, and which it is. At a high level, where the whole shape
    decides."""
    u, prior = _middle_part(post, found.coordinates)[:1], post.prior
    if u.ndim < 4 or u.shape[-1] != u.shape[-2] or u.shape[-1] < 8 or u.is_complex():
        return None
    level = min(TURNING * math.sqrt(prior.know().variance), prior.sigma_max)
    clean, names = turned(u[0])
    total = torch.zeros(len(names), dtype=torch.float64, device=u.device)
    for draw in range(DRAWS):
        ways, _ = turned((u + level * Streams(3000 + draw, [0]).normal(u))[0])
        for k, (way, x) in enumerate(zip(ways, clean, strict=True)):
            gap = prior.denoise(way[None], torch.tensor(level, dtype=torch.float64)) - x
            total[k] += gap.double().square().sum()
    best = int(total.argmin())
    return float(total[0] / total[best]), names[best]


def _middle_part(post: Posterior, u: Tensor) -> Tensor:
    """At most ``SIDE`` rows and columns of the middle of images whose prior takes any size."""
    if len(post.prior.shape) < 2 or post.prior.shape[-1] is not None:
        return u
    for dim in (-2, -1):
        n = u.shape[dim]
        if post.prior.shape[dim] is None and n > _SIDE:
            u = u.narrow(dim, (n - _SIDE) // 2, _SIDE)
    return u


def at_level(post: Posterior, factor: float) -> Posterior:
    """The posterior with ``factor`` times the noise level. Raises ``ValueError`` for a law that
    cannot be scaled."""
    law = post.given.noise.scaled(factor)
    return Posterior(post.prior, replace(post.given, noise=law, check=False))


def sound(post: Posterior, found: Restoration | None) -> bool:
    """Whether a restoration meets y and looks like the prior's world."""
    if found is None or not unmet(post, found) <= 1:
        return False
    return not astonished(post.prior, surprises(post, found))
