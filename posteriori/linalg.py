"""Row-by-row linear algebra on batches of tensors: each row is its own problem, with its own scalars and its own end.

Complex tensors use the real inner product Re<u, v>: every operator here is complex-linear and Hermitian, so the solutions agree with
those of the complex inner product, and a real-linear operator on complex numbers is handled as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def dot(u: Tensor, v: Tensor) -> Tensor:
    """Re<u, v> of each row: (B, ...) x (B, ...) -> (B,)."""
    if u.is_complex() or v.is_complex():
        return (u.conj() * v).real.flatten(1).sum(1)
    return torch.linalg.vecdot(u.flatten(1), v.flatten(1))


def per_row(scalars: Tensor, like: Tensor) -> Tensor:
    """View (B,) as (B, 1, ..., 1), to multiply the rows of ``like``."""
    return scalars.view(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class Solved:
    """``x``, with its relative residual (B,), the iterations used (B,) and whether non-positive curvature stopped a row (B,)."""

    x: Tensor
    residual: Tensor
    iterations: Tensor
    breakdown: Tensor


def cg(matvec: Map, b: Tensor, *, max_iter: int, rtol: float, start: Tensor | None = None) -> Solved:
    """Conjugate gradients for M x = b with M Hermitian positive definite, row by row.

    A row stops by itself when ||b - M x|| <= rtol ||b||, or when p^T M p <= 0 shows that M is not positive definite in the direction p:
    the row keeps its last good iterate and is marked. ``b = 0`` gives 0 and an exact start returns at once. Values are returned, never
    raised: the caller knows what a poor residual means.

    Source: Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
    """
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - matvec(start)
    p, rr = r, dot(r, r)
    goal = (rtol**2) * dot(b, b)
    live = rr > goal
    broken = torch.zeros_like(live)
    used = torch.zeros_like(rr)
    for _ in range(max_iter):
        if not live.any():
            break
        q = matvec(p)
        curvature = dot(p, q)
        broken = broken | (live & ~(curvature > 0))
        live = live & (curvature > 0)
        alpha = torch.where(live, rr / torch.where(live, curvature, 1.0), 0.0)
        x = torch.addcmul(x, per_row(alpha, p).to(p.dtype), p)
        r = torch.addcmul(r, per_row(-alpha, p).to(p.dtype), q)
        used = used + live
        new = torch.where(live, dot(r, r), rr)
        beta = torch.where(live, new / torch.where(rr > 0, rr, 1.0), 0.0)
        p = torch.addcmul(r, per_row(beta, p).to(p.dtype), p)
        live, rr = live & (new > goal), new
    norm_b = dot(b, b).sqrt()
    return Solved(x, rr.sqrt() / torch.where(norm_b > 0, norm_b, 1.0), used, broken)


def largest_eigenvalue(matvec: Map, start: Tensor, *, iterations: int = 200, rtol: float = 1e-6) -> float:
    """Largest eigenvalue of a positive semi-definite M by power iteration from ``start`` (1, ...)."""
    v, value = start / dot(start, start).sqrt(), 0.0
    for _ in range(iterations):
        w = matvec(v)
        new = float(dot(w, w).sqrt())
        if new == 0.0:
            return 0.0
        v = w / new
        if abs(new - value) <= rtol * new:
            return new
        value = new
    return value
