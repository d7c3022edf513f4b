"""CBG: candidates for the clean image are drawn, and weighed by how well they explain y."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.linalg import per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.smc.particles import effective_share
from posteriori.methods.transitions import DDIM, Transition
from posteriori.priors.base import Prior
from posteriori.rng import Rng
from posteriori.settings import Count


@dataclass(frozen=True)
class CBG(Method[Tensor]):
    """Calibrated Bayesian guidance: the mean of candidates for the clean image, weighed by the
    likelihood, takes the place of the denoised image.

        x0_k ~ p(x0 | x),   w_k ~ p(y | x0_k)            k = 1 ... K
        D_y  = sum_k w_k x0_k                            the w_k of sum 1
        x'   = transition(D_y)

    x is the image at noise level sigma, x' at the next level s.

    What x0 can be is drawn, and weighed by how well it explains the measurement; no derivative of
    anything. D_y tends to E[x0 | x, y] as K grows, for any A that can be called, differentiable or
    not, and any noise with a density. The trace "effective" holds the effective share of the
    candidates.

    candidates: K, >= 1; 64 by default.
    draw: how a candidate is drawn; "diffusion" by default.
        "diffusion"  by ancestral sampling from x on those of ``prior_steps`` Karras levels that lie
                     below sigma
        "gaussian"   from N(D, r2 I) with D the denoised image and r2 the prior's mean variance of
                     x0 given x, for one denoiser a step
        "exact"      from a prior in closed form
    prior_steps: levels of the candidates' grid, >= 1; 10 by default.
    transition: how x' is drawn from x and D_y, see ``posteriori.methods.transitions``; ancestral
        sampling by default.

    Raises ``ValueError`` for a setting out of its range.

    Reference: Calibrated Bayesian guidance, 2026, arXiv 2602.22428: the form without gradients.
    Cost per step: ``candidates`` operators; of denoisers as many times ``prior_steps`` at most for
        "diffusion", one for "gaussian".
    Assumes: noise with a density.
    Exact when: K tends to infinity with exact candidates (or prior_steps that tend to infinity), as
        steps are added. It takes about exp(information in y) candidates: an image's y leaves one of
        them, which the trace tells. "gaussian" is exact for a white Gaussian prior alone.
    Departs from the paper: candidates by a run of the prior rather than by a distilled one-step
        model.
    """

    candidates: Count = 64
    draw: Literal["diffusion", "gaussian", "exact"] = "diffusion"
    prior_steps: Count = 10
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "cbg2026"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"density"})
    cost: ClassVar[str] = "64 x 10 denoisers, 64 operators"

    @property
    def requires(self) -> frozenset[str]:
        return self.needs | ({"closed form"} if self.draw == "exact" else set())

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        shares: list[Tensor] = []

        def guided(x: Tensor, level: Tensor) -> Tensor:
            x0, share = self.denoise(post, x, level, rng)
            shares.append(share)
            return x0

        x = self.transition(guided, state, sigma, s, rng)
        return x, {"effective": torch.stack(shares).amin(0)}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """D_y (B, *E), and the effective share of the candidates (B,)."""
        B, K, many = len(x), self.candidates, ManyRows(rng, len(x), self.candidates)
        x0 = self._candidates(post.prior, x.repeat_interleave(K, 0), x, sigma, many)
        each, like = x0.view(B, K, *x.shape[1:]), post.likelihood
        # Candidate by candidate, for a row may have a measurement, or an instrument, of its own.
        log_w = torch.stack([like.log_prob(part).double() for part in each.unbind(1)], 1)
        w = log_w.softmax(1).to(x.real.dtype)
        mean = (per_row(w.flatten(), x0) * x0).view(each.shape).sum(1)
        return mean, effective_share(log_w)

    def _candidates(
        self, prior: Prior, x: Tensor, own: Tensor, sigma: Tensor, rng: ManyRows
    ) -> Tensor:
        """Draws of x0 (B K, *E) for x, each row of ``own`` K times."""
        if self.draw == "exact":
            return prior.know().exact("p(x0 | x)").draw_given(x, sigma, rng)
        if self.draw == "gaussian":
            mean = prior.denoise(own, sigma).repeat_interleave(self.candidates, 0)
            return mean.add(rng.normal(mean), alpha=prior.know().error(sigma) ** 0.5)
        levels = grid.karras(self.prior_steps, prior.sigma_max, prior.sigma_min).to(sigma)
        below = torch.cat([sigma[None], levels[levels < sigma * (1 - grid.SLACK)]])
        for level, lower in itertools.pairwise(below):
            x = DDIM(eta=1.0)(prior.denoise, x, level, lower, rng)
        return x


class ManyRows:
    """Random numbers for ``candidates`` of each of ``rows`` rows, from the streams of these."""

    def __init__(self, rng: Rng, rows: int, candidates: int) -> None:
        self.rng, self.rows, self.candidates = rng, rows, candidates

    def normal(self, like: Tensor) -> Tensor:
        return self.rng.normal(like.view(self.rows, -1, *like.shape[1:])).view(like.shape)

    def uniform(self, count: int) -> Tensor:
        each = self.rng.uniform(self.candidates * count)
        return each.view(self.rows * self.candidates, count)
