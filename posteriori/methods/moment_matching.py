"""The estimate of E[x0 | x, y] in which x0 given x is Gaussian, with the covariance that the
denoiser's own Jacobian tells."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import Solved, cg, gmres
from posteriori.operators.base import solve


def moment_matched(
    post: Posterior,
    x: Tensor,
    sigma: Tensor,
    *,
    iterations: int,
    rtol: float,
    precondition: bool = True,
    solver: Literal["cg", "gmres"] = "gmres",
) -> tuple[Tensor, Solved]:
    """D_y (B, *E) at x (B, *E) of level sigma, and how the solver came to v.

        D_y = D + sigma^2 J^T A^T v,      (sigma_y^2 I + sigma^2 A J A^T) v = y - A(D)

    D and J = dD/dx are of the denoiser under white noise; A is replaced by its tangent at D where
    it is not linear. At most ``iterations`` vector-Jacobian products, fewer where the relative
    residual of all rows is below ``rtol``; ``precondition`` by the same matrix with a white guess
    of J, for a linear A.

    Source: Rozet et al. 2024, section 4 (``MMPS``).
    """
    A, sigma2, noise2 = post.likelihood.A, float(sigma) ** 2, post.likelihood.std**2
    x0, pull = post.prior.linearize(x, sigma)
    clean, push, adjoint = A.differential(x0)

    pulled: list[Tensor] = []

    def covariance(v: Tensor) -> Tensor:
        pulled.append(pull(adjoint(v)))
        return (noise2 * v).add(push(pulled[-1]), alpha=sigma2)

    white = None
    if precondition and post.likelihood.conjugate:
        white = partial(solve, post.likelihood.linear, r2=post.prior.know().error(sigma), s2=noise2)
    solved = (gmres if solver == "gmres" else cg)(
        covariance,
        post.likelihood.y - clean,
        max_iter=iterations,
        rtol=rtol,
        precondition=white,
    )
    # v is a sum of what the solver has asked for, so that J^T A^T v is the sum of its products.
    return x0.add(solved.mapped(pulled, x0), alpha=sigma2), solved
