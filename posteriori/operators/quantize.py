"""A sensor's analogue-to-digital converter: whole counts between 0 and the full scale."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from posteriori.operators.base import Operator
from posteriori.settings import Count

Bits = Annotated[Count, Field(le=16)]


class Quantize(Operator):
    """y = min(max(round(gain x + black), 0), 2^bits - 1): unsigned whole numbers of ``bits`` bits,
    as a file of a camera or a microscope holds them, number by number. Not linear.

    gain: counts per unit of x, > 0; by default 1 is the full scale, 2^bits - 1 - black. black: the
    count of x = 0.
    rounding: "straight-through" rounds, and takes the derivative of rounding as 1, as ``JPEG``
    does: the derivative is gain within the limits and 0 where the value is clipped, that of
    ``surrogate()``, the same with rounding "none".

    What rounds after the noise adds an error of standard deviation 1 / sqrt(12) = 0.29 counts,
    which counts in addition to the noise when the noise is half a count or more. Below that the
    error depends on x, and this operator says so. Clipping without rounding is ``Clip``.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        bits: Bits = 16,
        gain: float | None = None,
        black: float = 0.0,
        rounding: Literal["straight-through", "none"] = "straight-through",
    ) -> None:
        super().__init__(shape)
        self.bits, self.full = bits, float(2**bits - 1)
        if not 0 <= black < self.full:
            raise ValueError(
                f"Quantize: black must lie in [0, {self.full:g}), the counts of {bits} bits, "
                f"got {black}"
            )
        self.gain = float(self.full - black if gain is None else gain)
        if not 0 < self.gain < math.inf:
            raise ValueError(f"Quantize: gain must be a finite number of counts > 0, got {gain}")
        self.black, self.rounding = float(black), rounding

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = torch.clamp(self.gain * x + self.black, 0.0, self.full)
        return y if self.rounding == "none" else y.detach().round() + (y - y.detach())

    def surrogate(self) -> Operator | None:
        if self.rounding == "none":
            return None
        return Quantize(self.in_shape, self.bits, self.gain, self.black, rounding="none")

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """(y - black) / gain, an image h^+(y) with h(h^+(h(x))) = h(x)."""
        self.check_measurement(y)
        return (y - self.black) / self.gain
