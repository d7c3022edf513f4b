"""The denoiser under noise of a prior that knows none but its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.covariances import NoiseCovariance, WhiteNoise

if TYPE_CHECKING:
    from posteriori.priors.base import Prior


@dataclass(frozen=True)
class WhiteOnly:
    """D(mu, sigma) of a prior under the noise sigma^2 I, and nothing under other noise."""

    prior: Prior

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        if isinstance(covariance, WhiteNoise):
            return None
        return (
            f"a {type(self.prior).__name__} prior knows no denoiser under noise with "
            f"{covariance.words}; closed-form priors do, and networks that were trained for it"
        )

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        assert isinstance(covariance, WhiteNoise)
        return self.prior.denoise(mu, torch.tensor(covariance.variance**0.5, dtype=torch.float64))
