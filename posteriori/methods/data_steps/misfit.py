"""How far f(x) is from y, as a least-squares problem with its derivatives; and how far the noise
alone would put them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood
from posteriori.linalg import Map, dot, per_row, squared_norm
from posteriori.operators.base import LinearOperator, norm2

# x -> f(x), u -> (df/dx)^H u and d -> (df/dx) d.
Local = tuple[Tensor, Map, Map]


@dataclass(frozen=True)
class Misfit:
    """||y - f(x)||^2.

    f: x to f(x), with the derivative and its adjoint there.
    size: the largest singular value of df/dx where it is known.
    unit: the length in x that rates count in.
    """

    y: Tensor
    f: Callable[[Tensor], Local]
    size: float | None = None
    unit: float = 1.0

    def curvature(self, x: Tensor) -> Tensor:
        """||df/dx||^2 of each row, (B,): known, or by 16 power iterations from one fixed start,
        which come from below."""
        if self.size is not None:
            return torch.full((len(x),), self.size**2, dtype=x.real.dtype, device=x.device)
        _, pull, push = self.f(x)
        return squared_norm(push, pull, x)


def safe_ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)


def misfit(like: Likelihood) -> Misfit:
    """||y - A(x)||^2."""
    A = like.A
    if isinstance(A, LinearOperator):
        return Misfit(like.y, lambda x: (A(x), A.adjoint, A), norm2(A))
    # A derivative along d by forward differentiation: a finite difference would see the steps of an
    # operator that rounds.
    return Misfit(
        like.y,
        lambda x: (*A.linearize(x), lambda d: torch.func.jvp(A, (x,), (d,))[1]),
        A.steady_norm,
    )


def bounded_variance(variance: Tensor, r2: float, norm: Tensor, like: Tensor) -> Tensor:
    """The variance of each number of y (*O) when x is known up to a variance r2: ``variance`` of
    the noise, and at most r2 ||dA/dx||^2 more.

    norm: ||dA/dx|| of each row, (B,).
    like: (B, *O), for its shape; the result broadcasts against it.
    """
    total = variance + per_row(r2 * norm.square(), like)
    # Without noise, where the derivative is 0: nothing is guided there.
    return torch.where(total > 0, total, 1.0)


def noise_energy(like: Likelihood) -> float:
    """E ||y - A(x0)||^2 for the true x0: m sigma_y^2 for Gaussian noise, the variances at y summed
    otherwise."""
    parts = 2 if like.y.is_complex() else 1
    return parts * float(like.noise.variance(like.y).expand(like.each[0].shape).double().sum())


def crossing(r: Tensor, ahead: Tensor, floor: float) -> Tensor:
    """The share p in [0, 1] of each row with ||r + p (ahead - r)||^2 = floor, where
    ||ahead||^2 <= floor < ||r||^2: (B,)."""
    d = ahead - r
    a, b, c = dot(d, d), dot(r, d), dot(r, r) - floor
    return (c / ((b * b - a * c).clamp(min=0).sqrt() - b)).clamp(0, 1)
