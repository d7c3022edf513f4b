"""A noise level for each number of an image, as a mask leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of, check_variances
from posteriori.covariances.told import COLOURS, Told


@dataclass(frozen=True, eq=False)
class PixelNoise(NoiseCovariance):
    """diag(variances). variances: > 0, float64, of the shape E of images or broadcasting against
    it; of complex numbers, that of each part."""

    words: ClassVar[str] = "a level for each pixel"
    variances: Tensor

    def __post_init__(self) -> None:
        check_variances(self, self.variances)

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return f(self.variances).to(x.real) * x

    def told(self, x: Tensor) -> Told | None:
        """None where the channels of a pixel differ."""
        v = self.variances
        if v.ndim > 2 and not bool((v == v[..., :1, :, :]).all()):
            return None
        levels = v.sqrt() * torch.ones(x.shape[1:], dtype=torch.float64)
        return Told(levels[None, :1], torch.zeros(1, COLOURS, dtype=torch.float64))

    def diagonal(self, one: Tensor) -> Tensor:
        return self.variances.to(one.device).expand(one.shape)

    def axes_of(self, like: Tensor) -> tuple[Tensor, Of, Of]:
        shape = like.shape[1:]
        return (
            self.variances.to(like.device).expand(shape).flatten(),
            lambda c: c.view(-1, *shape),
            lambda x: x.flatten(1),
        )
