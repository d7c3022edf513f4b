"""DAPS: at each noise level draw a clean image given x and y, then put fresh noise on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.grid import karras
from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import gaussian_draws, proximal
from posteriori.methods.transitions import along_flow
from posteriori.operators.base import LinearOperator
from posteriori.operators.dense_matrix import matrix
from posteriori.rng import Rng
from posteriori.settings import Count, Positive


@dataclass(frozen=True)
class DAPS(Method[Tensor]):
    """Decoupled annealing posterior sampling: at each noise level a clean image is drawn given x
    and y, and fresh noise of the next level is put on it.

        m   = D(x, sigma)                                            centre "tweedie"
            = the end of the probability-flow ODE started at x       centre "ode"
        x0  ~ N(x0; m, r2 I) p(y | x0)^(1 / temperature)
        x'  = x0 + s z

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image
    and z standard normal.

    Because x' depends on x only through x0, errors of earlier levels are forgotten.

    centre: m, as above; published "ode".
    width: r2 of the Gaussian around the centre; published "sigma".
        "matched"  error(sigma), the denoiser's mean squared error per number
        "white"    c sigma^2 / (c + sigma^2) for the prior's variance c: never more than the spread
                   of images, and at small sigma as much as their edges and strokes may move, so
                   that the measurement can be met
        "unit"     the same with c = 1
        "open"     ``Knowledge.open_variance``: of what is open in the image, not of all of it
        "widest"   the largest variance along any direction
        "sigma"    sigma^2
        "auto"     for draw "conditional" and a linear A, in place of r2 I, the error by frequency
                   where the prior has measured it (see ``proximal``). Else for a linear A "open",
                   but "matched" for priors in closed form or with that error; for others "white"
    draw: a rule of ``posteriori.methods.data_steps.gaussian_draws``; published "langevin".
        "exact" draws from p(x0 | x, y) itself. "mean" takes the mean of the Gaussian in place of a
        draw, where A is linear and the noise Gaussian, and its mode elsewhere.
    ode_steps: denoisers of the ODE centre, >= 1; published 5.
    inner_steps: steps of a draw's chain or minimisation, >= 1; published 100.
    temperature: > 0; the likelihood is raised to its inverse; published 1.
    rate: > 0, of the published chain, ``gaussian_draws.annealed``; published 1e-4. None does not
        use that chain.

    Raises ``ValueError`` for a rate without draw "langevin", width "sigma" and temperature 1.

    For a non-linear A spend the levels where shapes are decided. Of 20 MNIST digits (test, 2000 to
    2019) all are found from Fourier magnitudes with
    ``inner_steps=20, grid=grid.log(200, 5.0, 0.02)``, one run each (the problem of
    ``benchmarks/phase_digits.py``).

    Reference: Zhang, Chu, Berner, Meng, Anandkumar, Song, Improving diffusion inverse problem
        solving with decoupled noise annealing, 2025, algorithm 1. Draws by "rto" as in Crafts and
        Villa, Benchmarking diffusion annealing-based Bayesian inverse problem solvers, 2025.
        ``flower`` is Pourya, El Rawas, Unser, Flower: a flow-matching solver for inverse problems,
        2026.
    Cost per step: one denoiser (``ode_steps`` with the ODE centre) and one solve, or
        ``inner_steps`` operator gradients (times 10 for "hmc"; an operator, a derivative along a
        direction and an adjoint each for "rto"). No back-propagation through the denoiser.
    Assumes: a differentiable A, noise with a density.
    Exact when: draw = "exact" (a prior in closed form), for any number of steps; draw =
        "conditional" for a white Gaussian prior, or for one whose measured error by frequency is
        its own.
        The published choices (ODE centre, r = sigma) with exact draws double the variance of a
        Gaussian posterior: the end of the ODE already has the prior's full spread, and r2 is added
        to it. The published chain, too short to mix, adds less.
    """

    centre: Literal["tweedie", "ode"] = "tweedie"
    width: Literal["auto", "matched", "white", "unit", "open", "widest", "sigma"] = "auto"
    draw: Literal["conditional", "rto", "langevin", "mala", "hmc", "exact", "mean"] = "conditional"
    ode_steps: Count = 5
    inner_steps: Count = 100
    temperature: Positive = 1.0
    rate: Positive | None = None

    reference: ClassVar[str] = "zhang2025daps"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"density"})
    cost: ClassVar[str] = "1 denoiser, 1 solve"
    claims: ClassVar[frozenset[str]] = frozenset({"exact for a white Gaussian prior"})

    @classmethod
    @course(
        200,
        courses.between("karras", 100.0, 0.1, drop=1),
        "levels from 100 to 0.1 as Karras et al. space them",
    )
    def published(cls, rate: float = 1e-4) -> DAPS:
        """The authors' blur; 5e-5 for motion, boxes and phases, 2e-5 for HDR.
        For images in [-1, 1]."""
        return cls(
            centre="ode", width="sigma", draw="langevin", ode_steps=5, inner_steps=100, rate=rate
        )

    @classmethod
    @course(100, courses.flow(), "times of a flow at equal distances")
    def flower(cls, gamma: Literal[0, 1] = 1) -> DAPS:
        """Flower, which is DAPS with the exact Gaussian draw and r2 = sigma^2 / (1 + sigma^2), for
        images in [-1, 1]. gamma 0 takes the Gaussian's mean, as its figures of PSNR do."""
        return cls(width="unit", draw="conditional" if gamma else "mean")

    def __post_init__(self) -> None:
        if self.rate is not None and (self.draw, self.width, self.temperature) != (
            "langevin",
            "sigma",
            1.0,
        ):
            raise ValueError(
                "DAPS: rate is the published chain's; it needs draw='langevin', width='sigma' and "
                "temperature 1"
            )

    @property
    def requires(self) -> frozenset[str]:
        if self.draw == "exact":
            return self.needs | {"linear", "gaussian", "closed form"}
        return self.needs | (
            {"unbounded"} if self.draw in (*gaussian_draws.UNBOUNDED, "mean") else frozenset()
        )

    def refuses(self, post: Posterior) -> str | None:
        A = post.likelihood.A
        if self.draw == "exact" and A.complex_in and not A.complex_out:
            return (
                f"DAPS: draw 'exact' needs A as a matrix, which real {A.label} of complex "
                f"images has not; use 'conditional'"
            )
        return super().refuses(post)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        if self.draw == "exact":
            like, closed = post.likelihood, post.prior.know().exact("posterior")
            exact = closed.condition(matrix(like.linear, like.y.dtype), like.y.flatten(), like.std)[
                0
            ].know()
            x0, info = exact.exact("p(x0 | x)").draw_given(state, sigma, rng), Info()
        else:
            centre = self._centre(post, state, sigma)
            C = (
                proximal.measured_covariance(post, sigma)
                if self.width == "auto" and self.draw == "conditional"
                else None
            )
            if C is not None:
                x0, info = proximal.proximal_draw(post, centre, C, rng, self.temperature), Info()
            elif self.rate is not None:
                x0, info = (
                    gaussian_draws.annealed(post, centre, sigma, self.rate, self.inner_steps, rng),
                    Info(),
                )
            else:
                target = gaussian_draws.Tilted(
                    post.likelihood, centre, self._r2(post, sigma), self.temperature
                )
                if self.draw == "mean":
                    x0, info = gaussian_draws.mode(target, self.inner_steps), Info()
                else:
                    x0, info = gaussian_draws.draw_tilted(self.draw, target, rng, self.inner_steps)
        return (x0.add(rng.normal(x0), alpha=float(s)) if float(s) > 0 else x0), info

    def _r2(self, post: Posterior, sigma: Tensor) -> float:
        s2 = float(sigma) ** 2
        if self.width == "auto" and isinstance(post.likelihood.A, LinearOperator):
            return proximal.mean_variance(post, sigma)
        known = post.prior.know()
        if self.width == "matched":
            return known.error(sigma)
        if self.width in ("open", "widest"):
            return (known.open_variance if self.width == "open" else known.max_variance)(sigma)
        if self.width == "sigma":
            return s2
        c = 1.0 if self.width == "unit" else post.prior.variance
        return c * s2 / (c + s2)

    def _centre(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        if self.centre == "tweedie":
            return post.prior.denoise(x, sigma)
        return along_flow(
            post.prior.denoise,
            x,
            karras(self.ode_steps + 1, float(sigma), post.prior.sigma_min)[:-1],
        )
