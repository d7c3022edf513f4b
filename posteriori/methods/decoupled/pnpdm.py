"""PnP-DM: split Gibbs sampling; two coupled images are drawn in turn from prior and likelihood."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import gaussian_draws
from posteriori.methods.transitions import DDIM
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative


@dataclass(frozen=True)
class PnPDM(Method[Tensor]):
    """Split Gibbs sampling with a diffusion prior: two images held together by a spring are drawn
    in turn, one from the prior, the other from the likelihood.

        z ~ p(z) N(z; x, rho^2 I)         the diffusion prior, run from level rho to 0 from x
        x ~ N(x; z, rho'^2 I) p(y | x)    a Gaussian draw
        rho = max(sigma, floor),   rho' = max(s, floor);   the last step returns z

    z and x are the two images, sigma the noise level and s the next one, sigma_y the standard
    deviation of the noise of y.

    This is Gibbs sampling of p(z) N(x; z, rho^2 I) p(y | x), with the spring tightened along the
    grid. At a fixed rho its marginals are

        z:  p(z) N(y; A z, sigma_y^2 I + rho^2 A A^T)
        x:  (p * N(0, rho^2 I))(x) N(y; A x, sigma_y^2 I)

    prior: how z is drawn. "diffusion": by ancestral sampling on those levels of a Karras grid of
        ``prior_steps`` that lie below rho. "exact": from a prior in closed form. A deterministic
        sampler would be no Gibbs step, so none is offered.
    draw: how x is drawn, a rule of ``posteriori.methods.data_steps.gaussian_draws``.
    prior_steps: levels of the prior's grid, >= 1; published 100.
    inner_steps: steps of a draw's chain or minimisation, >= 1.
    floor: the smallest rho, >= 0, in the prior's units; published 0.3.

    For a curved A spend the levels where rho is as large as what is undecided, for digits in
    [-1, 1] between 0.25 and 1. With ``prior_steps=4, inner_steps=20, grid=PnPDM.curved(0.45)`` all
    of the digits of ``DAPS`` are found, about half at a chi2 above the noise's.

    Reference: Wu, Sun, Chen, Zhang, Yue, Bouman, Principled probabilistic imaging using diffusion
        models as plug-and-play priors, 2024, algorithm 1. The split is that of Vono, Dobigeon,
        Chainais, Split-and-augmented Gibbs sampler, 2019.
    Cost per step: as many denoisers as ``prior_steps`` levels lie below rho, and one solve, or
        ``inner_steps`` operator gradients.
    Assumes: a differentiable A, noise with a density; steps enough to mix, about variance / rho^2
        of them in directions that y does not see.
    Exact when: rho tends to 0 slowly, with enough ``prior_steps``. At a fixed rho the marginals are
        those above for any prior.
    Departs from the authors' code: rho itself is the first level of the prior's run (theirs starts
        at the first grid level below rho). The Langevin step comes from the measured curvature. The
        draw for a non-linear A need not be Langevin.
    """

    prior: Literal["diffusion", "exact"] = "diffusion"
    draw: gaussian_draws.DrawName = "conditional"
    prior_steps: Count = 20
    inner_steps: Count = 100
    floor: NonNegative = 0.0

    reference: ClassVar[str] = "wu2024pnpdm"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"density"})
    cost: ClassVar[str] = "up to 20 denoisers, 1 solve"
    claims: ClassVar[frozenset[str]] = frozenset(
        {"with more prior_steps a flat likelihood gives the prior"}
    )

    @classmethod
    @course(100, lambda prior, steps: PnPDM.annealing(steps), "levels 10 * 0.9^k")
    def published(cls) -> PnPDM:
        """The paper's linear problems: 100 prior levels and rho never below 0.3."""
        return cls(prior_steps=100, floor=0.3)

    @staticmethod
    def annealing(steps: int = 100, start: float = 10.0, decay: float = 0.9) -> Tensor:
        """The paper's rho_k = start decay^k as a grid, (steps + 1,) float64; ``floor`` bounds it
        from below."""
        levels = start * decay ** torch.arange(steps, dtype=torch.float64)
        return torch.cat([levels, levels.new_zeros(1)])

    @staticmethod
    def curved(spread: float, steps: int = 160) -> Tensor:
        """A grid for curved operators, (steps + 1,) float64.

        Seven levels of eight are geometric from 2.2 to 0.55 times ``spread``, the standard
        deviation of one number of an image (``prior.variance ** 0.5``), the rest from there to
        0.044 times.

        Raises ``ValueError`` for fewer than 16 steps or a spread of 0.
        """
        if steps < 16 or not spread > 0:
            raise ValueError(
                f"PnPDM.curved needs spread > 0 and steps >= 16, got {spread} and {steps}"
            )
        tail = steps // 8
        wide, narrow = (
            grid.log(steps - tail, 2.2 * spread, 0.55 * spread),
            grid.log(tail, 0.49 * spread, 0.044 * spread),
        )
        return torch.cat([wide[:-1], narrow])

    @property
    def requires(self) -> frozenset[str]:
        more = {"closed form"} if self.prior == "exact" else set()
        # The floor widens what y says by more than few photons leave open.
        return (
            self.needs
            | more
            | ({"unbounded"} if self.draw in gaussian_draws.UNBOUNDED or self.floor > 0 else set())
        )

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        z = self.draw_prior(post, state, sigma.clamp(min=self.floor), rng)
        if not float(s) > 0:
            return z, {}
        return gaussian_draws.draw_tilted(
            self.draw,
            gaussian_draws.Tilted(post.likelihood, z, max(float(s), self.floor) ** 2),
            rng,
            self.inner_steps,
        )

    def draw_prior(self, post: Posterior, x: Tensor, rho: Tensor, rng: Rng) -> Tensor:
        """z ~ p(z) N(z; x, rho^2 I): (B, *E)."""
        if self.prior == "exact":
            return post.prior.know().exact("p(x0 | x)").draw_given(x, rho, rng)
        levels = grid.karras(self.prior_steps, post.prior.sigma_max, post.prior.sigma_min).to(rho)
        step = DDIM(eta=1.0)
        for level, lower in itertools.pairwise(
            torch.cat([rho[None], levels[levels < rho * (1 - grid.SLACK)]])
        ):
            x = step(post.prior.denoise, x, level, lower, rng)
        return x
