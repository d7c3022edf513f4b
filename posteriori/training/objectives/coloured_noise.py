"""Denoising under the noise that an image at a level and a measurement of it leave together.

An image seen through noise sigma, and once more through an operator A and noise t, is one look mu
at it through noise of covariance

    Sigma = (I / sigma^2 + A^T A / t^2)^-1,        mu = x0 + Sigma^(1/2) z,

which EPS asks of ``know().denoise_under`` at every level. The loss is that of ``score_matching``,
level and weight being those of each axis of Sigma:

    minimise  E  || c_out^-1 (D(mu, Sigma) - x0) ||^2,    c_out^2 = d^2 Sigma (Sigma + d^2)^-1

A weight that is a function of Sigma moves no minimiser. With ``filled`` the level of a pixel of a
map is that of ``first_estimates.filled``: in units of the noise of a look that tells nothing, the
error of a hidden pixel is a small number, and little of the loss. A batch holds, in fixed shares,
white noise with ln(sigma) ~ N of the configuration; masks (single pixels or rectangles, as of
``noise_maps``); circular Gaussian blurs of a width that is even in its logarithm; means of blocks.
For these ln(t) is uniform, and ln(sigma) from a third of t, below which Sigma is white to a tenth,
to the largest level of the card, from which EPS may begin.

Reference: Mammadov, Kara, Oktay, Azangulov, Akan, Chung, Rehg, Teh, Exact posterior score
estimation for solving linear inverse problems, 2026; there a network for each operator.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from posteriori.covariances import (
    BlockNoise,
    FourierNoise,
    NoiseCovariance,
    PixelNoise,
    RowsNoise,
    WhiteNoise,
)
from posteriori.covariances.told import BLOCKS
from posteriori.operators import Blur
from posteriori.operators.blur import gaussian_kernel
from posteriori.priors import edm, first_estimates
from posteriori.training.config import ColouredNoiseObjective, TrainingConfig
from posteriori.training.objectives.noise import autocast_of, unit_weight
from posteriori.training.objectives.noise_maps import some_pixels


def loss(network: nn.Module, x0: Tensor, config: TrainingConfig, step: int) -> Tensor:
    """The weighted loss of one batch (0-d), with noise drawn from (seed, step)."""
    members = covariances(config, tuple(x0.shape[1:]), len(x0), step)
    z = torch.from_numpy(
        np.random.default_rng([config.seed, step, 2]).standard_normal(x0.shape, dtype=np.float32)
    ).to(x0)
    maps = [k for k, member in enumerate(members) if isinstance(member, PixelNoise)]
    total = x0.new_zeros(())
    for rows in (maps, [k for k in range(len(members)) if k not in maps]):
        if rows:
            part = RowsNoise(tuple(members[k] for k in rows), tuple(range(len(rows))))
            mapped = isinstance(members[rows[0]], PixelNoise)
            squares = _squares(network, x0[rows], z[rows], part, config, mapped=mapped)
            total = total + squares.mean() * (len(rows) / len(members))
    return total


def _squares(
    network: nn.Module,
    x0: Tensor,
    z: Tensor,
    covariance: RowsNoise,
    config: TrainingConfig,
    *,
    mapped: bool,
) -> Tensor:
    """(c_out(Sigma)^-1 (D - x0))^2, number by number."""
    mu = x0 + covariance.power(z, 0.5)
    d, precision, shown = config.sigma_data, autocast_of(config), _goal_of(config).shown
    if mapped:
        told = covariance.told(mu)
        assert told is not None  # the maps here are those of all channels
        level = told.levels.to(mu)
        fill = _goal_of(config).filled
        out = edm.denoise(network, mu, level, d, precision, filled=fill)
        if fill:
            level = first_estimates.filled(mu, level, d).level
        return unit_weight(level, d) * (out - x0).square()
    out = edm.denoise_under(network, mu, covariance, d, precision, shown=shown)
    return covariance.applied(lambda v: ((v + d**2) / (v * d**2)) ** 0.5, out - x0).square()


def covariances(
    config: TrainingConfig, shape: tuple[int, ...], count: int, step: int
) -> list[NoiseCovariance]:
    """One for each row of a batch of images (C, H, W), drawn from (seed, step)."""
    goal = _goal_of(config)
    rng = np.random.default_rng([config.seed, step, 1])
    ends = np.cumsum([goal.masks, goal.blurs, goal.blocks])
    masks, blurs, blocks = np.round(count * ends).astype(int)
    found: list[NoiseCovariance] = []
    for k in range(count):
        t = math.exp(rng.uniform(*np.log(goal.seen)))
        sigma = math.exp(rng.uniform(math.log(t / 3), math.log(config.card.sigma_max)))
        r2, s2 = sigma**2, t**2
        if k < masks:
            seen = torch.from_numpy(some_pixels((shape[1], shape[2]), rng))
            found.append(PixelNoise(1 / (1 / r2 + seen / s2)))
        elif k < blurs:
            width = math.exp(rng.uniform(*np.log(goal.widths)))
            found.append(_of_blur(width, shape, r2, s2))
        elif k < blocks:
            factor = int(rng.choice(BLOCKS))
            found.append(BlockNoise(factor, 1 / (1 / r2 + 1 / (factor**2 * s2)), r2))
        else:
            level = config.noise.log_mean + config.noise.log_std * rng.standard_normal()
            found.append(WhiteNoise(math.exp(2 * level)))
    return found


def _goal_of(config: TrainingConfig) -> ColouredNoiseObjective:
    assert isinstance(config.objective, ColouredNoiseObjective)  # as ``LOSSES`` has it
    return config.objective


def _of_blur(width: float, shape: tuple[int, ...], r2: float, s2: float) -> FourierNoise:
    found = Blur(gaussian_kernel(width), shape, boundary="circular").posterior_covariance(r2, s2)
    assert isinstance(found, FourierNoise)  # as of every circular blur
    return found
