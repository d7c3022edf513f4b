"""The normal equations of an operator by conjugate gradients, with a check that its adjoint is
one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.linalg import Map, cg, dot

if TYPE_CHECKING:
    from posteriori.operators.base import LinearOperator


class SolveError(ArithmeticError):
    """A linear solve did not reach its tolerance: the operator is not what it claims to be, or the
    problem is too ill-conditioned."""


@dataclass(frozen=True)
class Preconditioner:
    """v -> P v for batches, row by row, with P Hermitian positive definite and near
    (r2 A A^H + s2 I)^-1 on measurements; with ``images``, near (r2 A^H A + s2 I)^-1 on images.

    exact: P is the inverse itself, of measurements, better than what conjugate gradients reach.
    """

    near: Map
    images: bool = False
    exact: bool = False


def normal_solve(
    A: LinearOperator,
    first: Map,
    second: Map,
    weights: tuple[Tensor, Tensor],
    b: Tensor,
    rtol: float,
    max_iter: int,
    energy: bool = False,
) -> Tensor:
    """(r second first + s I)^-1 b by conjugate gradients, for first = A^H, second = A or the other
    way round.

    weights: r, s as 0-d tensors >= 0, not both 0. energy: as in ``cg``, where A has a
    preconditioner for these vectors.

    A row of b that is not finite gives NaN. Where r is so much larger than s that ``rtol`` lies
    below what rounding leaves, a row is done at that residual. Raises ``SolveError`` with the
    operator, row, iteration and residual for one that is not.
    """
    # Scaling by the larger weight keeps the iterates representable: r spans eight decades along a
    # sampling run.
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

    offered = A.preconditioner(float(r), float(s)) if bool(s > 0) else None
    P = offered.near if offered is not None and offered.images == (first is A) else None
    result = cg(
        normal,
        b,
        max_iter=max_iter,
        rtol=rtol,
        precondition=P,
        energy=energy,
        attainable=not energy,
    )
    problem = f"{A.label} (r2={float(weights[0]):.3g}, s2={float(weights[1]):.3g})"
    if energies:
        _check_energies(problem, *energies[0], exact=s.dtype == torch.float64, used=bool(r > 0))
    left = result.residual
    bad = (result.breakdown | ~(left <= 10 * rtol)) & dot(b, b).isfinite()
    if bool(bad.any()) and not energy:
        # The recurrence may have drifted from the residual itself. What rounding leaves is no
        # failure, unless it is all there is.
        gap = b - normal(result.x)
        left = torch.where(bad, dot(gap, gap).sqrt() / dot(b, b).sqrt(), left)
        bad = bad & ~(left <= (10 * result.rounding).clamp(10 * rtol, 1e-2))
    if bool(bad.any()):
        k = int(bad.nonzero()[0])
        cause = (
            "negative curvature: is `adjoint` the transpose of `forward`?"
            if bool(result.breakdown[k])
            else "no convergence"
        )
        raise SolveError(
            f"conjugate gradients on {problem} stopped in row {k} after "
            f"{int(result.iterations[k])} iterations with relative residual {float(left[k]):.2e} "
            f"(wanted {rtol:.0e}): {cause}. "
            "Run posteriori.testing.check_operator on it, or raise the noise level"
        )
    return result.x / scale


def _check_energies(
    problem: str, left: Tensor, right: Tensor, rounding: Tensor, exact: bool, used: bool
) -> None:
    """<v, A A^H v> = ||A^H v||^2 costs nothing here, and betrays a wrong adjoint that conjugate
    gradients may survive by accident."""
    gap = (
        (left - right).abs()
        - rounding
        - (1e-6 if exact else 1e-3) * torch.maximum(left.abs(), right)
    )
    if bool((gap > 0).any()) and used:
        k = int(gap.nan_to_num(nan=-torch.inf).argmax())
        raise SolveError(
            f"{problem}: the adjoint is not the transpose of the operator, "
            f"<v, A A^H v> = {float(left[k]):.6g} but ||A^H v||^2 = {float(right[k]):.6g} "
            f"in row {k}. Run posteriori.testing.check_operator on it"
        )
