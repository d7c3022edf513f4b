"""Are the ranks of truths among posterior samples uniform, and if not, are the intervals too short
or too long?

Simulation-based calibration: x* ~ p(x), y ~ p(y | x*), x_1..x_n ~ p(x | y) independent. Then for
any function f of x and y the rank of f(x*) among f(x_1)..f(x_n) is uniform on 0..n, where equal
values are ordered at random, as ``calibration.ranks`` does. Ranks here are (N, K): K functions for
each of N independent problems.

Source: Talts, Betancourt, Simpson, Vehtari, Gelman, Validating Bayesian inference algorithms with
simulation-based calibration, 2018; that functions of y as well are needed to find samples which
ignore it: Modrak et al., Simulation-based calibration checking for Bayesian computation, 2023.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

BINS, DRAWS = 10, 20000
# Beyond this many standard errors a coverage, and below this p-value a histogram, is called wrong.
# An exact sampler, judged by four groups of functions at four levels, is then called wrong in about
# 1 of 100 cases, up to 5 where all functions of a problem agree (tested).
STRICT, SMALL = 3.0, 0.001
# Misses of which more than this share lie on one side come from samples in the wrong place.
LEANING = 0.9


def order(n: int, level: int) -> int | None:
    """i such that the i-th smallest and the i-th largest of n samples enclose ``level`` per cent,
    None where no i does."""
    twice = (n + 1) * (100 - level)
    return twice // 200 if twice % 200 == 0 else None


def inside_share(ranks: Tensor, n: int, level: int) -> Tensor | None:
    """Share of the functions of each problem whose truth lies in the interval of ``level`` per
    cent, (N,); None as ``order``."""
    i = order(n, level)
    return None if i is None else ((ranks >= i) & (ranks <= n - i)).double().mean(1)


def standard_error(shares: Tensor, level: int, functions: int) -> float:
    """Of the mean of shares (N,), N >= 2, each over the dependent functions of one problem: from
    the spread between problems, and never below that of independent functions of a calibrated
    sampler, or a coverage that is always the same would be certain."""
    p = level / 100
    return max(
        float(shares.std()) / math.sqrt(len(shares)),
        math.sqrt(p * (1 - p) / (len(shares) * functions)),
    )


def histogram(ranks: Tensor, n: int) -> Tensor:
    """Ranks in ten bins for each function, (K, 10). Raises ``ValueError`` when n + 1 is no multiple
    of ten: bins would differ in size."""
    if (n + 1) % BINS:
        raise ValueError(
            "ranks of n samples fall into ten equal bins "
            f"when n + 1 is a multiple of ten, got n = {n}"
        )
    return torch.stack(
        [torch.bincount(column * BINS // (n + 1), minlength=BINS) for column in ranks.T]
    )


def uniform(counts: Tensor) -> float:
    """p-value of counts (bins,): the share of simulated chi-squares at least as large, with the
    observed one; right for few counts."""
    below = int(
        torch.searchsorted(_null(int(counts.sum()), len(counts)), chi_square(counts) - 1e-6)
    )
    return (1 + DRAWS - below) / (1 + DRAWS)


def chi_square(counts: Tensor) -> Tensor:
    """sum (counts - expected)^2 / expected, expected the same in each bin: (..., bins) -> (...)."""
    expected = counts.sum(-1, keepdim=True) / counts.shape[-1]
    return ((counts - expected).square() / expected).sum(-1).double()


def leaning(ranks: Tensor, n: int, level: int = 80) -> float:
    """Of the truths outside the interval of ``level`` per cent the share on the side where most of
    them are; 0.5 when none is outside.

    Raises ``ValueError`` for a level that n samples cannot state.
    """
    i = order(n, level)
    if i is None:
        raise ValueError(f"{n} samples have no interval of {level} %; take n + 1 a multiple of ten")
    below, above = int((ranks < i).sum()), int((ranks > n - i).sum())
    return max(below, above) / (below + above) if below + above else 0.5


def verdict(z: list[float], p: float, lean: float) -> str:
    """What coverage and ranks say together.

    A coverage more than 3 standard errors below its level is "over-confident", or "off-centre" when
    more than 0.9 of the misses lie on one side; one above is "under-confident", both are "uneven";
    otherwise "not uniform" for p < 0.001, else "no fault found".
    z: (coverage - level) / standard error, one for each level; lean: as ``leaning`` gives it.
    """
    narrow, wide = min(z) < -STRICT, max(z) > STRICT
    if narrow and wide:
        return "uneven"
    if narrow:
        return "off-centre" if lean > LEANING else "over-confident"
    return "under-confident" if wide else "not uniform" if p < SMALL else "no fault found"


def found_below(problems: int, level: int = 80, power: float = 0.9) -> float:
    """The power of the rule: the coverage c below which it calls one function over-confident, or
    off-centre, with this probability.

    Of N independent problems the truth lies k times inside the interval, binomial (N, c); c solves
    P(k / N < level - 3 se) = power. Other levels, the p-value and more functions than one can only
    add to it. Raises ``ValueError`` for fewer than 2 problems.
    """
    if problems < 2:
        raise ValueError(f"a standard error needs at least 2 problems, got {problems}")
    p, count = level / 100, torch.arange(problems + 1, dtype=torch.float64)
    share = count / problems
    se = torch.maximum(
        (share * (1 - share) / (problems - 1)).sqrt(),
        torch.tensor(math.sqrt(p * (1 - p) / problems), dtype=torch.float64),
    )
    called = (share - p) / se < -STRICT
    choices = (
        math.lgamma(problems + 1) - torch.lgamma(count + 1) - torch.lgamma(problems - count + 1)
    )
    low, high = 0.0, p
    for _ in range(50):
        c = (low + high) / 2
        logs = choices + count * math.log(c) + (problems - count) * math.log1p(-c)
        chance = logs[called].exp().sum()
        low, high = (c, high) if float(chance) >= power else (low, c)
    return low


@lru_cache(maxsize=32)
def _null(count: int, bins: int) -> Tensor:
    """Sorted chi-squares of ``count`` uniform ranks, (20000,)."""
    places = torch.randint(bins, (DRAWS, count), generator=torch.Generator().manual_seed(0))
    counts = torch.zeros(DRAWS, bins, dtype=torch.int64).scatter_add_(
        1, places, torch.ones_like(places)
    )
    return chi_square(counts).sort().values
