"""Peng et al.: the likelihood is widened by the covariance that makes the reverse kernel's likelihood largest.

    p(x0 | x) ~ N(D, r2 I),   r2 = E ||x0 - D||^2 / d, the denoiser's mean squared error at this level (the maximum-likelihood choice)
    v = A^T (r2 A A^T + sigma_y^2 I)^-1 (y - A D)

    I   D_y = D + sigma^2 J^T v       through the denoiser, J = dD/dx
    II  D_y = D + r2 v                J replaced by what r2 says of it, r2 / sigma^2: the posterior mean of x0 under N(D, r2 I)

Reference: Peng, Zheng, Dai, Xiao, Li, Zou, Xiong, Improving diffusion models for inverse problems using optimal posterior covariance,
2024, equations 10 and 13 (analytic covariance).
Cost per step: I one denoiser, one vector-Jacobian product, one solve; II no vector-Jacobian product. Heun doubles both.
Assumes: linear A, Gaussian noise, possibly of level 0; r2 is the prior's ``error``, for a network the one measured and kept in its card.
Exact when: the prior is N(m, c I); both types then agree.
Differs from PiGDM: r2 is a mean over directions, not a bound. Type I can overshoot along directions that vary more than the mean, so
that an image prior (low frequencies far above the mean) needs type II. Departs from the authors' code: the same r2 at every level (theirs
is PiGDM's above sigma = 0.2), no clipping of D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.kernels import DDIM, Heun, Transition
from posteriori.rng import Noise


@dataclass(frozen=True)
class Peng(Method[Tensor]):
    """Optimal posterior covariance, ``type`` "I" or "II"; see the module. Raises ``ValueError`` for another type."""

    type: Literal["I", "II"] = "II"
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "peng2024covariance"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP (type I), 1 solve"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior", "exact for a white Gaussian prior"})

    def __post_init__(self) -> None:
        if self.type not in ("I", "II"):
            raise ValueError(f"Peng: type must be 'I' or 'II', got {self.type!r}")

    @classmethod
    def published(cls) -> Peng:
        """The authors' sampler: type I along the probability-flow ODE by Heun's rule; meant for 50 steps."""
        return cls("I", Heun())

    def step(self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> tuple[Tensor, Info]:
        return self.transition(lambda x, level: self.denoise(post, x, level), state, sigma, s, rng), {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D_y(x, sigma), the estimate of E[x0 | x, y]: (B, *E)."""
        r2 = post.prior.error(sigma)
        if self.type == "II":
            x0 = post.prior.denoise(x, sigma)
            return x0.add(post.likelihood.widen(r2).score(x0), alpha=r2)
        x0, pull = post.prior.linearize(x, sigma)
        return x0.add(pull(post.likelihood.widen(r2).score(x0)), alpha=float(sigma) ** 2)
