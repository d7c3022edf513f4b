"""A noise level for each Fourier frequency, as a circular blur or undersampled k-space leaves
it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of
from posteriori.covariances.told import Told, of_one_level, spectra


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

    def told(self, x: Tensor) -> Told | None:
        """None where channels differ, and where the variances are not those of one round blur."""
        v = self.variances
        if not self.round or (v.ndim > 2 and not bool((v == v[..., :1, :, :]).all())):
            return None
        v = v.reshape(-1, *v.shape[-2:])[0]
        traces = (spectra(tuple(v.shape)) * v).sum((-2, -1))
        return of_one_level(v.mean()[None], traces[None])

    @property
    def round(self) -> bool:
        """Whether the variances rise with |f|, alike in all directions, up to a factor of 5: those
        of a sampled round kernel differ by 4 at |f| = 1/2."""
        v = self.variances
        rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in v.shape[-2:])
        order = (rows[:, None].square() + columns.square()).flatten().argsort()
        rising = v.flatten(-2)[..., order]
        return bool((5 * rising >= rising.cummax(-1).values).all())
