"""DDIP: at every level the denoiser's weights are adapted to y before the step of DDS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.adaptive.fitting import Adapting, LossName, beginning, fitted
from posteriori.methods.adaptive.low_rank import Adapter
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.explicit.dds import DDS
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative, Positive


@dataclass(frozen=True)
class DDIP(Method[Adapting]):
    """Deep diffusion image prior: at every level the weights of the denoiser are adapted to the
    measurement before the step of DDS.

        theta <- theta moved at most ``iterations`` times by Adam on the misfit of y, until
                 chi2 <= ``discrepancy``          (see ``posteriori.methods.adaptive.fitting``)
        x'    =  the step of DDS from x, with D_theta

    x is the image at noise level sigma, x' at the next level s, D_theta the adapted denoiser.

    theta are low-rank adapters of all weights and shifts of all vectors, of each row by itself;
    they are carried from level to level, the moments of Adam are not. A prior that was trained on
    other images than y shows is so drawn towards them.

    rank: of the adapters, at most, >= 1; 4 by default (published).
    iterations: moves a step at most, >= 0; 5 by default (published, for magnetic resonance).
    rate: Adam's step, > 0; 1e-3 by default (published).
    loss: the misfit, "likelihood" or "residual", see ``fitting``; "likelihood" by default
        (published: "residual").
    discrepancy: the chi2 at which a row is adapted no more, >= 0; 1 by default (published: 0, no
        stop).
    sampler: the step that follows; ``DDS()`` by default (published: ``DDS.published()``).

    Raises ``ValueError`` for a setting out of its range. Refuses a prior without weights.

    Reference: Chung, Ye, Deep diffusion image prior for efficient OOD adaptation in 3D inverse
        problems, 2024, algorithm 1.
    Cost per step: that of DDS, and one denoiser and one vector-Jacobian product with respect to the
        weights for each iteration. Rows of a network are denoised one by one, each with weights of
        its own.
    Assumes: linear A, Gaussian noise; a prior with weights.
    Exact when: nothing is adapted and DDS is.
    Departs from the authors' code: the misfit is -log p(y | x) with the denoiser's own error, and
        ends by the discrepancy principle; theirs, the residual after one conjugate-gradient step
        and no stop ("residual", ``discrepancy`` 0), is ``published``, with the exact data step in
        place of one iteration. Theirs also leaves the adapters' dropout on while sampling; there is
        none here.
    """

    rank: Count = 4
    iterations: Natural = 5
    rate: Positive = 1e-3
    loss: LossName = "likelihood"
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
