"""DPS: guide by the likelihood of the denoised image, differentiated through the denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import DDIM, Transition, one_call
from posteriori.noise import Poisson
from posteriori.operators.base import norm2
from posteriori.rng import Rng
from posteriori.settings import NonNegative

# The weightings that move the image after the transition, as published.
AFTER = ("norm", "squared", "poisson")


@dataclass(frozen=True)
class DPS(Method[Tensor]):
    """Diffusion posterior sampling: guides by the likelihood of the denoised image, differentiated
    through the denoiser.

        p(y | x) ~ p(y | D),    g = J^T A^T (y - A D),    J = dD/dx

        bounded      D_y = D + scale sigma^2 g / (sigma_y^2 + r2 ||A||^2)                (default)
        likelihood   D_y = D + scale sigma^2 g / sigma_y^2
        norm         x'  = transition(D) + scale g / (||y - A D|| a_sigma a_s)
        squared      x'  = transition(D) + 2 scale g / (a_sigma a_s)
        poisson      x'  = transition(D) + 2 scale J^T A^T L (y - A D) / (a_sigma a_s)

        r2 = c sigma^2 / (c + sigma^2),   c = spread^2 of the prior
        a_sigma = 1 / sqrt(1 + sigma^2),  a_s = 1 / sqrt(1 + s^2)
        L  = diag(1 / (2 var)),           var the variance of the Poisson law

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, and x' = transition(D_y) where D_y is given. Norms are per row.

    weighting: what g is multiplied by.
        bounded: ||A|| is that of dA/dx at D where A is not linear, by 16 more operators and
            adjoints a step. sigma_y^2 of other noise than Gaussian is the law's variance at A D: as
            r2 falls, the guidance becomes J^T times the law's own score.
        likelihood: the approximation as written. It is stiff and needs many steps.
        norm: the published step.
        squared: the gradient of the squared norm.
        poisson: the gradient of ||y - A D||_L^2. The paper's L is diag(1 / (2 y)) for y counted in
            photons. Here var is y / peak, the variance of the Poisson law in the units of y, and at
            least that of one photon. Needs Poisson noise, and a scale far below 1 (a step of
            2 scale ||A||^2 L).
    scale: multiplies the guidance, a finite number >= 0; 1 by default. Published with "norm", for
        images in [-1, 1]: 0.3 (blur, 4x super-resolution), 0.5 (random inpainting), 1.0 (phase
        retrieval).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published).

    Raises ``ValueError`` for a setting out of its range, and for "norm", "squared" or "poisson"
    with a transition that calls the denoiser twice.

    Reference: Chung, Kim, McCann, Klasky, Ye, Diffusion posterior sampling for general noisy
        inverse problems, 2023, algorithm 1.
    Cost per step: one denoiser, one vector-Jacobian product, one operator and adjoint.
    Assumes: A differentiable. Other noise than Gaussian is for "bounded", "poisson", and where
        every A x is possible (a non-linear A).
    Exact when: never in general (the spread of x0 given x is ignored). "bounded" is exact for a
        white Gaussian prior and A A^T = ||A||^2 I.
    Departs from the authors' code: norms are per row, not over the batch; no gradient through a
        clamp; learned variances are not used. Its Poisson weight divides by |y| of data in [-1, 1],
        which is no variance and has no bound near 0; here y keeps the range it was counted in.
    """

    weighting: Literal["bounded", "likelihood", "norm", "squared", "poisson"] = "bounded"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "chung2023dps"
    family: ClassVar[str] = "explicit"
    cost: ClassVar[str] = "1 denoiser, 1 VJP"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(1000, "ddpm")
    def published(cls, scale: float = 0.3) -> DPS:
        """The paper's step: ancestral sampling, for images in [-1, 1], scale 0.3 (blur, 4x
        super-resolution), 0.5 (random inpainting), 1.0 (phase retrieval). The sum of its steps
        depends on their number."""
        return cls("norm", scale, DDIM(eta=1.0))

    def __post_init__(self) -> None:
        if self.weighting in AFTER:
            one_call(self.transition, "DPS", f"the weighting {self.weighting!r}")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset() if self.weighting in ("bounded", "poisson") else frozenset({"unbounded"})

    def refuses(self, post: Posterior) -> str | None:
        if self.weighting == "poisson" and not isinstance(post.given.noise, Poisson):
            return (
                f"DPS: the weighting 'poisson' needs Poisson noise, the likelihood has "
                f"{type(post.given.noise).__name__} noise"
            )
        return super().refuses(post)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        if self.weighting not in AFTER:
            return self.transition(
                lambda x, level: self.denoise(post, x, level), state, sigma, s, rng
            ), {}
        x0, pull = post.prior.linearize(state, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        residual = post.likelihood.y - clean
        if self.weighting == "poisson":
            residual = residual / (2 * post.likelihood.noise.variance(post.likelihood.y))
        # A zero residual has a zero gradient; its norm must not turn that into 0 / 0.
        size = dot(residual, residual).sqrt()
        weight = (
            per_row((size > 0) / size.clamp(min=1e-30), x0) if self.weighting == "norm" else 2.0
        )
        steer = pull(adjoint(residual)) * (
            self.scale * float((1 + sigma**2).sqrt() * (1 + s**2).sqrt())
        )
        return self.transition(lambda x, level: x0, state, sigma, s, rng) + weight * steer, {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D_y(x, sigma) of the first two weightings: (B, *E)."""
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        y, variance = post.likelihood.y, post.likelihood.noise.variance_at(post.likelihood.y, clean)
        if self.weighting == "bounded":
            variance = bounded_variance(
                variance, post.prior.know().max_variance(sigma), norm2(post.likelihood.A, x0), clean
            )
        guidance = pull(adjoint((y - clean) / variance))
        return x0.add(guidance, alpha=self.scale * float(sigma) ** 2)
