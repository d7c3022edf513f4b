"""The lines on a measurement, its range and its noise level: operator calls alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.examination.finding import Finding
from posteriori.examination.prior_lines import quantiles
from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import cg, dot
from posteriori.operators.base import LinearOperator, norm2, solve

# Noise that a quick linear estimate takes for granted, as a share of what a typical image gives: it
# must not amplify a noise level that is stated in the wrong unit.
FLOOR = 0.05
# Share of the values at either end that may lie anywhere, and how far the others may lie outside
# the range, in its widths; values that span less than NARROW of it belong to another range.
TAIL, OUTSIDE, NARROW = 0.02, 0.2, 0.005
# A level that is off by more than this factor is another one; from SUSPECT on the prior is asked
# whether what is seen beyond the stated level is noise.
FACTOR, SUSPECT = 2.0, 3.0
# The median of the absolute value of a standard normal number.
_MEDIAN = 0.674490
# Numbers of y from which a level can be told.
_LEAST = 100
# A restoration whose residual is so small, over the stated noise, was told too high a level.
IDLE = 0.1
# An orientation of y that is met so many times better than its own is the right one.
BETTER = 2.0


def pixel_variance(post: Posterior) -> float:
    """Variance of one number of an image in the range of the likelihood, averaged over a chart of
    several units."""
    straight = post.chart.straight
    a = 1.0 if straight is None else straight[0]
    square = float(a.square().mean()) if isinstance(a, Tensor) else a * a
    return square * post.prior.know().variance


def middle(given: Likelihood) -> float:
    return 0.0 if given.range is None else sum(given.range) / 2


@dataclass(frozen=True)
class Quick:
    """The best linear estimate of white images of variance c around the middle of the range, with
    noise of FLOOR ||A|| sqrt(c) at least: (c A A^H + s2)^-1 r by a few conjugate gradients."""

    A: LinearOperator
    c: float
    s2: float

    @classmethod
    def of(cls, post: Posterior) -> Quick | None:
        """None where A is not linear."""
        given = post.given
        if not isinstance(given.A, LinearOperator):
            return None
        c, variance = pixel_variance(post), float(given.noise.variance(given.y).mean())
        return cls(given.A, c, max(variance, FLOOR**2 * norm2(given.A) ** 2 * c))

    def weigh(self, r: Tensor) -> Tensor:
        """(c A A^H + s2)^-1 r, row by row."""
        if self.A.spectrum() is not None:
            return solve(self.A, r, self.c, self.s2)
        return cg(
            lambda v: self.c * self.A(self.A.adjoint(v)) + self.s2 * v, r, max_iter=40, rtol=1e-3
        ).x

    def residual(self, given: Likelihood, y: Tensor) -> Tensor:
        flat = self.A.probe(torch.ones, dtype=given.y.real.dtype).to(given.y.device)
        return y - self.A(flat * middle(given))


@torch.no_grad()
def range_line(post: Posterior, restored: Callable[[], Tensor | None]) -> Finding:
    """The values of an image that y alone tells, by ``Quick``; where A is not linear those of the
    restoration."""
    given = post.given
    if given.range is None:
        return Finding("range", "skip", "no range is stated", remedy="nothing to compare")
    quick = Quick.of(post)
    if quick is None:
        found = restored()
        if found is None:
            return Finding("range", "skip", "no quick restoration", remedy="nothing to compare")
        image = found
    else:
        r = quick.residual(given, given.y[None])
        image = middle(given) + quick.c * given.linear.adjoint(quick.weigh(r))
    real = image.real if image.is_complex() else image
    (low, high), width = given.range, given.range[1] - given.range[0]
    least, most = quantiles(real, TAIL)
    value = f"y tells of values {least:.3g} to {most:.3g}"
    expected = f"the stated range [{low:g}, {high:g}]"
    beyond = max(low - least, most - high) / width
    larger = 0.0 if quick is None else _too_large(given, quick)
    if larger > 1:
        value = f"y is {larger:.3g} times larger than images of the range can measure"
    if beyond > OUTSIDE or larger > 1:
        turned_y = better_orientation(post)
        if turned_y is not None and turned_y[0] > BETTER:
            return Finding("range", "skip", value, expected, "y fits better when it is turned")
        remedy = (
            f"images of [{low:g}, {high:g}] do not measure like this: state the range that y is "
            "in, or divide y by its unit"
        )
        return Finding("range", "fail", value, expected, remedy)
    if most - least < NARROW * width and quick is not None and quick.s2 < quick.c:
        remedy = "y fills a two hundredth of the range: is it in another unit?"
        return Finding("range", "warn", value, expected, remedy)
    return Finding("range", "pass", value, expected)


def _too_large(given: Likelihood, quick: Quick) -> float:
    """||y - A m|| over what it is at most, m the middle of the range: ||A|| times that of an image
    whose every number lies at an end of the range, and the noise."""
    r = quick.residual(given, given.y[None])
    assert given.range is not None  # its caller has asked
    half = (0.5 + OUTSIDE) * (given.range[1] - given.range[0])
    most = norm2(quick.A) * half * math.sqrt(math.prod(quick.A.in_shape))
    count = r.numel() * (2 if r.is_complex() else 1)
    noise = float(given.noise.variance(given.y).mean()) * (count + 4 * math.sqrt(2 * count))
    return float(dot(r, r).sqrt()) / math.sqrt(most**2 + noise)


class Seen(NamedTuple):
    """The noise level that y shows, over the stated one; both bounds from above, since structure
    adds to them. error: a standard error of ``ratio``."""

    ratio: float
    error: float
    source: str


@torch.no_grad()
def seen_noise(given: Likelihood) -> Seen | None:
    """The smallest level that y shows anywhere: in directions that no image reaches, and in the
    differences of neighbouring numbers. None where it shows none."""
    variance = given.noise.variance(given.y)
    if not bool((variance > 0).all()):
        return None
    found = [seen for seen in (_unreached(given, variance), _rough(given, variance)) if seen]
    return min(found, key=lambda seen: seen.ratio) if found else None


def _unreached(given: Likelihood, variance: Tensor) -> Seen | None:
    """Root mean square of the coefficients of y where A makes nothing. Those that are exactly 0
    were never recorded."""
    spectrum = given.A.spectrum() if isinstance(given.A, LinearOperator) else None
    if spectrum is None or variance.ndim:
        return None
    c = spectrum.Uh(given.y[None])[0]
    none = torch.ones(len(c), dtype=torch.bool, device=c.device)
    none[: len(spectrum.s)] = spectrum.s <= 1e-3 * spectrum.s.max()
    alone = c[none]
    alone = alone[alone.abs() > 0]
    if len(alone) < _LEAST:
        return None
    per = 2 if alone.is_complex() else 1
    ratio = math.sqrt(float(alone.abs().square().mean()) / per / float(variance))
    return Seen(ratio, ratio / math.sqrt(2 * per * len(alone)), "directions no image reaches")


def _rough(given: Likelihood, variance: Tensor) -> Seen | None:
    """The median of |y00 - y01 - y10 + y11| over 2 sigma in blocks of 2 x 2 numbers that were all
    recorded."""
    y = given.A.layout(given.y)
    if y.shape != given.y.shape:
        if variance.ndim:
            return None
        y = y.nan_to_num(0.0)
    if y.is_complex() or y.ndim not in (2, 3) or min(y.shape[-2:]) < 16:
        return None

    def blocks(t: Tensor) -> Tensor:
        t = t[..., : t.shape[-2] // 2 * 2, : t.shape[-1] // 2 * 2]
        return torch.stack([t[..., i::2, j::2].flatten() for i in (0, 1) for j in (0, 1)])

    parts, scale = blocks(y), blocks(variance.expand(y.shape)).sum(0).sqrt()
    whole = (parts != 0).all(0)
    d = (parts[0] - parts[1] - parts[2] + parts[3]).abs()[whole] / scale[whole]
    if len(d) < _LEAST:
        return None
    ratio = float(d.double().median()) / _MEDIAN
    # The median of n absolute normal numbers has a relative standard error of 1.17 / sqrt(2 n).
    return Seen(ratio, 1.17 * ratio / math.sqrt(2 * len(d)), "differences of neighbours")


def noise_line(
    given: Likelihood,
    seen: Seen | None,
    is_noise: Callable[[], bool],
    chi2: Callable[[], float | None],
) -> Finding:
    """The level that y shows against the stated one.

    Structure can make the first larger, nothing makes it smaller. is_noise: asked where it is much
    larger, whether that is noise. chi2: of a restoration, asked where y shows none.
    """
    if seen is None:
        left = chi2() if given.y.numel() >= _LEAST else None
        if left is not None and left < IDLE:
            return Finding(
                "noise",
                "fail",
                f"a restoration leaves {math.sqrt(left):.2g} of the stated level",
                f"at least {math.sqrt(IDLE):.2g}",
                "y has less noise than stated: state the noise level in the units of y",
            )
        reason = "too few numbers, or none that an image would leave smooth"
        return Finding("noise", "skip", "y alone does not tell", remedy=reason)
    level = given.noise.std
    stated = "the level of the law" if level is None else f"the stated {level:.3g}"
    value = f"{seen.ratio:.3g} times {stated}, in {seen.source}"
    expected = f"at least 1 / {FACTOR:g}; more than {SUSPECT:g} only for structure"
    room = FACTOR * (1 + 4 * seen.error / max(seen.ratio, 1e-30))
    told = "" if level is None else f" y shows about {seen.ratio * level:.3g}."
    cure = f"state the noise level in the units of y.{told}"
    if seen.ratio * room < 1:
        return Finding("noise", "fail", value, expected, f"y has less noise than stated: {cure}")
    if seen.ratio > SUSPECT and is_noise():
        return Finding("noise", "fail", value, expected, f"y has more noise than stated: {cure}")
    return Finding("noise", "pass", value, expected)


TURNS: tuple[tuple[str, bool, int], ...] = tuple(
    (name, swapped, turns)
    for name, swapped, turns in (
        ("as it is", False, 0),
        ("turned by 90 degrees", False, 1),
        ("turned by 180 degrees", False, 2),
        ("turned by 270 degrees", False, 3),
        ("with rows and columns swapped", True, 0),
        ("with its rows reversed", True, 1),
        ("with both axes swapped and reversed", True, 2),
        ("with its columns reversed", True, 3),
    )
)


def turned(x: Tensor) -> tuple[Tensor, list[str]]:
    """The orientations of x (*O) that have its shape, (k, *O), the first its own, and what each
    is called."""
    out, names = [], []
    for name, swapped, turns in TURNS:
        t = torch.rot90(x.transpose(-1, -2) if swapped else x, turns, (-2, -1))
        if t.shape == x.shape:
            out.append(t)
            names.append(name)
    return torch.stack(out), names


@torch.no_grad()
def better_orientation(post: Posterior) -> tuple[float, str] | None:
    """How much better the best orientation of y is met than its own, r^H (c A A^H + s2)^-1 r of one
    over that of the other, and which it is. None where there is nothing to turn, or A is not
    linear."""
    quick, given = Quick.of(post), post.given
    if quick is None or given.y.ndim < 2 or min(given.y.shape[-2:]) < 8:
        return None
    ways, names = turned(given.y)
    r = quick.residual(given, ways)
    misfit = dot(r, quick.weigh(r)).double()
    best = int(misfit.argmin())
    return float(misfit[0] / misfit[best].clamp(min=1e-30)), names[best]
