"""An operator after an affine change of its image: x -> A(a x + b)."""

from __future__ import annotations

from torch import Tensor

from posteriori.operators.base import Map, Operator
from posteriori.packing import Shapes


class Affine(Operator):
    """A(a x + b) with numbers a and b: how a non-linear operator that expects one range is given
    images in another."""

    def __init__(self, A: Operator, a: float, b: float) -> None:
        super().__init__(A.in_shape, complex_in=A.complex_in, complex_out=A.complex_out)
        self.A, self.a, self.b = A, a, b
        self.affine = A.affine

    def forward(self, x: Tensor) -> Tensor:
        return self.A(self.a * x + self.b)

    @property
    def in_parts(self) -> Shapes | None:
        return self.A.in_parts

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        y, pull = self.A.linearize(self.a * x + self.b)
        return y, lambda u: self.a * pull(u)

    @property
    def steady_norm(self) -> float | None:
        known = self.A.steady_norm
        return None if known is None else abs(self.a) * known

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return (self.A.pseudo_inverse(y) - self.b) / self.a

    def surrogate(self) -> Operator | None:
        smooth = self.A.surrogate()
        return None if smooth is None else Affine(smooth, self.a, self.b)
