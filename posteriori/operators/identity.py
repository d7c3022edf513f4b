"""Denoising: the image itself is measured."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.covariances import WhiteNoise
from posteriori.operators.base import LinearOperator, Spectrum


class Identity(LinearOperator):
    """y = x for real images of ``shape``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return y

    def cosine_power(self) -> Tensor:
        return torch.ones(1, dtype=torch.float64)

    def posterior_covariance(self, r2: float, s2: float) -> WhiteNoise:
        return WhiteNoise(1 / (1 / r2 + 1 / s2))

    def spectrum(self) -> Spectrum:
        def flat(x: Tensor) -> Tensor:
            return x.flatten(1)

        def image(c: Tensor) -> Tensor:
            return c.reshape(-1, *self.in_shape)

        return Spectrum(torch.ones(math.prod(self.in_shape)), V=image, Vh=flat, U=image, Uh=flat)
