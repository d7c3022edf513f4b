"""SCD: a denoiser adapted to y gives the image, the denoiser as trained the noise direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.adaptive.ddip import widths
from posteriori.methods.adaptive.fitting import Adapting, LossName, beginning, fitted
from posteriori.methods.adaptive.low_rank import Adapter
from posteriori.methods.base import Info, Method
from posteriori.methods.explicit.dds import DDS
from posteriori.methods.transitions import renoise
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction, Natural, NonNegative, Positive


@dataclass(frozen=True)
class SCD(Method[Adapting]):
    """Steerable conditional diffusion: the denoised image comes from a denoiser adapted to the
    measurement, the noise direction from the denoiser as it was trained.

        theta <- theta moved at most ``iterations`` times by Adam on the misfit of y, until
                 chi2 <= ``discrepancy``          (see ``posteriori.methods.adaptive.fitting``)
        x0'   =  the data step of DDS from D_theta(x)
        x'    =  x0' + sqrt(s^2 - std^2) (x - D(x)) / sigma + std z,
                 std = eta s sqrt(1 - s^2 / sigma^2)

    x is the image at noise level sigma, x' at the next level s, D the denoiser as it was trained,
    D_theta the adapted one, z standard normal.

    theta are low-rank adapters of the matrices and kernels, of each row by itself; one optimiser,
    with its moments, goes through the whole run.

    rank: of the adapters, at most, >= 1; 8 by default.
    iterations: moves a step at most, >= 0; 5 by default.
    rate: Adam's step, > 0; 1e-3 by default.
    loss: the misfit, "likelihood" or "residual", see ``fitting``; "likelihood" by default.
    discrepancy: the chi2 at which a row is adapted no more, >= 0; 1 by default.
    eta: of the fresh noise, in [0, 1], as above; 0.2 by default.
    sampler: the ``DDS`` whose data step is taken; ``DDS()`` by default.

    Raises ``ValueError`` for a setting out of its range. Refuses a prior without matrices.

    Reference: Barbano, Denker, Chung, Roh, Arridge, Maass, Jin, Ye, Steerable conditional diffusion
        for out-of-distribution adaptation in medical image reconstruction, 2025, algorithm 1.
    Cost per step: two denoisers, those of the data step of DDS, and one denoiser and one
        vector-Jacobian product with respect to the weights for each iteration.
    Assumes: linear A, Gaussian noise; a prior with matrices or kernels.
    Exact when: nothing is adapted and DDS with the noise direction of the network is.
    Departs from the authors' code: no total variation in the misfit (its weight there is 1e-6); the
        misfit and its stop are those of ``fitting``; weights are adapted at every step, not at
        every twentieth and the last four.
    """

    rank: Count = 8
    iterations: Natural = 5
    rate: Positive = 1e-3
    loss: LossName = "likelihood"
    discrepancy: NonNegative = 1.0
    eta: Fraction = 0.2
    sampler: DDS = DDS()

    reference: ClassVar[str] = "barbano2025scd"
    family: ClassVar[str] = "adaptive"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "2 + iterations denoisers, iterations VJPs, operators of DDS"
    claims: ClassVar[frozenset[str]] = frozenset()

    def refuses(self, post: Posterior) -> str | None:
        """Also a prior without matrices."""
        try:
            Adapter.of(post.prior, self.rank, vectors=False)
        except TypeError as error:
            return f"SCD: {error}"
        return super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Adapting:
        return beginning(x, Adapter.of(post.prior, self.rank, vectors=False).start(x, rng))

    def step(
        self, post: Posterior, state: Adapting, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Adapting, Info]:
        adapter = Adapter.of(post.prior, self.rank, vectors=False)
        r2, s2 = widths(self.sampler, post, sigma)
        state, info = fitted(
            post,
            state,
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
        x0 = self.sampler.denoise(adapted, state.x, sigma, info)
        std = self.eta * float(s * (1 - s**2 / sigma**2).sqrt())
        base = post.prior.denoise(state.x, sigma)
        return state._replace(x=renoise(x0, state.x, sigma, s, std, rng, origin=base)), info

    def rows(self, state: Adapting) -> Tensor:
        return state.x
