"""P2L: latent DPS under a text that is tuned to the measurement while sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.data_steps.descent import Conjugate, Descent
from posteriori.methods.data_steps.images import consistent
from posteriori.methods.data_steps.leaves import descend_leaf, leaf_of_each_row, without_leaf
from posteriori.methods.explicit.dps import DPS
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative

_State = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class P2L(Method[_State]):
    """Prompt tuning: the embedding c of a text descends the misfit of what it makes of the latent,
    and guides as in latent DPS.

        c  <- ``tuning`` steps of Adam on ||y - A Dec(D(x, sigma; c))||^2 from c
        x' = a step of ``guide`` under c
        x' = the transition of ``guide`` from Enc(z) at every ``project``-th step, z = Dec(D(x,
             sigma; c)) moved to ||y - A z||^2 = m sigma_y^2

    x is the latent at noise level sigma, x' at the next level s, D the denoised latent given c, Dec
    and Enc the decoder and the encoder, m the count of numbers of y, sigma_y their noise. Each row
    has a c of its own, which is kept from step to step; Adam begins anew in each.

    leaf: the leaf of the prior that is c, as ``prior.know().adjustable()`` names it; "embedding" is
        that of ``prior.conditioned(text=...)``.
    tuning: steps of Adam in each step, >= 0. rate: of Adam, >= 0. 0 of either is ``guide`` alone.
    project: steps from one projection to the next; 0 for none. inner: steps of ``descent`` in one,
        >= 1.
    guide: the guidance, ``DPS``.

    Refuses a prior without that leaf.

    Reference: Chung, Ye, Milanfar, Delbracio, Prompt-tuning latent diffusion models for inverse
        problems, 2024, algorithm 1. No code of the authors was found, and its numbers are not
        repeated here.
    Cost per step: 1 + tuning denoisers, as many vector-Jacobian products, and 1 + tuning decoders
        with their derivatives.
    Assumes: A differentiable.
    Exact when: never; with rate 0 as ``guide``.
    Departs from the paper: the projection ends at the noise level (theirs has a fixed weight), and
        takes the place of the guidance in its step. A port tunes c in the first step alone, since
        it detaches c from its optimiser; here c moves in each.
    """

    leaf: str = "embedding"
    tuning: Natural = 1
    rate: NonNegative = 1e-3
    project: Natural = 0
    inner: Count = 5
    descent: Descent = Conjugate()
    guide: DPS = DPS()

    reference: ClassVar[str] = "chung2024p2l"
    family: ClassVar[str] = "latent"
    cost: ClassVar[str] = "1 + tuning denoisers and VJPs, as many decoders"

    @property
    def requires(self) -> frozenset[str]:
        return self.guide.requires | ({"images", "unbounded"} if self.project else frozenset())

    def refuses(self, post: Posterior) -> str | None:
        return without_leaf(post, self.leaf, "P2L") or super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        count = torch.zeros((), dtype=torch.int64, device=x.device)
        return x, leaf_of_each_row(post, self.leaf, x), count

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, c, count = state[0], state[1], state[2] + 1
        if self.rate:
            c = self.tuned(post, x, sigma, c)
        told = post.under(post.prior.at(**{self.leaf: c}))
        if self.project and int(count) % self.project == 0:
            x0 = told.prior.denoise(x, sigma)
            moved = consistent(post, x0, self.descent, self.inner)
            x = self.guide.transition(lambda image, level: moved, x, sigma, s, rng)
        else:
            x, _ = self.guide.step(told, x, sigma, s, rng)
        return (x, c, count), {}

    def tuned(self, post: Posterior, x: Tensor, sigma: Tensor, c: Tensor) -> Tensor:
        """c (B, *leaf) after ``tuning`` steps at the latents x (B, *U) of level sigma."""

        def slope(x0: Tensor) -> Tensor:
            clean, pull = post.likelihood.A.linearize(x0)
            return pull(clean - post.likelihood.y)

        return descend_leaf(post.prior, x, sigma, self.leaf, c, slope, self.tuning, self.rate)
