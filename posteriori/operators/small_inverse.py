"""The exact inverse of a small operator's normal equations, from one decomposition of A^H A."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Preconditioner

SMALL = 4096
"""Numbers of an image up to which A^H A is written out: 130 MB, once half a minute of one core."""


def small_inverse(A: LinearOperator, r2: float, s2: float) -> Preconditioner | None:
    """b -> (r2 A A^H + s2 I)^-1 b = (b - A (A^H A + s2 / r2 I)^-1 A^H b) / s2, for r2, s2 > 0.

    A^H A = V diag(l) V^H is decomposed once for all r2 and s2, in double precision, in which the
    difference is formed too. It serves where there are many more measurements than pixels and
    their weights span decades: conjugate gradients need hundreds of steps there, and in single
    precision end far from the answer. None for images
    of more than ``SMALL`` numbers, and for real measurements of complex images, which no complex
    matrix makes.
    """
    if math.prod(A.in_shape) > SMALL or (A.complex_in and not A.complex_out):
        return None
    power, V = kept(A, "decomposed normal equations", lambda: _decomposed(A))

    def near(b: Tensor) -> Tensor:
        wide = b.to(torch.complex128 if b.is_complex() else torch.float64)
        c = A.adjoint(wide).flatten(1) @ V.conj()
        x = (c * (r2 / (r2 * power + s2))) @ V.T
        return ((wide - A(x.reshape(-1, *A.in_shape))) / s2).to(b.dtype)

    return Preconditioner(near, exact=True)


def _decomposed(A: LinearOperator) -> tuple[Tensor, Tensor]:
    """The eigenvalues (n,) >= 0 and eigenvectors (n, n) of A^H A, in double precision."""
    n = math.prod(A.in_shape)
    kind = torch.complex128 if A.complex_in else torch.float64
    like = A.probe(torch.zeros)
    rows = torch.eye(n, dtype=kind, device=like.device).view(n, *A.in_shape)
    with torch.no_grad():
        # Few at once: an operator may need many times the memory of its measurement.
        normal = torch.cat([A.adjoint(A(part)).flatten(1) for part in rows.split(32)])
        power, V = torch.linalg.eigh((normal.T + normal.conj()) / 2)
    return power.clamp(min=0), V
