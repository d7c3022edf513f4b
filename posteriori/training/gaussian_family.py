"""A Gaussian learned from measurements alone, by expectation maximisation in closed form.

    y_i = A_i x_i + s n_i,   x_i ~ N(mu, C)          for each measurement
    S_i = A_i C A_i^T + s^2 I,  g_i = A_i^T S_i^-1 (y_i - A_i mu),  H_i = A_i^T S_i^-1 A_i
    E   E[x_i | y_i] = mu + C g_i,   Cov[x_i | y_i] = C - C H_i C
    M   mu' = mu + C mean(g)
        C' = C + C (mean(g g^T) - mean(H) - mean(g) mean(g)^T) C

The mean over i of Cov[x_i | y_i] is a part of C': posterior means alone have too small a
covariance, and an M-step on them loses it lap by lap. No iteration lowers sum_i log p(y_i).

Reference: Dempster, Laird, Rubin, Maximum likelihood from incomplete data via the EM algorithm,
1977. The Gaussian start of Rozet et al., Learning diffusion priors from observations by expectation
maximization, 2024, section 4 (there of low rank).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood
from posteriori.operators.base import LinearOperator
from posteriori.priors.mixture import Gaussian

# The largest image whose covariance is held as one matrix.
LIMIT = 2048


@dataclass(frozen=True)
class GaussianFit:
    """prior: the Gaussian that was found, of double precision. log_likelihood: sum_i log p(y_i)
    before the first iteration and after each."""

    prior: Gaussian
    log_likelihood: tuple[float, ...]


def fit_gaussian(
    likelihoods: Sequence[Likelihood], start: Gaussian, *, iterations: int = 20
) -> GaussianFit:
    """Expectation maximisation from ``start``, whose images are those of the measurements.

    Measurements by one operator object share its factorisation. Raises ``ValueError`` for none, for
    an image of more than 2048 numbers, and for measurements without noise; ``TypeError`` where an
    operator is not linear or the noise not Gaussian.
    """
    if not likelihoods:
        raise ValueError("there is no measurement to learn from")
    shape = tuple(n for n in start.shape if n is not None)
    if math.prod(shape) > LIMIT:
        raise ValueError(
            f"a Gaussian of {math.prod(shape)} numbers has too large a covariance (limit {LIMIT}); "
            f"learn from smaller images, or start expectation maximisation from independent pixels "
            f"(start: pixels in a training file)"
        )
    groups = _groups(likelihoods)
    mean, C = start.mean.double().flatten(), start.covariance.double()
    told = []
    for _ in range(iterations):
        mean, C, value = _iterate(mean, C, groups, shape)
        told.append(value)
    told.append(_iterate(mean, C, groups, shape)[2])
    return GaussianFit(Gaussian(mean.view(shape), C, range=start.range), tuple(told))


_Group = tuple[LinearOperator, Tensor, float]


def _groups(likelihoods: Sequence[Likelihood]) -> list[_Group]:
    """Measurements by one operator and of one noise level, together: operator, y (n, m), s^2."""
    found: dict[tuple[int, float], tuple[LinearOperator, list[Tensor]]] = {}
    for like in likelihoods:
        if like.std == 0:
            raise ValueError(
                "a Gaussian is learned from measurements with noise; give the smallest level that "
                "you trust, for example 1e-3 of the range"
            )
        _, ys = found.setdefault((id(like.A), like.std), (like.linear, []))
        ys.append(like.y.double().flatten())
    return [(A, torch.stack(ys), std**2) for (_, std), (A, ys) in found.items()]


def _iterate(
    mean: Tensor, C: Tensor, groups: Sequence[_Group], shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, float]:
    """The next mean and covariance, and the log-likelihood of the ones given."""
    total = sum(len(y) for _, y, _ in groups)
    first, second, told = torch.zeros_like(mean), torch.zeros_like(C), 0.0
    for A, y, s2 in groups:
        m = y.shape[1]
        CA = A(C.view(-1, *shape)).flatten(1)  # C A^T, row by row
        S = A(CA.T.reshape(m, *shape)).flatten(1)
        root = torch.linalg.cholesky((S + S.T) / 2 + s2 * torch.eye(m, dtype=S.dtype))
        off = y - A(mean.view(1, *shape)).flatten(1)
        solved = torch.cholesky_solve(off.T, root).T
        g = A.adjoint(solved.reshape(-1, *A.out_shape)).flatten(1)
        inverse = torch.cholesky_inverse(root).reshape(m, *A.out_shape)
        SA = A.adjoint(inverse).flatten(1)  # S^-1 A
        H = A.adjoint(SA.T.reshape(-1, *A.out_shape)).flatten(1)
        first += g.sum(0)
        second += g.T @ g - len(y) * H
        log_det = 2 * root.diagonal().log().sum() + m * math.log(2 * math.pi)
        told -= 0.5 * float((off * solved).sum() + len(y) * log_det)
    first, second = first / total, second / total
    after = C + C @ (second - torch.outer(first, first)) @ C
    return mean + C @ first, (after + after.T) / 2, told
