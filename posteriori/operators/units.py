"""Each number of an image in a unit of its own."""

from __future__ import annotations

from torch import Tensor

from posteriori.covariances import PixelNoise
from posteriori.operators.base import LinearOperator


class Units(LinearOperator):
    """y = units x, number by number: ``A @ Units(units)`` takes images that count in these units.

    units: real and finite, not 0, of the shape of an image, which is real where
    ``complex_images`` is false. Raises ``ValueError`` for others.
    """

    units: Tensor

    def __init__(self, units: Tensor, *, complex_images: bool = False) -> None:
        if not units.is_floating_point() or not bool((units.isfinite() & (units != 0)).all()):
            kind = f"{units.dtype} of shape {tuple(units.shape)}"
            raise ValueError(f"Units takes finite real numbers other than 0, got {kind}")
        kinds = {"complex_in": complex_images, "complex_out": complex_images}
        super().__init__(tuple(units.shape), **kinds)
        self.register_buffer("units", units)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.units.to(x.real.dtype) * x

    def posterior_covariance(self, r2: float, s2: float) -> PixelNoise:
        return PixelNoise(1 / (1 / r2 + self.units.double().square() / s2))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self.units.to(y.real.dtype) * y
