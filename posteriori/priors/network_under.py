"""The denoiser of a network under noise that is not white, where it was trained for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.covariances import (
    BlockNoise,
    FourierNoise,
    NoiseCovariance,
    PixelNoise,
    RowsNoise,
    WhiteNoise,
)
from posteriori.covariances.told import BLOCKS
from posteriori.priors import edm
from posteriori.priors.anisotropic import WhiteOnly

if TYPE_CHECKING:
    from posteriori.priors.network import Network


@dataclass(frozen=True)
class NetworkUnder:
    """edm.denoise with a map of levels, where the network takes one (``net.noise_maps``), and
    edm.denoise_under where it is told colours (``net.coloured``); under white noise the network's
    own."""

    prior: Network

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        return next((why for m in _members(covariance) if (why := self._refuses(m))), None)

    def _refuses(self, member: NoiseCovariance) -> str | None:
        """For noise of one covariance in all rows."""
        if isinstance(member, WhiteNoise):
            return None
        if isinstance(member, PixelNoise):
            if not self._takes("noise_maps"):
                return (
                    "this network was trained for one noise level an image, not for a level for "
                    "each pixel; priors.digits(noise_maps=True) and priors.photos(noise_maps=True) "
                    "are some that were, and `posteriori train` with objective: noise-maps makes "
                    "others"
                )
            return None if _alike(member.variances) else _CHANNELS
        if not isinstance(member, FourierNoise | BlockNoise):
            return (
                f"no network was trained for noise with {member.words}; some know a level for each "
                f"pixel, and the noise that round blurs and means of blocks leave"
            )
        if not self._takes("coloured"):
            return (
                f"this network was not trained for noise with {member.words}; "
                f"priors.photos(noise_maps=True) was, and `posteriori train` with objective: "
                f"coloured-noise makes others"
            )
        if isinstance(member, BlockNoise):
            if member.factor in BLOCKS:
                return None
            return (
                f"this network was trained for means of blocks of {_listed(BLOCKS)} pixels a side, "
                f"not of {member.factor}"
            )
        if not _alike(member.variances):
            return _CHANNELS
        if member.round:
            return None
        return (
            "this network was trained for blurs that are alike in all directions and leave less of "
            "each higher frequency, which this one is not"
        )

    def _takes(self, kind: str) -> bool:
        return self.prior.schedule is None and bool(getattr(self.prior.net, kind, False))

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        prior = self.prior
        if isinstance(covariance, WhiteNoise):
            return WhiteOnly(prior).denoise(mu, covariance)
        members = _members(covariance)
        maps = [isinstance(member, PixelNoise) for member in members]
        if any(maps) != all(maps) or all(isinstance(member, WhiteNoise) for member in members):
            # Each row by the call that it has alone.
            assert isinstance(covariance, RowsNoise)
            return covariance.each(lambda member, rows: self.denoise(rows, member), mu)
        prior._check_size(tuple(mu.shape[1:]))
        precision = getattr(torch, prior.autocast) if prior.autocast else None
        assert prior.sigma_data is not None  # of a network without a schedule
        if all(maps):
            # Of the numbers 1 the square root of the covariance makes the levels, in every row its
            # own.
            levels = covariance.power(torch.ones_like(mu, dtype=torch.float64), 0.5)[:, :1]
            return edm.denoise(
                prior._run, mu, levels, prior.sigma_data, precision, filled=self._takes("filled")
            )
        return edm.denoise_under(
            prior._run, mu, covariance, prior.sigma_data, precision, shown=self._takes("shown")
        )


_CHANNELS = "this network takes one noise level for all channels of a pixel"


def _members(covariance: NoiseCovariance) -> tuple[NoiseCovariance, ...]:
    return covariance.members if isinstance(covariance, RowsNoise) else (covariance,)


def _alike(variances: Tensor) -> bool:
    """Whether all channels have the same."""
    return variances.ndim < 3 or bool((variances == variances[..., :1, :, :]).all())


def _listed(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
