"""CBG: candidates for the clean image are drawn, and weighed by how well they explain y."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

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


class Kept(NamedTuple):
    """x (B, *E), and the candidates kept (B, K, *E), of equal weights for the image ``seen``
    (B, *E) at noise level ``level`` (B,); ``distinct`` (B,) is how many of them are distinct in
    effect. K is 0 where none are kept."""

    x: Tensor
    candidates: Tensor
    seen: Tensor
    level: Tensor
    distinct: Tensor


@dataclass(frozen=True)
class CBG(Method[Kept]):
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

    Candidates may be kept for the next level. Those of an image u at level t are as good there as

        v_k ~ N(x; x0_k, sigma^2 I) / N(u; x0_k, t^2 I)

    says, whatever A is, so that D_y becomes the mean of both sets, each counted by its effective
    number, and K are drawn of the two by weight to be kept. At high noise, where p(x0 | x) hardly
    changes from level to level and few candidates meet y, those that do add up.

    candidates: K, >= 1; 64 by default.
    draw: how a candidate is drawn; "diffusion" by default.
        "diffusion"  by ancestral sampling from x on those of ``prior_steps`` Karras levels that lie
                     below sigma
        "gaussian"   from N(D, r2 I) with D the denoised image and r2 the prior's mean variance of
                     x0 given x, for one denoiser a step
        "exact"      from a prior in closed form
    prior_steps: levels of the candidates' grid, >= 1; 10 by default.
    keep: whether candidates are kept for the next level; False by default.
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
        model; ``keep`` is ours.
    """

    candidates: Count = 64
    draw: Literal["diffusion", "gaussian", "exact"] = "diffusion"
    prior_steps: Count = 10
    keep: bool = False
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "cbg2026"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"density"})
    cost: ClassVar[str] = "64 x 10 denoisers, 64 operators"

    @property
    def requires(self) -> frozenset[str]:
        return self.needs | ({"closed form"} if self.draw == "exact" else set())

    def rows(self, state: Kept) -> Tensor:
        return state.x

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Kept:
        K, one = self.candidates if self.keep else 0, x.real.new_ones(len(x), dtype=torch.float64)
        return Kept(x, x.new_zeros(len(x), K, *x.shape[1:]), x, one, 0 * one)

    def step(
        self, post: Posterior, state: Kept, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Kept, Info]:
        shares: list[Tensor] = []
        kept = [state]

        def guided(x: Tensor, level: Tensor) -> Tensor:
            if self.keep:
                x0, share, kept[0] = self.denoise_with(post, kept[0], x, level, rng)
            else:
                x0, share = self.denoise(post, x, level, rng)
            shares.append(share)
            return x0

        x = self.transition(guided, state.x, sigma, s, rng)
        return kept[0]._replace(x=x), {"effective": torch.stack(shares).amin(0)}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """D_y (B, *E), and the effective share of the candidates (B,)."""
        each, log_w = self._weighed(post, x, sigma, rng)
        return mean_of(each, log_w.softmax(1)), effective_share(log_w)

    def denoise_with(
        self, post: Posterior, kept: Kept, x: Tensor, sigma: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor, Kept]:
        """The same with the candidates kept, and those to be kept now."""
        fresh, log_w = self._weighed(post, x, sigma, rng)
        K, level = self.candidates, float(sigma)
        log_v = _distances(kept.seen, kept.candidates) / (2 * kept.level[:, None] ** 2)
        log_v = log_v - _distances(x, kept.candidates) / (2 * level**2)
        ours, theirs = K * effective_share(log_w), kept.distinct * effective_share(log_v)
        part = (theirs / (theirs + ours))[:, None]
        w = torch.cat([part * log_v.softmax(1), (1 - part) * log_w.softmax(1)], 1)
        both, count = torch.cat([kept.candidates, fresh], 1), (ours + theirs).clamp(max=K)
        # Systematic: one number for a row, K places of equal distance.
        places = (torch.arange(K).to(w) + rng.uniform(1).to(w)) / K
        chosen = torch.searchsorted(w.cumsum(1), places).clamp(max=2 * K - 1)
        rows = torch.arange(len(x), device=x.device)[:, None]
        now = Kept(x, both[rows, chosen], x, torch.full_like(kept.level, level), count)
        return mean_of(both, w), count / K, now

    def _weighed(
        self, post: Posterior, x: Tensor, sigma: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """Candidates (B, K, *E) and their log-weights (B, K), float64."""
        B, K, many = len(x), self.candidates, ManyRows(rng, len(x), self.candidates)
        x0 = self._candidates(post.prior, x.repeat_interleave(K, 0), x, sigma, many)
        each, like = x0.view(B, K, *x.shape[1:]), post.likelihood
        # Candidate by candidate, for a row may have a measurement, or an instrument, of its own.
        return each, torch.stack([like.log_prob(part).double() for part in each.unbind(1)], 1)

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


def mean_of(each: Tensor, w: Tensor) -> Tensor:
    """sum_k w_k x0_k, candidates (B, K, *E) and weights (B, K)."""
    return (
        (per_row(w.to(each.real.dtype).flatten(), each.flatten(0, 1)) * each.flatten(0, 1))
        .view(each.shape)
        .sum(1)
    )


def _distances(x: Tensor, each: Tensor) -> Tensor:
    """||x - x0_k||^2 (B, K) float64."""
    return (x[:, None] - each).abs().double().square().flatten(2).sum(2)


class ManyRows:
    """Random numbers for ``candidates`` of each of ``rows`` rows, from the streams of these."""

    def __init__(self, rng: Rng, rows: int, candidates: int) -> None:
        self.rng, self.rows, self.candidates = rng, rows, candidates

    def normal(self, like: Tensor) -> Tensor:
        return self.rng.normal(like.reshape(self.rows, -1, *like.shape[1:])).reshape(like.shape)

    def uniform(self, count: int) -> Tensor:
        each = self.rng.uniform(self.candidates * count)
        return each.view(self.rows * self.candidates, count)
