"""The instrument that is switched off: its likelihood is flat."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.covariances import WhiteNoise
from posteriori.operators.base import LinearOperator, Spectrum


class Null(LinearOperator):
    """y = 0, one number, whatever the image. Under it the posterior is the prior, which tests a
    method's prior.

    complex: whether images, and y, are complex.
    """

    def __init__(self, shape: tuple[int, ...], complex: bool = False) -> None:
        super().__init__(shape, complex_in=complex, complex_out=complex)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        # An empty sum, so that y stays connected to x for automatic differentiation and no infinity
        # times 0 arises.
        return x.flatten(1)[:, :0].sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        zeros = y[:, :0].sum(1).reshape(-1, *[1] * len(self.in_shape))
        return zeros.expand(-1, *self.in_shape).clone()

    def posterior_covariance(self, r2: float, s2: float) -> WhiteNoise:
        return WhiteNoise(r2)

    def spectrum(self) -> Spectrum:
        return Spectrum(
            torch.zeros(1),
            V=lambda c: c.reshape(-1, *self.in_shape),
            Vh=lambda x: x.flatten(1),
            U=lambda c: c,
            Uh=lambda y: y,
        )
