"""SVI: a video by a prior of images; frames share their noise, and one solve moves them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.axis_kernels import OneForAll
from posteriori.likelihood import Posterior
from posteriori.linalg import cg
from posteriori.methods.axis_noise import AxisNoise
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.transitions import DDIM, Transition, one_call
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative


@dataclass(frozen=True)
class SVI(Method[Tensor]):
    """Video inverse problems by a prior of images: frames share their noise, and conjugate
    gradients over all frames at once move the denoised frames towards the data.

        x  at the largest level: that of the first frame, for every frame
        D' ~ argmin_u ||y - A u||^2
             by ``iterations`` conjugate gradients on A^T A d = A^T (y - A D) from 0
        x' = transition(D'), its fresh noise z being one image for all frames

    x is the video at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised
    frames, and D' = D + d.

    Frames that are measured alike stay alike: one noise makes one video of them, where independent
    noise makes each frame another sample.

    iterations: conjugate gradients at most, >= 1; 5 by default (published).
    rtol: relative residual at which they stop early, >= 0; 1e-4 by default (published: 0).
    shared: one noise for all frames, at the largest level and in every transition; on by default
        (published).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ``DDIM`` with eta = 0.15 by
        default (published).

    Raises ``ValueError`` for a setting out of its range, and for a transition that calls the
    denoiser twice.

    Reference: Kwon, Ye, Solving video inverse problems using image diffusion models, 2025,
        algorithm 1.
    Cost per step: one denoiser (of all frames), iterations + 1 operators and adjoints; no
        derivative of the denoiser.
    Assumes: linear A, y without noise or nearly so; images (frames, *E), as of ``priors.Slices``.
    Exact when: never in general. The noise has rank 1 along the frames, so that what differs
        between frames is an estimate without a spread: read no interval of it. With ``shared`` off
        and a converged solve it is DDS "noiseless" with this transition.
    Departs from the authors' code: residual products are over the video of each row alone; frames
        are not cut into blocks of 16, memory is bounded by ``Slices(at_once=...)``.
    """

    iterations: Count = 5
    rtol: NonNegative = 1e-4
    shared: bool = True
    transition: Transition = DDIM(eta=0.15)

    reference: ClassVar[str] = "kwon2025svi"
    family: ClassVar[str] = "volume"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, iterations + 1 operators and adjoints"

    def __post_init__(self) -> None:
        one_call(self.transition, "SVI", "the data step")

    @classmethod
    @course(20, "ddpm")
    def published(cls) -> SVI:
        """The authors' setting: 5 iterations, eta 0.15, one noise for all frames."""
        return cls(rtol=0.0)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Tensor:
        return x[:, :1].expand_as(x).clone() if self.shared else x

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        A = post.likelihood.linear
        x0 = post.prior.denoise(state, sigma)
        gap = A.adjoint(post.likelihood.residual(x0))
        solved = cg(
            lambda d: A.adjoint(A(d)),
            gap,
            max_iter=self.iterations,
            rtol=self.rtol,
            attainable=True,
        )
        moved = x0 + solved.x
        noise = AxisNoise(rng, OneForAll()) if self.shared else rng
        return self.transition(lambda v, level: moved, state, sigma, s, noise), {
            "residual": solved.residual
        }
