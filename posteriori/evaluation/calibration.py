"""Do the samples' intervals hold the truth as often as they say?

With n samples the interval between the order statistics i and n + 1 - i holds an independent draw of the same law with probability
exactly (n + 1 - 2 i) / (n + 1). So levels are not interpolated: the nearest level that n samples can state is used, and named.

Numbers may be equal: pixels that are clipped, or known exactly. The rank of the truth is then the number of samples below it plus a
uniform integer from 0 to the number of samples equal to it. So ranks of exact samples are uniform on 0..n whatever the law, and "inside"
means i <= rank <= n - i, here and in ``rank_tests``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.evaluation.distances import flat


@dataclass(frozen=True)
class Coverage:
    """asked: the level asked for. nominal: the level that n samples can state. covered: measured share. width: mean interval width."""

    asked: float
    nominal: float
    covered: float
    width: float


def coverage(samples: Tensor, reference: Tensor, levels: Sequence[float] = (0.5, 0.9), *, seed: int = 0) -> tuple[Coverage, ...]:
    """Share of the reference's numbers inside the central credible intervals of the samples, number by number, by their ``ranks``.

    samples: (n, *E) equally weighted, n >= 2 (``resample`` weighted ones first). reference: E, or several (R, *E). seed: as in ``ranks``.
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
        out.append(Coverage(level, (n + 1 - 2 * i) / (n + 1), float(inside.double().mean()), float(width.mean())))
    return tuple(out)


def student(mean: Tensor, std: Tensor, n: float, reference: Tensor, level: float = 0.8) -> float:
    """Share of the reference's numbers within mean +- t sqrt(1 + 1 / n) std, t of Student's law with n - 1 degrees of freedom.

    For few samples, whose order statistics cannot state the level: for Gaussian numbers the share of a calibrated sampler is ``level``
    on average, for any n > 1. mean, std, reference: shape E, real. n: samples that mean and std come from.
    """
    from scipy.special import stdtrit

    room = float(stdtrit(n - 1, (1 + level) / 2)) * (1 + 1 / n) ** 0.5
    return float(((reference - mean).abs() <= room * std).double().mean())


def ranks(samples: Tensor, reference: Tensor, *, seed: int = 0) -> Tensor:
    """Number of samples below the reference plus a uniform integer from 0 to the number equal to it: (R, d) int64 in 0..n.

    Uniform, number by number, when the samples are calibrated. The integers are a function of ``seed``, the samples and one image of the
    reference. Give each of many problems its own seed when a whole problem may be the same numbers again.
    """
    return _ranks(*_aligned(samples, reference), seed)


def rank_counts(samples: Tensor, reference: Tensor, *, seed: int = 0) -> Tensor:
    """Histogram of ``ranks``, (n + 1,): U-shaped when under-dispersed, humped when over-dispersed, tilted when biased."""
    return torch.bincount(ranks(samples, reference, seed=seed).flatten(), minlength=len(samples) + 1)


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
    """(d,) numbers in [0, 1). With the seed alone, left at its default, the ties of all problems would be broken alike."""
    content = hashlib.blake2b(f"{seed}".encode(), digest_size=8)
    for table in (x, row):
        content.update(table.cpu().contiguous().numpy().tobytes())
    generator = torch.Generator().manual_seed(int.from_bytes(content.digest()))
    return torch.rand(len(row), generator=generator, dtype=torch.float64)


def _aligned(samples: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d) and (R, d), both rounded to the coarser of the two precisions: a number that both know is then equal in both."""
    reference = reference[None] if reference.ndim == samples.ndim - 1 else reference
    if reference.shape[1:] != samples.shape[1:] or reference.is_complex() != samples.is_complex():
        raise ValueError(
            f"samples {tuple(samples.shape)} {samples.dtype} do not fit the reference {tuple(reference.shape)} {reference.dtype}"
        )
    kinds = [t.dtype for t in (samples, reference) if t.dtype.is_floating_point or t.dtype.is_complex]
    if len(kinds) == 2:
        coarse = min(kinds, key=lambda kind: torch.finfo(kind).bits)
        samples, reference = samples.to(coarse), reference.to(coarse)
    return flat(samples), flat(reference).to(samples.device)
