"""Do the samples' intervals hold the truth as often as they say?

With n samples the interval between the order statistics i and n + 1 - i holds an independent draw
of the same law with probability exactly (n + 1 - 2 i) / (n + 1). So levels are not interpolated:
the nearest level that n samples can state is used, and named.

Numbers may be equal: pixels that are clipped, or known exactly. The rank of the truth is then the
number of samples below it plus a uniform integer from 0 to the number of samples equal to it. So
ranks of exact samples are uniform on 0..n whatever the law, and "inside" means i <= rank <= n - i,
here and in ``rank_tests``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.evaluation.distances import flat

# Numbers whose ranks are found together.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Coverage:
    """asked: the level asked for. nominal: the level that n samples can state. covered: measured
    share. width: mean interval width."""

    asked: float
    nominal: float
    covered: float
    width: float


def coverage(
    samples: Tensor, reference: Tensor, levels: Sequence[float] = (0.5, 0.9), *, seed: int = 0
) -> tuple[Coverage, ...]:
    """Share of the reference's numbers inside the central credible intervals of the samples, number
    by number, by their ``ranks``.

    samples: (n, *E) equally weighted, n >= 2 (``resample`` weighted ones first). reference: E, or
    several (R, *E). seed: as in ``ranks``.
    Raises ``ValueError`` for one sample, levels outside (0, 1) or shapes that do not fit.
    """
    x, truth = _aligned(samples, reference)
    n = len(x)
    if n < 2:
        raise ValueError("coverage needs at least 2 samples to make an interval, got 1")
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"coverage levels lie strictly between 0 and 1, got {list(levels)}")
    ordered, places = x.sort(0).values, _ranks(x, truth, seed)
    out = []
    for level in levels:
        i = min(max(1, round((n + 1) * (1 - level) / 2)), n // 2)
        inside = (places >= i) & (places <= n - i)
        width = ordered[n - i] - ordered[i - 1]
        out.append(
            Coverage(
                level, (n + 1 - 2 * i) / (n + 1), float(inside.double().mean()), float(width.mean())
            )
        )
    return tuple(out)


def student(mean: Tensor, std: Tensor, n: float, reference: Tensor, level: float = 0.8) -> float:
    """Share of the reference's numbers within mean +- t sqrt(1 + 1 / n) std, t of Student's law
    with n - 1 degrees of freedom.

    For few samples, whose order statistics cannot state the level: for Gaussian numbers the share
    of a calibrated sampler is ``level`` on average, for any n > 1. mean, std, reference: shape E,
    real. n: samples that mean and std come from.
    """
    from scipy.special import stdtrit

    room = float(stdtrit(n - 1, (1 + level) / 2)) * (1 + 1 / n) ** 0.5
    return float(((reference - mean).abs() <= room * std).double().mean())


def members(samples: Tensor, reference: Tensor, level: float, *, seed: int = 0) -> Tensor:
    """The share that ``coverage`` measures, for the reference and for each sample in its place
    among the others: (n + 1,) float64.

    The reference comes first. When samples and reference are draws of one law these n + 1 shares
    are exchangeable, whatever the law and however its numbers depend on each other: the scatter of
    the samples' shares is that of the reference's. Their mean is the nominal level exactly.
    Arguments as of ``coverage``, one reference.
    """
    x, truth = _aligned(samples, reference)
    n, pool = len(x), torch.cat([truth, x])
    i = min(max(1, round((n + 1) * (1 - level) / 2)), n // 2)
    generator, shares = torch.Generator().manual_seed(seed), torch.zeros(n + 1, dtype=torch.float64)
    for part in pool.split(max(1, _AT_ONCE // len(pool)), 1):
        # Ranks with ties broken at random: a stable sort after a shuffle.
        shuffled = torch.rand(part.shape, generator=generator).argsort(0).to(part.device)
        order = shuffled.gather(0, part.gather(0, shuffled).argsort(dim=0, stable=True))
        shares.index_add_(
            0,
            order[i : n + 1 - i].flatten().cpu(),
            torch.ones(order[i : n + 1 - i].numel(), dtype=torch.float64),
        )
    return shares / pool.shape[1]


def student_members(samples: Tensor, reference: Tensor, level: float = 0.8) -> Tensor:
    """The share that ``student`` measures, for the reference and for each sample in its place among
    the others: (n + 1,) float64.

    As ``members``: exchangeable when samples and reference are draws of one law.
    """
    from scipy.special import stdtrit

    x, truth = _aligned(samples, reference)
    n, pool = len(x), torch.cat([truth, x]).double()
    pool = pool - pool.mean(0)
    total, square = pool.sum(0), pool.square().sum(0)
    room = float(stdtrit(n - 1, (1 + level) / 2)) * (1 + 1 / n) ** 0.5
    shares = []
    for row in pool:
        mean = (total - row) / n
        std = ((square - row.square() - n * mean.square()).clamp(min=0) / (n - 1)).sqrt()
        shares.append(((row - mean).abs() <= room * std).double().mean())
    return torch.stack(shares)


def student_room(samples: Tensor, reference: Tensor, n: float) -> float:
    """``room`` of the share that ``student`` measures: at least that of ranks, since of few samples
    nearly all shares are 1 but some."""
    return max(
        room(student_members(samples, reference), n), room(members(samples, reference, 0.9), n)
    )


def room(shares: Tensor, n: float) -> float:
    """How far the reference's share may lie from the mean of all before its samples are to blame.

    shares: (n + 1,) of ``members``, the reference's first. n: effective number of the samples. The
    share has to lie farther out than that of any sample, of which chance alone makes one of n + 1,
    and by Student's limit of 0.5 % of one more draw of a Gaussian law of which n are known, of at
    least 4 standard deviations, since shares are no Gaussian numbers: they lie in [0, 1] and are
    skewed. 1, all that a share can miss, for two samples, or where no two shares differ. What sound
    samples pass is in docs/results/flags.md.
    """
    from scipy.special import stdtrit

    others = shares[1:]
    if n < 2.5 or len(others) < 3 or float(others.std()) < 1e-9:
        return 1.0
    student_limit = (
        max(4.0, float(stdtrit(n - 1, 0.995))) * float(others.std()) / (1 + 1 / n) ** 0.5
    )
    return min(1.0, max(student_limit, float((others - shares.mean()).abs().max())))


def ranks(samples: Tensor, reference: Tensor, *, seed: int = 0) -> Tensor:
    """Number of samples below the reference plus a uniform integer from 0 to the number equal to
    it: (R, d) int64 in 0..n.

    Uniform, number by number, when the samples are calibrated. The integers are a function of
    ``seed``, the samples and one image of the reference. Give each of many problems its own seed
    when a whole problem may be the same numbers again.
    """
    return _ranks(*_aligned(samples, reference), seed)


def rank_counts(samples: Tensor, reference: Tensor, *, seed: int = 0) -> Tensor:
    """Histogram of ``ranks``, (n + 1,): U-shaped when under-dispersed, humped when over-dispersed,
    tilted when biased."""
    return torch.bincount(
        ranks(samples, reference, seed=seed).flatten(), minlength=len(samples) + 1
    )


def _ranks(x: Tensor, truth: Tensor, seed: int) -> Tensor:
    """``ranks`` of aligned tables (n, d) and (R, d)."""
    out = []
    for row in truth:
        below, equal = (x < row).sum(0), (x == row).sum(0)
        if bool(equal.any()):
            below += (_uniform(x, row, seed).to(x.device) * (equal + 1)).long().minimum(equal)
        out.append(below)
    return torch.stack(out)


def _uniform(x: Tensor, row: Tensor, seed: int) -> Tensor:
    """(d,) numbers in [0, 1). With the seed alone, left at its default, the ties of all problems
    would be broken alike."""
    content = hashlib.blake2b(f"{seed}".encode(), digest_size=8)
    for table in (x, row):
        content.update(table.cpu().contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(content.digest()))
    return torch.rand(len(row), generator=generator, dtype=torch.float64)


def _aligned(samples: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d) and (R, d), both rounded to the coarser of the two precisions: a number that both know
    is then equal in both."""
    reference = reference[None] if reference.ndim == samples.ndim - 1 else reference
    if reference.shape[1:] != samples.shape[1:] or reference.is_complex() != samples.is_complex():
        raise ValueError(
            f"samples {tuple(samples.shape)} {samples.dtype} do not fit the reference "
            f"{tuple(reference.shape)} {reference.dtype}"
        )
    kinds = [
        t.dtype for t in (samples, reference) if t.dtype.is_floating_point or t.dtype.is_complex
    ]
    if len(kinds) == 2:
        coarse = min(kinds, key=lambda kind: torch.finfo(kind).bits)
        samples, reference = samples.to(coarse), reference.to(coarse)
    return flat(samples), flat(reference).to(samples.device)
