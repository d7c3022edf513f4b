"""PaDIS: an image larger than its prior by patches, another random partition at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class PaDIS(Method[Tensor]):
    """Posterior sampling with a prior of patches: an image larger than its prior is cut into
    patches, by another random partition at each step.

        o  ~ uniform on the offsets of a partition, for each row and step
        x' = one step of DPS from x, under the prior of patches at the offset o

    x is the image at noise level sigma, x' the image at level s.

    The score of one partition is that of a product of independent patches, whose seams lie where o
    puts them. Over many steps the seams are everywhere, and the run follows the score averaged over
    offsets. The prior says where partitions are: ``priors.Patches``. Another prior has one
    partition, the whole image: PaDIS is DPS then.

    weighting: of the guidance, "bounded", "likelihood", "norm" or "squared" as of ``DPS``;
        "bounded" by default.
    scale: multiplies the guidance as of ``DPS``, >= 0; 1 by default.
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default.

    Raises ``ValueError`` for a setting out of its range, and for "norm" or "squared" with a
    transition that calls the denoiser twice.

    Reference: Hu, Song, Xu, Shen, Fessler, Learning image priors through patch-based diffusion
        models for solving inverse problems, 2024, algorithm 1.
    Cost per step: one denoiser and one VJP of the image, which are as many of a window as the
        partition has patches; J^T is computed anew, window by window.
    Assumes: A differentiable, a law of the noise that knows every A x.
    Exact when: flat likelihood and numbers of an image that are independent of one another, where
        each partition is the whole.
    Departs from the authors' code: levels are left by ``transition``, theirs by ten Langevin steps
        each; patches at the border are not padded; guidance is DPS's "bounded".
    """

    weighting: Literal["bounded", "likelihood", "norm", "squared"] = "bounded"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "hu2024padis"
    family: ClassVar[str] = "volume"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def __post_init__(self) -> None:
        self._guided  # noqa: B018  (refuses a transition of two denoisers where DPS does)

    @property
    def _guided(self) -> DPS:
        return DPS(self.weighting, self.scale, self.transition)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        size = post.prior.know().patch
        if size is not None:
            offset = (rng.uniform(2) * size).long().to(state.device)
            post = post.under(post.prior.at(offset=offset))
        return self._guided.step(post, state, sigma, s, rng)
