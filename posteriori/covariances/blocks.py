"""A noise level for the means of blocks of pixels and one for the rest, as box downsampling leaves
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from posteriori.covariances.base import NoiseCovariance, Of, check_variances
from posteriori.covariances.told import BANDS, BLOCKS, Told, of_one_level, spectra, within_blocks


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

    def __post_init__(self) -> None:
        check_variances(self, torch.tensor([self.means, self.rest], dtype=torch.float64))

    def applied(self, f: Of, x: Tensor) -> Tensor:
        coarse = F.avg_pool2d(x, self.factor)
        mean = coarse.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        means, rest = f(torch.tensor([self.means, self.rest], dtype=torch.float64)).to(x)
        return rest * x + (means - rest) * mean

    def told(self, x: Tensor) -> Told | None:
        """None for blocks of another size than those of ``told.BLOCKS``."""
        if self.factor not in BLOCKS:
            return None
        sides = (x.shape[-2], x.shape[-1])
        along = (spectra(sides)[:BANDS] * within_blocks(sides, self.factor)).sum((-2, -1))
        # Means of larger blocks are means of these; of smaller blocks these are a part.
        nested = [min(1.0, (n / self.factor) ** 2) for n in BLOCKS]
        share = torch.cat([along, torch.tensor(nested, dtype=torch.float64)])
        mean = self.rest + (self.means - self.rest) / self.factor**2
        return of_one_level(
            torch.tensor([mean], dtype=torch.float64),
            (self.rest + (self.means - self.rest) * share)[None],
        )
