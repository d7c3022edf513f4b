"""FPS: the measurement gets a diffusion of its own, and particles filter it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info
from posteriori.methods.courses import course
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.smc import particles
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.methods.smc.particles import Particles, Scheme
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction, Share

# The cloud, the path's normal numbers e (B, n), alike within a cloud, and the first level of the
# run (0-d; 0 before it).
Filtered = tuple[Particles, Tensor, Tensor]


@dataclass(frozen=True)
class FPS(ParticleMethod[Filtered]):
    """Filtering posterior sampling: the measurement gets a diffusion of its own, and particles
    filter it (one particle is FPS, more are FPS-SMC).

    In the singular coordinates of A, with u = U^H y / a, tau = sigma_y / a (see
    ``data_steps.svd_coordinates``), z one normal number for each cloud:

        path    o = u + l e',   e' = r e + sqrt(1 - r^2) z (at first x, or noise):
                what is seen of x' through noise of variance h
        weight  w <- w N(o; m, v + h),   N(m, v) the chain's own kernel
        move    x' ~ N(m, v) N(o; x', h) / N(o; m, v + h), a gain of v / (v + h)

        form "consistent" (default), t = max(s, tau), while tau < sigma:
            l^2 = t^2 - tau^2,   r = l / (l before),   h = 0:
            o is the diffusion of x itself down to tau, where x = u; below, the chain runs freely
        form "published", down to the last level, c = ``fresh``:
            l = s,   r^2 = 1 - c,   h = tau^2,   m = D + r s / sigma (x - D),   v = c s^2

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    a the singular values of A, sigma_y the standard deviation of the noise of y, w the weight of a
    particle.

    particles: in a cloud, >= 1; published 5.
    form: of the path, as above.
    fresh: c in (0, 1], for the published form alone; published 0.95. None is the ancestral
        1 - s^2 / sigma^2, which keeps the prior.
    share: in [0, 1]; a cloud is resampled when its ESS falls below this share of its particles, and
        at every step with 1; published 1.
    scheme: of resampling, see ``smc.particles``; published "multinomial".
    single: return one sample of each cloud.
    chunk: the most rows denoised at a time, >= 1; None takes as many as hold 2^18 numbers.

    Raises ``ValueError`` for a ``fresh`` outside (0, 1] or unused.

    Reference: Dou, Song, Diffusion posterior sampling for linear inverse problem solving: a
        filtering perspective, 2024, algorithms 1 and 2.
    Cost per step: one denoiser for each particle.
    Assumes: linear A with a spectrum, Gaussian noise, possibly of level 0. Singular values below
        1e-6 of the largest count as 0.
    Exact when: "consistent": particles and steps go to infinity, for every path; the evidence is
        unbiased as MCGDiff's with "dropped". "published": only without noise. Its looks share the
        noise of y and are taken as independent. It collapses on the data as steps are added (prior
        N(0, 1), y = 1.2, sigma_y = 0.5, 100 steps: 1.19 +- 0.10, not 0.96 +- 0.45; tested), and
        makes no evidence.
    Departs from the authors' code: x' meets the o of its own level (theirs is one step off). The
        same A weighs and moves.
    """

    particles: Count = 16
    form: Literal["consistent", "published"] = "consistent"
    fresh: Share | None = None
    share: Fraction = 0.5
    scheme: Scheme = "systematic"
    single: bool = False
    chunk: Count | None = None

    reference: ClassVar[str] = "dou2024fps"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "spectrum"})
    cost: ClassVar[str] = "1 denoiser per particle"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def __post_init__(self) -> None:
        if self.fresh is not None and self.form != "published":
            raise ValueError(
                f"FPS: fresh={self.fresh} needs form='published', got form={self.form!r}"
            )

    @classmethod
    @course(1000, "ddpm")
    def published(cls) -> FPS:
        """The authors' setting: five particles, c = 0.95, resampling at every step."""
        return cls(5, "published", 0.95, share=1.0, scheme="multinomial")

    def levels(self, post: Posterior, steps: int) -> Tensor | None:
        return (
            svd_coordinates.levels(post, steps)
            if self.form == "consistent"
            else super().levels(post, steps)
        )

    def cloud(self, state: Filtered) -> Particles:
        return state[0]

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Filtered:
        c = (f := svd_coordinates.frame(post)).spectrum.Vh(x)
        if (
            self.form == "consistent"
        ):  # a cloud's particles start at one place along what is measured: there their path starts
            c = torch.where(
                f.tau.isfinite(), c[:: self.particles].repeat_interleave(self.particles, 0), c
            )
        cloud = particles.start(f.spectrum.V(c), self.particles)
        return cloud, torch.zeros_like(c), cloud.log_w.new_zeros(())

    def step(
        self, post: Posterior, state: Filtered, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Filtered, Info]:
        (cloud, e, _), top = state, torch.maximum(state[2], sigma.to(state[2]))
        f = svd_coordinates.frame(post, sigma, s, top / 2)
        x, x0 = (
            f.spectrum.Vh(cloud.x),
            svd_coordinates.denoised(post, f, cloud.x, sigma, self.chunk),
        )
        if not bool(s > 0):
            if self.form == "consistent":
                x0, said = svd_coordinates.last(
                    f, x0, sigma, top, f.spectrum.Vh(rng.normal(cloud.x))
                )
                cloud = particles.weigh(cloud, said + f.closing(x0, f.tau >= top / 2))
            cloud, source, info = particles.resample_particles(
                cloud, rng, self.share, self.scheme, near=particles.near(post, sigma)
            )
            return (particles.moved(cloud, f.spectrum.V(x0[source])), e, top), info
        if self.form == "consistent":
            looked, t = f.reach(sigma, s, top)
            mean, v = svd_coordinates.bridge(x0, x, sigma, t)
            h, length = (
                torch.zeros_like(t),
                torch.where(looked, (t - f.tau) * (t + f.tau), 0.0).sqrt(),
            )
            before = torch.where(looked, (sigma - f.tau) * (sigma + f.tau), 1.0).sqrt()
            e, kept = e if bool(top > sigma) else (x - f.u) / before.to(x.real), length / before
        else:
            c = 1 - float(s / sigma) ** 2 if self.fresh is None else self.fresh
            looked, t = f.tau.isfinite(), torch.full_like(f.tau, float(s))
            mean, v = torch.lerp(x0, x, (1 - c) ** 0.5 * float(s / sigma)), c * t.square()
            h, length, kept = (
                torch.where(looked, f.tau, 0.0).square(),
                t,
                torch.full_like(t, (1 - c) ** 0.5 * bool(top > sigma)),
            )
        z = f.spectrum.Vh(rng.normal(cloud.x))[:: self.particles].repeat_interleave(
            self.particles, 0
        )
        e = kept.to(x.real) * e + (1 - kept.square()).sqrt().to(x.real) * z
        seen = f.u + length.to(x.real) * e
        new = length.square() * (1 - kept.square())
        said = f.log_density(seen - mean, v + h, looked) - f.log_density(
            new.sqrt().to(x.real) * z, new, looked & (length > 0)
        )
        cloud, source, info = particles.resample_particles(
            particles.weigh(cloud, said),
            rng,
            self.share,
            self.scheme,
            near=particles.near(post, sigma),
        )
        x = svd_coordinates.move(
            mean[source], v, seen, h, looked, f.spectrum.Vh(rng.normal(cloud.x))
        )
        return (
            particles.moved(
                cloud, f.spectrum.V(svd_coordinates.onwards(x0[source], x, t, s, f, cloud.x, rng))
            ),
            e,
            top,
        ), info

    def log_evidence(self, post: Posterior, state: Filtered) -> Tensor | None:
        return (
            particles.log_evidence(state[0]) + post.log_volume
            if self.form == "consistent"
            else None
        )
