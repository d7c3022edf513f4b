"""DDS3D: decomposed diffusion sampling of volumes, whose slices total variation ties together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.total_variation import Split, no_split, tied
from posteriori.methods.transitions import DDIM, ConstantFraction, Transition, one_call
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative, Positive

_State = tuple[Tensor, Split]


@dataclass(frozen=True)
class DDS3D(Method[_State]):
    """DDS of volumes: a prior of slices, and total variation along the first axis of images, which
    ties the slices together.

        D' ~ argmin_u  1/2 ||y - A u||^2 + w/2 ||u - D||^2
                       + lam c ||A||^2 sum_k ||u[k + 1] - u[k]||_1          by ADMM from D

        matched     w = sigma_y^2 / error(sigma), error the denoiser's own mean squared error
        noiseless   w = 0: a few conjugate gradients from D

        implied     x' = transition(D')             the noise of x is what is left of it after D'
        network     x' = transition(D) + D' - D     the noise of x is what the denoiser saw

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, sigma_y the noise level of y, c the width of the range of images (see
    ``posteriori.methods.data_steps.total_variation``).

    The split jumps and the dual of ADMM live on from step to step; rho ||A||^2 is its penalty.

    lam: weight of the total variation, >= 0; 0.04 by default (published).
    rho: penalty of ADMM, > 0; 10 by default (published).
    weighting: w, as above; "matched" by default (published: "noiseless").
    direction: what the noise of x is, as above; "implied" by default (published: "network").
    iterations: conjugate gradients of a round at most, >= 1; 5 by default (published).
    outer: rounds of ADMM a step, >= 1; 1 by default (published).
    rtol: relative residual at which conjugate gradients stop early, >= 0; 1e-4 by default
        (published: 0).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published: ``ConstantFraction`` with zeta = 0.85^2).

    Raises ``ValueError`` for a setting out of its range, and for a transition that calls the
    denoiser twice.

    Memory: the volume, the measurement, and two more volumes for the split and the dual.

    Reference: Chung, Lee, Ye, Decomposed diffusion sampler for accelerating large-scale inverse
        problems, 2024, section 3.3 and algorithm of its 3-D form.
    Cost per step: one denoiser (of all slices), outer (iterations + 1) operators and adjoints; no
        derivative of the denoiser.
    Assumes: linear A, Gaussian noise, possibly of level 0; images (slices, *E), as of
        ``priors.Slices``.
    Exact when: lam = 0, as DDS "matched" is: for white Gaussian slices. With lam > 0 the total
        variation is one more prior, applied anew at every level: samples follow no stated law.
    Departs from the authors' code: jumps do not wrap from the last slice to the first; the noise of
        y sets w by default; lam and rho are those for an operator of norm 1 and images in [0, 1];
        residual products are over the volume of each row alone.
    """

    lam: NonNegative = 0.04
    rho: Positive = 10.0
    weighting: Literal["matched", "noiseless"] = "matched"
    direction: Literal["implied", "network"] = "implied"
    iterations: Count = 5
    outer: Count = 1
    rtol: NonNegative = 1e-4
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "chung2024dds"
    family: ClassVar[str] = "volume"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, outer (iterations + 1) operators and adjoints"

    def __post_init__(self) -> None:
        one_call(self.transition, "DDS3D", "its split, which is moved once a step,")

    @classmethod
    @course(50, "ddpm")
    def published(cls) -> DDS3D:
        """The authors' setting for sparse views: y taken as noiseless, lam 0.04, rho 10, 5
        iterations, eta 0.85."""
        return cls(
            weighting="noiseless",
            direction="network",
            rtol=0.0,
            transition=ConstantFraction(zeta=0.85**2),
        )

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        return x, no_split(x)

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, split = state
        x0 = post.prior.denoise(x, sigma)
        moved, split = self.data_step(post, x0, split, sigma)
        if self.direction == "implied":
            return (self.transition(lambda v, level: moved, x, sigma, s, rng), split), {}
        out = self.transition(lambda v, level: x0, x, sigma, s, rng)
        return (out + (moved - x0), split), {}

    def data_step(
        self, post: Posterior, x0: Tensor, split: Split, sigma: Tensor
    ) -> tuple[Tensor, Split]:
        """D' of the denoised images x0 (B, *E), and the new split."""
        A, like = post.likelihood.linear, post.likelihood
        w = 0.0
        if self.weighting == "matched":
            w = like.std**2 / post.prior.know().error(sigma)
        solver = tied(post, self.lam, self.rho, self.outer, self.iterations, self.rtol)
        return solver.solve(A, like.y, x0, split, w=w, toward=x0)
