"""LGD-MC: the likelihood averaged over draws around the denoised image, then differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import DDIM, Transition
from posteriori.operators.base import norm2
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction, NonNegative


@dataclass(frozen=True)
class LGDMC(Method[Tensor]):
    """Loss-guided diffusion by Monte Carlo: the likelihood averaged over draws around the denoised
    image, differentiated through the denoiser.

        p(y | x) ~ mean over i of N(y; A(x_i), v I)
        x_i = D + sqrt(f r2) z_i,   z_i ~ N(0, I),   v = sigma_y^2 + (1 - f) r2 ||A||^2

        D_y = D + scale sigma^2 J^T sum_i w_i A_i^T (y - A(x_i)) / v
        w   = softmax_i log N(y; A(x_i), v I)
        x'  = transition(D_y)

        prior   r2 = c sigma^2 / (c + sigma^2),   c = spread^2 of the prior    (default)
        paper   r2 = sigma^2 / (1 + sigma^2)

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, J = dD/dx, A_i = dA/dx at x_i, f is ``drawn``. It is the log of a mean, not the mean of
    logs: the latter would be DPS with noise added.

    draws: points x_i, at least 1; 8 by default (published: 10, of 1 to 100).
    drawn: f in [0, 1], the share of the uncertainty r2 that is drawn; the rest widens the noise;
        0.25 by default. With f = 1 (published) the weights sit on one draw wherever sqrt(r2) ||A||
        is far above sigma_y, and that draw's residual is then divided by sigma_y^2: stiff, and
        noisy. f = 1 needs noise of a level above 0, and of a law that knows every A x.
        ``effective_draws`` in the trace is 1 / sum w^2.
    width: "prior" by default, or "paper" (published); see r2 above.
    scale: multiplies the guidance, >= 0; 1 by default (published).
    transition: how x' is drawn from x and D_y, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published).

    Raises ``ValueError`` for a setting out of its range.

    Reference: Song et al., Loss-guided diffusion models for plug-and-play controllable generation,
        2023.
    Cost per step: one denoiser, one vector-Jacobian product, ``draws`` operators and adjoints.
        Where A is not linear ||A|| is that of dA/dx at D, by 16 more operators and adjoints a step.
    Assumes: A differentiable; other noise than Gaussian enters by its variance at each A(x_i).
    Exact when: the prior is white and Gaussian, A linear, ``draws`` -> infinity and either f = 1 or
        A A^T = ||A||^2 I; then it is PiGDM.
    """

    draws: Count = 8
    drawn: Fraction = 0.25
    width: Literal["prior", "paper"] = "prior"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "song2023lgd"
    family: ClassVar[str] = "explicit"
    cost: ClassVar[str] = "1 denoiser, 1 VJP, draws operators"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(1000, "ddpm")
    def published(cls, draws: int = 10) -> LGDMC:
        """The paper's estimate (1 to 100 draws): all uncertainty drawn, its width; stiff where the
        noise is small. The course is that of DPS, which it refines: the paper's own number of
        levels for images could not be checked."""
        return cls(draws, 1.0, "paper")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"unbounded"} if self.drawn == 1 else ())

    def refuses(self, post: Posterior) -> str | None:
        if self.drawn == 1 and post.given.noise.std == 0:
            return (
                "LGDMC: drawn=1 divides by the noise level, which is 0; give the smallest "
                "level you trust, or drawn < 1"
            )
        return super().refuses(post)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        info: Info = {}
        return self.transition(
            lambda x, level: self.denoise(post, x, level, rng, info), state, sigma, s, rng
        ), info

    def denoise(
        self, post: Posterior, x: Tensor, sigma: Tensor, rng: Rng, info: Info | None = None
    ) -> Tensor:
        """D_y(x, sigma), the estimate of E[x0 | x, y]: (B, *E)."""
        A, noise, y = post.likelihood.A, post.likelihood.noise, post.likelihood.y
        r2 = (
            post.prior.know().max_variance(sigma)
            if self.width == "prior"
            else float(sigma**2 / (1 + sigma**2))
        )
        x0, pull = post.prior.linearize(x, sigma)
        norm = norm2(A, x0) if self.drawn < 1 else x0.real.new_zeros(len(x0))
        logs, scores = [], []
        for _ in range(self.draws):
            clean, adjoint = A.linearize(x0.add(rng.normal(x0), alpha=(self.drawn * r2) ** 0.5))
            residual, of_noise = y - clean, noise.variance_at(y, clean)
            variance = bounded_variance(of_noise, (1 - self.drawn) * r2, norm, clean)
            logs.append(-0.5 * dot(residual, residual / variance).double())
            if of_noise.ndim:
                logs[-1] = logs[-1] - 0.5 * variance.expand(residual.shape).log().double().flatten(
                    1
                ).sum(1)
            scores.append(adjoint(residual / variance))
        w = torch.stack(logs).softmax(0)
        if info is not None:
            info["effective_draws"] = 1 / w.square().sum(0)
        mean = torch.stack(
            [
                per_row(weight, x0).to(x0.real) * score
                for weight, score in zip(w, scores, strict=True)
            ]
        ).sum(0)
        return x0.add(pull(mean), alpha=self.scale * float(sigma) ** 2)
