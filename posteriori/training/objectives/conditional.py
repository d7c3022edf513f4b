"""Denoising score matching with a description of each image: one network that is E[x0 | x, c] given
the embedding c, and E[x0 | x] given 0, for x = x0 + sigma z.

    minimise  E w(sigma) ||D(x0 + sigma z, sigma, b c) - x0||^2,    b = 0 with probability dropout

w is that of ``score_matching``. Which of several descriptions of an image is c is drawn with the
batch. Guidance between the two (``priors.Conditioned``) needs both.

Reference: Ho, Salimans, Classifier-free diffusion guidance, 2022, algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posteriori.priors import edm
from posteriori.training.config import ConditionalObjective, TrainingConfig
from posteriori.training.objectives.noise import autocast_of, drawn, unit_weight


def loss(network: nn.Module, batch: Tensor, config: TrainingConfig, step: int) -> Tensor:
    """The weighted loss of one batch (0-d), with noise and dropout drawn from (seed, step). batch:
    (B, C * crop^2 + width), see ``described.Described``."""
    assert isinstance(config.objective, ConditionalObjective)
    x0, c = image_and_embedding(batch, config)
    level, z, rng = drawn(x0, config, step)
    told = torch.from_numpy(rng.random((len(x0), 1)) >= config.objective.dropout).to(c)
    out = edm.denoise(
        lambda x, label: network(x, label, embedding=told * c),
        x0 + level * z,
        level.flatten(),
        config.sigma_data,
        autocast_of(config),
    )
    return (unit_weight(level, config.sigma_data) * (out - x0).square()).mean()


def image_and_embedding(batch: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
    """(B, C, crop, crop) and (B, width) of a batch that holds both in one row."""
    assert isinstance(config.objective, ConditionalObjective)
    side, width = config.data.crop, config.objective.width
    return batch[:, :-width].unflatten(1, (-1, side, side)), batch[:, -width:]
