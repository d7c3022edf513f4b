"""DDNM: what the measurement tells of the denoised image is replaced, the rest is kept.

    D' = D + Lambda A^+ (y - A D)
    x' = D' + g_e e + g_z z,   e = (x - D) / sigma, the noise that the denoiser saw

Noise level 0, or ``noise`` "ignored" (DDNM): Lambda = 1, g_z = eta s, g_e = sqrt(1 - eta^2) s, so
that A D' = y.
Noise "known" (DDNM+), for each singular value a of A and level v of the noise:

    a = 0       g_z = eta s                   g_e = sqrt(1 - eta^2) s
    a s < v      g_z = eta s      g_e = 0      Lambda = sqrt(1 - eta^2) s a / v
    a s >= v    g_z = sqrt(s^2 - v^2 / a^2)   g_e = 0                    Lambda = 1

Reference: Wang, Yu, Zhang, Zero-shot image restoration using denoising diffusion null-space model,
2023, algorithm 1 and appendix I. Cost per step: one denoiser and one operator; the rest is closed
form.
Assumes: linear A with a spectrum, Gaussian noise. Singular values below 1e-6 of the largest count
as 0.
Exact when: never in general. Without noise A x = y holds at the end for a y that A can make; the
null space follows the prior alone, so that what y tells of it through the prior's correlations
comes only from the denoiser.
A share eta^2 of the noise is fresh at every step, and the variance stays at a part, 0.6 to 0.8 of
the prior's for 0.85 (tested). Departs from the authors' code: its simplified path mixes up a with
a^2; no time travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

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
class DDNM(Method[Tensor]):
    """The denoising diffusion null-space model; see the module. Raises ``ValueError`` for ``eta``
    outside [0, 1]."""

    eta: Fraction = 0.85
    noise: Literal["known", "ignored"] = "known"

    reference: ClassVar[str] = "wang2023ddnm"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "spectrum"})
    cost: ClassVar[str] = "1 denoiser, 1 operator"
    claims: ClassVar[frozenset[str]] = frozenset({"moves only in the range of A^T"})

    @classmethod
    @course(100, "ddpm")
    def published(cls) -> DDNM:
        """The authors' setting: eta 0.85, DDNM+ when there is noise."""
        return cls(eta=0.85, noise="known")

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x0, level, f = post.prior.denoise(state, sigma), float(s), svd_coordinates.frame(post, s)
        spectrum, a, seen = f.spectrum, f.a, f.tau.isfinite()
        v = post.likelihood.std if self.noise == "known" else 0.0
        reach, kept = a * level, (1 - self.eta**2) ** 0.5
        clear = f.tau <= level if v > 0 else seen
        share = torch.where(clear, 1.0, kept * reach / v if v > 0 else 0.0) * seen
        fresh, old = torch.full_like(a, self.eta * level), torch.full_like(a, kept * level)
        if v > 0:
            fresh = torch.where(
                clear, (level**2 - (v / torch.where(clear, a, 1.0)) ** 2).clamp(min=0).sqrt(), fresh
            )
            old = torch.where(seen, 0.0, old)
        residual = spectrum.Uh(post.likelihood.residual(x0))[:, : spectrum.s.numel()]
        real = state.real.dtype
        moved = pad(residual, (0, len(a) - residual.shape[1])) * (
            share / torch.where(seen, a, 1.0)
        ).to(real)
        noise = spectrum.Vh(rng.normal(state)) * fresh.to(real) + spectrum.Vh(
            (state - x0) / float(sigma)
        ) * old.to(real)
        return x0 + spectrum.V(moved + noise), {}
