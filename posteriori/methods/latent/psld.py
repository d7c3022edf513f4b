"""PSLD: latent DPS with a gluing term, which keeps denoised latents where encoder and decoder
agree on what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.chart import Lifted, Pushed
from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.images import on_images
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import DDIM, Transition, one_call
from posteriori.operators.base import LinearOperator, norm2
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class PSLD(Method[Tensor]):
    """Posterior sampling with latent diffusion: the guidance of DPS through the decoder, and a
    gluing of what the decoder shows to what was measured.

        q = Enc(B y + (I - B A) Dec(D)) - D,     B = A^+
        h = q - Dec'^T (I - B A)^T Enc'^T q      down the gradient of ||q||^2 / 2, with respect to D
        g = A'^T (y - A Dec(D)),                 A' = A Dec'

        bounded   D_y = D + sigma^2 J^T (omega g + gamma ||A'||^2 h) / (v + r2 ||A'||^2)
                  x'  = transition(D_y)
        norm      x'  = transition(D) + J^T (omega g / ||y - A Dec(D)|| + gamma h / ||q||) / a

    x is the latent at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised
    latent, J = dD/dx, Dec and Enc the decoder and the encoder (u -> x and back), v the variance of
    the noise, r2 = c sigma^2 / (c + sigma^2) with c = spread^2 of the prior, 1 / a =
    sqrt((1 + sigma^2) (1 + s^2)). Norms are per row.

    On a prior of images Dec and Enc are the identity and q = A^+ (y - A D).

    omega: >= 0, weight of the data; published 1 (0.9 for super-resolution).
    gamma: >= 0, weight of the gluing; published 0.1. 0 is ``DPS`` on a latent prior.
    weighting: "bounded" as in ``DPS``: the gluing is weighed down where the image is known better
        than the noise tells. "norm" is published.
    inverse: what B is. "exact" is A^+; "adjoint" (published) is A^T, with which I - B A is no
        projector unless A A^T = I.
    transition: how x' is drawn; ancestral by default (published: deterministic).

    Raises ``ValueError`` for a negative weight, and for "norm" with a transition that calls the
    denoiser twice.

    Reference: Rout, Raoof, Daras, Caramanis, Dimakis, Shakkottai, Solving linear inverse problems
        provably via posterior sampling with latent diffusion models, 2023, algorithm 2.
    Cost per step: one denoiser, one vector-Jacobian product, the decoder and the encoder with their
        derivatives, two operators and adjoints and two of B.
    Assumes: A linear on images.
    Exact when: as DPS where gamma = 0. With a linear decoder of orthonormal columns and A W of
        orthonormal rows h = 0 where and only where A Dec(D) = y (tested).
    Departs from the authors' code: no fresh noise is added to A Dec(D) inside the loss; B is the
        pseudo-inverse where theirs is the identity (blur) or a nearest-neighbour enlargement; norms
        are per row.
    """

    omega: NonNegative = 1.0
    gamma: NonNegative = 0.1
    weighting: Literal["bounded", "norm"] = "bounded"
    inverse: Literal["exact", "adjoint"] = "exact"
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "rout2023psld"
    family: ClassVar[str] = "latent"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "unbounded"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP, decoder and encoder"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(1000, "ddpm")
    def published(cls, omega: float = 1.0, gamma: float = 0.1) -> PSLD:
        """The authors' steps on Stable Diffusion; (0.1, 0.01) for a box, (0.9, 0.1) for
        super-resolution on their other latents."""
        return cls(omega, gamma, "norm", "adjoint", DDIM(eta=0.0))

    def __post_init__(self) -> None:
        if self.weighting == "norm":
            one_call(self.transition, "PSLD", "the weighting 'norm'")

    def refuses(self, post: Posterior) -> str | None:
        if not isinstance(post.given.A, LinearOperator):
            return f"PSLD: the gluing needs an A linear on images, {post.given.A.label} is not"
        return super().refuses(post)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        if self.weighting == "bounded":
            return self.transition(
                lambda x, level: self.denoise(post, x, level), state, sigma, s, rng
            ), {}
        x0, pull = post.prior.linearize(state, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        residual = post.likelihood.y - clean
        total = per_row(self.omega * _inverse_length(residual), x0) * adjoint(residual)
        if self.gamma:
            q, h = self.gluing(post, x0)
            total = total + per_row(self.gamma * _inverse_length(q), x0) * h
        steer = pull(total) * float((1 + sigma**2).sqrt() * (1 + s**2).sqrt())
        return self.transition(lambda x, level: x0, state, sigma, s, rng) + steer, {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D_y(x, sigma) of the bounded weighting: (B, *U)."""
        like = post.likelihood
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = like.A.linearize(x0)
        noise, size = like.noise.variance_at(like.y, clean), norm2(like.A, x0)
        r2 = post.prior.know().max_variance(sigma)
        variance = bounded_variance(noise, r2, size, clean)
        total = self.omega * adjoint((like.y - clean) / variance)
        if self.gamma:
            # Per row: a law whose variance differs from number to number by its mean.
            known = noise.expand(clean.shape).flatten(1).mean(1) / size.square().clamp(min=1e-30)
            total = total + per_row(self.gamma / (r2 + known), x0) * self.gluing(post, x0)[1]
        return x0.add(pull(total), alpha=float(sigma) ** 2)

    def gluing(self, post: Posterior, x0: Tensor) -> tuple[Tensor, Tensor]:
        """q and h at denoised latents x0, both (B, *U)."""
        given = on_images(post)
        A = given.linear
        x, pull_decoder = Pushed(post.chart, A.complex_in).linearize(x0)
        glued = x + self._inverse(A, given.y - A(x))
        z, pull_encoder = Lifted(post.chart, A.complex_in).linearize(glued)
        q = z - x0
        v = pull_encoder(q)
        # I - A^+ A and I - A^T A are symmetric.
        return q, q - pull_decoder(v - self._inverse(A, A(v)))

    def _inverse(self, A: LinearOperator, y: Tensor) -> Tensor:
        return A.pseudo_inverse(y) if self.inverse == "exact" else A.adjoint(y)


def _inverse_length(r: Tensor) -> Tensor:
    """1 / ||r|| of each row, 0 where r is."""
    size = dot(r, r).sqrt()
    return torch.where(size > 0, 1 / size.clamp(min=1e-30), 0.0)
