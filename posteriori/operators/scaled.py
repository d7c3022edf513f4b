"""A linear operator times a number: what turns images in one unit into those in another."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from posteriori.covariances import NoiseCovariance
from posteriori.operators.base import LinearOperator, Preconditioner, Spectrum
from posteriori.packing import Shapes


class Scaled(LinearOperator):
    """y = factor A x. Raises ``ValueError`` for a factor that is not a finite number > 0."""

    def __init__(self, A: LinearOperator, factor: float) -> None:
        if not 0 < factor < float("inf"):
            raise ValueError(f"Scaled takes a finite factor > 0, got {factor}")
        super().__init__(A.in_shape, complex_in=A.complex_in, complex_out=A.complex_out)
        self.A, self.factor = A, float(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.A.adjoint(y)

    @property
    def in_parts(self) -> Shapes | None:
        return self.A.in_parts

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    def spectrum(self) -> Spectrum | None:
        inner = self.A.spectrum()
        return None if inner is None else replace(inner, s=self.factor * inner.s)

    def posterior_covariance(self, r2: float, s2: float) -> NoiseCovariance | None:
        return self.A.posterior_covariance(r2, s2 / self.factor**2)

    def preconditioner(self, r2: float, s2: float) -> Preconditioner | None:
        return self.A.preconditioner(r2 * self.factor**2, s2)
