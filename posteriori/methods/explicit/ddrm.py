"""DDRM: a chain in singular coordinates of A, each measured well, poorly or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import svd_coordinates
from posteriori.rng import Rng
from posteriori.settings import Fraction


@dataclass(frozen=True)
class DDRM(Method[Tensor]):
    """Denoising diffusion restoration: a chain in the singular coordinates of A, where every
    coordinate of the image is either measured well, poorly or not at all.

        a = 0       x' = D + sqrt(1 - eta^2) s e                + eta s z
        a s < v     x' = D + sqrt(1 - eta^2) s (u - a D) / v    + eta s z
        a s >= v    x' = (1 - eta_b) D + eta_b u / a            + sqrt(s^2 - eta_b^2 v^2 / a^2) z

    This holds coordinate by coordinate: A = U diag(a) V^T, v is the noise level of y, x and x' are
        the coordinates of the image at levels sigma and s, D those of the denoised image,
        e = (x - D) / sigma, u = U^T y, z standard normal.

    eta: in [0, 1]; 0.85 by default (published). Multiplies the fresh noise of the first two rows.
    eta_b: in [0, 1]; 1 by default (published). The weight of y in well measured coordinates.

    Raises ``ValueError`` for ``eta`` or ``eta_b`` outside [0, 1].

    Reference: Kawar, Elad, Ermon, Song, Denoising diffusion restoration models, 2022, equations 7
        and 8.
    Cost per step: one denoiser; the data step is closed form.
    Assumes: linear A with a spectrum, Gaussian noise, possibly of level 0. Singular values below
        1e-6 of the largest count as 0.
    Exact when: never in general. Each row has variance s^2 around the image when D is the image.
        But poorly measured directions forget x, and a share eta^2 of the noise is fresh at every
        step, so that variance is lost as steps are added. With many steps it fits the noise. With
        noise of any level the last step gives D itself: of 16 half-hidden digits none fits y as
        its samples' 80 % intervals say (docs/studies/posterior-coverage.md).
    Departs from the paper: the chain starts where every method here starts, not around u / a; D
        hardly depends on that at the largest sigma.
    Departs from the authors' code: without noise the last step gives u / a (the paper's rule),
        theirs gives D and so leaves A x = y.
    """

    eta: Fraction = 0.85
    eta_b: Fraction = 1.0

    reference: ClassVar[str] = "kawar2022ddrm"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "spectrum"})
    cost: ClassVar[str] = "1 denoiser"

    @classmethod
    @course(20, "ddpm")
    def published(cls) -> DDRM:
        """The authors' setting."""
        return cls(eta=0.85, eta_b=1.0)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x0 = post.prior.denoise(state, sigma)
        f = svd_coordinates.frame(post, s)
        return self.restored(f, state, x0, rng.normal(state), sigma, s), {}

    def restored(
        self,
        f: svd_coordinates.SVDFrame,
        x: Tensor,
        x0: Tensor,
        z: Tensor,
        sigma: Tensor,
        s: Tensor,
    ) -> Tensor:
        """x' (B, *E) of images x with denoised x0 and fresh normal numbers z."""
        v, level, real = f.noise, float(s), x.real.dtype
        spectrum, a, kept = f.spectrum, f.a, (1 - self.eta**2) ** 0.5 * level
        seen, clear, k = f.tau.isfinite(), f.tau <= level, spectrum.s.numel()
        divisor = torch.where(clear, a, 1.0)
        x, x0 = spectrum.Vh(x), spectrum.Vh(x0)
        u = pad(f.y[:, :k], (0, len(a) - k))
        unseen = x0 + (x - x0) * (kept / float(sigma))
        poor = x0 + (u - a.to(real) * x0) * (kept / v if v > 0 else 0.0)
        well = (1 - self.eta_b) * x0 + self.eta_b * u / divisor.to(real)
        mean = torch.where(clear, well, torch.where(seen, poor, unseen))
        fresh = torch.where(
            clear,
            (level**2 - (self.eta_b * v / divisor) ** 2).clamp(min=0).sqrt(),
            self.eta * level,
        )
        return spectrum.V(mean + fresh.to(real) * spectrum.Vh(z))
