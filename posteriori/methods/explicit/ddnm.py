"""DDNM: what the measurement tells of the denoised image is replaced, the rest is kept."""

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
    """The denoising diffusion null-space model: what the measurement tells of the denoised image is
    replaced, the rest is kept.

        D' = D + Lambda A^+ (y - A D)
        x' = D' + g_e e + g_z z,    e = (x - D) / sigma, the noise that the denoiser saw

                              Lambda                     g_e                  g_z
        ignored               1                          sqrt(1 - eta^2) s    eta s
        known,    a = 0       -                          sqrt(1 - eta^2) s    eta s
                  a s < v     sqrt(1 - eta^2) s a / v    0                    eta s
                  a s >= v    1                          0                    sqrt(s^2 - v^2 / a^2)

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, z standard normal, a a singular value of A, v the noise level of y. Noise level 0 is as
    "ignored", so that A D' = y.

    eta: in [0, 1]; 0.85 by default (published). A share eta^2 of the noise is fresh at every step.
    noise: "known" (DDNM+), the default (published), or "ignored" (DDNM).

    Raises ``ValueError`` for ``eta`` outside [0, 1].

    Reference: Wang, Yu, Zhang, Zero-shot image restoration using denoising diffusion null-space
        model, 2023, algorithm 1 and appendix I.
    Cost per step: one denoiser and one operator; the rest is closed form.
    Assumes: linear A with a spectrum, Gaussian noise. Singular values below 1e-6 of the largest
        count as 0.
    Exact when: never in general. Without noise A x = y holds at the end for a y that A can make.
        The null space follows the prior alone, so that what y tells of it through the prior's
        correlations comes only from the denoiser. As a share eta^2 of the noise is fresh at every
        step, the variance stays at a part of the prior's: 0.6 to 0.8 of it for eta 0.85 (tested).
    Departs from the authors' code: its simplified path mixes up a with a^2; no time travel.
    """

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
