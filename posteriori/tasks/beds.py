"""Posteriors known in closed form, as the literature defines them: the beds on which methods are
scored."""

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
# The original noise law ends at abar = 4.1e-5, that is at this sigma; "extended" goes ten times
# further.
SIGMA_MIN, SIGMA_MAX = 0.02, (1 / 4.1e-5 - 1) ** 0.5
SCHEDULES = {"original": SIGMA_MAX, "extended": 10 * SIGMA_MAX}


@dataclass(frozen=True, eq=False)
class Bed:
    """A posterior, the noise levels between which it is sampled, and the image (E) that was
    measured where a metric needs it."""

    posterior: Posterior
    sigma_max: float
    sigma_min: float
    truth: Tensor | None = None


def gmm25(d: int, measured: int, seed: int, schedule: str = "original") -> Bed:
    """GMM-25: 25 components N(m_ij, I) in R^d, m_ij = (-8i, -8j) repeated d/2 times for i, j in
    -2..2; a random wide matrix.

    Weights are squared normals, normalised; the matrix is Gaussian with its singular values
    replaced by uniform ones; the noise level is uniform below the largest of them; y comes from a
    draw of the prior. All of them depend on (d, measured, seed) alone.

    d: even; measured: rows of A, <= d; schedule: "original" (sigma from 156) or "extended"
    (from 1562), both down to 0.02.
    Raises ``ValueError`` for another d, measured or schedule.
    Source: Cardoso, Janati El Idrissi, Moulines, Le Corff, Monte Carlo guided diffusion for
    Bayesian linear inverse problems, 2024, section 5; random numbers are this library's own.
    """
    if d < 2 or d % 2 or not 1 <= measured <= d or schedule not in SCHEDULES:
        raise ValueError(
            f"gmm25 needs an even d, 1 <= measured <= d and a schedule of {list(SCHEDULES)}, "
            f"got d={d}, measured={measured}, {schedule!r}"
        )
    g = torch.Generator().manual_seed((seed * 1009 + d) * 101 + measured)
    means = torch.tensor(
        [(-8.0 * i, -8.0 * j) for i, j in product(range(-2, 3), repeat=2)], dtype=torch.float64
    ).repeat(1, d // 2)
    prior = GaussianMixture(_normal(25, g).square(), means, 1.0)
    U, _, Vh = torch.linalg.svd(_normal((measured, d), g), full_matrices=False)
    values = torch.rand(measured, generator=g, dtype=torch.float64).sort(descending=True).values
    sigma = float(torch.rand(1, generator=g, dtype=torch.float64) * values[0])
    A = Dense((U * values) @ Vh)
    x = prior.sample(1, int(torch.randint(2**31, (1,), generator=g)))
    y = A(x)[0] + sigma * _normal(measured, g)
    return Bed(Posterior(prior, Likelihood(y, A, Gaussian(sigma))), SCHEDULES[schedule], SIGMA_MIN)


def gaussian_bed(kind: str, seed: int = 0) -> Bed:
    """A Gaussian prior in R^8 seen through 5 numbers with noise 0.1.

    kind: "white" (C = I, singular values 1.5, 1, 0.5, 0.2, 0.05), "diagonal" (C diagonal, A selects
    five coordinates) or "general" (a random C with eigenvalues from 0.05 to 4, the same singular
    values). Levels from 80 to 0.002. Raises ``ValueError`` for another kind.
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


def ksd_toy(sigma: float, seed: int = 0) -> Bed:
    """The "many weak observations" toy of score-KSD: 14 of 16 coordinates seen, each through its
    own gain, and two modes in the others.

    x_1, x_2 ~ 0.8 N((0, 0), I) + 0.2 N((3, 3), 2 I), the other fourteen N(0, 1); y_i = s_i
    x_{i+2} + sigma z, s = 0.10, 0.15, ..., 0.75. The truth is fixed, ``seed`` draws the
    measurement's noise. Levels from 80 to 0.002; the paper draws 500 samples.

    sigma: 0.2 or 0.5 in the paper; any number > 0. Raises ``ValueError`` otherwise.
    Source: Qiu, Yang, Liu, Wang, Shen, Beyond accuracy: evaluating posterior fidelity of diffusion
    inverse solvers, 2026, appendix B.
    """
    if not sigma > 0:
        raise ValueError(f"ksd_toy needs a noise level > 0, got {sigma}")
    means = torch.zeros(2, 16, dtype=torch.float64)
    variances = torch.ones(2, 16, dtype=torch.float64)
    means[1, :2], variances[1, :2] = 3.0, 2.0
    A = torch.zeros(14, 16, dtype=torch.float64)
    A[:, 2:] = torch.linspace(0.1, 0.75, 14, dtype=torch.float64).diag()
    prior = GaussianMixture(torch.tensor([0.8, 0.2], dtype=torch.float64), means, variances)
    truth = torch.tensor(
        [3.0, 2.0, 0.5, -0.5, 1.0, 0.8, -0.6, 1.1, -0.9, 0.4, 0.0, -1.2, 0.7, -0.3, 0.5, -0.8],
        dtype=torch.float64,
    )
    y = A @ truth + sigma * _normal(14, torch.Generator().manual_seed(seed))
    return Bed(Posterior(prior, Likelihood(y, Dense(A), Gaussian(sigma))), 80.0, 0.002, truth)


def mixture256(seed: int) -> Bed:
    """A mixture of 8 Gaussians in R^256 seen through 128 numbers that say little about which
    component it was.

    A has orthonormal rows, drawn uniformly. Means are standard normal, their part in the row space
    of A divided by 16: components lie 16 apart, and A sees a shift of 1. Covariances have random
    axes and eigenvalues that are log-uniform in [1/2, 1]; weights are uniform on the simplex; the
    noise level is 0.5; y comes from a draw of the prior. Levels from 200 to 0.01; the paper draws
    256 samples.

    Source: dimensions, 128 measurements and 256 particles as in interacting particle guidance,
    2026; it does not say how means and covariances are drawn, so that its figures cannot be
    compared with this bed's.
    """
    g = torch.Generator().manual_seed(seed)
    d, m, K = 256, 128, 8
    A = torch.linalg.qr(_normal((d, m), g))[0].T
    means = _normal((K, d), g)
    means = means - 15 / 16 * (means @ A.T) @ A
    axes = torch.linalg.qr(_normal((K, d, d), g))[0]
    values = 2.0 ** -torch.rand(K, 1, d, generator=g, dtype=torch.float64)
    weights = -torch.rand(K, generator=g, dtype=torch.float64).log()
    prior = GaussianMixture(weights, means, (axes * values) @ axes.mT)
    truth = prior.sample(1, int(torch.randint(2**31, (1,), generator=g)))[0]
    y = A @ truth + 0.5 * _normal(m, g)
    return Bed(Posterior(prior, Likelihood(y, Dense(A), Gaussian(0.5))), 200.0, 0.01, truth)


def _normal(shape: int | tuple[int, ...], g: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=g, dtype=torch.float64)
