"""Posteriors known in closed form, as the literature defines them: the beds on which methods are scored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Gaussian
from posteriori.operators.dense import Dense
from posteriori.priors.mixture import Gaussian as GaussianPrior
from posteriori.priors.mixture import GaussianMixture

DIMENSIONS, MEASURED = (8, 80, 800), (1, 2, 4)
# The original noise law ends at abar = 4.1e-5, that is at this sigma; "extended" goes ten times further.
SIGMA_MIN, SIGMA_MAX = 0.02, (1 / 4.1e-5 - 1) ** 0.5
SCHEDULES = {"original": SIGMA_MAX, "extended": 10 * SIGMA_MAX}


@dataclass(frozen=True, eq=False)
class Bed:
    """A posterior and the noise levels between which it is sampled."""

    posterior: Posterior
    sigma_max: float
    sigma_min: float


def gmm25(d: int, measured: int, seed: int, schedule: str = "original") -> Bed:
    """GMM-25: 25 components N(m_ij, I) in R^d, m_ij = (-8i, -8j) repeated d/2 times for i, j in -2..2; a random wide matrix.

    Weights are squared normals, normalised; the matrix is Gaussian with its singular values replaced by uniform ones; the noise level is
    uniform below the largest of them; y comes from a draw of the prior. All of them depend on (d, measured, seed) alone.

    d: even; measured: rows of A, <= d; schedule: "original" (sigma from 156) or "extended" (from 1562), both down to 0.02.
    Raises ``ValueError`` for another d, measured or schedule. Source: Cardoso, Janati El Idrissi, Moulines, Le Corff, Monte Carlo guided
    diffusion for Bayesian linear inverse problems, 2024, section 5; random numbers are this library's own.
    """
    if d < 2 or d % 2 or not 1 <= measured <= d or schedule not in SCHEDULES:
        raise ValueError(
            f"gmm25 needs an even d, 1 <= measured <= d and a schedule of {list(SCHEDULES)}, got d={d}, measured={measured}, {schedule!r}"
        )
    g = torch.Generator().manual_seed((seed * 1009 + d) * 101 + measured)
    means = torch.tensor([(-8.0 * i, -8.0 * j) for i, j in product(range(-2, 3), repeat=2)], dtype=torch.float64).repeat(1, d // 2)
    prior = GaussianMixture(_normal(25, g).square(), means, 1.0)
    U, _, Vh = torch.linalg.svd(_normal((measured, d), g), full_matrices=False)
    values = torch.rand(measured, generator=g, dtype=torch.float64).sort(descending=True).values
    sigma = float(torch.rand(1, generator=g, dtype=torch.float64) * values[0])
    A = Dense((U * values) @ Vh)
    x = prior.sample(1, int(torch.randint(2**31, (1,), generator=g)))
    y = A(x)[0] + sigma * _normal(measured, g)
    return Bed(Posterior(prior, Likelihood(y, A, Gaussian(sigma))), SCHEDULES[schedule], SIGMA_MIN)


def gaussian(kind: str, seed: int = 0) -> Bed:
    """A Gaussian prior in R^8 seen through 5 numbers with noise 0.1.

    kind: "white" (C = I, singular values 1.5, 1, 0.5, 0.2, 0.05), "diagonal" (C diagonal, A selects five coordinates) or "general" (a
    random C with eigenvalues from 0.05 to 4, the same singular values). Levels from 80 to 0.002. Raises ``ValueError`` for another kind.
    """
    g = torch.Generator().manual_seed(seed)
    values = torch.tensor([1.5, 1.0, 0.5, 0.2, 0.05], dtype=torch.float64)
    U, V, Q = (torch.linalg.qr(_normal((n, n), g))[0] for n in (5, 8, 8))
    spread = torch.logspace(-1.3, 0.6, 8, dtype=torch.float64)
    matrix = (U * values) @ V[:, :5].T
    if kind == "white":
        covariance: Tensor = torch.ones(8, dtype=torch.float64)
    elif kind == "diagonal":
        covariance, matrix = spread, torch.eye(8, dtype=torch.float64)[[0, 2, 4, 6, 7]]
    elif kind == "general":
        covariance = (Q * spread) @ Q.T
    else:
        raise ValueError(f"gaussian: kind must be 'white', 'diagonal' or 'general', got {kind!r}")
    prior = GaussianPrior(0.5 * _normal(8, g), covariance)
    A = Dense(matrix)
    y = A(prior.sample(1, seed))[0] + 0.1 * _normal(5, g)
    return Bed(Posterior(prior, Likelihood(y, A, Gaussian(0.1))), 80.0, 0.002)


def _normal(shape: int | tuple[int, ...], g: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)
