"""RePaint: ScoreSDE, each step walked several times, with noise added in between to come back
up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.explicit.scoresde import Treatment, replace_measured
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import Count


@dataclass(frozen=True)
class RePaint(Method[Tensor]):
    """Replacement with repeated walks: ScoreSDE, each step walked several times, with noise added
    in between to come back up.

    ``repeats`` times:

        x' <- transition(D)
        x' <- x' + M (y + s A z + sqrt(2 / c - 1) v n - A x')
        x  <- x' + sqrt(sigma^2 - s^2) z                          between two walks, not at s = 0

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, z and n are fresh, M, c and v as in ScoreSDE. The walks up and down are a Markov chain at
    each level, in which the two parts of the image come to agree: the bias of a single replacement
    falls as the walks are repeated.

    repeats: walks of each step, at least 1, which is ScoreSDE; 10 by default (published).
    transition: how x' is drawn from x and D, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published).
    noise: of y, "known" (default) or "ignored" (published), as in ScoreSDE.

    Raises ``ValueError`` for fewer than 1 walk.

    Reference: Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool, RePaint: inpainting using
        denoising diffusion probabilistic models, 2022, algorithm 1.
    Cost per step: ``repeats`` denoisers, operators and solves or pseudo-inverses; one of each in
        the last step.
    Assumes: linear A (the paper: a mask); noise "ignored" also that y has no noise, which is
        fitted.
    Exact when: no noise, and P x independent of (I - P) x under the prior, with one walk; in the
        limit of many walks and many steps, down to a small last level, for any prior (tested).
    Departs from the authors' code: a walk up spans one level, as in the paper's algorithm (theirs
        10, with the same number of walks of each level); the last image is measured exactly (theirs
        to the lowest noise level); no learned variances, no clipping.
    """

    repeats: Count = 10
    transition: Transition = DDIM(eta=1.0)
    noise: Treatment = "known"

    reference: ClassVar[str] = "lugmayr2022repaint"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "repeats denoisers and solves or pseudo-inverses"

    @classmethod
    @course(250, "ddpm")
    def published(cls) -> RePaint:
        """The paper's setting: each level walked 10 times, y taken as noiseless."""
        return cls(repeats=10, transition=DDIM(eta=1.0), noise="ignored")

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x = replace_measured(
            post,
            self.transition(post.prior.denoise, state, sigma, s, rng),
            sigma,
            s,
            rng,
            self.noise,
        )
        for _ in range(self.repeats - 1 if bool(s > 0) else 0):
            up = x.add(rng.normal(x), alpha=float((sigma**2 - s**2).sqrt()))
            x = replace_measured(
                post,
                self.transition(post.prior.denoise, up, sigma, s, rng),
                sigma,
                s,
                rng,
                self.noise,
            )
        return x, {}
