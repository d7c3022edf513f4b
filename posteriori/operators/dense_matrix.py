"""A as a dense matrix, and the determinant that a density needs: for small operators, or those with
a spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.linalg import real_view
from posteriori.operators.base import LinearOperator
from posteriori.operators.spectrum import apart_from_rounding


def matrix(A: LinearOperator, dtype: torch.dtype = torch.float64) -> Tensor:
    """A as a dense matrix (m, n) over flattened images and measurements. Meant for n up to a few
    thousand.

    dtype: the precision. Raises ``ValueError`` for a larger image, and for real measurements of
    complex images (no complex matrix).
    """
    n = math.prod(A.in_shape)
    if n > 20_000:
        raise ValueError(
            f"matrix: an image of {n} numbers is too large to write {A.label} "
            "as a dense matrix (limit 20000)"
        )
    if A.complex_in and not A.complex_out:
        raise ValueError(
            f"matrix: {A.label} makes real measurements of complex images; "
            "no complex matrix does that"
        )
    real, device = dtype.to_real(), A.probe(torch.zeros).device
    basis = torch.eye(n, dtype=real.to_complex() if A.complex_in else real, device=device).view(
        n, *A.in_shape
    )
    with torch.no_grad():
        return torch.cat([A(rows) for rows in basis.split(512)]).flatten(1).T.contiguous()


def log_det(A: LinearOperator, r2: Tensor | float, s2: Tensor | float) -> Tensor:
    """log det(r2 A A^H + s2 I) over the m measured numbers; 0-d float64, -inf when the matrix is
    singular."""
    m = math.prod(A.out_shape)
    spectrum = A.spectrum()
    if spectrum is not None:
        s, copies = apart_from_rounding(spectrum.s).double(), 1
    else:
        # A has no matrix then, but the adjoint's values are one, each number as two.
        real = A.complex_in and not A.complex_out
        rows = (
            real_view(A.adjoint(torch.eye(m, dtype=torch.float64).view(m, *A.out_shape))).flatten(1)
            if real
            else matrix(A)
        )
        # Complex measurements of real images: the adjoint is the real one, so each number counts as
        # two real ones, each with half a vote.
        copies = 2 if A.complex_out and not A.complex_in else 1
        s = apart_from_rounding(
            torch.linalg.svdvals(torch.cat([rows.real, rows.imag]) if copies == 2 else rows)
        )
    width = torch.full((m * copies,), float(s2), dtype=torch.float64)
    width[: s.numel()] += float(r2) * s.cpu() ** 2
    return width.log().sum() / copies
