"""The denoiser of a network under noise that differs from pixel to pixel, for networks that were
trained for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.covariances import NoiseCovariance, PixelNoise, RowsNoise, WhiteNoise
from posteriori.priors import edm
from posteriori.priors.anisotropic import WhiteOnly

if TYPE_CHECKING:
    from posteriori.priors.network import Network


@dataclass(frozen=True)
class NetworkUnder:
    """edm.denoise with a map of levels, where the network takes one (``net.noise_maps``); under
    white noise the network's own."""

    prior: Network

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        if isinstance(covariance, WhiteNoise):
            return None
        members = covariance.members if isinstance(covariance, RowsNoise) else (covariance,)
        if not all(isinstance(member, PixelNoise | WhiteNoise) for member in members):
            return (
                f"no network was trained for noise with {members[0].words}; networks that take "
                f"noise maps know a level for each pixel"
            )
        if self.prior.schedule is not None or not getattr(self.prior.net, "noise_maps", False):
            return (
                "this network was trained for one noise level an image, not for a level for each "
                "pixel; priors.digits(noise_maps=True) is one that was, and `posteriori train` "
                "with objective: noise-maps makes others"
            )
        maps = [member.variances for member in members if isinstance(member, PixelNoise)]
        if any(v.ndim > 2 and not bool((v == v[..., :1, :, :]).all()) for v in maps):
            return "this network takes one noise level for all channels of a pixel"
        return None

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        prior = self.prior
        if isinstance(covariance, WhiteNoise):
            return WhiteOnly(prior).denoise(mu, covariance)
        prior._check_size(tuple(mu.shape[1:]))
        # Of the numbers 1 the square root of the covariance makes the levels, in every row its own.
        levels = covariance.power(torch.ones_like(mu, dtype=torch.float64), 0.5)[:, :1]
        precision = getattr(torch, prior.autocast) if prior.autocast else None
        assert prior.sigma_data is not None  # of a network without a schedule
        return edm.denoise(prior._run, mu, levels, prior.sigma_data, precision)
