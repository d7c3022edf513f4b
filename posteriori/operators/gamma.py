"""The tone curve of a camera or display: a power of the light in every pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import Operator
from posteriori.settings import Positive


class Gamma(Operator):
    """y = x^exponent for x >= toe, and the tangent of that curve at ``toe`` below it.

    x is linear light, black at 0. A bare power has no derivative at 0 and no value below it; with
    the tangent y is a smooth, rising function of every number. sRGB has such a toe as well.

    exponent, toe: > 0.
    """

    def __init__(self, shape: tuple[int, ...], exponent: Positive, toe: Positive = 0.01) -> None:
        super().__init__(shape)
        self.exponent, self.toe = exponent, toe

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        exponent = torch.tensor(self.exponent, dtype=x.dtype, device=x.device)
        return tone_curve(x, exponent, self.toe)


def tone_curve(x: Tensor, exponent: Tensor, toe: float) -> Tensor:
    """The curve of ``Gamma`` in every number of x; ``exponent`` broadcasts against it.
    Differentiable in both."""
    above = x.clamp(min=toe)
    slope = exponent * toe ** (exponent - 1)
    return above**exponent + slope * (x - above)
