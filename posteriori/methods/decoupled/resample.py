"""ReSample: now and then make the denoised image consistent with y, then noise it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.descent import Adam, Conjugate, Descent
from posteriori.methods.data_steps.images import consistent
from posteriori.methods.data_steps.misfit import misfit, noise_energy
from posteriori.methods.transitions import renoise
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative

_State = tuple[Tensor, Tensor]


def stochastic_resample(z: Tensor, x: Tensor, s: Tensor, v: float, rng: Rng) -> Tensor:
    """A draw of the product N(.; z, s^2 I) N(.; x, v I): x itself at v = 0, z with fresh noise of
    level s at v = infinity."""
    share = 1 - float(s) ** 2 / (v + float(s) ** 2)
    return torch.lerp(x, z, share).add_(rng.normal(x), alpha=float(s) * share**0.5)


@dataclass(frozen=True)
class ReSample(Method[_State]):
    """Hard data consistency with stochastic resampling: now and then the denoised image is made
    consistent with y and put back among the noisy images by a product of Gaussians.

        x0 = D(x, sigma),   x' = x0 + s (x - x0) / sigma                      DDIM, eta = 0
        z  = descent on ||y - A u||^2 from x0, to ||y - A z||^2 = m sigma_y^2
        x' ~ N(z, s^2 I) N(x', v I)
           = N((v z + s^2 x') / (v + s^2), v s^2 / (v + s^2) I),   v = gamma s^2 (1 - s^2 / sigma^2)

    x is the image at noise level sigma, x' at the next level s, D the denoised image, m the count
    of numbers in y, sigma_y the standard deviation of their noise.

    The run ends with z. In the authors' coordinates v is gamma times the variance of ancestral
    sampling.

    gamma: >= 0, of v above; published 40.
    every: data consistency at every so many steps, >= 1, and at the last; published 10.
    below: data consistency only from this noise level down, >= 0; published 9. None: at all levels.
    ahead: DDIM steps beyond x', >= 0, each as long as the present one, that a denoised image is
        looked for before the descent; published 5.
    guide: >= 0; times 1 / (1 + sigma^2), the scale of a published DPS step on x'; published 0.5.
    inner: steps of the descent, >= 0; published 2000.
    descent: a rule of ``data_steps.descent``; published ``Adam(0.01)``.
    pixels: of a latent prior: at levels s above this one z is Enc(w) with w by the same descent
        from Dec(x0) on images, below it the descent is on latents through the decoder, as it is at
        all levels by default. Published for latents: images in the middle third of the steps, and
        latents in the last.

    Reference: Song, Kwon, Zhang, Hu, Qu, Shen, Solving inverse problems with latent diffusion
        models via hard data consistency, 2024, algorithm 1; on the latents of a ``Latent`` prior.
    Cost per step: one denoiser, ``inner`` operators and adjoints. No back-propagation through the
        denoiser unless ``guide`` > 0.
    Assumes: A differentiable; other noise than Gaussian enters by its energy, where every A x is
        possible.
    Exact when: never. The product takes x' and z as independent, and both hold x0. Of the variance
        s^2 it keeps a share 1 - w + w^2, w = v / (v + s^2), so that the prior itself is sampled too
        narrowly (tested).
    Departs from the authors' code: x0 is Tweedie's (theirs multiplies by the noise variance in
        place of its root). The descent ends at the noise level (theirs at a squared error of 1e-6
        whatever the noise). No weight decay, which pulls images to 0.
    """

    gamma: NonNegative = 40.0
    every: Count = 1
    below: NonNegative | None = None
    ahead: Natural = 0
    guide: NonNegative = 0.0
    inner: Natural = 10
    descent: Descent = Conjugate()
    pixels: NonNegative | None = None

    reference: ClassVar[str] = "song2024resample"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 denoiser, inner operators (1 VJP with guide)"

    @classmethod
    @course(500, "ddpm")
    def published(cls) -> ReSample:
        """The authors' setting on pixels in [-1, 1].
        The last two thirds of its levels begin at 9."""
        return cls(every=10, below=9.0, ahead=5, guide=0.5, inner=2000, descent=Adam(0.01))

    @property
    def requires(self) -> frozenset[str]:
        return self.needs if self.pixels is None else self.needs | {"images"}

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        return x, torch.zeros((), dtype=torch.int64, device=x.device)

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, count = state[0], state[1] + 1
        x0, steer = self._denoise(post, x, sigma)
        if not bool(s > 0):
            return (self.consistent(post, x0, s), count), {}
        moved = renoise(x0, x, sigma, s, 0.0, rng) + steer * float((1 + s**2).sqrt())
        if int(count) % self.every == 0 and not (self.below is not None and above(s, self.below)):
            level, beyond = s, moved
            for _ in range(self.ahead):
                x0 = post.prior.denoise(beyond, level)
                beyond, level = (
                    renoise(x0, beyond, level, level * (s / sigma), 0.0, rng),
                    level * (s / sigma),
                )
            v = self.gamma * float(s**2 * (1 - s**2 / sigma**2))
            moved = stochastic_resample(self.consistent(post, x0, s), moved, s, v, rng)
        return (moved, count), {}

    def consistent(self, post: Posterior, x0: Tensor, s: Tensor) -> Tensor:
        """z at the level s: (B, *E)."""
        if self.pixels is not None and above(s, self.pixels):
            return consistent(post, x0, self.descent, self.inner)
        return self.descent(misfit(post.likelihood), x0, self.inner, noise_energy(post.likelihood))

    def _denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor | float]:
        """D, and the step along -grad_x ||y - A D|| (see DPS)."""
        if self.guide == 0:
            return post.prior.denoise(x, sigma), 0.0
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        residual = post.likelihood.y - clean
        size = dot(residual, residual).sqrt()
        scale = self.guide / math.sqrt(1 + float(sigma) ** 2)
        return x0, pull(adjoint(residual)) * per_row(scale * (size > 0) / size.clamp(min=1e-30), x)
