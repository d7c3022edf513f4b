"""GibbsDDRM: the chain of DDRM, with the instrument's parameters drawn again between its draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.blind.beliefs import belief_refusal, move_parameters
from posteriori.methods.blind.pair import BlindPair, blind_pair, linear_pair_refusal
from posteriori.methods.courses import course
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.explicit.ddrm import DDRM
from posteriori.packing import in_a_row
from posteriori.rng import Rng
from posteriori.settings import Count, Fraction, Natural, Positive


@dataclass(frozen=True)
class GibbsDDRM(Method[Tensor]):
    """Partially collapsed Gibbs sampling along the levels of a diffusion: the chain of DDRM, with
    the instrument's parameters drawn again between its draws.

        x'    a step of DDRM from x, given phi                     x at sigma, x' at s
        phi   ~ p(phi) N(y; A(D'; phi), (widen sigma_y)^2 I)       D' = D(x', s)
        x'    the same step from x again, given the new phi        ``cycles`` times

    x is the image at noise level sigma, x' at the next level s, D' = D(x', s) the denoised image,
    phi the parameters, sigma_y the noise level of y.

    The levels below s are integrated over when phi is drawn (D' stands for them), so that x' must
    be drawn again before they are visited: with the two in the other order the chain would go on
    from an x' that belongs to an older phi. The last step draws no phi.

    cycles: how often phi and x' are drawn again at a level, >= 0; 3 by default (published).
    start: from which share of the largest level on phi is drawn, in [0, 1]; 0.7 by default. Above
        it D' says nothing of phi.
    moves: of the chain for phi where y is not linear in it, >= 1; 4 by default.
    widen: times sigma_y in the law of phi, for D' is not the image, > 0; 2 by default (2 in the
        authors' code).
    eta: of ``DDRM``, in [0, 1]; 0.85 by default (published: 0.8).
    eta_b: of ``DDRM``, in [0, 1]; 1 by default (published: 0.9).

    Raises ``ValueError`` for a setting out of its range.

    Reference: Murata, Saito, Lai, Takida, Uesaka, Mitsufuji, Ermon, GibbsDDRM: a partially
        collapsed Gibbs sampler for solving blind inverse problems with denoising diffusion
        restoration, 2023, algorithm 1.
    Cost per step: 1 + ``cycles`` denoisers, as many data steps in closed form by row, ``cycles``
        draws of the parameters.
    Assumes: a ``Parametric`` instrument that is linear in the image and has a spectrum at known
        parameters, Gaussian noise, a ``Joint`` prior whose belief in them is one
        Gaussian, or a mixture where y is linear in them.
    Exact when: never in general. The draw of phi leaves its law given D' unchanged; where the
        parameters are a point the steps are those of ``DDRM``.
    Departs from the paper: phi is drawn exactly where y is linear in it, and by elliptical slices
        otherwise, in the place of 500 Langevin steps of one size; its prior is the belief, not an
        L1 norm, which is constant for a kernel of sum 1. Numbers beyond the border are not imputed:
        state ``boundary``.
    """

    cycles: Natural = 3
    start: Fraction = 0.7
    moves: Count = 4
    widen: Positive = 2.0
    eta: Fraction = 0.85
    eta_b: Fraction = 1.0

    reference: ClassVar[str] = "murata2023gibbsddrm"
    family: ClassVar[str] = "blind"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "4 denoisers"

    @classmethod
    @course(100, "ddpm")
    def published(cls) -> GibbsDDRM:
        """The paper's image settings: 3 cycles, fresh shares 0.8 and 0.9 of the noise."""
        return cls(cycles=3, eta=0.8, eta_b=0.9)

    def refuses(self, post: Posterior) -> str | None:
        name = "GibbsDDRM"
        said = linear_pair_refusal(post, name) or belief_refusal(post, name)
        return said or super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Tensor:
        image, _ = (pair := blind_pair(post)).split(x)
        return in_a_row((image, pair.expected(image)))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        pair, d = blind_pair(post), blind_pair(post).units[1]
        x0, phi = pair.split(post.prior.denoise(state, sigma))[0], pair.split(state)[1]
        u = self._restored(pair, state, x0, phi, sigma, s, rng)
        if float(sigma) > self.start * post.prior.sigma_max or not float(s) > 0:
            return u, {}
        noise = self.widen * pair.noise(len(state))
        for _ in range(self.cycles):
            ahead = pair.split(post.prior.denoise(u, s))[0]
            seen = pair.told(in_a_row((ahead, phi)))[0]
            phi = move_parameters(pair, seen, d * phi, noise, rng, self.moves) / d
            u = self._restored(pair, state, x0, phi, sigma, s, rng)
        return u, {}

    def _restored(
        self,
        pair: BlindPair,
        u: Tensor,
        x0: Tensor,
        phi: Tensor,
        sigma: Tensor,
        s: Tensor,
        rng: Rng,
    ) -> Tensor:
        """A step of DDRM in every row, by the instrument of its own parameters; these beside it."""
        c, rule = pair.units[0], DDRM(self.eta, self.eta_b)
        x, told = c * pair.split(u)[0], pair.told(in_a_row((x0, phi)))[1]
        z, rows = rng.normal(x), []
        for k in range(len(u)):
            frame = svd_coordinates.frame(pair.known(told[k], k), c * s)
            at = slice(k, k + 1)
            rows.append(rule.restored(frame, x[at], c * x0[at], z[at], c * sigma, c * s))
        return in_a_row((torch.cat(rows) / c, phi))
