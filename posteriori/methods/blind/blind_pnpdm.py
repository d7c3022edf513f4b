"""Blind PnP-DM: split Gibbs sampling with two priors, of the image and of the instrument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.blind.pair import blind_pair, draw_parameters, linear_pair_refusal
from posteriori.methods.decoupled.pnpdm import PnPDM
from posteriori.packing import in_a_row
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative


@dataclass(frozen=True)
class BlindPnPDM(Method[Tensor]):
    """Split Gibbs sampling of image and instrument: two priors, of the image and of the
    instrument's parameters, each on a spring of its own.

        z, w ~ p(z) N(z; x, rho^2 I) p(w) N(w; k, rho^2 I)   the priors, run from rho down to 0
        x    ~ N(x; z, rho'^2 I) p(y | x, k)                 a Gaussian draw, k being known
        k    ~ N(k; w, rho'^2 I) p(y | x, k)                 a Gaussian draw where y is linear in k,
                                                             elliptical slices otherwise
        rho = max(sigma, floor),   rho' = max(s, floor),     in units of each part;
                                                             the last step returns z and w

    x and z are the two images, k and w the two sets of parameters, sigma the noise level and s the
    next one.

    At a fixed rho this is a Gibbs sampler of p(z) p(w) N(x; z, rho^2) N(k; w, rho^2) p(y | x, k).

    prior: how z and w are drawn, "diffusion" or "exact" as of ``PnPDM``, for both parts;
        "diffusion" by default.
    prior_steps: levels of the priors' grid as of ``PnPDM``, for both parts, >= 1; 20 by default.
    moves: of the chain for parameters that y is not linear in, >= 1; 4 by default.
    floor: the smallest rho as of ``PnPDM``, for both parts, >= 0; 0 by default.

    Raises ``ValueError`` for a setting out of its range.

    Reference: Li, Gan, Kamilov, Plug-and-play posterior sampling for blind inverse problems, 2025.
    Cost per step: as many denoisers of the pair as ``prior_steps`` levels lie below rho, one solve
        by row, and one draw of the parameters by conjugate gradients, or ``moves`` times a few
        operators.
    Assumes: a ``Parametric`` instrument that is linear in the image, Gaussian noise, a ``Joint``
        prior.
    Exact when: rho tends to 0 slowly, with enough ``prior_steps``. At a small rho image and
        parameters move each other by little, so that where they are strongly tied most levels
        should lie where rho is as large as what is undecided. Where the parameters are a point it
        is ``PnPDM`` at these.
    Departs from the paper: parameters need not be a kernel, and start at the denoised mean of
        theirs rather than at noise, which would tell the image nothing.
    """

    prior: Literal["diffusion", "exact"] = "diffusion"
    prior_steps: Count = 20
    moves: Count = 4
    floor: NonNegative = 0.0

    reference: ClassVar[str] = "li2025blindpnpdm"
    family: ClassVar[str] = "blind"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "up to 20 denoisers, 1 solve"

    @property
    def requires(self) -> frozenset[str]:
        return self.needs | ({"closed form"} if self.prior == "exact" else set())

    def refuses(self, post: Posterior) -> str | None:
        return linear_pair_refusal(post, "BlindPnPDM") or super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Tensor:
        pair = blind_pair(post)
        image, _ = pair.split(x)
        return in_a_row((image, pair.expected(image)))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        pair = blind_pair(post)
        priors = PnPDM(prior=self.prior, prior_steps=self.prior_steps)
        drawn = priors.draw_prior(post, state, sigma.clamp(min=self.floor), rng)
        if not float(s) > 0:
            return drawn, {}
        rho = max(float(s), self.floor)
        (z, w), (c, d), noise = pair.split(drawn), pair.units, pair.noise(len(state))
        x = pair.draw_images(c * z, pair.told(state)[1], (c * rho) ** 2, noise, rng) / c
        seen = pair.told(in_a_row((x, w)))[0]
        here, r2 = d * pair.split(state)[1], (d * rho) ** 2
        k = draw_parameters(pair, seen, here, d * w, r2, noise, rng, self.moves)
        return in_a_row((x, k / d)), {}
