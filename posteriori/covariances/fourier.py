"""A noise level for each Fourier frequency, as a circular blur or undersampled k-space leaves
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of


@dataclass(frozen=True, eq=False)
class FourierNoise(NoiseCovariance):
    """F^H diag(variances) F, F the unitary Fourier transform over the last two axes.

    variances: > 0, float64, (..., H, W), broadcasting against E, with the frequency 0 at index
    (0, 0). For real images they are alike at k and -k.
    """

    words: ClassVar[str] = "a level for each Fourier frequency"
    variances: Tensor

    def applied(self, f: Of, x: Tensor) -> Tensor:
        out = torch.fft.ifft2(f(self.variances).to(x.real) * torch.fft.fft2(x))
        return out if x.is_complex() else out.real
