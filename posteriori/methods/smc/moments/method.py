"""MomentSMC: particles moved and weighed by the first two moments of x0 given x."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import root_product
from posteriori.methods.base import Info
from posteriori.methods.smc import particles
from posteriori.methods.smc.moments import second_moments
from posteriori.methods.smc.moments.adaptive_levels import adapted
from posteriori.methods.smc.moments.bank import BankOf, bank_levels, from_bank, waiting
from posteriori.methods.smc.moments.second_moments import SecondMoments
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.methods.smc.particles import Particles, Scheme, in_chunks
from posteriori.methods.smc.sufficient import fewer, fewest
from posteriori.methods.smc.twists import MOST_MEASURED, gaussian_log_density
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction, Share


@dataclass(frozen=True)
class MomentSMC(ParticleMethod[Particles]):
    """Twisted particles of second order: the reverse kernel, its conditioning on y and its weights
    all know the first two moments of x0 given x.

    With S = sigma^2 J, a = 1 - s^2 / sigma^2, tau^2 = s^2 / a, K = S A^T, V = sigma_y^2 I + A K:

        chain   x0 | x ~ N(D, S),   x' | x0, x = a x0 + (1 - a) x + sqrt(a) s z:
                its reverse kernel, of covariance a^2 S + a s^2 I
        move    x0 = u + K V^-1 (y + sigma_y z - A u),   u = D + S^(1/2) z:
                a draw of x0 given x and y; then x' as above
        weight  w' = w N(y; A D', V') / N(y; m, V2):
                what x' says of y, over what (x, x') said of it
                m  = A D + R^T ((x' - (1 - a) x) / a - D)
                V2 = sigma_y^2 I + tau^2 A R,   R = (S + tau^2 I)^-1 K

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    J = dD/dx, z standard normal, sigma_y the noise level of y, w the weight of a particle.

    All densities live among the numbers of y. The last step, to s = 0, is the draw of x0 itself and
    needs no weight. Children are drawn by w^``power`` and keep the rest: what N(y; A D, V) says of
    a particle that is changing modes is too much or too little for a few steps only.

    particles: in a cloud, >= 1.
    share: in [0, 1]; a cloud is resampled when its ESS falls below this share of its particles, and
        at every step with 1. Every cloud is resampled before the last step.
    power: in (0, 1], of the weight by which children are drawn.
    scheme: of resampling, see ``smc.particles``.
    solves: the most iterations of a solve for R for each number of y, >= 1.
    roots: iterations of S^(1/2) z, >= 1.
    pilot: particles of the pilot that places the levels, >= 1.
    bank: images of the prior from which the particles start, at the lowest level at which enough of
        them agree with y (see ``moments.bank``): drawn once, and kept with the prior. ``steps`` is
        then the most levels; on GMM-25 one is left. None: the Gaussian start at the largest level.
    single: return one sample of each cloud, independent ones.
    chunk: the most rows worked on at a time, >= 1; None: see ``second_moments.rows``.

    ``levels`` puts the steps where the third moments of x0 given x matter (see ``adaptive_levels``)
    and ends above the rest. Modes can still be lost: in cells 8,1 and 8,2 of gmm25, 20 steps, 3 of
    20 seeds lie beyond twice the floor, the worst at 6.3 times it.

    Reference: this library's own; twisted diffusion sampling (Wu et al. 2023) with second-order
        kernels, and the moments of Rozet et al. 2024.
    Cost per step: one denoiser, two when it resamples or works in chunks; at most
        m (1 + ``solves``) + ``roots`` vector-Jacobian products for m numbers of y (m more in
        chunks), fewer where the solves converge. First a pilot of 64 particles and 64 levels, of
        16 and 24 with a bank, which is counted. The bank is not: 99 calls for each image of a
        network, once.
    Assumes: linear A, Gaussian noise, at most 512 numbers of y or of the image; J symmetric, as it
        is for an exact denoiser.
    Exact when: the prior is Gaussian, for any number of steps and particles, where the solves
        converge (the fewer the steps, the more iterations they take: at 2 steps, 40 numbers and 10
        of y, 8 of them left log Z wrong by 63) and no bank is used. It warns where ``solves`` stops
        them. Else for many particles, and many images of a bank, up to the chain's own kernels,
        which err only by the third moments of x0 given x. The evidence is unbiased over banks; one
        bank's is that of its own images, and has their error in every cloud alike.
    """

    particles: Count = 256
    share: Fraction = 0.5
    power: Share = 0.5
    scheme: Scheme = "systematic"
    solves: Count = 64
    roots: Count = 8
    pilot: Count = 64
    bank: Count | None = None
    single: bool = False
    chunk: Count | None = None

    reference: ClassVar[str] = "wu2023tds"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "noisy"})
    cost: ClassVar[str] = "1 or 2 denoisers, about 5 VJPs per number of y and 5 more, per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def refuses(self, post: Posterior) -> str | None:
        y = post.likelihood.y
        if y.is_complex() or post.prior.complex or fewest(post) > MOST_MEASURED:
            kind = (
                "complex numbers"
                if y.is_complex() or post.prior.complex
                else f"{fewest(post)} numbers of y"
            )
            return (
                f"MomentSMC: keeps a real covariance of at most {MOST_MEASURED} numbers of y "
                f"(or of the image) for each particle, got {kind}; try MMPS or TDS"
            )
        return super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Particles:
        return super().init(post, x, rng) if self.bank is None else waiting(x, self.particles)

    def levels(self, post: Posterior, steps: int) -> Tensor:
        # A few times the prior's width: the start, Gaussian with the prior's mean and covariance,
        # is then as good as exact.
        post = fewer(post).post
        top = min(4 * post.prior.max_std, post.prior.sigma_max)
        if self.bank is not None:
            bank = post.once(BankOf(self.bank))
            return bank_levels(post, bank, steps, top, self.particles, self._rows(post))
        return adapted(
            post, replace(self, particles=self.pilot, share=0.0), steps, top, rows=self.chunk
        )

    def step(
        self, post: Posterior, state: Particles, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Particles, Info]:
        post = fewer(post).post
        rows = self._rows(post)
        if self.bank is not None and bool((state.first < 0).any()):
            state = from_bank(post, post.once(BankOf(self.bank)), state, sigma, rng, rows)
        kept, last = (
            second_moments.second_moments(post, state.x, sigma) if len(state.x) <= rows else None,
            not bool(s > 0),
        )
        x0, log_p = in_chunks(
            lambda x: (kept or second_moments.second_moments(post, x, sigma)).told, rows, state.x
        )
        axis, along = particles.leading(x0, self.particles)
        # The last draw parts the copies of a particle, so that resampling before it costs no
        # distinct samples.
        share, power = (1.0, 1.0) if last else (self.share, self.power)
        cloud = particles.weigh(state, log_p)
        cloud, source, info = particles.resample_particles(
            cloud, rng, share, self.scheme, along, particles.near(post, sigma), power
        )
        even = partial(particles.spread_evenly, axis=axis, along=along[source], rng=rng)
        z = [
            even(rng.normal(cloud.x), base=2),
            rng.normal(post.likelihood.y.expand(len(x0), *post.likelihood.y.shape)),
        ]
        z += [] if last else [even(rng.normal(cloud.x), base=3)]
        again = kept.at(source) if kept else None
        x, past = in_chunks(
            lambda x, *z: self._move(again or second_moments.second_moments(post, x, sigma), s, *z),
            rows,
            cloud.x,
            *z,
        )
        return particles.weigh(particles.moved(cloud, x), -past), info

    def log_evidence(self, post: Posterior, state: Particles) -> Tensor | None:
        told = super().log_evidence(post, state)
        return None if told is None else told + fewer(post).rest

    def _rows(self, post: Posterior) -> int:
        return second_moments.rows(post) if self.chunk is None else self.chunk

    def _move(
        self, at: SecondMoments, s: Tensor, z: Tensor, noise: Tensor, fresh: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x' (B, *E) from the normal numbers z, noise, fresh, and log N(y; m, V2) (B,): 0 at the
        last step, which is x0 itself."""
        like, s2 = at.post.likelihood, float(at.sigma) ** 2
        u = at.x0 + float(at.sigma) * root_product(at.pull, z, iterations=self.roots)
        miss = like.y + like.std * noise - like.linear(u)
        drawn = u + torch.einsum(
            "bm,mb...->b...", gaussian_log_density(miss.flatten(1), at.V)[0].to(u), at.K
        )
        if fresh is None:
            return drawn, at.V.new_zeros(len(u))
        a = 1 - float(s) ** 2 / s2
        tau2 = float(s) ** 2 / a
        ahead = a * drawn + (1 - a) * at.x + a**0.5 * float(s) * fresh
        return ahead, at.step_says(drawn + tau2**0.5 * fresh, tau2, self.solves)
