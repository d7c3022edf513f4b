"""White noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of, check_variances
from posteriori.covariances.told import COLOURS, Told


@dataclass(frozen=True)
class WhiteNoise(NoiseCovariance):
    """variance I; variance > 0, of each real number."""

    words: ClassVar[str] = "one level everywhere"
    variance: float

    def __post_init__(self) -> None:
        check_variances(self, torch.tensor(self.variance, dtype=torch.float64))

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return f(torch.tensor(self.variance, dtype=torch.float64)).to(x.real) * x

    def told(self, x: Tensor) -> Told:
        level = torch.tensor(self.variance, dtype=torch.float64).sqrt()
        return Told(level.view(1, 1, 1, 1), torch.zeros(1, COLOURS, dtype=torch.float64))

    def diagonal(self, one: Tensor) -> Tensor:
        return torch.full(one.shape, self.variance, dtype=torch.float64, device=one.device)

    def axes_of(self, like: Tensor) -> tuple[Tensor, Of, Of]:
        shape = like.shape[1:]
        return (
            self.diagonal(like[0]).flatten(),
            lambda c: c.view(-1, *shape),
            lambda x: x.flatten(1),
        )
