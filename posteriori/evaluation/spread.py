"""How much of a posterior's spread a run of few steps keeps. Exact for a Gaussian and its exact
denoiser, by the rows of ``affine_probe``.

Every axis of a Gaussian is sampled by itself, whatever y tells of it, so that one number, the
standard deviation of the axis, says it all.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from posteriori.methods.transitions import Transition


def share_kept(transition: Transition, levels: Tensor, std: Tensor) -> Tensor:
    """The standard deviation of samples along axes of a Gaussian, in parts of ``std`` (K,): (K,)
    float64. 1 is exact, below 1 too narrow.

    levels: noise levels that fall and end at 0. std: > 0, in the same units. The transition draws
    one image of noise a step at most.
    """
    levels, v = levels.double().cpu(), std.double().cpu().square()
    # A step is x' = a x + b z: its first row is a, its second b.
    x, variance = torch.stack([torch.ones_like(v), torch.zeros_like(v)]), v + levels[0] ** 2
    for sigma, s in pairwise(levels):
        a, b = transition(lambda image, level: image * (v / (v + level**2)), x, sigma, s, _Unit())
        variance = a.square() * variance + b.square()
    return (variance / v).sqrt()


class _Unit:
    """1 as the random number of the second row, 0 as that of the first."""

    def normal(self, like: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(like[0]), torch.ones_like(like[0])])

    def uniform(self, count: int) -> Tensor:
        raise TypeError("transitions draw normal numbers")


def kept_of(transition: Transition, levels: Tensor, seen: float) -> float:
    """``kept`` along the axis whose samples have the standard deviation ``seen`` > 0."""
    std = seen * torch.logspace(-0.5, 2, 80, dtype=torch.float64)
    ratio = share_kept(transition, levels, std)
    return float(np.interp(seen, (ratio * std).numpy(), ratio.numpy()))
