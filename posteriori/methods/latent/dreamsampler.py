"""DreamSampler: edit an image by a text while sampling, under a data term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.descent import Conjugate
from posteriori.methods.data_steps.images import consistent, mixed, on_images, regularised
from posteriori.methods.transitions import renoise
from posteriori.operators.base import LinearOperator
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative, Positive

_State = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DreamSampler(Method[_State]):
    """Editing by score distillation along the sampling path: the text moves the denoised latent the
    more the less noise there is, the noise stays that of the prior without the text, and the data
    are met on images.

        E   = D_0 + a (D - D_0),                          a = c / (c + sigma^2)
        x'  = E + s (x - D_0) / sigma                     in the steps between
        z   = Enc(w), w from Dec(E) towards y,            q = s^2 / (c + s^2)
        x'  = (1 - q) z + q E + s ( sqrt(q) (x - D_0) / sigma + sqrt(1 - q) e )

    x is the latent at noise level sigma, x' at the next level s, D the denoised latent under
    guidance by the text of ``prior.conditioned(text=..., guidance=w)``, D_0 that without it (D for
    a prior without guidance), Dec and Enc the decoder and the encoder, e standard normal, c the
    variance of a number of the prior.

    start: "noise" begins as every method does. "measurement" begins with Enc(A^+ y) under noise of
        the first level, which is what is edited: with a grid whose first level leaves of it what
        should stay.
    every: data consistency at every so many steps, >= 1; published 3.
    until: no consistency at levels sigma <= ``until``, >= 0; published 0.45, where the last 30 of
        200 steps begin.
    inner: steps of conjugate gradients from Dec(E), >= 0; published 10. 0: no data term.
    lam: > 0, w minimises ||y - A w||^2 + lam ||w - Dec(E)||^2; published 1e-4, which fits the
        noise. None (default): the descent of ||y - A w||^2 ends at the noise level, for any A.

    Refuses ``lam`` where A is not linear on images, and a start from a measurement without a
    pseudo-inverse.

    Reference: Kim, Park, Ye, DreamSampler: unifying diffusion sampling and score distillation for
        image manipulation, 2024, algorithm 1 and its section on inpainting.
    Cost per step: one denoiser, at two network passes under guidance; where it is consistent one
        decoder, one encoder, ``inner`` operators and adjoints.
    Assumes: A differentiable; other noise than Gaussian enters by its energy.
    Exact when: never; without text and data it is DDIM with eta = 0.
    Departs from the authors' code: no gradient of the data term in the steps between; the text
        holds everywhere, not within a mask; the signal's share is that of the level itself (theirs
        is off by one timestep); c in place of 1.
    """

    start: Literal["noise", "measurement"] = "noise"
    every: Count = 1
    until: NonNegative = 0.0
    inner: Natural = 5
    lam: Positive | None = None

    reference: ClassVar[str] = "kim2024dreamsampler"
    family: ClassVar[str] = "latent"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "unbounded"})
    cost: ClassVar[str] = "1 denoiser, decoder and encoder, inner operators"

    @classmethod
    @course(200, "ddpm")
    def published(cls) -> DreamSampler:
        """The authors' setting for inpainting, on Stable Diffusion's latents; an edit has guidance
        0.2."""
        return cls(every=3, until=0.45, inner=10, lam=1e-4)

    def refuses(self, post: Posterior) -> str | None:
        A = post.given.A
        if self.lam is not None and not isinstance(A, LinearOperator):
            return f"DreamSampler: lam needs an A linear on images, {A.label} is not"
        if self.start == "measurement":
            try:
                A.pseudo_inverse(post.given.y[None])
            except TypeError as error:
                return f"DreamSampler: {error}"
        return super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        return x, torch.zeros((), dtype=torch.int64, device=x.device)

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, count = state[0], state[1] + 1
        if self.start == "measurement" and int(count) == 1:
            x = self.source(post).add(rng.normal(x), alpha=float(sigma))
        known = post.prior.know()
        if known.guided is None:
            edited = free = post.prior.denoise(x, sigma)
        else:
            x0, free, _ = known.guided(x, sigma)
            edited = torch.lerp(free, x0, known.variance / (known.variance + float(sigma) ** 2))
        if not self.inner or int(count) % self.every or not above(sigma, self.until):
            return (renoise(edited, x, sigma, s, 0.0, rng, origin=free), count), {}
        z = (
            consistent(post, edited, Conjugate(), self.inner)
            if self.lam is None
            else regularised(post, edited, self.lam, self.inner)
        )
        return (mixed(z, edited, free, x, sigma, s, known.variance, rng), count), {}

    def source(self, post: Posterior) -> Tensor:
        """Enc(A^+ y): (1, *U)."""
        given = on_images(post)
        return post.chart.lift(given.A.pseudo_inverse(given.y[None]))
