"""Bootstrap filter: particles follow the prior's own chain, unguided; the measurement only weighs them.

    x'  ~ N(m, std^2 I),   m = D + s^2 / sigma^2 (x - D),  std^2 = s^2 (1 - s^2 / sigma^2)
    w'  = w phi(x') / phi(x),   and at s = 0, where x' = D:  w' = w p(y | x') / phi(x)
    look "denoised"  phi(x) = p(y | D), for a linear A and Gaussian noise widened by r2 A A^H, r2 the prior's ``widest_error``:
                     particles that will not meet y are given up on the way
         "end"       phi = 1: importance sampling from the prior, one weight at the end

Reference: Gordon, Salmond, Smith, Novel approach to nonlinear/non-Gaussian Bayesian state estimation, 1993.
Cost per step: one denoiser for each particle, no derivative of anything.
Assumes: noise with a density; any A, differentiable or not.
Exact when: particles go to infinity: the law is then p(x | y) under the chain of the ancestral sampler (which tends to the prior as steps
are added), and the evidence is unbiased for any number of particles.
The baseline that guidance must beat: it needs about exp(information in y) particles, which an image's y puts out of reach. A phi that is
too narrow (a non-linear A, whose phi is not widened) gives up particles too early; "end" gives up none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods import clouds
from posteriori.methods.base import Info, Method
from posteriori.methods.clouds import Cloud, Scheme, in_chunks
from posteriori.methods.kernels import DDIM
from posteriori.operators.base import LinearOperator
from posteriori.rng import Noise


@dataclass(frozen=True)
class Bootstrap(Method[Cloud]):
    """The prior's chain in clouds of ``particles``, resampled when their ESS falls below ``share``; see the module for ``look``.

    ``single`` returns one sample of each cloud, so that samples are independent. ``chunk`` bounds the rows denoised at a time.
    """

    particles: int = 64
    look: Literal["denoised", "end"] = "denoised"
    share: float = 0.5
    scheme: Scheme = "systematic"
    single: bool = False
    chunk: int | None = None

    reference: ClassVar[str] = "gordon1993bootstrap"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"density"})
    cost: ClassVar[str] = "1 denoiser per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @property
    def group(self) -> int:
        return self.particles

    @property
    def returned(self) -> int:
        return 1 if self.single else self.particles

    def init(self, post: Posterior, x: Tensor, rng: Noise) -> Cloud:
        return clouds.start(x, self.particles)

    def step(self, post: Posterior, state: Cloud, sigma: Tensor, s: Tensor, rng: Noise) -> tuple[Cloud, Info]:
        (x0,) = in_chunks(lambda x: (post.prior.denoise(x, sigma),), self.chunk, state.x)
        log_phi = self._log_phi(post, x0, sigma)
        cloud, source, info = clouds.resample(clouds.weigh(state, log_phi), rng, self.share, self.scheme)
        x0, log_phi = x0[source], log_phi[source]
        if not bool(s > 0):
            return clouds.weigh(clouds.moved(cloud, x0), post.likelihood.log_prob(x0).double() - log_phi), info
        x = DDIM(1.0)(lambda x, sigma: x0, cloud.x, sigma, s, rng)
        return clouds.weigh(clouds.moved(cloud, x), -log_phi), info

    def _log_phi(self, post: Posterior, x0: Tensor, sigma: Tensor) -> Tensor:
        """log phi of particles with the denoised images x0 (B, *E): (B,) float64."""
        like = post.likelihood
        if self.look == "end":
            return torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        if isinstance(like.A, LinearOperator) and like.noise.std is not None:
            like = like.widen(post.prior.widest_error(sigma))
        return like.log_prob(x0).double()

    def rows(self, state: Cloud) -> Tensor:
        return state.x

    def finish(self, post: Posterior, state: Cloud, rng: Noise) -> tuple[Tensor, Tensor]:
        return clouds.collect(state, rng, self.returned, self.scheme)

    def log_evidence(self, post: Posterior, state: Cloud) -> Tensor:
        return clouds.log_evidence(state) + clouds.units(post)
