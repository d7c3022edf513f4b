"""PaDIS: an image larger than its prior by patches, another random partition at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import between, course
from posteriori.methods.explicit.dps import DPS
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import Natural, NonNegative


@dataclass(frozen=True)
class PaDIS(Method[Tensor]):
    """Posterior sampling with a prior of patches: an image larger than its prior is cut into
    patches, by another random partition at each step.

        o  ~ uniform on the offsets of a partition, for each row and step
        x' = one step of DPS from x, under the prior of patches at the offset o      inner = 0

        x <- x + scale g / ||y - A D||                                 ``inner`` times, each with
        x <- x + h/2 (D - x_before) / sigma^2 + sqrt(h) z              its own o; h = sigma^2 / 2

    x is the image at noise level sigma, x' the image at level s, x_before is x before its first
    line. D = D(x, sigma), the denoised image, and g = J^T A^T (y - A D), J = dD/dx, are those at
    the offset o. z is standard normal, and 0 at the last level.

    The score of one partition is that of a product of independent patches, whose seams lie where o
    puts them. Over many steps the seams are everywhere, and the run follows the score averaged over
    offsets. The prior says where partitions are: ``priors.Patches``. Another prior has one
    partition, the whole image: PaDIS is DPS then.

    weighting: of the guidance, "bounded", "likelihood", "norm" or "squared" as of ``DPS``;
        "bounded" by default (published: "norm").
    scale: multiplies the guidance as of ``DPS``, >= 0; 1 by default (published: 0.6 for images in
        [-1, 1], which is 0.3 for images in [0, 1]).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default.
    inner: Langevin steps at each level, in place of the transition, >= 0; 0 by default (published:
        10). They take the weighting "norm", and its ``scale`` as it is, without the factors a of
        ``DPS``.

    Raises ``ValueError`` for a setting out of its range, for "norm" or "squared" with a transition
    that calls the denoiser twice, and for ``inner`` with another weighting than "norm".

    Reference: Hu, Song, Xu, Shen, Fessler, Learning image priors through patch-based diffusion
        models for solving inverse problems, 2024, algorithm 1.
    Cost per step: one denoiser and one VJP of the image (``inner`` of each), which are as many of a
        window as the partition has patches; J^T is computed anew, window by window.
    Assumes: A differentiable, a law of the noise that knows every A x.
    Exact when: flat likelihood and numbers of an image that are independent of one another, where
        each partition is the whole.
    Departs from the authors' code: by default levels are left by ``transition`` and guidance is
        DPS's "bounded"; norms and offsets are per row; patches at the border are not padded; a run
        starts from noise, theirs from the back-projection of y.
    """

    weighting: Literal["bounded", "likelihood", "norm", "squared"] = "bounded"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)
    inner: Natural = 0

    reference: ClassVar[str] = "hu2024padis"
    family: ClassVar[str] = "volume"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP, or inner of each"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(100, between("karras", 20.0, 0.006), "levels of Karras from 20 to 0.006")
    def published(cls) -> PaDIS:
        """The authors' setting for tomography of 20 views: ten Langevin steps at each level, the
        gradient of the residual's norm with the weight 0.3 of images in [0, 1]."""
        return cls("norm", 0.6, inner=10)

    def __post_init__(self) -> None:
        self._guided  # noqa: B018  (refuses a transition of two denoisers where DPS does)
        if self.inner and self.weighting != "norm":
            raise ValueError(
                f"PaDIS: inner Langevin steps are guided by the residual's norm, got the weighting "
                f"{self.weighting!r}; state weighting='norm'"
            )

    @property
    def _guided(self) -> DPS:
        return DPS(self.weighting, self.scale, self.transition)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        if not self.inner:
            return self._guided.step(_cut(post, state, rng), state, sigma, s, rng)
        for _ in range(self.inner):
            state = self.langevin(_cut(post, state, rng), state, sigma, bool(s > 0), rng)
        return state, {}

    def langevin(self, post: Posterior, x: Tensor, sigma: Tensor, noisy: bool, rng: Rng) -> Tensor:
        """One Langevin step at level sigma, with fresh noise where it is ``noisy``."""
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        residual = post.likelihood.y - clean
        # A zero residual has a zero gradient; its norm must not turn that into 0 / 0.
        size = dot(residual, residual).sqrt()
        steer = pull(adjoint(residual)) * per_row((size > 0) / size.clamp(min=1e-30), x0)
        h = 0.5 * float(sigma) ** 2
        out = x + self.scale * steer + h / 2 * (x0 - x) / float(sigma) ** 2
        return out + h**0.5 * rng.normal(x) if noisy else out


def _cut(post: Posterior, x: Tensor, rng: Rng) -> Posterior:
    """The posterior with another partition for each row, where the prior has several."""
    size = post.prior.know().patch
    if size is None:
        return post
    offset = (rng.uniform(2) * size).long().to(x.device)
    return post.under(post.prior.at(offset=offset))
