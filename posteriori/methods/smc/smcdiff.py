"""SMCDiff: the measured part follows one noised path of y; particles filter the rest along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.smc import particles
from posteriori.methods.smc.particle_method import ParticleMethod
from posteriori.methods.smc.particles import Particles, PerRow, Pieces, Scheme, in_chunks
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction


@dataclass(frozen=True)
class Followed:
    """The cloud, and the path's normal numbers e (B, n), alike within a cloud."""

    cloud: Particles
    e: Tensor


@dataclass(frozen=True)
class SMCDiff(ParticleMethod[Followed]):
    """Replacement with particles: the measured part of the image follows one noised path that ends
    at the measurement, and particles filter the rest along it.

    In the singular coordinates of A, with u = U^H y / a (see ``data_steps.svd_coordinates``), z one
    normal number for each cloud:

        path    o  = u + sigma e,   e ~ N(0, 1) at the start
                e' = s / sigma e + sqrt(1 - s^2 / sigma^2) z:
                the forward diffusion of u, drawn backwards
        weight  w <- w N(o'; m, v) over the measured coordinates
                m = D + s^2 / sigma^2 (x - D),   v = s^2 (1 - s^2 / sigma^2)
        move    x' = o' there, x' ~ N(m, v) elsewhere
                at s = 0: u there, D elsewhere, without a weight (v is 0)

    x is the image at noise level sigma, x' at the next level s, D as ``kernel`` says, a the
    singular values of A, w the weight of a particle.

    particles: in a cloud, >= 1; published 4.
    kernel: D above. "ancestral" (default) is the denoised image. "exact" is a draw of x0 given x,
        for priors in closed form: no error of the steps but that of the last level, where the draw
        is made before x0 is known to meet u.
    share: in [0, 1]; a cloud is resampled when its ESS falls below this share of its particles, and
        at every step with 1; published 1.
    scheme: of resampling, see ``smc.particles``.
    single: return one sample of each cloud.
    chunk: the most rows denoised, or drawn, at a time, >= 1; None takes as many as hold 2^18
        numbers.

    The path is drawn before a particle is seen: in many dimensions weights degenerate. There is no
    evidence: the last step has no density.

    Reference: Trippe, Yim, Tischer, Baker, Broderick, Barzilay, Jaakkola, Diffusion probabilistic
        modeling of protein backbones in 3D for the motif-scaffolding problem, 2023, algorithm 1.
    Cost per step: one denoiser for each particle.
    Assumes: linear A with a spectrum; its values below 1e-6 of the largest count as 0. y is taken
        as noiseless and its noise is fitted, magnified where a is small: for a mask and little
        noise. A y whose noise, so magnified, exceeds the images is refused; FPS knows it.
    Exact when: particles go to infinity, without noise, for every single path; "ancestral" up to an
        error that falls as 1 / steps and differs from path to path. Without the weights (ScoreSDE,
        replacement) the error stays however many steps are made.
    Departs from the authors' code: resampling before the move and only when the ESS falls. A mask
        may be any A.
    """

    particles: Count = 64
    kernel: Literal["ancestral", "exact"] = "ancestral"
    share: Fraction = 0.5
    scheme: Scheme = "systematic"
    single: bool = False
    chunk: Count | None = None

    reference: ClassVar[str] = "trippe2023smcdiff"
    family: ClassVar[str] = "smc"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "spectrum"})
    cost: ClassVar[str] = "1 denoiser per particle"

    @classmethod
    @course(100, "ddpm")
    def published(cls) -> SMCDiff:
        """As compared in Wu et al. 2023: four particles, resampling at every step."""
        return cls(4, share=1.0)

    @property
    def requires(self) -> frozenset[str]:
        return self.needs | {"closed form"} if self.kernel == "exact" else self.needs

    def refuses(self, post: Posterior) -> str | None:
        if refusal := super().refuses(post):
            return refusal
        tau, own = svd_coordinates.frame(post).tau, post.prior.variance
        fitted = float(torch.where(tau.isfinite(), tau, 0.0).square().mean())
        if not above(fitted, own):
            return None
        return (
            f"SMCDiff: would fit noise of variance {fitted:.3g} per number, where the prior's "
            f"own is {own:.3g}; use FPS, which knows it"
        )

    # The weights are those given one noised path of y: their mean is no estimate of p(y).
    log_evidence = Method.log_evidence

    def cloud(self, state: Followed) -> Particles:
        return state.cloud

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Followed:
        return Followed(
            particles.start(x, self.particles),
            self._shared(svd_coordinates.frame(post).spectrum.Vh(rng.normal(x))),
        )

    def _shared(self, z: Tensor) -> Tensor:
        """Numbers (B, n) with those of the first particle for all of its cloud."""
        return (
            z.view(-1, self.particles, z.shape[1])[:, :1]
            .expand(-1, self.particles, -1)
            .reshape(z.shape)
        )

    def step(
        self, post: Posterior, state: Followed, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Followed, Info]:
        f, cloud = svd_coordinates.frame(post), state.cloud
        seen = f.tau.isfinite()
        c = torch.where(seen, f.u + float(sigma) * state.e, f.spectrum.Vh(cloud.x))
        if self.kernel == "exact":
            draws, exact = (
                Pieces(PerRow(rng, self.particles), len(c)),
                post.prior.know().exact("p(x0 | x)"),
            )
            (x0,) = in_chunks(
                lambda c: (
                    f.spectrum.Vh(exact.draw_given(f.spectrum.V(c), sigma, draws.take(len(c)))),
                ),
                self.chunk,
                c,
            )
        else:
            (x0,) = in_chunks(
                lambda c: (f.spectrum.Vh(post.prior.denoise(f.spectrum.V(c), sigma)),),
                self.chunk,
                c,
            )
        if not bool(s > 0):
            cloud, source, info = particles.resample_particles(
                cloud, rng, self.share, self.scheme, near=particles.near(post, sigma)
            )
            return Followed(
                particles.moved(cloud, f.spectrum.V(torch.where(seen, f.u, x0[source]))), state.e
            ), info
        kept = float(s / sigma) ** 2
        mean, v = torch.lerp(x0, c, kept), float(s) ** 2 * (1 - kept)
        z = f.spectrum.Vh(rng.normal(cloud.x))
        e = kept**0.5 * state.e + (1 - kept) ** 0.5 * self._shared(z)
        o = f.u + float(s) * e
        said = f.log_density(o - mean, torch.full_like(f.tau, v), seen)
        cloud, source, info = particles.resample_particles(
            particles.weigh(cloud, said),
            rng,
            self.share,
            self.scheme,
            near=particles.near(post, sigma),
        )
        # o is alike within a cloud; the first particle's own part of z among the measured
        # coordinates is not used twice.
        x = torch.where(seen, o, mean[source] + v**0.5 * z)
        return Followed(particles.moved(cloud, f.spectrum.V(x)), e), info
