"""Denoising under noise that differs from pixel to pixel, as measured pixels leave it.

An image seen everywhere through noise sigma, and at the pixels of a set S once more through noise
t, is one image seen at pixel i through noise

    s(i) = (1 / sigma^2 + [i in S] / t^2)^(-1/2),

which is what a mask asks of ``know().denoise_under``. The loss is that of ``score_matching``, with
the level and the weight of each pixel:

    minimise  E  mean_i w(s(i)) (D(x0 + s z, s) - x0)(i)^2

S is, one half each, single pixels with a share that is uniform on (0, 1), or a rectangle or all but
a rectangle, each of whose sides is the image's own in one of three cases.

Reference: Mammadov, Kara, Oktay, Azangulov, Akan, Chung, Rehg, Teh, Exact posterior score
estimation for solving linear inverse problems, 2026; there a network for each operator.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from posteriori.priors import edm
from posteriori.training.config import NoiseMapsObjective, TrainingConfig
from posteriori.training.objectives.noise import autocast_of, drawn, unit_weight

BORDER = 1 / 3


def loss(network: nn.Module, x0: Tensor, config: TrainingConfig, step: int) -> Tensor:
    """The weighted loss of one batch (0-d), with noise and maps drawn from (seed, step)."""
    assert isinstance(config.objective, NoiseMapsObjective)
    level, z, rng = drawn(x0, config, step)
    s = seen_again(level, config.objective, tuple(x0.shape[2:]), rng)
    out = edm.denoise(network, x0 + s * z, s, config.sigma_data, autocast_of(config))
    return (unit_weight(s, config.sigma_data) * (out - x0).square()).mean()


def seen_again(
    level: Tensor, maps: NoiseMapsObjective, sides: tuple[int, ...], rng: np.random.Generator
) -> Tensor:
    """s for images with the levels sigma (B, 1, 1, 1), S being empty for all but a share of them:
    (B, 1, H, W)."""
    count = len(level)
    t = np.exp(maps.log_mean + maps.log_std * rng.standard_normal(count))
    chosen = rng.random(count) < maps.share
    seen = np.stack([some_pixels(sides, rng) if one else np.zeros(sides, bool) for one in chosen])
    again = torch.from_numpy(seen * (t**-2.0)[:, None, None]).to(level)[:, None]
    return (level**-2 + again) ** -0.5


def some_pixels(sides: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One set S, boolean (H, W)."""
    if rng.random() < 0.5:
        return rng.random(sides) < rng.random()
    inside = np.ones(sides, bool)
    for axis, n in enumerate(sides):
        first, end = np.sort(rng.integers(0, n + 1, 2))
        first, end = (0 if rng.random() < BORDER else first), (n if rng.random() < BORDER else end)
        place = np.arange(n)
        part = (first <= place) & (place < end)
        inside &= part[:, None] if axis == 0 else part
    return inside if rng.random() < 0.5 else ~inside
