"""A noise level for each Fourier frequency, as a circular blur or undersampled k-space leaves
it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of, check_variances
from posteriori.covariances.told import Told, of_one_level, spectra


@dataclass(frozen=True, eq=False)
class FourierNoise(NoiseCovariance):
    """F^H diag(variances) F, F the unitary Fourier transform over the last two axes.

    variances: > 0, float64, (..., H, W), broadcasting against E, with the frequency 0 at index
    (0, 0). For real images they are alike at k and -k; ``applied`` raises ``ValueError`` where they
    are not.
    """

    words: ClassVar[str] = "a level for each Fourier frequency"
    variances: Tensor

    def __post_init__(self) -> None:
        check_variances(self, self.variances)

    @classmethod
    def filtered(cls, kernel: Tensor, sides: tuple[int, int], level: float = 1.0) -> FourierNoise:
        """White noise of ``level`` after a circular filter: kernel (kh, kw), sides (H, W).

        Raises ``ValueError`` for a filter that removes a frequency: nothing makes such noise
        white."""
        grid = torch.zeros(sides, dtype=torch.float64)
        rows, columns = (torch.arange(k) % n for k, n in zip(kernel.shape, sides, strict=True))
        grid.index_put_((rows[:, None], columns[None]), kernel.double(), accumulate=True)
        power = torch.fft.fft2(grid).abs().square()
        if not bool((power > 1e-12 * power.max()).all()):
            raise ValueError(
                "FourierNoise.filtered: this filter removes a frequency, where y would have no "
                "noise; add white noise of the smallest level you trust to the variances"
            )
        return cls(level**2 * power)

    def applied(self, f: Of, x: Tensor) -> Tensor:
        if x.ndim < 3:
            raise IndexError("FourierNoise is of images with rows and columns")
        if not x.is_complex() and not self.even:
            raise ValueError(
                "FourierNoise: of real images the variances are alike at the frequencies k and -k, "
                "these are not; give the mean of both"
            )
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

    @cached_property
    def even(self) -> bool:
        """Whether variances are alike at k and -k, to rounding."""
        v = self.variances
        turned = v.flip(-2, -1).roll((1, 1), (-2, -1))
        return bool(((v - turned).abs() <= 1e-6 * v).all())

    @property
    def round(self) -> bool:
        """Whether the variances rise with |f|, alike in all directions, up to a factor of 5: those
        of a sampled round kernel differ by 4 at |f| = 1/2."""
        v = self.variances
        rows, columns = (torch.fft.fftfreq(n, dtype=torch.float64) for n in v.shape[-2:])
        order = (rows[:, None].square() + columns.square()).flatten().argsort()
        rising = v.flatten(-2)[..., order]
        return bool((5 * rising >= rising.cummax(-1).values).all())

    def diagonal(self, one: Tensor) -> Tensor:
        mean = self.variances.mean((-2, -1), keepdim=True)
        return mean.to(one.device).expand(one.shape)

    def axes_of(self, like: Tensor) -> tuple[Tensor, Of, Of]:
        """Of real images Hartley's coordinates, which are real."""
        shape, complex_images = like.shape[1:], like.is_complex()

        def there(x: Tensor) -> Tensor:
            spectral = torch.fft.fft2(x, norm="ortho")
            return (spectral if complex_images else spectral.real - spectral.imag).flatten(1)

        def back(c: Tensor) -> Tensor:
            if complex_images:
                return torch.fft.ifft2(c.view(-1, *shape), norm="ortho")
            return there(c.view(-1, *shape)).view(-1, *shape)

        return self.variances.to(like.device).expand(shape).flatten(), back, there
