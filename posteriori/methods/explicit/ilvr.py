"""ILVR: low frequencies of the image follow a noised reference, down to a chosen noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.explicit.scoresde import Treatment, replace_measured
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class ILVR(Method[Tensor]):
    """Iterative latent variable refinement: the low frequencies of the image follow those of a
    noised reference, down to the noise level ``until``.

        x' <- transition(D)
        x' <- x' - phi(x') + phi(ref + s z)                    while s > until

        phi = A^+ A   (downsample, then upsample),   z fresh

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image. The reference enters through y = A ref alone: phi(ref + s z) = A^+ (y + s A z).

    until: lowest level that is conditioned, >= 0. Below it the sampler is free, so that the result
        shares the reference's coarse content and need not reproduce it. 0, the default (published),
        conditions every level but the last image.
    transition: how x' is drawn from x and D, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published).
    noise: "known" by default. With a noisy y the replacement is then the damped one of ScoreSDE,
        which leaves alone what y tells less of than x' does. "ignored" is the paper's (published).

    Raises ``ValueError`` for a negative ``until``.

    Reference: Choi, Kim, Jeong, Gwon, Yoon, ILVR: conditioning method for denoising diffusion
        probabilistic models, 2021, algorithm 1.
    Cost per step: one denoiser, one operator, one solve or pseudo-inverse.
    Assumes: linear A, usually a downsampling; "ignored" also that y has no noise.
    Exact when: as ScoreSDE, for until = 0 up to the last image.
    Departs from the authors' code: the reference is noised to the level s that x' has (theirs to
        sigma, one level too many); phi is the orthogonal projector A^+ A, where a pair of bicubic
        resizings is one only approximately.
    """

    until: NonNegative = 0.0
    transition: Transition = DDIM(eta=1.0)
    noise: Treatment = "known"

    reference: ClassVar[str] = "choi2021ilvr"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 solve or pseudo-inverse"

    @classmethod
    @course(1000, "ddpm", fewest=250)
    def published(cls) -> ILVR:
        """The authors' setting: every level, the reference taken as noiseless."""
        return cls(until=0.0, transition=DDIM(eta=1.0), noise="ignored")

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x = self.transition(post.prior.denoise, state, sigma, s, rng)
        return (
            replace_measured(post, x, sigma, s, rng, self.noise) if above(s, self.until) else x
        ), {}
