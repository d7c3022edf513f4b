"""TDS: guided samples weighed by how far the guidance was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info
from posteriori.methods.courses import course
from posteriori.methods.smc import particles
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.methods.smc.particles import Particles, Scheme, in_chunks
from posteriori.methods.smc.sufficient import fewer, fewest
from posteriori.methods.smc.twists import MOST_MEASURED, Twist, view
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction


@dataclass(frozen=True)
class TDS(ParticleMethod[Particles]):
    """The twisted diffusion sampler: guided samples are weighed by how far the guidance was wrong.

        phi(x) = N(y; A D, V), a twist (see ``smc.twists``);   g = grad log phi
        x' ~ q = N(m + (sigma^2 - s^2) g, std^2 I),
                 m = D + s^2 / sigma^2 (x - D),   std^2 = s^2 (1 - s^2 / sigma^2)
        w'     = w N(x'; m, std^2 I) phi'(x') / ( q(x') phi(x) )
               = w p(y | x') / phi(x)                                at s = 0, where x' = D

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    sigma_y the standard deviation of the noise of y, w the weight of a particle.

    particles: in a cloud, >= 1; published 4.
    twist: V, "moments", "row sums", "pigdm" or "narrow"; published "pigdm". "auto" is "moments"
        where that can be held (real numbers, at most 512 of them in y), else "pigdm". "moments"
        itself also takes more, of images of at most 512 numbers.
    share: in [0, 1]; a cloud is resampled when its ESS falls below this share of its particles, and
        at every step with 1; published 1.
    scheme: of resampling, see ``smc.particles``.
    single: return one sample of each cloud, so that samples are independent.
    chunk: the most rows worked on at a time, >= 1; None takes as many as hold 2^18 numbers.

    Reference: Wu, Trippe, Naesseth, Blei, Cunningham, Practical and asymptotically exact
        conditional sampling in diffusion models, 2023, algorithm 1.
    Cost per step: one denoiser and one vector-Jacobian product for each particle; the twist
        "moments" one more for each number of y, several in one pass through the denoiser's graph.
    Assumes: linear A, Gaussian noise.
    Exact when: particles go to infinity, for any twist of finite weight variance. The law is then
        p(x | y) under the chain of the ancestral sampler (which tends to the prior as steps are
        added), and the evidence is unbiased for any number of particles.
    Departs from the authors' code: resampling only when the ESS falls, log Z kept when it does not.
        V knows the denoiser's Jacobian, where theirs is sigma_y^2 I + r2 A A^T and gives weights
        with heavy tails. Nothing is clipped.
    """

    particles: Count = 64
    twist: Twist | Literal["auto"] = "auto"
    share: Fraction = 0.5
    scheme: Scheme = "systematic"
    single: bool = False
    chunk: Count | None = None

    reference: ClassVar[str] = "wu2023tds"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "noisy"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP (+ 1 per number of y) per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(100, "ddpm")
    def published(cls) -> TDS:
        """The authors' setting: four particles, PiGDM's twist, resampling at every step."""
        return cls(4, "pigdm", 1.0)

    def refuses(self, post: Posterior) -> str | None:
        y, exact = post.likelihood.y, self.twist in ("moments", "row sums")
        if exact and (y.is_complex() or post.prior.complex):
            return f"TDS: the twist {self.twist!r} is for real numbers; use twist='pigdm'"
        if self.twist == "moments" and fewest(post) > MOST_MEASURED:
            return (
                f"TDS: the twist 'moments' keeps a covariance of at most {MOST_MEASURED} "
                f"numbers of y or of the image, got {fewest(post)}; use twist='pigdm'"
            )
        return super().refuses(post)

    def _twist(self, post: Posterior) -> Twist:
        if self.twist != "auto":
            return self.twist
        y = post.likelihood.y
        return (
            "pigdm"
            if y.is_complex() or post.prior.complex or y.numel() > MOST_MEASURED
            else "moments"
        )

    def step(
        self, post: Posterior, state: Particles, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Particles, Info]:
        kind = self._twist(post)
        told = fewer(post).post if kind == "moments" else post
        x0, log_phi, g = in_chunks(lambda x: tuple(view(told, x, sigma, kind)), self.chunk, state.x)
        cloud, source, info = particles.resample_particles(
            particles.weigh(state, log_phi),
            rng,
            self.share,
            self.scheme,
            near=particles.near(post, sigma),
        )
        x0, log_phi, g = x0[source], log_phi[source], g[source]
        if not bool(s > 0):
            return particles.ended(
                particles.weigh(
                    particles.moved(cloud, x0), post.likelihood.log_prob(x0).double() - log_phi
                ),
                info,
            )
        x, ratio = particles.pulled(x0, cloud.x, g, sigma, s, rng)
        return particles.weigh(particles.moved(cloud, x), ratio - log_phi), info
