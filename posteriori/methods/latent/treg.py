"""TReg: denoised latents given a text are made consistent with the data now and then, and the text
that they are held against is tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.descent import Conjugate
from posteriori.methods.data_steps.images import consistent, mixed, regularised
from posteriori.methods.data_steps.leaves import descend_leaf, leaf_of_each_row, without_leaf
from posteriori.methods.transitions import renoise
from posteriori.operators.base import LinearOperator
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative, Positive

_State = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class TReg(Method[_State]):
    """Regularisation by texts: the prior given a text stands for the regulariser, the data term is
    met on images.

        D   = D(x, sigma), under guidance by the text
        z   = Enc(w), w from Dec(D) towards y
        D'  = (1 - q) z + q D,                              q = s^2 / (c + s^2)
        x'  = D' + s ( sqrt(q) (x - D) / sigma + sqrt(1 - q) e )
        x'  = D + s (x - D) / sigma                         in the steps between

    x is the latent at noise level sigma, x' at the next level s, Dec and Enc the decoder and the
    encoder, e standard normal, c the variance of a number of the prior. In the authors' coordinates
    a = 1 - q is the signal's share of the variance, and the noise has the variances (1 - a)^2 and
    a (1 - a), 1 - a together (tested). A text is that of the prior, ``prior.conditioned(text=...,
    guidance=...)``; any prior will do.

    every: consistency at every so many steps, >= 1; published 3.
    until: no consistency at levels sigma <= ``until``, >= 0; published 0.45, where the last 30 of
        200 steps begin.
    inner: steps of conjugate gradients from Dec(D), >= 0; published 5.
    lam: > 0, w minimises ||y - A w||^2 + lam ||w - Dec(D)||^2; published 1e-4, which fits the
        noise. None (default): the descent of ||y - A w||^2 ends at the noise level, for any A.
    null_steps: steps of Adam, >= 0, in which the text that is guided away from, one for each row,
        descends ||D(x, sigma) - z||^2; published 10, on another loss. 0 leaves it.
    null_rate: of Adam, > 0; published 1e-3.
    leaf: the leaf of the prior that holds that text.

    Refuses null steps with a prior without that leaf, ``lam`` where A is not linear on images.

    Reference: Kim, Park, Chung, Ye, Regularization by texts for latent diffusion inverse solvers,
        2025, algorithm 1.
    Cost per step: one denoiser; where it is consistent one decoder, one encoder, ``inner``
        operators and adjoints, ``null_steps`` denoisers and vector-Jacobian products. Nothing is
        differentiated through the decoder.
    Assumes: A differentiable; other noise than Gaussian enters by its energy.
    Exact when: never: the renewed noise has the right variance, but D' has not that of x0.
    Departs from the authors' code: the null text comes closer to what the data ask for, in place of
        away from the image by CLIP's similarity, so that no second network is needed; conjugate
        gradients for each row, not over the batch; c in place of 1.
    """

    every: Count = 1
    until: NonNegative = 0.0
    inner: Natural = 5
    lam: Positive | None = None
    null_steps: Natural = 0
    null_rate: Positive = 1e-3
    leaf: str = "negative_embedding"

    reference: ClassVar[str] = "kim2025treg"
    family: ClassVar[str] = "latent"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "unbounded"})
    cost: ClassVar[str] = "1 denoiser, decoder and encoder, inner operators"

    @classmethod
    @course(200, "ddpm")
    def published(cls) -> TReg:
        """The authors' setting without the null text, on Stable Diffusion's latents."""
        return cls(every=3, until=0.45, lam=1e-4)

    def refuses(self, post: Posterior) -> str | None:
        if self.lam is not None and not isinstance(post.given.A, LinearOperator):
            return f"TReg: lam needs an A linear on images, {post.given.A.label} is not"
        missing = without_leaf(post, self.leaf, "TReg") if self.null_steps else None
        return missing or super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        null = leaf_of_each_row(post, self.leaf, x) if self.null_steps else x.real.new_zeros(0)
        return x, null, torch.zeros((), dtype=torch.int64, device=x.device)

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, null, count = state[0], state[1], state[2] + 1
        prior = post.prior.at(**{self.leaf: null}) if self.null_steps else post.prior
        x0 = prior.denoise(x, sigma)
        if int(count) % self.every or not above(sigma, self.until):
            return (renoise(x0, x, sigma, s, 0.0, rng), null, count), {}
        z = self.consistent(post, x0)
        if self.null_steps:
            null = descend_leaf(
                post.prior,
                x,
                sigma,
                self.leaf,
                null,
                lambda d: d - z,
                self.null_steps,
                self.null_rate,
            )
        return (mixed(z, x0, x0, x, sigma, s, post.prior.know().variance, rng), null, count), {}

    def consistent(self, post: Posterior, x0: Tensor) -> Tensor:
        """z: (B, *U)."""
        if self.lam is None:
            return consistent(post, x0, Conjugate(), self.inner)
        return regularised(post, x0, self.lam, self.inner)
