"""The affine probe: a sampler's exact output law on a Gaussian prior, to float64, without Monte
Carlo.

With an affine denoiser and a linear operator most samplers are an affine map of all their random
numbers,

    x = f(z_T, z_1, ..., z_N) = f(0) + M z,   hence   E[x] = f(0),  Cov[x] = M M^T.

One run over the rows z = 0, e_1, e_2, ... reads off f(0) and the columns of M. Random rows then
check that the map is affine.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.likelihood import Posterior
from posteriori.linalg import real_view
from posteriori.methods.base import Method


class NotAffineError(ValueError):
    """The method's output is not an affine function of its random numbers."""


class Injected:
    """A noise source that hands out prescribed numbers, draw after draw: ``columns(first, size)``
    gives a (rows, size) block."""

    def __init__(self, columns: Callable[[int, int], Tensor], level: float) -> None:
        self.columns, self.level, self.used = columns, level, 0

    def normal(self, like: Tensor) -> Tensor:
        real = real_view(like)
        size = real[0].numel()
        z = self.columns(self.used, size).to(real).view(real.shape)
        self.used += size
        self.rows = len(like)
        return torch.view_as_complex(z) if like.is_complex() else z

    def uniform(self, count: int) -> Tensor:
        return torch.full((self.rows, count), self.level, dtype=torch.float64)


def affine_probe(
    post: Posterior,
    method: Method[Any],
    steps: int,
    grid: grids.GridName | Tensor = "karras",
    *,
    rtol: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Exact mean (d,) and covariance (d, d) of ``method``'s samples, in the prior's coordinates.

    post: in float64, with a Gaussian prior and a linear operator. The cost is that of about
    (steps + 1) d samples.
    Raises ``NotAffineError`` when random rows leave the affine prediction by more than ``rtol`` (a
    norm, a clamp, conjugate gradients that have not converged, a mixture prior, a dependence on
    uniform numbers), ``ValueError`` for a method that refuses the problem, whose rows interact or
    are weighted, or for single precision.
    """
    refusal = method.refuses(post)
    if refusal:
        raise ValueError(refusal)
    if method.group != 1:
        raise ValueError(
            "affine_probe needs rows that do not interact, "
            f"{type(method).__name__} works on groups of {method.group}"
        )
    if post.likelihood.y.real.dtype != torch.float64:
        raise ValueError(
            f"affine_probe works in float64, y is {post.likelihood.y.dtype}; "
            "build prior, operator and y in float64"
        )
    levels = grids.make(
        grid, steps, post.prior.sigma_max, post.prior.sigma_min, post.prior.know().ladder
    )
    dry = Injected(lambda first, size: torch.zeros(1, size, dtype=torch.float64), 0.5)
    centre = _drive(post, method, levels, 1, dry)[0]
    trials = torch.randn(
        4, dry.used, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    covariance = torch.zeros(len(centre), len(centre), dtype=torch.float64)
    predicted = centre.expand(4, -1).clone()
    for first in range(0, dry.used, chunk := max(1, 2**20 // len(centre))):
        rows = min(chunk, dry.used - first)
        M = _drive(post, method, levels, rows, Injected(_unit_rows(first, rows), 0.5)) - centre
        covariance += M.T @ M
        predicted += trials[:, first : first + chunk] @ M
    # Another level of the uniform numbers than in the probe: a map that depends on them fails the
    # check.
    actual = _drive(
        post, method, levels, 4, Injected(lambda first, size: trials[:, first : first + size], 0.9)
    )
    gap = float(
        (actual - predicted).abs().max() / (predicted - centre).abs().max().clamp(min=1e-300)
    )
    if not gap <= rtol:
        raise NotAffineError(
            f"{type(method).__name__} is not an affine map of its random numbers here: "
            f"random rows differ by {gap:.2g} (relative) from the prediction. "
            "Let inner solves converge, switch clamps off, use a Gaussian prior"
        )
    return centre, covariance


def _unit_rows(start: int, rows: int) -> Callable[[int, int], Tensor]:
    """Row r is the unit vector e_(start + r) of the space of all random numbers."""

    def columns(first: int, size: int) -> Tensor:
        z = torch.zeros(rows, size, dtype=torch.float64)
        column = torch.arange(rows) + (start - first)
        hit = (column >= 0) & (column < size)
        z[hit, column[hit]] = 1.0
        return z

    return columns


def _drive(
    post: Posterior, method: Method[Any], levels: Tensor, rows: int, noise: Injected
) -> Tensor:
    """The final rows (rows, d), a complex number as two columns."""
    y = post.likelihood.y
    blank = torch.zeros(
        rows,
        *post.shape,
        dtype=torch.complex128 if post.prior.complex else torch.float64,
        device=y.device,
    )
    with torch.no_grad():
        state = method.init(post, post.prior.start(noise.normal(blank), levels[0]), noise)
        for sigma, s in pairwise(levels):
            state, _ = method.step(post, state, sigma, s, noise)
        x, log_w = method.rows(state), method.weights(post, state)
    if bool((log_w != 0).any()):
        raise ValueError(
            f"affine_probe needs unweighted samples, {type(method).__name__} weighs them"
        )
    if not bool(x.abs().isfinite().all()):
        raise FloatingPointError(
            f"{type(method).__name__} diverged on this grid of {len(levels) - 1} steps"
        )
    return real_view(x).flatten(1).cpu()
