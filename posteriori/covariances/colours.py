"""A noise level for each of some mixtures of the channels, as a grey picture of a coloured one
leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of, check_variances


@dataclass(frozen=True, eq=False)
class ColourNoise(NoiseCovariance):
    """Q^T diag(variances) Q in every pixel of images (C, *sides). axes: Q, orthonormal rows (C, C);
    variances: (C,) > 0; both float64."""

    words: ClassVar[str] = "a level for each mixture of channels"
    axes: Tensor
    variances: Tensor

    def __post_init__(self) -> None:
        check_variances(self, self.variances)

    def applied(self, f: Of, x: Tensor) -> Tensor:
        matrix = self.axes.T @ (f(self.variances)[:, None] * self.axes)
        return torch.einsum("ij,bj...->bi...", matrix.to(x), x)
