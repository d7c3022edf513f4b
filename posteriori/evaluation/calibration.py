"""Do the samples' intervals hold the truth as often as they say?

With n samples the interval between the order statistics i and n + 1 - i holds an independent draw of the same law with probability
exactly (n + 1 - 2 i) / (n + 1). So levels are not interpolated: the nearest level that n samples can state is used, and named.
"""

from __future__ import annotations

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


def coverage(samples: Tensor, reference: Tensor, levels: Sequence[float] = (0.5, 0.9)) -> tuple[Coverage, ...]:
    """Share of the reference's numbers inside the central credible intervals of the samples, number by number.

    samples: (n, *E) equally weighted, n >= 2 (``resample`` weighted ones first). reference: E, or several (R, *E).
    Raises ``ValueError`` for one sample, levels outside (0, 1) or shapes that do not fit.
    """
    x, truth = _aligned(samples, reference)
    n = len(x)
    if n < 2:
        raise ValueError("coverage needs at least 2 samples to make an interval, got 1")
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"coverage levels lie strictly between 0 and 1, got {list(levels)}")
    ordered = x.sort(0).values
    out = []
    for level in levels:
        i = min(max(1, round((n + 1) * (1 - level) / 2)), n // 2)
        low, high = ordered[i - 1], ordered[n - i]
        inside = (truth >= low) & (truth <= high)
        out.append(Coverage(level, (n + 1 - 2 * i) / (n + 1), float(inside.double().mean()), float((high - low).mean())))
    return tuple(out)


def ranks(samples: Tensor, reference: Tensor) -> Tensor:
    """Number of samples below the reference, number by number: (R, d) int64 in 0..n. Uniform when the samples are calibrated."""
    x, truth = _aligned(samples, reference)
    return torch.stack([(x < row).sum(0) for row in truth])


def rank_counts(samples: Tensor, reference: Tensor) -> Tensor:
    """Histogram of ``ranks``, (n + 1,): U-shaped when under-dispersed, humped when over-dispersed, tilted when biased."""
    return torch.bincount(ranks(samples, reference).flatten(), minlength=len(samples) + 1)


def _aligned(samples: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d) and (R, d)."""
    reference = reference[None] if reference.ndim == samples.ndim - 1 else reference
    if reference.shape[1:] != samples.shape[1:] or reference.is_complex() != samples.is_complex():
        raise ValueError(
            f"samples {tuple(samples.shape)} {samples.dtype} do not fit the reference {tuple(reference.shape)} {reference.dtype}"
        )
    return flat(samples), flat(reference).to(samples.device)
