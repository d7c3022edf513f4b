"""The normal equations of an operator by conjugate gradients, with a check that its adjoint is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.linalg import cg, dot

if TYPE_CHECKING:
    from posteriori.operators.base import LinearOperator

Map = Callable[[Tensor], Tensor]


class SolveError(ArithmeticError):
    """A linear solve did not reach its tolerance: the operator is not what it claims to be, or the problem is too ill-conditioned."""


def normal_solve(
    A: LinearOperator, first: Map, second: Map, weights: tuple[Tensor, Tensor], b: Tensor, rtol: float, max_iter: int
) -> Tensor:
    """(r second first + s I)^-1 b by conjugate gradients, for first = A^H, second = A or the other way round.

    weights: r, s as 0-d tensors >= 0, not both 0. Raises ``SolveError`` with the operator, row, iteration and residual.
    """
    # Scaling by the larger weight keeps the iterates representable: r spans eight decades along a sampling run.
    scale = torch.maximum(*weights)
    r, s = weights[0] / scale, weights[1] / scale
    energies: list[tuple[Tensor, Tensor, Tensor]] = []

    def normal(v: Tensor) -> Tensor:
        w = first(v)
        q = second(w)
        if not energies:
            rounding = 100 * torch.finfo(s.dtype).eps * (dot(q, q) * dot(v, v)).sqrt()
            energies.append((dot(v, q), dot(w, w), rounding))
        return r * q + s * v

    result = cg(normal, b, max_iter=max_iter, rtol=rtol)
    name, problem = A.label, f"r2={float(weights[0]):.3g}, s2={float(weights[1]):.3g}"
    if energies:
        # <v, A A^H v> = ||A^H v||^2 costs nothing here, and betrays a wrong adjoint that conjugate gradients may survive by accident.
        left, right, rounding = energies[0]
        gap = (left - right).abs() - rounding - (1e-6 if s.dtype == torch.float64 else 1e-3) * torch.maximum(left.abs(), right)
        if bool(((gap > 0) & (r > 0)).any()):
            k = int(gap.argmax())
            raise SolveError(
                f"{name} ({problem}): the adjoint is not the transpose of the operator, <b, A A^H b> = {float(left[k]):.6g} but "
                f"||A^H b||^2 = {float(right[k]):.6g} in row {k}. Run posteriori.testing.check_operator on it"
            )
    bad = result.breakdown | ~(result.residual <= 10 * rtol)
    if bool(bad.any()):
        k = int(bad.nonzero()[0])
        cause = "negative curvature: is `adjoint` the transpose of `forward`?" if bool(result.breakdown[k]) else "no convergence"
        raise SolveError(
            f"conjugate gradients on {name} ({problem}) stopped in row {k} after {int(result.iterations[k])} iterations with relative "
            f"residual {float(result.residual[k]):.2e} (wanted {rtol:.0e}): {cause}. Run posteriori.testing.check_operator on it, or "
            "raise the noise level"
        )
    return result.x / scale
