"""How much of a posterior's spread a run of few steps keeps. Exact for a Gaussian and its exact denoiser, by the rows of ``affine_probe``.

Every axis of a Gaussian is sampled by itself, whatever y tells of it, so that one number, the standard deviation of the axis, says it all.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from posteriori.evaluation.probe import Injected
from posteriori.methods.kernels import Transition


def kept(transition: Transition, levels: Tensor, std: Tensor) -> Tensor:
    """The standard deviation of samples along axes of a Gaussian, in parts of ``std`` (K,): (K,) float64. 1 is exact, below 1 too narrow.

    levels: noise levels that fall and end at 0. std: > 0, in the same units. The transition draws one image of noise a step at most.
    """
    levels, v = levels.double().cpu(), std.double().cpu().square()
    unit = torch.eye(len(levels), dtype=torch.float64)[:, :, None].expand(-1, -1, len(v))
    noise = Injected(lambda first, size: unit[:, first // size], 0.5)
    x = (v + levels[0] ** 2).sqrt() * noise.normal(torch.zeros(len(levels), len(v), dtype=torch.float64))
    for sigma, s in pairwise(levels):
        x = transition(lambda image, level: image * (v / (v + level**2)), x, sigma, s, noise)
    return (x.square().sum(0) / v).sqrt()


def kept_of(transition: Transition, levels: Tensor, seen: float) -> float:
    """``kept`` along the axis whose samples have the standard deviation ``seen`` > 0."""
    std = seen * torch.logspace(-0.5, 2, 80, dtype=torch.float64)
    ratio = kept(transition, levels, std)
    return float(np.interp(seen, (ratio * std).numpy(), ratio.numpy()))
