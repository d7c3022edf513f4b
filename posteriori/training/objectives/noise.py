"""What the objectives share: the noise of a step, its weight, and measured images with their
masks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from posteriori.training.config import TrainingConfig


def drawn(
    x0: Tensor, config: TrainingConfig, step: int
) -> tuple[Tensor, Tensor, np.random.Generator]:
    """ln(sigma) ~ N of the config for each row, (B, 1, ...); z ~ N(0, I), (B, *E); and the
    generator, for what else the step draws. A function of (seed, step)."""
    rng = np.random.default_rng([config.seed, step, 1])
    logs = config.noise.log_mean + config.noise.log_std * rng.standard_normal(len(x0))
    level = torch.from_numpy(np.exp(logs)).to(x0)
    z = torch.from_numpy(rng.standard_normal(x0.shape, dtype=np.float32)).to(x0)
    return level.view(-1, *[1] * (x0.ndim - 1)), z, rng


def unit_weight(level: Tensor, sigma_data: float) -> Tensor:
    """(sigma^2 + d^2) / (sigma d)^2: makes every level's target a unit-variance regression for the
    raw network of ``priors.edm``."""
    return (level**2 + sigma_data**2) / (level * sigma_data) ** 2


def autocast_of(config: TrainingConfig) -> torch.dtype | None:
    return torch.bfloat16 if config.autocast == "bfloat16" else None


def numbers_and_mask(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Of (B, C + 1, H, W), whose last channel is 1 where a pixel was measured: the images, 0
    elsewhere, and the masks (B, 1, H, W)."""
    mask = batch[:, -1:]
    return batch[:, :-1] * mask, mask


def over_measured(squares: Tensor, mask: Tensor) -> Tensor:
    """P / p times squares, averaged over all numbers: the mean over the measured ones, (B,). p is
    the measured share of the row, a function of the mask alone: it moves no minimiser."""
    share = mask.flatten(1).mean(1).clamp_min(1 / mask[0].numel())
    return (mask * squares).flatten(1).mean(1) / share
