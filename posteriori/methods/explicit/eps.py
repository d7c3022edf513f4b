"""EPS: x and y make one look at x0 in coloured noise; its denoiser gives the posterior mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori import grid
from posteriori.covariances import NoiseCovariance
from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.moment_matching import moment_matched
from posteriori.methods.transitions import Midpoint, Transition
from posteriori.operators.base import norm2
from posteriori.operators.gain import gain
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative

# Times sigma_y / ||A||: below it P^-1 has variances of (1 + 0.4^2)^-1 = 0.86 sigma^2 at least.
WHITE_BELOW = 0.4
RTOL = 1e-4


@dataclass(frozen=True)
class EPS(Method[Tensor]):
    """Exact posterior sampling: an image x at noise level sigma and y are together one look at x0
    through coloured noise, and the prior's denoiser under that noise is the posterior mean.

        P   = I / sigma^2 + A^H A / sigma_y^2
        mu  = P^-1 (x / sigma^2 + A^H y / sigma_y^2)
        D_y = E[x0 | x, y] = E[x0 | mu],            mu = x0 + P^(-1/2) z
        x'  = transition(D_y)

    x' is the image at the next level s, sigma_y the noise level of y, z standard normal.

    D_y is exact where the prior's denoiser under the noise P^-1 is: in closed form. A network that
    was trained for such noise tells it without a derivative at the levels that decide what is not
    seen. Near the level of y, u = sigma_y / ||A||, its own denoiser under white noise is sharper,
    and what is seen fits y only by that. A step from sigma to s, 0.4 u < sqrt(sigma s) < ``near``
    u, and a last one from such a sigma, has

        D_y = D + sigma^2 J^T A^H v,    (sigma_y^2 I + sigma^2 A J A^H) v = y - A D,   J = dD/dx

    with at most ``iterations`` steps of GMRES, in both its calls. That is MMPS's estimate where
    what it assumes is nearly true: y narrows x0 given x by little, and the matrix is well
    conditioned. Below, P^-1 is white to a sixth. Without levels of the user's they are evenly
    spaced in their logarithm, from four times the largest standard deviation of the prior to a
    tenth of what y leaves of what it sees best.

    near: >= 0. 0 takes no derivative. There is none either with a prior in closed form, and where
        P^-1 is white, as where all of x is seen alike.
    iterations: vector-Jacobian products for one D_y near y, at least 1; fewer are taken where the
        relative residual of v falls below 1e-4.
    transition: how x' is drawn from x and D_y, see ``posteriori.methods.transitions``; ``Midpoint``
        by default. Of a Gaussian posterior in R^8, 19 calls of it keep 1.00 to 1.02 of each
        variance, 20 ancestral ones 0.69 to 0.73 (affine probe).

    Refuses an operator of which no closed form of P^-1 is known, and a prior that has no denoiser
    under it.

    Reference: Mammadov, Kara, Oktay, Azangulov, Akan, Chung, Rehg, Teh, Exact posterior score
        estimation for solving linear inverse problems, 2026.
    Cost per step: D_y twice, once on the last. D_y: one denoiser, operator and adjoint; of a
        network near the level of y one denoiser and operator, and one vector-Jacobian product,
        operator and adjoint for each iteration.
    Assumes: A linear, P^-1 a member of ``posteriori.covariances``, Gaussian noise.
    Exact when: the prior is known in closed form and steps -> infinity.
    Departs from the paper: a network is told P^-1, as a map of noise levels, and serves any A that
        this covers; theirs is told y, and trained for each A. Steps are of second order.
    """

    near: NonNegative = 2.5
    iterations: Count = 2
    transition: Transition = Midpoint()

    reference: ClassVar[str] = "mammadov2026eps"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "noisy"})
    cost: ClassVar[str] = "2 denoisers; of a network near the level of y 2 x iterations VJPs"
    claims: ClassVar[frozenset[str]] = frozenset(
        {
            "flat likelihood gives the prior",
            "exact for a white Gaussian prior",
            "exact for a Gaussian prior",
        }
    )

    def levels(self, post: Posterior, steps: int) -> Tensor:
        top = min(4 * post.prior.max_std, post.prior.sigma_max)
        size = norm2(post.likelihood.linear)
        best = 0.1 * post.likelihood.std / size if size > 0 else top
        return grid.log(steps, top, min(post.prior.sigma_min, best))

    def refuses(self, post: Posterior) -> str | None:
        refusal = super().refuses(post)
        if refusal is not None:
            return refusal
        A = post.likelihood.linear
        covariance = A.posterior_covariance(1.0, post.likelihood.std**2)
        if covariance is None:
            return (
                f"EPS: no closed form is known of the noise that x and y leave together under "
                f"{A.label}; MMPS asks for none"
            )
        why = post.prior.know().anisotropic.refuses(covariance)
        return None if why is None else f"EPS: {why}. MMPS asks for no such denoiser"

    def phase(self, post: Posterior, sigma: Tensor, s: Tensor) -> bool:
        """Whether a step takes the Jacobian of the white denoiser."""
        if post.prior.know().closed is not None:
            return False
        like, size = post.likelihood, norm2(post.likelihood.linear)
        middle = math.sqrt(float(sigma) * float(s if s > 0 else sigma))
        seen, white, far = middle * size, WHITE_BELOW * like.std, self.near * like.std
        if not (grid.above(seen, white) and grid.above(far, seen)):
            return False
        one = like.A.probe(torch.zeros, dtype=like.y.real.dtype)
        return not _covariance(post, float(sigma)).is_white(one)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        # One estimate for both calls of a step: what two differ by would be extrapolated.
        of_jacobian = self.phase(post, sigma, s)

        def estimate(x: Tensor, level: Tensor) -> Tensor:
            if of_jacobian:
                return moment_matched(post, x, level, iterations=self.iterations, rtol=RTOL)[0]
            return self.denoise(post, x, level)

        return self.transition(estimate, state, sigma, s, rng), {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D_y(x, sigma) = E[x0 | x, y] by the denoiser under P^-1: (B, *E)."""
        mu, covariance = looked(post, x, sigma)
        return post.prior.know().denoise_under(mu, covariance)


def looked(post: Posterior, x: Tensor, sigma: Tensor) -> tuple[Tensor, NoiseCovariance]:
    """mu (B, *E) = x + sigma^2 A^H (sigma^2 A A^H + sigma_y^2 I)^-1 (y - A x), which is P^-1
    (x / sigma^2 + A^H y / sigma_y^2), and P^-1."""
    like, r2 = post.likelihood, float(sigma) ** 2
    A = like.linear
    mu = x.add(gain(A, like.y - A(x), r2, like.std**2), alpha=r2)
    return mu, _covariance(post, float(sigma))


def _covariance(post: Posterior, sigma: float) -> NoiseCovariance:
    """P^-1 at a level."""
    like = post.likelihood
    found = like.linear.posterior_covariance(sigma**2, like.std**2)
    assert found is not None  # ``refuses`` says where there is none
    return found
