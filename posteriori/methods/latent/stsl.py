"""STSL: DPS with the spread of the denoised image in its loss, by finite differences of the
denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import DDIM, Transition
from posteriori.operators.base import norm2
from posteriori.priors.base import Pull
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative, Positive


@dataclass(frozen=True)
class STSL(Method[Tensor]):
    """Second-order Tweedie sampler from surrogate loss: the guidance of DPS, and a descent of the
    variance that is left of the image.

        E[||y - A x0||^2 | x] <= ||y - A D||^2 + ||A||^2 tr Cov(x0 | x),    Cov(x0 | x) = sigma^2 J
        T = sigma^2 mean_k <D(x + h e_k) - D(x), e_k> / h,              E T = sigma^2 tr J + O(h)
        D_y = D + scale sigma^2 ( J^T A^T (y - A D) - (eta / 2) ||A||^2 grad T ) / (v + r2 ||A||^2)
        x'  = transition(D_y)

    x is the image (or latent) at noise level sigma, x' at the next level s, D = D(x, sigma) the
    denoised one, J = dD/dx, e_k standard normal, h = width sigma, v the variance of the noise and
    r2 = c sigma^2 / (c + sigma^2) with c = spread^2 of the prior. The gradient of T needs no second
    derivative: sigma^2 mean_k (J(x + h e_k) - J(x))^T e_k / h. Where D is affine in x, as of a
    Gaussian prior, it is 0.

    eta: >= 0, weight of the spread; 1 is the bound above. 0 is ``DPS``.
    draws: of e, at least 1.
    width: > 0, the length of a difference over sigma.
    scale: >= 0, of all guidance.
    transition: how x' is drawn; ancestral by default.

    Reference: Rout, Chen, Kumar, Caramanis, Shakkottai, Chu, Beyond first-order Tweedie: solving
        inverse problems using latent diffusion, 2024. Its settings are not repeated here: no code
        of the authors was found.
    Cost per step: 1 + draws denoisers, 1 + 2 draws vector-Jacobian products, one operator and
        adjoint.
    Assumes: A differentiable. Other noise than Gaussian enters by its variance at A D.
    Exact when: as DPS.
    Departs from the paper: the surrogate loss is a likelihood with its variance, in place of two
        norms with weights; one correction in each step.
    """

    eta: NonNegative = 1.0
    draws: Count = 1
    width: Positive = 0.1
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "rout2024stsl"
    family: ClassVar[str] = "latent"
    cost: ClassVar[str] = "1 + draws denoisers, 1 + 2 draws VJPs"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        return self.transition(
            lambda x, level: self.denoise(post, x, level, rng), state, sigma, s, rng
        ), {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        """D_y(x, sigma): (B, *E)."""
        like = post.likelihood
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = like.A.linearize(x0)
        size, noise = norm2(like.A, x0), like.noise.variance_at(like.y, clean)
        r2 = post.prior.know().max_variance(sigma)
        variance = bounded_variance(noise, r2, size, clean)
        guidance = pull(adjoint((like.y - clean) / variance))
        if self.eta:
            mean = variance.expand(clean.shape).flatten(1).mean(1)
            weight = 0.5 * self.eta * size.square() / mean
            draws = [rng.normal(x) for _ in range(self.draws)]
            slope = trace_gradient(post, x, sigma, self.width * float(sigma), draws, pull)
            guidance = guidance - per_row(weight, x) * slope
        return x0.add(guidance, alpha=self.scale * float(sigma) ** 2)


def trace(post: Posterior, x: Tensor, sigma: Tensor, h: float, draws: list[Tensor]) -> Tensor:
    """T for these e_k: (B,)."""
    x0 = post.prior.denoise(x, sigma)
    ahead = [post.prior.denoise(x + h * e, sigma) - x0 for e in draws]
    parts = [(d * e.conj()).real.flatten(1).sum(1) for d, e in zip(ahead, draws, strict=True)]
    return torch.stack(parts).mean(0) * (float(sigma) ** 2 / h)


def trace_gradient(
    post: Posterior, x: Tensor, sigma: Tensor, h: float, draws: list[Tensor], pull: Pull
) -> Tensor:
    """dT/dx for these e_k, with ``pull`` u -> J(x)^T u: (B, *E)."""
    parts = [post.prior.linearize(x + h * e, sigma)[1](e) - pull(e) for e in draws]
    return torch.stack(parts).mean(0) * (float(sigma) ** 2 / h)
