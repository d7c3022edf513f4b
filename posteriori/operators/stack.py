"""Several instruments that look at the same image."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from posteriori.operators.base import LinearOperator


class Stack(LinearOperator):
    """y = (A x, B x, ...), each flattened, one after the other: (m_A + m_B + ...,). The adjoint is
    the sum A^H y_A + B^H y_B + ...

    ``split`` cuts a measurement into its parts. All operators take the same images and make the
    same kind of number; noise levels that differ are divided out before stacking. Raises
    ``TypeError`` or ``ValueError`` naming what does not fit.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise ValueError("Stack needs at least one operator")
        first = operators[0]
        for operator in operators:
            if not isinstance(operator, LinearOperator):
                raise TypeError(
                    f"Stack takes linear operators; {type(operator).__name__} is not linear"
                )
            if operator.in_shape != first.in_shape or operator.complex_in != first.complex_in:
                raise ValueError(
                    f"Stack: {type(first).__name__} takes images of shape {first.in_shape}, "
                    f"{type(operator).__name__} of shape {operator.in_shape}, "
                    "or one takes real and the other complex images"
                )
            if operator.complex_out != first.complex_out:
                raise ValueError(
                    f"Stack: {type(first).__name__} and {type(operator).__name__} mix real "
                    "and complex measurements"
                )
        super().__init__(first.in_shape, complex_in=first.complex_in, complex_out=first.complex_out)
        self.operators = nn.ModuleList(operators)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([A(x).flatten(1) for A in self.parts], 1)

    @property
    def parts(self) -> list[LinearOperator]:
        return [cast(LinearOperator, A) for A in self.operators]

    def split(self, y: Tensor) -> list[Tensor]:
        """A measurement (B, m) -> the measurement (B, *O) of each operator."""
        self.check_measurement(y)
        shapes = [A.out_shape for A in self.parts]
        parts = y.split([math.prod(shape) for shape in shapes], 1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def adjoint(self, y: Tensor) -> Tensor:
        total, *rest = [A.adjoint(part) for A, part in zip(self.parts, self.split(y), strict=True)]
        for part in rest:
            total = total + part
        return total
