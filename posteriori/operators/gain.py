"""The step of an image towards a measurement, the data step of most methods."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, solve
from posteriori.operators.normal_equations import SolveError, normal_solve


def gain(
    A: LinearOperator, b: Tensor, r2: Tensor | float, s2: Tensor | float, *, max_iter: int = 5000
) -> Tensor:
    """A^H (r2 A A^H + s2 I)^-1 b = (r2 A^H A + s2 I)^-1 A^H b, row by row: (B, *O) -> (B, *E).

    It is ``A.adjoint(solve(A, b, r2, s2))``, but an operator without a spectrum that offers a
    preconditioner for images is solved there: to 3e-5 in float32 and 1e-8 in float64 of the norm
    e^T (r2 A^H A + s2 I) e, in which an error counts by how well its direction is known. That holds
    whatever the condition; a small residual says nothing of directions that are measured poorly. A
    float32 solve that does not converge on measurements is done on images, to a residual of 1e-5.
    Raises as ``solve`` does.
    """
    r, s = (torch.as_tensor(v, dtype=b.real.dtype, device=b.device) for v in (r2, s2))
    offered = (
        None
        if A.spectrum() is not None or not bool((r > 0) & (s > 0))
        else A.preconditioner(float(r), float(s))
    )
    exact = b.real.dtype == torch.float64
    if offered is not None and offered.images:
        return normal_solve(
            A, A, A.adjoint, (r, s), A.adjoint(b), 1e-8 if exact else 3e-5, max_iter, energy=True
        )
    try:
        return A.adjoint(solve(A, b, r2, s2))
    except SolveError:
        if exact or not bool((r > 0) & (s > 0)):
            raise
        # In single precision A^H b is the easier one: what A does not see has left it. Its solve
        # checks the adjoint again.
        return normal_solve(A, A, A.adjoint, (r, s), A.adjoint(b), 1e-5, max_iter)
