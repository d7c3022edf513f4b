"""A noise level for each number of an image, as a mask leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of


@dataclass(frozen=True, eq=False)
class PixelNoise(NoiseCovariance):
    """diag(variances). variances: > 0, float64, of the shape E of images or broadcasting against
    it; of complex numbers, that of each part."""

    words: ClassVar[str] = "a level for each pixel"
    variances: Tensor

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return f(self.variances).to(x.real) * x
