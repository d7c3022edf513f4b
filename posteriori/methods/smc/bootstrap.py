"""Bootstrap filter: particles follow the prior's own chain; the measurement only weighs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info
from posteriori.methods.smc import particles
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.methods.smc.particles import Particles, Scheme, in_chunks
from posteriori.methods.smc.statistical_linearisation import log_says
from posteriori.methods.transitions import DDIM
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction


@dataclass(frozen=True)
class Bootstrap(ParticleMethod[Particles]):
    """The bootstrap filter: particles follow the prior's own chain, unguided, and the measurement
    only weighs them.

        x' ~ N(m, std^2 I),   m = D + s^2 / sigma^2 (x - D),   std^2 = s^2 (1 - s^2 / sigma^2)
        w' = w phi(x') / phi(x)
           = w p(y | x') / phi(x)                                    at s = 0, where x' = D

        look "denoised" (default), linear A and Gaussian noise:
            phi(x) = N(y; A D, sigma_y^2 I + r2 A A^H), r2 the prior's ``max_variance``
        look "denoised", another A or law:
            phi(x) = N(y; mean, covariance of y given D) with those of A(x0) over ``draws`` points
            x0 around D (see ``statistical_linearisation``)
        look "end":
            phi = 1, importance sampling from the prior with one weight at the end

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    sigma_y the standard deviation of the noise of y, w the weight of a particle.

    With "denoised" particles that will not meet y are given up on the way. A phi that is too narrow
    gives them up too early; "end" gives up none.

    particles: in a cloud, >= 1.
    look: phi, as above.
    share: in [0, 1]; a cloud is resampled when its ESS falls below this share of its particles, and
        at every step with 1.
    scheme: of resampling, see ``smc.particles``.
    single: return one sample of each cloud, so that samples are independent.
    chunk: the most rows denoised at a time, >= 1; None takes as many as hold 2^18 numbers.
    draws: points of a curved A, even and >= 2.

    Raises ``ValueError`` for ``draws`` that are odd or fewer than 2.

    The baseline that guidance must beat: it needs about exp(information in y) particles, which an
    image's y puts out of reach.

    Reference: Gordon, Salmond, Smith, Novel approach to nonlinear/non-Gaussian Bayesian state
        estimation, 1993.
    Cost per step: one denoiser for each particle, ``draws`` operators where A is curved; no
        derivative of anything.
    Assumes: noise with a density; any A, differentiable or not.
    Exact when: particles go to infinity. The law is then p(x | y) under the chain of the ancestral
        sampler (which tends to the prior as steps are added), and the evidence is unbiased for any
        number of particles.
    """

    particles: Count = 64
    look: Literal["denoised", "end"] = "denoised"
    share: Fraction = 0.5
    scheme: Scheme = "systematic"
    single: bool = False
    chunk: Count | None = None
    draws: Count = 64

    reference: ClassVar[str] = "gordon1993bootstrap"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"density"})
    cost: ClassVar[str] = "1 denoiser per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def __post_init__(self) -> None:
        if self.draws < 2 or self.draws % 2:
            raise ValueError(
                f"Bootstrap: draws come in pairs, expected an even number >= 2, got {self.draws}"
            )

    def step(
        self, post: Posterior, state: Particles, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Particles, Info]:
        x0, log_phi = in_chunks(lambda x: self._look(post, x, sigma), self.chunk, state.x)
        cloud, source, info = particles.resample_particles(
            particles.weigh(state, log_phi),
            rng,
            self.share,
            self.scheme,
            near=particles.near(post, sigma),
        )
        x0, log_phi = x0[source], log_phi[source]
        if not bool(s > 0):
            (past,) = in_chunks(lambda x: (post.likelihood.log_prob(x).double(),), self.chunk, x0)
            return particles.ended(
                particles.weigh(particles.moved(cloud, x0), past - log_phi), info
            )
        x = DDIM(1.0)(lambda x, sigma: x0, cloud.x, sigma, s, rng)
        return particles.weigh(particles.moved(cloud, x), -log_phi), info

    def _look(self, post: Posterior, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The denoised images (B, *E) of x, and log phi (B,) float64."""
        like, x0 = post.likelihood, post.prior.denoise(x, sigma)
        if self.look == "end":
            return x0, torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
        if like.conjugate:
            return x0, like.widen(post.prior.know().max_variance(sigma)).log_prob(x0).double()
        return x0, log_says(post, x0, sigma, self.draws)
