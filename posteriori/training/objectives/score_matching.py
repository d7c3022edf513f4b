"""Denoising score matching: train a network to be E[x0 | x0 + sigma z].

    minimise  E_{x0, ln sigma ~ N, z}  w(sigma) ||D(x0 + sigma z, sigma) - x0||^2,
    w = (sigma^2 + d^2) / (sigma d)^2

w makes every noise level's target a unit-variance regression for the raw network. Step k draws its
crops and its noise from (seed, k) alone, so a run that was killed and resumed passes through the
same states as one that was not.

Reference: Vincent, A connection between score matching and denoising autoencoders, 2011; weighting
of Karras et al. 2022, table 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from posteriori.priors import edm
from posteriori.training.config import TrainingConfig
from posteriori.training.objectives.noise import autocast_of, drawn, unit_weight


def loss(network: nn.Module, x0: Tensor, config: TrainingConfig, step: int) -> Tensor:
    """The weighted loss of one batch (0-d), with noise drawn from (seed, step)."""
    level, z, _ = drawn(x0, config, step)
    out = edm.denoise(
        network, x0 + level * z, level.flatten(), config.sigma_data, autocast_of(config)
    )
    return (unit_weight(level, config.sigma_data) * (out - x0).square()).mean()
