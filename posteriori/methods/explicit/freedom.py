"""FreeDoM: guide by an energy of the denoised image, and walk middle noise levels several times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import DDIM, ConstantFraction, Transition, one_call
from posteriori.operators.base import norm2
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative


@dataclass(frozen=True)
class FreeDoM(Method[Tensor]):
    """Energy guidance with time travel: guides by an energy of the denoised image, and walks the
    middle noise levels several times.

        bounded    D_y = D + scale sigma^2 J^T A^T ((y - A D) / (sigma_y^2 + r2 ||A||^2))
                   x'  = transition(D_y)                                                (default)
        relative   x'  = transition(D) + scale (1 - s^2 / sigma^2) ||x - D|| g / ||g||
        norm       x'  = transition(D) + scale sqrt(1 + s^2) g / ||y - A D||

        g  = J^T A^T (y - A D),           J = dD/dx
        r2 = c sigma^2 / (c + sigma^2),   c = spread^2 of the prior

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image. The step along g is per row. A step within ``window`` that ends at a level s > 0 is
    walked ``repeats`` times; between two walks

        x = x' + sqrt(sigma^2 - s^2) z,   z standard normal

    So the errors of one guided step are forgotten while the image is still being laid out.

    weighting: the energy and the size of the step.
        bounded: the likelihood as the energy, weighed as in DPS. ||A|| is that of dA/dx at D where
            A is not linear, by 16 more operators and adjoints a step.
        relative: a share of the move to D, of any energy, in any unit (published).
        norm: the gradient of the energy ||y - A D||, un-squared (published for faces).
    scale: multiplies the guidance, >= 0; 1 by default (published: 0.02 with "relative"; 0.2 to 500
        with "norm", for features of faces).
    repeats: walks of a step within the window, at least 1; 3 by default (published: 10; 1 for
        faces).
    window: the lowest and highest noise level sigma walked ``repeats`` times; by default from a
        tenth of the prior's spread up to it (published: 3.44 to 25.8).
    until: no guidance at levels sigma <= ``until``, >= 0; 0 by default (published: 0.342 for
        faces).
    transition: how x' is drawn, see ``posteriori.methods.transitions``; ancestral sampling by
        default (published; ``ConstantFraction`` with zeta = 0.25 for faces).

    Raises ``ValueError`` for a negative scale or ``until``, fewer than one walk, a window that is
    not 0 <= low <= high, and for "relative" or "norm" with a transition that calls the denoiser
    twice.

    Reference: Yu, Wang, Zhao, Ghanem, Zhang, FreeDoM: training-free energy-guided conditional
        diffusion model, 2023, algorithm 2.
    Cost per step: one denoiser, one vector-Jacobian product, one operator and adjoint; ``repeats``
        of each within the window.
    Assumes: A differentiable. Other noise than Gaussian enters "bounded" by its variance at A D,
        the others where every A x is possible.
    Exact when: as DPS, in the limit of many steps. Walking up from an exact x' gives the exact law
        of x, so that walks add no bias.
    Departs from the authors' code: lengths and norms are per row, not over the batch; learned
        variances are not used; the window's default follows the spread of the prior, where theirs
        is two timesteps.
    """

    weighting: Literal["bounded", "relative", "norm"] = "bounded"
    scale: NonNegative = 1.0
    repeats: Count = 3
    window: tuple[NonNegative, NonNegative] | None = None
    until: NonNegative = 0.0
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "yu2023freedom"
    family: ClassVar[str] = "explicit"
    cost: ClassVar[str] = "1 to repeats denoisers and VJPs"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def __post_init__(self) -> None:
        if self.window is not None and self.window[0] > self.window[1]:
            raise ValueError(
                f"FreeDoM: window is (low, high), noise levels with low <= high, got {self.window}"
            )
        if self.weighting != "bounded":
            one_call(self.transition, "FreeDoM", f"the weighting {self.weighting!r}")

    @classmethod
    @course(100, "ddpm")
    def published(cls) -> FreeDoM:
        """The authors' ImageNet setting: relative steps of 0.02, timesteps 500 to 800 of the linear
        schedule walked ten times, ancestral sampling, images in [-1, 1]. Made for a few features of
        an image: too weak for a measurement of every pixel."""
        return cls("relative", 0.02, repeats=10, window=(3.44, 25.8), transition=DDIM(eta=1.0))

    @classmethod
    @course(100, "ddpm")
    def published_faces(cls, scale: float) -> FreeDoM:
        """The authors' face setting: the un-squared norm, eta = 0.5, no time travel, no guidance
        below timestep 100. The scale depends on the measurement (theirs 0.2 to 500 for features of
        faces)."""
        return cls("norm", scale, repeats=1, until=0.342, transition=ConstantFraction(zeta=0.25))

    @property
    def requires(self) -> frozenset[str]:
        return frozenset() if self.weighting == "bounded" else frozenset({"unbounded"})

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        low, high = self.window or (0.1 * post.prior.max_std, post.prior.max_std)
        walks = self.repeats if bool(s > 0) and not (above(low, sigma) or above(sigma, high)) else 1
        x = self.walk(post, state, sigma, s, rng)
        for _ in range(walks - 1):
            up = x.add(rng.normal(x), alpha=float((sigma**2 - s**2).sqrt()))
            x = self.walk(post, up, sigma, s, rng)
        return x, {}

    def walk(self, post: Posterior, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng) -> Tensor:
        """One guided step from x (B, *E) at sigma to s."""
        if not above(sigma, self.until) or self.scale == 0:
            return self.transition(post.prior.denoise, x, sigma, s, rng)
        if self.weighting == "bounded":
            return self.transition(
                lambda image, level: self.denoise(post, image, level), x, sigma, s, rng
            )
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        residual = post.likelihood.y - clean
        g = pull(adjoint(residual))
        # A zero residual has a zero gradient; its length must not turn that into 0 / 0.
        size = dot(g, g).sqrt() if self.weighting == "relative" else dot(residual, residual).sqrt()
        length = (
            dot(x - x0, x - x0).sqrt() * float(1 - s**2 / sigma**2)
            if self.weighting == "relative"
            else float((1 + s**2).sqrt())
        )
        weight = self.scale * length * (size > 0) / size.clamp(min=1e-30)
        return self.transition(lambda image, level: x0, x, sigma, s, rng) + per_row(weight, x0) * g

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D_y(x, sigma) of the bounded weighting: (B, *E)."""
        x0, pull = post.prior.linearize(x, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        y, variance = post.likelihood.y, post.likelihood.noise.variance_at(post.likelihood.y, clean)
        variance = bounded_variance(
            variance, post.prior.know().max_variance(sigma), norm2(post.likelihood.A, x0), clean
        )
        guidance = pull(adjoint((y - clean) / variance))
        return x0.add(guidance, alpha=self.scale * float(sigma) ** 2)
