"""TPDM: two priors of perpendicular slices take turns; the first is guided by the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import NonNegative, number

_State = tuple[Tensor, Tensor]
AtLeastOne = Annotated[float, BeforeValidator(number), Field(ge=1)]


@dataclass(frozen=True)
class TPDM(Method[_State]):
    """Two perpendicular diffusion models: two priors of perpendicular slices take turns, and the
    first of them is guided by the data.

        x' = one step of DPS under the first prior            in every - 1 of every ``every`` steps
        x' = one step of the second prior alone               in the others

    x' is the image at the next level s.

    The priors are the ``views`` of an averaged prior (``priors.AveragedScores``), each a prior of
    whole volumes, the second of slices along another axis (``priors.Turned``). Another prior is its
    only view: TPDM is then DPS whose data step is left out of every ``every``-th step.

    As steps are added the unguided sampler tends to that of the averaged score,
    (every - 1) / every of the first and 1 / every of the second, to first order. That is the prior
    ``AveragedScores`` itself, which any method samples in one. It is not the product of the two
    priors to these powers: averaged scores of noisy densities are no score of the averaged
    logarithm's noisy density (tested on Gaussians, in numbers).

    every: the second prior has one of so many steps, a number >= 1; 2 by default (published).
    weighting: of the guidance, "bounded", "likelihood", "norm" or "squared" as of ``DPS``;
        "bounded" by default (published: "norm").
    scale: multiplies the guidance as of ``DPS``, >= 0; 1 by default (published: 0.3).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published).

    Raises ``ValueError`` for a setting out of its range, and for "norm" or "squared" with a
    transition that calls the denoiser twice.

    Reference: Lee, Chung, Park, Park, Ryu, Ye, Improving 3D imaging with pre-trained perpendicular
        2D diffusion models, 2023, algorithm 1.
    Cost per step: one denoiser, and one VJP under the first prior.
    Assumes: A differentiable, a law of the noise that knows every A x.
    Exact when: flat likelihood and one view, where it is the prior's own sampler.
    Departs from the authors' code: ``every`` that is no integer spreads its turns evenly, where
        theirs throws a die; the noise of the predictor is kept; the guidance is DPS's "bounded" by
        default.
    """

    every: AtLeastOne = 2.0
    weighting: Literal["bounded", "likelihood", "norm", "squared"] = "bounded"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "lee2023tpdm"
    family: ClassVar[str] = "volume"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 denoiser, at most 1 VJP"

    def __post_init__(self) -> None:
        self._guided  # noqa: B018  (refuses a transition of two denoisers where DPS does)

    @property
    def _guided(self) -> DPS:
        return DPS(self.weighting, self.scale, self.transition)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        return x, torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, made = state
        views = post.prior.know().views or (post.prior,)
        k = int(made[0])
        # The turns of the second prior are where (k + 1) / every passes a whole number.
        if int((k + 1) / self.every) > int(k / self.every):
            x = self.transition(views[-1].denoise, x, sigma, s, rng)
        else:
            x = self._guided.step(post.under(views[0]), x, sigma, s, rng)[0]
        return (x, made + 1), {}
