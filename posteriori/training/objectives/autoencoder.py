"""Train an autoencoder whose latents are of a scale of their own and whose decoder is smooth.

    minimise  E ||Dec(z + s n) - x||^2 / d + penalty ||z||^2 / k,    z = Enc(x),  n ~ N(0, I)

(d and k numbers of an image and of a latent.) Noise of one level makes nearby latents decode to
nearby images; the penalty keeps latents from growing until the noise says nothing. It is a
variational autoencoder whose posterior has one fixed variance, s^2. Both maps are deterministic
once trained.

Reference: Ghosh, Sajjadi, Vergari, Black, Schoelkopf, From variational to deterministic
autoencoders, 2020, equation 11 with Gaussian noise injection.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from posteriori.training.config import AutoencoderConfig


def loss(network: nn.Module, x: Tensor, config: AutoencoderConfig, step: int) -> Tensor:
    """The loss of one batch (0-d), with the noise drawn from (seed, step)."""
    half = config.autocast == "bfloat16"
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=half):
        side = config.data.crop // network.factor  # type: ignore[operator]
        shape = (len(x), config.network.latent_channels, side, side)
        rng = np.random.default_rng([config.seed, step, 1])
        n = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(x)
        z, out = network(x, config.objective.noise * n)
    return (out.float() - x).square().mean() + config.objective.penalty * z.float().square().mean()
