"""BlindDPS: parallel diffusions of image and instrument, both guided by one measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row, squared_norm
from posteriori.methods.base import Info, Method
from posteriori.methods.blind.pair import BlindPair, blind_pair, pair_refusal
from posteriori.methods.courses import course
from posteriori.methods.transitions import DDIM, Transition, one_call
from posteriori.operators.base import Map
from posteriori.operators.transpose import transposed
from posteriori.packing import in_a_row
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class BlindDPS(Method[Tensor]):
    """Parallel diffusions of image and operator: two diffusions side by side, of the image and of
    what is unknown of the instrument, both guided by one measurement.

        r   = y - A(D_1; k)
        g_i = (dA / du_i)^T r                  of both parts, through both denoisers

        bounded     D_y  = D + sigma^2 g / (sigma_y^2 + sum_i r2_i ||dA/dD_i||^2)      (default)
        norm        u_i' = transition(D)_i + scale_i g_i / (||r|| a_sigma a_s)

        r2_i = v_i sigma^2 / (v_i + sigma^2),   a_sigma = 1 / sqrt(1 + sigma^2)

    u is the pair at noise level sigma, u' at the next level s, D = D(u, sigma) the denoised pair;
    part 1 is the image, part 2 the parameters, v_i the largest variance of part i under its prior.
    k are the denoised parameters D_2, made feasible (taps >= 0 of sum 1). sigma_y is the noise
    level of y.

    weighting: what g is multiplied by, for each row.
        bounded: r2_i is what part i is not known by: the uncertainty of either part widens what y
            is compared with.
        norm: the published step, in each part's own units.
    scale: multiplies the guidance of the image, >= 0; 1 by default (published: 0.3).
    kernel_scale: multiplies the guidance of the parameters, >= 0; 1 by default (published: 0.3).
    transition: how u' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published).

    Raises ``ValueError`` for a setting out of its range, and for "norm" with a transition that
    calls the denoiser twice.

    Reference: Chung, Kim, Kim, Ye, Parallel diffusion models of operator and image for blind
        inverse problems, 2023, algorithm 1.
    Cost per step: one denoiser of both parts, one vector-Jacobian product, one operator and
        adjoint; ``bounded`` 32 more of each to measure the two norms.
    Assumes: a ``Parametric`` instrument, differentiable, and a ``Joint`` prior of image and
        parameters.
    Exact when: never in general: p(y | u) is that of D, as if both were known. Where the parameters
        are a point, the steps are those of ``DPS`` at these.
    Departs from the authors' code: its L0 norm has no gradient, and an L1 norm of a kernel of sum 1
        none either, so that neither is offered; there the scale follows the level of the chain, the
        paper's and this one is constant; norms are per row.
    """

    weighting: Literal["bounded", "norm"] = "bounded"
    scale: NonNegative = 1.0
    kernel_scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "chung2023blinddps"
    family: ClassVar[str] = "blind"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP"

    @classmethod
    @course(1000, "ddpm")
    def published(cls) -> BlindDPS:
        """The paper's step, scale 0.3 for both parts."""
        return cls("norm", 0.3, 0.3)

    def __post_init__(self) -> None:
        if self.weighting == "norm":
            one_call(self.transition, "BlindDPS", "the weighting 'norm'")

    def refuses(self, post: Posterior) -> str | None:
        return pair_refusal(post, "BlindDPS") or super().refuses(post)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        pair = blind_pair(post)
        if self.weighting == "bounded":
            return self.transition(
                lambda u, level: self.denoise(pair, u, level), state, sigma, s, rng
            ), {}
        x0, pull = post.prior.linearize(state, sigma)
        clean, back, _ = _measured(pair, x0)
        residual = post.likelihood.y - clean
        size = dot(residual, residual).sqrt()
        # The paper's y is in the range of its images, that of the prior.
        weight = (size > 0) / (abs(pair.chart.parts[0].a) * size.clamp(min=1e-30))
        parts = pair.split(pull(back(residual)))
        steer = in_a_row(
            per_row(weight, g) * (scale * _step(c, sigma, s)) * g
            for g, scale, c in zip(parts, (self.scale, self.kernel_scale), pair.units, strict=True)
        )
        return self.transition(lambda u, level: x0, state, sigma, s, rng) + steer, {}

    def denoise(self, pair: BlindPair, u: Tensor, sigma: Tensor) -> Tensor:
        """D_y(u, sigma) of the first weighting: (B, d)."""
        x0, pull = pair.post.prior.linearize(u, sigma)
        clean, back, push = _measured(pair, x0)
        variance = pair.post.likelihood.std**2 * clean.real.new_ones(len(u))
        for k, prior in enumerate((pair.image, pair.belief)):
            c = pair.units[k]
            r2 = prior.know().max_variance(c * sigma) / c**2
            variance = variance + r2 * _norm(pair, x0, k, push, back)
        residual = (pair.post.likelihood.y - clean) / per_row(variance, clean)
        image, phi = pair.split(pull(back(residual)))
        steer = in_a_row((self.scale * image, self.kernel_scale * phi))
        return x0.add(steer, alpha=float(sigma) ** 2)


def _step(c: float, sigma: Tensor, s: Tensor) -> float:
    """What a published step of scale 1 between the levels c sigma and c s of a part is in u, whose
    gradients are c times those in the part's own unit."""
    return float((1 + (c * sigma) ** 2).sqrt() * (1 + (c * s) ** 2).sqrt()) / c**2


def _measured(pair: BlindPair, u: Tensor) -> tuple[Tensor, Map, Map]:
    """A(x; k) of denoised u (B, d) with its parameters made feasible, and the derivative by u
    backwards and forwards."""
    with torch.enable_grad():
        leaf = u.detach().requires_grad_()
        v = pair.feasible(leaf)
    clean, push, pull = pair.post.likelihood.A.differential(v.detach())

    def back(r: Tensor) -> Tensor:
        return torch.autograd.grad(v, leaf, pull(r), retain_graph=True)[0]

    # As the transpose of the way back: with forward mode a run takes three times as long.
    ahead = transposed(lambda w: torch.autograd.grad(v, leaf, w, create_graph=True)[0], v)
    return clean, back, lambda d: push(ahead(d))


def _norm(pair: BlindPair, u: Tensor, which: int, push: Map, back: Map) -> Tensor:
    """||dA/du_i||^2 of part ``which`` at each row, (B,)."""

    def forth(v: Tensor) -> Tensor:
        parts = [torch.zeros_like(part) for part in pair.split(u)]
        parts[which] = v
        return push(in_a_row(parts))

    return squared_norm(forth, lambda r: pair.split(back(r))[which], pair.split(u)[which])
