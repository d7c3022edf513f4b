"""DiffPIR: denoise, move the estimate towards the data by a proximal step, put noise back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import per_row
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import proximal
from posteriori.methods.data_steps.misfit import misfit, safe_ratio
from posteriori.methods.transitions import DDIM, ConstantFraction, Transition
from posteriori.rng import Rng
from posteriori.settings import Count, Positive


@dataclass(frozen=True)
class DiffPIR(Method[Tensor]):
    """Plug-and-play restoration: the denoised image is moved towards the data by a proximal step,
    and noise is put back.

        D_y = argmin_u ||y - A u||^2 / sigma_y^2 + ||u - D||^2 / r2
            = D + r2 A^T (r2 A A^T + sigma_y^2 I)^-1 (y - A D)         data "proximal", linear A

        data "gradient", any A: ``gradient_steps`` from u = D, with A' = dA/dx
        u  <- u + ( r2 A'^T (y - A(u)) + sigma_y^2 (D - u) ) / (r2 ||A'||^2 + sigma_y^2)

        r2  = error(sigma) / lam    width "matched": the denoiser's own mean squared error at sigma
            = sigma^2 / lam         width "sigma": the paper's
            = open variance / lam   width "open": ``Knowledge.open_variance``, of what is open in
                                    the image, not of all of it
            = C(sigma) / lam        width "auto": the error by frequency where the prior has
                                    measured it (see ``proximal``); else for a linear A "open", but
                                    "matched" for a closed form; for others "matched"

        x'  = D_y + s ( sqrt(1 - zeta) (x - D_y) / sigma + sqrt(zeta) z )

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    z standard normal, sigma_y the standard deviation of the noise of y.

    lam: > 0, the weight on the prior; published 1 in their unit, 1/4 in this one.
    width: r2, as above; published "sigma".
    transition: how noise is put back. The default is DDIM with eta = 1; x' above is the published
        one, ``ConstantFraction`` with zeta = 0.1.
    data: "proximal" or "gradient", as above. "auto" is "proximal" for a linear operator, "gradient"
        otherwise.
    gradient_steps: of data "gradient", >= 1.

    With r2 I it moves only in the range of A^T, with C in that of C A^T: what is measured then
    corrects what is not. One gradient step is the proximal step where A' A'^T = ||A'||^2 I, and
    does not overshoot it elsewhere (theirs, r2 A'^T (y - A(D)) / sigma_y^2, does unless lam is
    large).
    The paper's r2 exceeds what is known of an image at large sigma and lets the data step amplify
    measurement noise. Its constant share of fresh noise loses variance (see ConstantFraction).

    Reference: Zhu, Zhang, Liang, Cao, Wen, Timofte, Van Gool, Denoising diffusion models for
        plug-and-play image restoration, 2023, algorithm 1.
    Cost per step: one denoiser, one solve (or ``gradient_steps`` gradients of A, and 16 to measure
        ||A'|| at D when A is not linear). No back-propagation through the denoiser.
    Assumes: Gaussian noise; A linear, or differentiable.
    Exact when: linear A, lam = 1, DDIM transitions and a white Gaussian prior with r2 "matched", or
        one of the measured C; "auto" is either.
    Departs from the authors' code: sigma_y and sigma are in the same unit (theirs differ by a
        factor 2, so that their lam = 1 is 1/4 here). The run ends with D_y rather than with an
        image that still holds the last noise.
    """

    lam: Positive = 1.0
    width: Literal["auto", "matched", "open", "sigma"] = "auto"
    transition: Transition = DDIM(eta=1.0)
    data: Literal["auto", "proximal", "gradient"] = "auto"
    gradient_steps: Count = 1

    reference: ClassVar[str] = "zhu2023diffpir"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 solve or gradient"
    claims: ClassVar[frozenset[str]] = frozenset(
        {
            "flat likelihood gives the prior",
            "exact for a white Gaussian prior",
            "of C A^T where C is measured, else of A^T: moves only in that range",
        }
    )

    @classmethod
    @course(
        100,
        courses.times(courses.quadratic),
        "levels at equal distances in the square of the time that a DDPM has gone",
    )
    def published(cls) -> DiffPIR:
        """The authors' deblurring setting (their lam = 1, zeta = 0.1), in consistent units."""
        return cls(lam=0.25, width="sigma", transition=ConstantFraction(zeta=0.1))

    @property
    def requires(self) -> frozenset[str]:
        return self.needs | (frozenset({"linear"}) if self.data == "proximal" else frozenset())

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        info: Info = {}
        return self.transition(
            lambda x, level: self.denoise(post, x, level, info), state, sigma, s, rng
        ), info

    def denoise(
        self, post: Posterior, x: Tensor, sigma: Tensor, info: Info | None = None
    ) -> Tensor:
        """D_y(x, sigma): (B, *E)."""
        x0 = post.prior.denoise(x, sigma)
        C = (
            proximal.measured_covariance(post, sigma, 1 / self.lam)
            if self.width == "auto" and self.data != "gradient"
            else None
        )
        if C is not None:
            return x0 + proximal.shift(post, post.likelihood.residual(x0), C, info=info)
        r2 = self._r2(post, sigma) / self.lam
        if self.data == "proximal" or (self.data == "auto" and post.likelihood.conjugate):
            return x0.add(post.likelihood.widen(r2).score(x0), alpha=r2)
        return self._descend(post.likelihood, x0, r2)

    def _r2(self, post: Posterior, sigma: Tensor) -> float:
        if self.width == "sigma":
            return float(sigma) ** 2
        if self.width == "open":
            return post.prior.know().open_variance(sigma)
        if self.width == "auto" and self.data != "gradient" and post.likelihood.conjugate:
            return proximal.mean_variance(post, sigma)
        return post.prior.know().error(sigma)

    def _descend(self, like: Likelihood, x0: Tensor, r2: float) -> Tensor:
        s2, u = like.std**2, x0
        fit = misfit(like)
        weight = r2 * fit.curvature(x0) + s2
        share = per_row(safe_ratio(torch.ones_like(weight), weight), x0)
        for _ in range(self.gradient_steps):
            clean, pull, _ = fit.f(u)
            u = u + share * (r2 * pull(like.y - clean) + s2 * (x0 - u))
        return u
