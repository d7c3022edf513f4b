"""A noise level for the means of blocks of pixels and one for the rest, as box downsampling leaves
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from posteriori.covariances.base import NoiseCovariance, Of


@dataclass(frozen=True)
class BlockNoise(NoiseCovariance):
    """means B + rest (I - B), B the projection (C, H, W) -> (C, H, W) that replaces each
    factor x factor block by its mean.

    means: the variance along B; that of the mean of a block is means / factor^2. rest: all else.
    Both > 0.
    """

    words: ClassVar[str] = "a level for the means of blocks and one within them"
    factor: int
    means: float
    rest: float

    def applied(self, f: Of, x: Tensor) -> Tensor:
        coarse = F.avg_pool2d(x, self.factor)
        mean = coarse.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        means, rest = f(torch.tensor([self.means, self.rest], dtype=torch.float64)).to(x)
        return rest * x + (means - rest) * mean
