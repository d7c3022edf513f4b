"""Complex images for a prior that knows only real channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Spectrum


class ComplexChannels(LinearOperator):
    """y = x(0) + i x(1): real (2, H, W) -> complex (H, W). Unitary over the reals: Re<y, u> = <x,
    A^H u>, A^H A = 1, A A^H = 1.

    ``MaskedFourier(mask, (H, W)) @ ComplexChannels((2, H, W))`` measures k-space of an image that a
    real two-channel prior models.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, complex_out=True)
        if len(self.in_shape) < 2 or self.in_shape[0] != 2:
            raise ValueError(
                f"ComplexChannels takes real images of shape (2, H, W), got {self.in_shape}"
            )

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return torch.complex(x[:, 0], x[:, 1])

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return torch.stack([y.real, y.imag], 1)

    def spectrum(self) -> Spectrum:
        """The complex image is its own list of coordinates: numel(E) / 2 complex numbers."""
        shape = self.in_shape[1:]
        return Spectrum(
            torch.ones(math.prod(shape)),
            V=lambda c: self.adjoint(c.reshape(-1, *shape)),
            Vh=lambda x: self(x).flatten(1),
            U=lambda c: c.reshape(-1, *shape),
            Uh=lambda y: y.flatten(1),
        )
