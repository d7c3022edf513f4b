"""DDS: a few conjugate-gradient steps move the denoised image towards the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import proximal
from posteriori.methods.transitions import DDIM, ConstantFraction, Transition, one_call
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative, Positive


@dataclass(frozen=True)
class DDS(Method[Tensor]):
    """The decomposed diffusion sampler: a few conjugate-gradient steps move the denoised image
    towards the data, inside a Krylov space of A^T A.

        D' ~ argmin_u gamma ||y - A u||^2 + ||u - D||^2
        (I + gamma A^T A) D' = D + gamma A^T y                started at D

        auto        gamma = scale C(sigma) / sigma_y^2           C the denoiser's error by frequency
        matched     gamma = scale error(sigma) / sigma_y^2       error its own mean squared error
        fixed       gamma = scale
        noiseless   gamma = infinity, that is A^T A D' = A^T y

        implied     x' = transition(D')                the noise of x is what is left of it after D'
        network     x' = transition(D) + D' - D        the noise of x is what the denoiser saw

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image.

    weighting: "auto", the default, has C where the prior has measured it, see
        ``posteriori.methods.data_steps.proximal``; it is "matched" where it has not, and for
        sigma_y = 0. "matched" is "noiseless" for sigma_y = 0. "fixed" is gamma = scale whatever the
        level of the image and of the measurement (published, with scale 1).
    scale: above 0; 1 by default.
    direction: "implied" by default. "network" (published) moves the image by all of D' - D at every
        step, however small: the more steps, the more it fits the noise of y.
    iterations: conjugate-gradient steps, at least 1; 5 by default (published).
    rtol: relative residual at which they stop early, >= 0; 1e-4 by default (published: 0).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published: ``ConstantFraction`` with zeta = 0.85^2).

    Raises ``ValueError`` for a setting out of its range, and for "network" with a transition that
    calls the denoiser twice.

    Reference: Chung, Lee, Ye, Decomposed diffusion sampler for accelerating large-scale inverse
        problems, 2024, algorithm 1.
    Cost per step: one denoiser, one operator and adjoint, and one of each for every iteration; no
        derivative of the denoiser.
    Assumes: linear A, Gaussian noise, possibly of level 0; no spectrum is needed.
    Exact when: the prior is N(m, c I) with "matched", or has the measured C; "auto" is either. With
        scale 1, "implied", and a solve that has converged (``iterations`` >= rank A is enough). It
        moves only in the range of A^T, under a measured C in that of C A^T.
    Departs from the authors' code: inner products of complex images are Hermitian and each row has
        its own scalars; noise enters y as given.
    """

    weighting: Literal["auto", "matched", "fixed", "noiseless"] = "auto"
    scale: Positive = 1.0
    direction: Literal["implied", "network"] = "implied"
    iterations: Count = 5
    rtol: NonNegative = 1e-4
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "chung2024dds"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, iterations + 1 operators and adjoints"
    claims: ClassVar[frozenset[str]] = frozenset(
        {
            "flat likelihood gives the prior",
            "exact for a white Gaussian prior",
            "of C A^T where C is measured, else of A^T: moves only in that range",
        }
    )

    def __post_init__(self) -> None:
        if self.direction == "network":
            one_call(self.transition, "DDS", 'direction="network"')

    @classmethod
    @course(50, "ddpm")
    def published(cls) -> DDS:
        """The authors' setting for noisy data: gamma 1, 5 iterations, eta 0.85."""
        return cls(
            "fixed",
            1.0,
            "network",
            iterations=5,
            rtol=0.0,
            transition=ConstantFraction(zeta=0.85**2),
        )

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        info: Info = {}
        if self.direction == "implied":
            return self.transition(
                lambda x, level: self.denoise(post, x, level, info), state, sigma, s, rng
            ), info
        x0 = post.prior.denoise(state, sigma)
        shift = self.shift(post, x0, sigma, info)
        return self.transition(lambda x, level: x0, state, sigma, s, rng) + shift, info

    def denoise(
        self, post: Posterior, x: Tensor, sigma: Tensor, info: Info | None = None
    ) -> Tensor:
        """D'(x, sigma), the estimate of E[x0 | x, y]: (B, *E)."""
        x0 = post.prior.denoise(x, sigma)
        return x0 + self.shift(post, x0, sigma, info)

    def shift(self, post: Posterior, x0: Tensor, sigma: Tensor, info: Info | None = None) -> Tensor:
        """D' - D: conjugate gradients on (w I + A^T A) d = A^T (y - A D), w = 1 / gamma.

        These are the same iterates, D subtracted.
        """
        C = (
            proximal.measured_covariance(post, sigma, self.scale)
            if self.weighting == "auto"
            else None
        )
        if C is not None:
            return proximal.shift(
                post,
                post.likelihood.residual(x0),
                C,
                iterations=self.iterations,
                rtol=self.rtol,
                info=info,
            )
        A = post.likelihood.linear
        w = 1 / self.scale if self.weighting == "fixed" else 0.0
        if self.weighting in ("auto", "matched"):
            w = post.likelihood.std**2 / (self.scale * post.prior.know().error(sigma))
        # Divided by 1 + w, so that neither a flat nor a noiseless likelihood leaves the range of
        # single precision.
        unit = 1 / (1 + w)
        start = A.adjoint(post.likelihood.residual(x0)) * unit
        solved = cg(
            lambda d: (w * unit) * d + unit * A.adjoint(A(d)),
            start,
            max_iter=self.iterations,
            rtol=self.rtol,
        )
        if info is not None:
            info["residual"] = solved.residual
        return solved.x
