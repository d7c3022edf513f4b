"""MCG: the guided step of DPS, then the measured part of the image is replaced as in ScoreSDE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.explicit.scoresde import Treatment, replace_measured
from posteriori.methods.transitions import DDIM, Transition, one_call
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class MCG(Method[Tensor]):
    """Manifold-constrained gradient: the guided step of DPS, then the measured part of the image is
    replaced as in ScoreSDE.

        x' <- a guided step, along g = J^T A^T (y - A D),   J = dD/dx
        x' <- x' + M (y + s A z + sqrt(2 / c - 1) v n - A x')

        bounded   x' = transition(D + scale sigma^2 g / (sigma_y^2 + r2 ||A||^2))    (default)
        norm      x' = transition(D) + scale g / (||y - A D|| a_sigma a_s)           authors' code
        squared   x' = transition(D) + 2 scale g / (a_sigma a_s)                     paper

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, a_sigma = 1 / sqrt(1 + sigma^2), r2 as in DPS, z and n fresh, M, c and v as in ScoreSDE.
    Where M = A^+ the replacement leaves of the guidance only its part in the null space of A, which
    reaches there through J.

    weighting: of the guided step, as in DPS: "bounded", "norm" (published) or "squared".
    scale: multiplies the guidance, a finite number >= 0; 1 by default (published); 0 is ScoreSDE.
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published).
    noise: of y in the replacement, "known" (default) or "ignored" (published), as in ScoreSDE.

    Raises ``ValueError`` for a ``scale`` that is not a finite number >= 0, and for "norm" or
    "squared" with a transition that calls the denoiser twice.

    Reference: Chung, Sim, Ryu, Ye, Improving diffusion models for inverse problems using manifold
        constraints, 2022, algorithm 1.
    Cost per step: one denoiser, one vector-Jacobian product, one solve or pseudo-inverse, two
        operators, one adjoint.
    Assumes: linear A; noise "ignored" also no noise on y, which is fitted: the images leave the
        noisy manifold as it grows.
    Exact when: no noise, and P x independent of (I - P) x under the prior; the guidance then has no
        part in the null space.
    Departs from the authors' code: the replacement is noised to the level s that x' has (theirs to
        sigma, one level too many); norms are per row; the paper's weight matrix W is the identity.
    """

    weighting: Literal["bounded", "norm", "squared"] = "bounded"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)
    noise: Treatment = "known"

    reference: ClassVar[str] = "chung2022mcg"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP, 1 solve or pseudo-inverse"

    def __post_init__(self) -> None:
        if self.weighting != "bounded":
            one_call(self.transition, "MCG", f"the weighting {self.weighting!r}")

    @classmethod
    @course(1000, "ddpm")
    def published(cls) -> MCG:
        """The authors' inpainting setting: the norm, not squared, scale 1, y taken as noiseless."""
        return cls("norm", 1.0, DDIM(eta=1.0), "ignored")

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        guided, info = DPS(self.weighting, self.scale, self.transition).step(
            post, state, sigma, s, rng
        )
        return replace_measured(post, guided, sigma, s, rng, self.noise), info
