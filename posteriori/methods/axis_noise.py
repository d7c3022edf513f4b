"""Fresh noise that is correlated along the first axis of images: slices of a volume, frames of a
video.

    cov(z[k], z[l]) = R_kl I,   z = R^(1/2) white,   R_kk = 1      (``posteriori.axis_kernels``)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from posteriori.axis_kernels import AR1, AxisKernel, along_axis
from posteriori.methods.transitions import DDIM, Denoise, Transition
from posteriori.rng import Rng
from posteriori.settings import Checked


@dataclass(frozen=True)
class AxisNoise:
    """The random numbers of a run with normal ones correlated along the first axis of images."""

    rng: Rng
    kernel: AxisKernel

    def normal(self, like: Tensor) -> Tensor:
        return along_axis(self.kernel, self.rng.normal(like))

    def uniform(self, count: int) -> Tensor:
        return self.rng.uniform(count)


@dataclass(frozen=True)
class Correlated(metaclass=Checked):
    """A transition whose fresh noise is correlated along the first axis of images by ``kernel``.

        cov(z[k], z[l]) = R_kl I,   z = R^(1/2) white,   R_kk = 1

    R is the matrix of ``kernel``, z the fresh noise, z[k] that of slice k.

    Each slice alone has the noise that its denoiser was trained for, whatever R is. What changes is
    how slices move together.

    The volume at the largest level is the prior's affair: ``Slices(..., kernel=...)``. Ancestral
    transitions nearly forget it, those that keep the noise of x (eta = 0) do not.

    transition: the transition whose fresh noise this is, see ``posteriori.methods.transitions``;
        ancestral sampling by default.
    kernel: R, see ``posteriori.axis_kernels``; ``AR1(0.9)`` by default.

    Exact when: the prior of a volume is a Gaussian of covariance R (x) C, C that of the denoiser of
        one slice, and each slice is measured alike and without noise: the posterior is then
        R (x) C', C' that of a slice. Samples of an ancestral transition with this R have that law
        as steps are added; white noise has I (x) C' (tested). A kernel of rank r moves a run along
        r directions of the axis alone: in the others samples do not spread at all, and their
        intervals hold the truth never.
    """

    transition: Transition = DDIM(eta=1.0)
    kernel: AxisKernel = AR1(0.9)

    @property
    def calls(self) -> int:
        return getattr(self.transition, "calls", 1)

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng) -> Tensor:
        return self.transition(denoise, x, sigma, s, AxisNoise(rng, self.kernel))
