"""High dynamic range: an over-exposed picture, cut off at black and at white."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.operators.base import Operator


class Clip(Operator):
    """y = min(max(gain x, low), high), number by number: real images E -> E. Not linear.

    gain: the exposure, > 0. low, high: the limits of the sensor, in the units of y; gain x beyond
    them is lost.

    The derivative is gain where low <= gain x <= high, the limits themselves included (so that a
    black image has a gradient), and 0 where the value is clipped: there a gradient says nothing
    about how far x lies beyond the limit.
    """

    def __init__(
        self, shape: tuple[int, ...], gain: float = 2.0, low: float = 0.0, high: float = 1.0
    ) -> None:
        super().__init__(shape)
        if not 0 < gain < math.inf:
            raise ValueError(f"Clip: gain must be a finite number > 0, got {gain}")
        if not -math.inf < low < high < math.inf:
            raise ValueError(
                "Clip: the limits must be finite numbers with low < high, "
                f"got low={low} and high={high}"
            )
        self.gain, self.low, self.high = float(gain), float(low), float(high)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return torch.clamp(self.gain * x, self.low, self.high)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """y / gain, an image h^+(y) with h(h^+(h(x))) = h(x). Noise in y beyond the limits is kept,
        not clipped."""
        self.check_measurement(y)
        return y / self.gain
