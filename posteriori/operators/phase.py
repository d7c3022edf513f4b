"""Phase retrieval: the modulus of the Fourier transform is measured, its phase is lost."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.operators.base import Operator


class PhaseRetrieval(Operator):
    """y = |F pad(x)|: real images (C, H, W) -> (C, H', W') real numbers >= 0. Not linear.

    oversampling: H' = ceil(oversampling H) in total, and W' alike: 2 doubles each side, which
    determines most images up to a shift, a sign and a rotation by 180 degrees. F is the unitary
    transform of the zero-padded image (where the padding goes does not change |F|).

    Where F pad(x) = 0 the modulus has no derivative; the gradient there is taken as 0.
    """

    def __init__(self, shape: tuple[int, ...], oversampling: float = 2.0) -> None:
        super().__init__(shape)
        if len(self.in_shape) != 3:
            raise ValueError(f"PhaseRetrieval takes images of shape (C, H, W), got {self.in_shape}")
        if not 1 <= oversampling < math.inf:
            raise ValueError(
                f"PhaseRetrieval: oversampling must be a finite number >= 1, got {oversampling}"
            )
        self.padded = tuple(math.ceil(oversampling * side) for side in self.in_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return torch.fft.fft2(x, s=self.padded, norm="ortho").abs()
