"""How far a set of samples is from another, or from known moments. Everything in float64; a complex
number counts as two real ones.

Print beside every distance its *floor*: two independent exact sets of the same size are not at
distance 0.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from posteriori.linalg import real_view


class Samplable(Protocol):
    def sample(self, n: int, seed: int) -> Tensor: ...


class Moments(Protocol):
    @property
    def mean(self) -> Tensor: ...

    @property
    def covariance(self) -> Tensor: ...


def flat(x: Tensor) -> Tensor:
    """(n, *E) -> (n, d) float64. Raises ``ValueError`` when there is no sample, or one is not
    finite."""
    real = real_view(x)
    rows = real.detach().double().flatten(1) if real.ndim > 1 else real.detach().double()[:, None]
    if len(rows) == 0:
        raise ValueError("a set of samples is empty")
    bad = ~rows.isfinite().all(1)
    if bool(bad.any()):
        raise ValueError(
            f"{int(bad.sum())} of {len(rows)} samples are not finite, "
            f"the first is sample {int(bad.nonzero()[0])}"
        )
    return rows


def normalised(log_w: Tensor | None, n: int) -> Tensor:
    """(n,) weights that sum to 1. Raises ``ValueError`` when log-weights do not fit or none is
    finite."""
    if log_w is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    if log_w.shape != (n,) or bool(log_w.isnan().any()) or not bool(log_w.max() > -math.inf):
        raise ValueError(
            f"{n} samples need {n} log-weights, at least one of them above -inf; "
            f"got shape {tuple(log_w.shape)}: {log_w[:5].tolist()}"
        )
    return log_w.detach().double().cpu().softmax(0)


def effective_size(log_w: Tensor) -> float:
    """1 / sum w^2: the number of equally weighted samples that would say as much."""
    return float(1 / normalised(log_w, len(log_w)).square().sum())


def resample(samples: Tensor, log_w: Tensor, n: int | None = None, seed: int = 0) -> Tensor:
    """n equally weighted samples drawn by systematic resampling (n of them by default as many as
    before)."""
    w = normalised(log_w, len(samples))
    n = n or len(samples)
    shift = torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points = (torch.arange(n, dtype=torch.float64) + shift) / n
    return samples[torch.searchsorted(w.cumsum(0), points).clamp(max=len(w) - 1).to(samples.device)]


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    slices: int = 1000,
    seed: int = 0,
    p: int = 1,
    log_wx: Tensor | None = None,
    log_wy: Tensor | None = None,
) -> float:
    """(mean over ``slices`` random unit directions of W_p^p of the projections)^(1/p); for p = 1
    the mean of the one-dimensional W_1.

    x: (n, *E), y: (k, *E); sizes may differ and either set may be weighted, W_p is then that of the
    two step functions, exactly.
    """
    a, b = flat(x).cpu(), flat(y).cpu()
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            "two sets in different spaces: "
            f"samples of shape {tuple(x.shape[1:])} and {tuple(y.shape[1:])}"
        )
    if p < 1 or slices < 1:
        raise ValueError(
            f"sliced_wasserstein needs p >= 1 and slices >= 1, got p={p}, slices={slices}"
        )
    directions = torch.randn(
        slices, a.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    directions /= directions.norm(dim=1, keepdim=True)
    plain = len(a) == len(b) and log_wx is None and log_wy is None
    wa, wb = normalised(log_wx, len(a)), normalised(log_wy, len(b))
    total = 0.0
    for part in directions.split(max(1, 2**22 // max(len(a), len(b)))):
        u, v = part @ a.T, part @ b.T
        powers = (
            (u.sort(1).values - v.sort(1).values).abs().pow(p).mean(1)
            if plain
            else _step_distance(u, v, wa, wb, p)
        )
        total += float(powers.sum())
    return (total / slices) ** (1 / p)


def _step_distance(u: Tensor, v: Tensor, wu: Tensor, wv: Tensor, p: int) -> Tensor:
    """W_p^p between weighted points of each row: the integral of |quantile difference|^p over the
    merged levels."""
    u, iu = u.sort(1)
    v, iv = v.sort(1)
    cu, cv = wu[iu].cumsum(1), wv[iv].cumsum(1)
    levels = (
        torch.cat([torch.zeros(len(u), 1, dtype=u.dtype), cu, cv], 1).clamp(max=1.0).sort(1).values
    )
    middle = (levels[:, 1:] + levels[:, :-1]) / 2
    qu = u.gather(1, torch.searchsorted(cu, middle).clamp(max=u.shape[1] - 1))
    qv = v.gather(1, torch.searchsorted(cv, middle).clamp(max=v.shape[1] - 1))
    return ((qu - qv).abs().pow(p) * levels.diff(dim=1)).sum(1)


def floor(
    exact: Samplable, n: int, *, repeats: int = 5, slices: int = 1000, seed: int = 0, p: int = 1
) -> tuple[float, float]:
    """Mean and standard deviation of ``sliced_wasserstein`` between two independent exact sets of n
    samples."""
    if repeats < 2:
        raise ValueError(f"floor needs at least 2 repeats to state a spread, got {repeats}")
    pairs = [
        (exact.sample(n, seed + 2 * i + 1), exact.sample(n, seed + 2 * i + 2))
        for i in range(repeats)
    ]
    values = torch.tensor(
        [sliced_wasserstein(x, y, slices=slices, seed=seed, p=p) for x, y in pairs],
        dtype=torch.float64,
    )
    return float(values.mean()), float(values.std())


def moments(samples: Tensor, log_w: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d) of weighted samples."""
    x = flat(samples)
    if len(x) < 2:
        raise ValueError("a covariance needs at least 2 samples, got 1")
    w = normalised(log_w, len(x)).to(x.device)
    left = 1 - float(w.square().sum())
    if left < 1e-12:
        raise ValueError("one sample carries all the weight; its covariance is not defined")
    mean = w @ x
    return mean, (w[:, None] * (x - mean)).T @ (x - mean) / left


def mean_error(samples: Tensor, exact: Moments, log_w: Tensor | None = None) -> float:
    """||mean of the samples - exact mean|| / sqrt(trace of the exact covariance). Of n exact
    samples it is about 1 / sqrt(n)."""
    x = flat(samples)
    difference = normalised(log_w, len(x)).to(x.device) @ x - exact.mean.flatten().to(x)
    return float(difference.norm() / exact.covariance.trace().double().sqrt())


def variance_ratio(samples: Tensor, exact: Moments, log_w: Tensor | None = None) -> float:
    """trace of the samples' covariance / trace of the exact one: below 1 is under-dispersed."""
    return float(moments(samples, log_w)[1].trace() / exact.covariance.trace().double())


def gaussian_kl(mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor) -> float:
    """KL( N(mean0, covariance0) || N(mean1, covariance1) ) in nats. Raises ``ValueError`` when a
    covariance is not positive definite."""
    L0, L1 = _cholesky(covariance0, "first"), _cholesky(covariance1, "second")
    white = torch.linalg.solve_triangular(L1, L0, upper=False).square().sum()
    apart = (mean1 - mean0).double().flatten()[:, None]
    shift = torch.linalg.solve_triangular(L1, apart, upper=False).square().sum()
    logs = 2 * (L1.diagonal().log().sum() - L0.diagonal().log().sum())
    return float(0.5 * (white + shift - len(L0) + logs))


def _cholesky(covariance: Tensor, which: str) -> Tensor:
    L, info = torch.linalg.cholesky_ex(covariance.double())
    if int(info):
        lowest = float(torch.linalg.eigvalsh(covariance.double()).min())
        raise ValueError(
            f"gaussian_kl: the {which} covariance is not positive definite, "
            f"its smallest eigenvalue is {lowest:.3g}"
        )
    return L
