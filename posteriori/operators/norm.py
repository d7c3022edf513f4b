"""The largest singular value of an operator, or of its derivative at an image: measured, never
trusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.linalg import largest_eigenvalue, squared_norm
from posteriori.memo import kept

if TYPE_CHECKING:
    from posteriori.operators.base import LinearOperator, Operator


def measured_norm(A: LinearOperator) -> float:
    """||A||, measured once: from the spectrum, or by Lanczos's method. Raises ``ArithmeticError``
    when it is no number."""
    # A method may ask at every step; making a spectrum can cost more than the step itself.
    return kept(A, "norm", lambda: _measure(A))


def _measure(A: LinearOperator) -> float:
    spectrum = A.spectrum()
    if spectrum is not None:
        return float(spectrum.s.max())
    generator = torch.Generator().manual_seed(0)
    start = A.probe(
        lambda *size, dtype, device: torch.randn(*size, dtype=dtype, generator=generator).to(device)
    )
    with torch.no_grad():
        square = largest_eigenvalue(lambda v: A.adjoint(A(v)), start)
    if not square >= 0:
        raise ArithmeticError(
            f"norm2: ||A x||^2 / ||x||^2 of {A.label} is {square:.3g}, not a number >= 0; "
            "run check_operator on it"
        )
    return math.sqrt(square)


def norm_at(A: Operator, x: Tensor) -> Tensor:
    """||dA/dx|| at each row of x (B, *E), (B,), from below."""
    _, push, pull = A.differential(x)
    return squared_norm(push, pull, x).sqrt()
