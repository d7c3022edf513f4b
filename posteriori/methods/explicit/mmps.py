"""MMPS: the denoised image has the covariance that the denoiser's own Jacobian tells, sigma^2 J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.moment_matching import moment_matched
from posteriori.methods.transitions import DDIM, Midpoint, Transition
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative


@dataclass(frozen=True)
class MMPS(Method[Tensor]):
    """Moment-matching posterior sampling: the denoised image has the covariance that the denoiser's
    own Jacobian tells, sigma^2 J.

        p(y | x) ~ N(y; A D, sigma_y^2 I + sigma^2 A J A^T),        J = dD/dx
        (sigma_y^2 I + sigma^2 A J A^T) v = y - A D                 by ``solver``
        D_y = D + sigma^2 J^T A^T v
        x'  = transition(D_y)

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image. A non-linear A is replaced, once per step, by its tangent at D:
    A(x0) ~ A(D) + A'(x0 - D). A above then becomes A' = dA/dx at D, the residual is y - A(D), and
    there is no preconditioner.

    iterations: steps of the solver at most, at least 1; 5 by default (published: 1).
    rtol: relative residual at which it stops early, >= 0; 1e-4 by default (published: 1e-3).
    precondition: by (sigma_y^2 I + error(sigma) A A^T)^-1, the same matrix with a white guess of J;
        on by default (published: off). For a linear A.
    solver: "gmres" (GMRES) by default, or "cg" (conjugate gradients, published). The J of a trained
        network is neither symmetric nor positive. GMRES then still lowers the residual with every
        iteration; preconditioned conjugate gradients may raise it. ``residual`` in the trace tells
        how far the solve came.
    transition: how x' is drawn from x and D_y, see ``posteriori.methods.transitions``; ``Midpoint``
        by default (published: ancestral sampling).

    Raises ``ValueError`` for a setting out of its range.

    Reference: Rozet, Andry, Lanusse, Louppe, Learning diffusion priors from observations by
        expectation maximization, 2024, section 4.
    Cost per step: D_y twice, once on the last. D_y: one denoiser and operator, and one
        vector-Jacobian product, operator and adjoint for each iteration; one adjoint more for a
        non-linear A, whose A' v counts as an operator. One image is kept per iteration, and by
        GMRES one measurement.
    Assumes: A linear, or differentiable and nearly linear where x0 given x lies; Gaussian noise; J
        symmetric, as for an exact denoiser.
    Exact when: the prior is Gaussian, A is linear and the solve has converged
        (``iterations`` >= rank A is enough).
    """

    iterations: Count = 5
    rtol: NonNegative = 1e-4
    precondition: bool = True
    solver: Literal["cg", "gmres"] = "gmres"
    transition: Transition = Midpoint()

    reference: ClassVar[str] = "rozet2024mmps"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "2 denoisers, 2 iterations VJPs"
    claims: ClassVar[frozenset[str]] = frozenset(
        {
            "flat likelihood gives the prior",
            "exact for a white Gaussian prior",
            "exact for a Gaussian prior",
        }
    )

    @classmethod
    @course(
        256,
        courses.between("log", 100.0, 1e-3),
        "levels from 100 to 0.001 evenly spaced in their logarithm",
        64,
    )
    def published(cls) -> MMPS:
        """The authors' default: one plain conjugate-gradient step, tolerance 1e-3, ancestral
        sampling."""
        return cls(
            iterations=1, rtol=1e-3, precondition=False, solver="cg", transition=DDIM(eta=1.0)
        )

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        info: Info = {}
        return self.transition(
            lambda x, level: self.denoise(post, x, level, info), state, sigma, s, rng
        ), info

    def denoise(
        self, post: Posterior, x: Tensor, sigma: Tensor, info: Info | None = None
    ) -> Tensor:
        """D_y(x, sigma), the estimate of E[x0 | x, y]: (B, *E)."""
        estimate, solved = moment_matched(
            post,
            x,
            sigma,
            iterations=self.iterations,
            rtol=self.rtol,
            precondition=self.precondition,
            solver=self.solver,
        )
        if info is not None:
            info["residual"] = solved.residual
        return estimate
