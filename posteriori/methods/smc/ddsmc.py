"""DDSMC: particles of a decoupled chain, proposed by the centre's posterior and weighed for it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Info
from posteriori.methods.courses import course
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.smc import particles
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.methods.smc.particles import Particles, Scheme, in_chunks
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction, Positive


@dataclass(frozen=True)
class DDSMC(ParticleMethod[Particles]):
    """Decoupled diffusion sequential Monte Carlo: particles of a decoupled chain are proposed from
    the centre's posterior given y, and weighed by what that changed.

        chain   x' ~ N((1 - a) x + a m, a s^2),   a = (sigma^2 - s^2) / (sigma^2 - (1 - eta) s^2)
                m = D, or the end of the flow from x
        phi     N(y; A m, sigma_y^2 I + r2 A A^H),   r2 the prior's ``max_variance``
        move    q = N((1 - a) x + a mt, a s^2 - a^2 rho^2 + a^2 M)
                mt, M: mean and variance of N(m, rho^2) p(y | x0), in the singular coordinates of A
                1 / rho^2 = 1 / r2 + a / s^2: the chain's variance shared out between x0 and z
        weight  w' = w N(x'; chain) phi(x') / (q(x') phi(x))
                   = w p(y | x') / phi(x)                            at s = 0, where x' = m

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    sigma_y the standard deviation of the noise of y, w the weight of a particle.

    particles: in a cloud, >= 1; published 16.
    eta: in [0, 1]. 1 is the ancestral sampler's chain, 0 that of DAPS, which forgets x; published
        0.5.
    centre: m, "tweedie" D or "ode" the end of the flow.
    rho: > 0; r2 is then (rho sigma)^2, and rho^2 the same, but at most s^2 / a; published 0.47.
        None: r2 and rho^2 as above.
    ode_steps: denoisers of the ODE centre, >= 1.
    share: in [0, 1]; a cloud is resampled when its ESS falls below this share of its particles, and
        at every step with 1; published 1.
    scheme: of resampling, see ``smc.particles``; published "multinomial".
    single: return one sample of each cloud.
    chunk: the most rows denoised at a time, >= 1; None takes as many as hold 2^18 numbers.

    Reference: Ekstrom Kelvinius, Zhao, Lindsten, Solving linear-Gaussian Bayesian inverse problems
        with decoupled diffusion sequential Monte Carlo, 2025, algorithm 2.
    Cost per step: one denoiser for each particle (``ode_steps`` with the ODE centre).
    Assumes: linear A with a spectrum, Gaussian noise.
    Exact when: particles go to infinity. The law is then p(x | y) under its own chain, and the
        evidence is unbiased for any number of them. With eta = 1 that chain tends to the prior as
        steps are added; with eta < 1 only around the ODE centre.
    Departs from the authors' code: the last step has a weight. Resampling only when the ESS falls.
        Normalised densities. With ``rho`` set, rho^2 and r2 are (rho sigma)^2, where theirs rises
        to sigma^2 at the last level, kept below s^2 / a: weights then have heavy tails.
    """

    particles: Count = 64
    eta: Fraction = 1.0
    centre: Literal["tweedie", "ode"] = "tweedie"
    rho: Positive | None = None
    ode_steps: Count = 10
    share: Fraction = 0.5
    scheme: Scheme = "systematic"
    single: bool = False
    chunk: Count | None = None

    reference: ClassVar[str] = "ekstrom2025ddsmc"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "noisy", "spectrum"})
    cost: ClassVar[str] = "1 denoiser per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(
        200,
        courses.between("karras", 100.0, 0.1, drop=1),
        "levels from 100 to 0.1 as Karras et al. space them",
    )
    def published(cls) -> DDSMC:
        """The authors' setting: 16 particles, eta 0.5, resampling at every step."""
        return cls(16, 0.5, rho=0.47, share=1.0, scheme="multinomial")

    def step(
        self, post: Posterior, state: Particles, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Particles, Info]:
        (m,) = in_chunks(lambda x: (self._centre(post, x, sigma),), self.chunk, state.x)
        r2 = (
            post.prior.know().max_variance(sigma)
            if self.rho is None
            else (self.rho * float(sigma)) ** 2
        )
        log_phi = post.likelihood.widen(r2).log_prob(m).double()
        cloud, source, info = particles.resample_particles(
            particles.weigh(state, log_phi),
            rng,
            self.share,
            self.scheme,
            near=particles.near(post, sigma),
        )
        m, log_phi = m[source], log_phi[source]
        if not bool(s > 0):
            return particles.ended(
                particles.weigh(
                    particles.moved(cloud, m), post.likelihood.log_prob(m).double() - log_phi
                ),
                info,
            )
        f = svd_coordinates.frame(post)
        m, c, seen = f.spectrum.Vh(m), f.spectrum.Vh(cloud.x), f.tau.isfinite()
        a, v = self.chain(float(sigma), float(s))
        most = float(s) ** 2 / a
        gain, cov = self.proposal(
            r2 * most / (r2 + most) if self.rho is None else min(r2, most), a, v, f.tau
        )
        mean = c.lerp(m, a)
        shift = a * gain.to(m.real) * (f.u - m)
        x = mean + shift + cov.sqrt().to(m.real) * f.spectrum.Vh(rng.normal(cloud.x))
        said = f.log_density(x - mean, torch.full_like(cov, v), seen) - f.log_density(
            x - mean - shift, cov, seen
        )
        return particles.weigh(particles.moved(cloud, f.spectrum.V(x)), said - log_phi), info

    def chain(self, sigma: float, s: float) -> tuple[float, float]:
        """a and a s^2: the share of the way from x to its centre, and the variance of the chain's
        step."""
        a = (sigma**2 - s**2) / (sigma**2 - (1 - self.eta) * s**2)
        return a, a * s**2

    def proposal(self, rho2: float, a: float, v: float, tau: Tensor) -> tuple[Tensor, Tensor]:
        """The gain rho^2 / (rho^2 + tau^2) of mt, and the variance v - a^2 rho^2 gain > 0, of
        coordinates measured to tau (n,)."""
        # As a sum of what is >= 0: the difference would round below 0 where rho^2 = s^2 / a.
        taken = min(1.0, a**2 * rho2 / v)
        return rho2 / (rho2 + tau**2), v * ((1 - taken) + taken * (1 / (1 + rho2 / tau**2)))

    def _centre(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        steps, low = (
            self.ode_steps
            if self.centre == "ode" and grid.above(sigma, post.prior.sigma_min)
            else 1,
            post.prior.sigma_min,
        )
        for level, lower in pairwise(grid.karras(steps, float(sigma), low).to(sigma)):
            x = torch.lerp(post.prior.denoise(x, level), x, float(lower / level))
        return x
