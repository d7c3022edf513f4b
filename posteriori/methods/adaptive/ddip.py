"""DDIP: at every level the weights of the denoiser are adapted to the measurement before the step
of DDS.

    theta_t = theta_{t+1} moved ``iterations`` times by Adam on the misfit of y, see ``fitting``
    x' = DDS step with D_theta

theta are low-rank adapters of all weights and shifts of all vectors, of each row by itself; they
are carried from level to level, the moments of Adam are not. A prior that was trained on other
images than y shows is so drawn towards them.

Reference: Chung, Ye, Deep diffusion image prior for efficient OOD adaptation in 3D inverse
problems, 2024, algorithm 1.
Cost per step: that of DDS, and one denoiser and one vector-Jacobian product with respect to the
weights for each iteration. Rows of a network are denoised one by one, each with weights of its own.
Assumes: linear A, Gaussian noise; a prior with weights. Exact when: nothing is adapted and DDS is.
Departs from the authors' code: the misfit is -log p(y | x) with the denoiser's own error, and ends
by the discrepancy principle; theirs, the residual after one conjugate-gradient step and no stop
("residual", ``discrepancy`` 0), is ``published``, with the exact data step in place of one
iteration. Theirs also leaves the adapters' dropout on while sampling; there is none here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.adaptive.fitting import Adapting, Loss, beginning, fitted
from posteriori.methods.adaptive.low_rank import Adapter
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.explicit.dds import DDS
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative, Positive


@dataclass(frozen=True)
class DDIP(Method[Adapting]):
    """Deep diffusion image prior; see the module. ``rank`` of the adapters, at most ``iterations``
    moves a step by ``rate``, until chi2 <= ``discrepancy``; ``sampler``: the step that follows."""

    rank: Count = 4
    iterations: Natural = 5
    rate: Positive = 1e-3
    loss: Loss = "likelihood"
    discrepancy: NonNegative = 1.0
    sampler: DDS = DDS()

    reference: ClassVar[str] = "chung2024ddip"
    family: ClassVar[str] = "adaptive"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 + iterations denoisers, iterations VJPs, those of DDS"
    claims: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @course(50, "ddpm")
    def published(cls) -> DDIP:
        """The authors' setting for magnetic resonance: five iterations, no stop, DDS as
        published."""
        return cls(loss="residual", discrepancy=0.0, sampler=DDS.published())

    def refuses(self, post: Posterior) -> str | None:
        """Also a prior without weights."""
        try:
            Adapter.of(post.prior, self.rank, vectors=True)
        except TypeError as error:
            return f"DDIP: {error}"
        return super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Adapting:
        return beginning(x, Adapter.of(post.prior, self.rank, vectors=True).start(x, rng))

    def step(
        self, post: Posterior, state: Adapting, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Adapting, Info]:
        adapter = Adapter.of(post.prior, self.rank, vectors=True)
        r2, s2 = widths(self.sampler, post, sigma)
        state, info = fitted(
            post,
            state.rested(),
            sigma,
            adapter,
            r2=r2,
            s2=s2,
            loss=self.loss,
            iterations=self.iterations,
            rate=self.rate,
            discrepancy=self.discrepancy,
        )
        adapted = post.under(post.prior.at(**adapter.leaves(state.theta)))
        x, more = self.sampler.step(adapted, state.x, sigma, s, rng)
        return state._replace(x=x), info | more

    def rows(self, state: Adapting) -> Tensor:
        return state.x


def widths(sampler: DDS, post: Posterior, sigma: Tensor) -> tuple[float, float]:
    """r2 and s2 of M = s2 I + r2 A A^T, whose ratio is the weight of the data in ``sampler``."""
    s2 = post.likelihood.std**2
    if sampler.weighting == "fixed":
        return (sampler.scale * s2, s2) if s2 > 0 else (sampler.scale, 1.0)
    if sampler.weighting == "noiseless":
        return 1.0, 0.0
    return sampler.scale * post.prior.know().error(sigma), s2
