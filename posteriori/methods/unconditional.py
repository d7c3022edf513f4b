"""The prior itself: reverse diffusion that never looks at the measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng


@dataclass(frozen=True)
class Unconditional(Method[Tensor]):
    """Samples of the prior, the baseline that every method must beat, and reduce to under a flat
    likelihood.

        x' = transition(D)

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image.

    transition: how x' is drawn from x and D, see ``posteriori.methods.transitions``; ancestral
        sampling by default.

    Reference: Song et al., Score-based generative modeling through stochastic differential
        equations, 2021.
    Cost per step: one denoiser (two with Heun).
    Assumes: nothing of operator and noise, which it ignores.
    Exact when: steps -> infinity (DDIM: order 1; Heun: order 2), for an exact denoiser.
    """

    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "song2021sde"
    family: ClassVar[str] = "prior"
    cost: ClassVar[str] = "1 denoiser"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        return self.transition(post.prior.denoise, state, sigma, s, rng), {}
