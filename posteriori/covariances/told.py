"""What a network is told of noise: the level of each pixel, and its colour in eleven numbers.

    levels   the standard deviation of each pixel, sqrt of the diagonal of Sigma
    colour   ln tr(B Sigma) / tr(B) - ln mean diag(Sigma)   for each of eleven B:
             eight bands of the plane's frequencies, smooth in |f|, around |f| = 1/32 to 1/2 cycles
             a pixel; and the projections on the means of blocks of 2 x 2, 4 x 4 and 8 x 8 pixels

White noise, and noise that differs from pixel to pixel, have the colour 0. A noise of one level for
each frequency differs from one of the same spectrum that lies in blocks by the last three.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

BLOCKS = (2, 4, 8)
BANDS = 8
COLOURS = BANDS + len(BLOCKS)
_SMOOTH = 0.4  # the width of a band, in ln |f|


class Told(NamedTuple):
    """levels: (n, 1, H, W) or (n, 1, 1, 1), n = 1 or the rows of the batch; colour: (n, COLOURS);
    both float64."""

    levels: Tensor
    colour: Tensor

    @property
    def alike(self) -> bool:
        """Whether every pixel of an image has the same level."""
        return self.levels.shape[-2:] == (1, 1)


def within_blocks(sides: tuple[int, int], factor: int) -> Tensor:
    """The diagonal over frequencies of the projection on the means of blocks, (H, W) float64 with
    the frequency 0 first."""

    def axis(n: int) -> Tensor:
        turn = 2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64)[:, None]
        phase = turn * torch.arange(factor, dtype=torch.float64)
        return phase.cos().mean(1).square() + phase.sin().mean(1).square()

    return axis(sides[0])[:, None] * axis(sides[1])


@lru_cache(maxsize=8)
def spectra(sides: tuple[int, int]) -> Tensor:
    """The diagonals of the B over frequencies, each of sum 1: (COLOURS, H, W) float64."""
    rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in sides)
    f = (rows[:, None].square() + columns.square()).sqrt()
    centres = torch.logspace(-5, -1, BANDS, base=2.0, dtype=torch.float64)
    # The frequency 0 belongs to the lowest band.
    away = (f.clamp_min(float(centres[0])).log() - centres.log()[:, None, None]) / _SMOOTH
    bands = torch.exp(-0.5 * away.square())
    blocks = torch.stack([within_blocks(sides, n) for n in BLOCKS])
    both = torch.cat([bands, blocks])
    return both / both.sum((-2, -1), keepdim=True)


def of_one_level(mean: Tensor, traces: Tensor) -> Told:
    """Of the mean variance (n,) and tr(B Sigma) / tr(B) (n, COLOURS)."""
    return Told(mean.sqrt()[:, None, None, None], (traces / mean[:, None]).log())
