"""Score-prior variational inference: fit a distribution q to p(x | y), then draw from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.variational.score_prior import evidence, fit
from posteriori.methods.variational.score_prior.fit import FitFrame, VariationalFit
from posteriori.methods.variational.score_prior.flows import Diagonal, Family, LowRank, RealNVP
from posteriori.priors import log_density as densities
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, Positive


@dataclass(frozen=True)
class ScorePriorVI(Method[VariationalFit]):
    """Variational inference with a diffusion prior: a distribution q is fitted to the posterior by
    stochastic gradients, then drawn from.

        x = m + sqrt(c + sigma^2) T(z),   z ~ N(0, I),   c the prior's variance
        minimise KL(q || p_sigma) over the parameters of T, at falling sigma
        log p_sigma(x) = log prior(x; sigma)
                         - |y - A D(x, sigma)|^2 / (2 (sigma_y^2 + r2 ||A||^2)),
                         r2 = E_q sigma^2 tr J / d
        at the last step:  log p(x) + log p(y | x)
        x ~ q,   log_w = log p(x) p(y | x) - log q(x)

    D(x, sigma) is the denoised image, J = dD/dx, d the count of numbers in x, sigma_y the standard
    deviation of the noise of y.

    q cannot move mass between modes once they are apart. Blurring leaves the masses of modes as
    they are, while p^(1/T) would even them out.

    form: the family of T, "realnvp", "diagonal" or "low-rank" (see ``flows``); published "realnvp".
    gradient: of the prior; published "bound".
        "score"  (D - x) / sigma^2
        "bound"  that of the evidence bound, at one level above sigma per update, which also a
                 network that is no gradient field has; the data are then annealed at x itself and
                 with the widest r2
    draws: rows that share one fit, and the batch of an update, >= 1; published 64.
    updates: per step, >= 1; published 1.
    polish: updates at the last step, >= 0, their rate falling to 0; published 0.
    anneal: False has the final target from the start, as published.
    rate: Adam's step, > 0; published 1e-5.
    clip: the longest gradient, > 0; published 1.
    warmup: the updates over which the rate rises, >= 0; published 5000.
    rank: of "low-rank", >= 1.
    couplings, hidden: of "realnvp", >= 1; published 32 couplings.
    weigh_up_to: >= 0; images of more numbers get no log_w (it would collapse).

    Meant for up to some hundred numbers. An update moves q by ``rate`` of the prior's spread at
    most, and images need 3 of it: 250 updates of "diagonal" on a blurred 3x32x32 photograph give
    10 dB at rate 3e-3, 22 dB at 3e-2, still 4 below y itself.

    Reference: Feng, Smith, Rubinstein, Chang, Bouman, Freeman, Score-based diffusion models as
        principled priors for inverse imaging, 2023; Feng, Bouman, Variational Bayesian imaging with
        an efficient surrogate score-based prior, 2024 ("bound").
    Cost per step: ``updates`` (the last: ``polish``) times one denoiser, two vector-Jacobian
        products (the last: none).
    Assumes: A differentiable, Gaussian noise of a level > 0.
    Exact when: p(x | y) is of the family. Otherwise log_w corrects q, but for modes of mass w that
        q has lost: the bound of log p(y) then falls short by -log(1 - w). ``gap`` in the trace
        compares it with importance sampling from q and the prior together; a large one is warned
        of.
    Departs from the authors' code: annealing; path gradients; no batch norm (q would have no
        density); starts as the prior's Gaussian.
    """

    form: Literal["realnvp", "diagonal", "low-rank"] = "realnvp"
    gradient: Literal["score", "bound"] = "score"
    draws: Count = 256
    updates: Count = 10
    polish: Natural = 1000
    anneal: bool = True
    rate: Positive = 3e-3
    clip: Positive = 100.0
    warmup: Natural = 0
    rank: Count = 8
    couplings: Count = 8
    hidden: Count = 32
    weigh_up_to: Natural = 64

    reference: ClassVar[str] = "feng2023score"
    family: ClassVar[str] = "variational"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "10 denoisers, 20 VJPs"

    @classmethod
    @course(20000, "karras")
    def published(cls) -> ScorePriorVI:
        """32 couplings, the surrogate bound, no annealing, batches of 64; one update a step."""
        return cls("realnvp", "bound", 64, 1, 0, False, 1e-5, 1.0, 5000, couplings=32)

    @property
    def group(self) -> int:
        return self.draws

    def members(self) -> Family:
        forms: dict[str, Family] = {
            "realnvp": RealNVP(self.couplings, self.hidden),
            "low-rank": LowRank(self.rank),
        }
        return forms.get(self.form, Diagonal())

    def refuses(self, post: Posterior) -> str | None:
        if self.form == "realnvp" and math.prod(post.shape) == 1 and not post.prior.complex:
            return (
                "ScorePriorVI: RealNVP couples halves of an image and needs at least 2 "
                "numbers; use form='diagonal'"
            )
        return super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> VariationalFit:
        d = densities.count_numbers(x)
        return fit.begin(
            self.members().initial(rng.uniform(self.members().size(d)).to(x.real), d), x
        )

    def rows(self, state: VariationalFit) -> Tensor:
        return state.x

    def weights(self, post: Posterior, state: VariationalFit) -> Tensor:
        return state.log_w

    def log_evidence(self, post: Posterior, state: VariationalFit) -> Tensor:
        """E log p(x) p(y | x) / q(x), a lower bound; beyond ``weigh_up_to`` numbers with the bound
        of log p(x)."""
        return state.bound

    def step(
        self, post: Posterior, state: VariationalFit, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[VariationalFit, Info]:
        last = not bool(s > 0)
        target = fit.Target(
            post,
            torch.tensor(post.prior.sigma_min).double() if last or not self.anneal else s,
            self.gradient,
        )
        frame = FitFrame(
            densities.centre(post.prior, state.x),
            math.sqrt(post.prior.variance + float(target.level) ** 2),
            self.draws,
        )
        count = self.polish if last and self.polish else self.updates
        for k in range(count):
            done = int(state.updates)
            rate = (
                self.rate
                * min(1.0, (done + 1) / max(self.warmup, 1))
                * (1 - k / count if last else 1.0)
            )
            z = rng.normal(frame.numbers(state.x).flatten(0, 1)).view(
                len(state.params), self.draws, -1
            )
            z = torch.cat(
                [z[:, : self.draws - self.draws // 2], -z[:, : self.draws // 2]], 1
            )  # pairs: shares of modes hardly vary
            slope = partial(
                target.slope,
                m=frame.m,
                turn=done,
                plain=last or not self.anneal,
                rows=self.draws,
                rng=rng,
            )
            state = fit.ascend(self.members(), state, frame, slope, z, rate, self.clip)
        return (
            evidence.finish(post, self.members(), state, frame, rng, self.weigh_up_to)
            if last
            else (state, {})
        )
