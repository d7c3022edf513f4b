"""What y says of x0 ~ N(D, r2 I) when A is curved, as a Gaussian in y with the mean and the
covariance that A x0 has.

    log N(y; mean_k A(x_k), R + cov_k A(x_k)),   x_k = D +- sqrt(r2) z_k,
    r2 = prior.know().max_variance(sigma),       R the noise's variance

The z_k are the same normal numbers for every row and at every level, so that what is said varies
smoothly with x: weights compare rows. Too wide costs particles, too narrow the finite variance of
their weights. p(y | D) is far too sure of itself, and A linearised at D says nothing where A is
even and D near its centre.

Source: statistical linearisation, Gelb, Applied optimal estimation, 1974; by draws.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import real_view
from posteriori.rng import Streams

SEED = 2**40


def log_says(post: Posterior, x0: Tensor, sigma: Tensor, draws: int) -> Tensor:
    """The above for D = x0 (B, *E): (B,) float64. ``draws`` is even: so many operator calls, and m
    times as many numbers, a row."""
    like, r = post.likelihood, post.prior.know().max_variance(sigma) ** 0.5
    z = Streams(SEED, range(draws // 2)).normal(x0[:1].expand(draws // 2, *x0.shape[1:]))
    seen = torch.stack([_numbers(like.A(x0 + step)) for step in torch.cat([r * z, -r * z])], 2)
    mean, y = seen.mean(2), _numbers(like.y[None])
    variance = like.noise.variance(like.y).double().expand(like.y.shape).reshape(1, -1)
    variance = variance.repeat_interleave(y.shape[1] // variance.shape[1], 1)
    gap, C = (
        (y - mean) / variance.sqrt(),
        (seen - mean[..., None]) / (draws * variance[..., None]).sqrt(),
    )
    # Of I + C C^T, m x m, where draws are more; else by I + C^T C, of the size of the draws.
    small = gap.shape[1] <= draws
    K = C @ C.mT if small else C.mT @ C
    # NaN for a row that is not finite, which must not stop the others.
    L, info = torch.linalg.cholesky_ex(K + torch.eye(K.shape[1], dtype=K.dtype, device=K.device))
    L = torch.where((info != 0)[:, None, None], torch.nan, L)
    b = (
        torch.linalg.solve_triangular(
            L, (gap[..., None] if small else C.mT @ gap[..., None]), upper=False
        )[..., 0]
        .square()
        .sum(1)
    )
    misfit = b if small else gap.square().sum(1) - b
    return -0.5 * (misfit + (2 * math.pi * variance).log().sum(1)) - L.diagonal(
        dim1=1, dim2=2
    ).log().sum(1)


def _numbers(y: Tensor) -> Tensor:
    """(B, *O) as rows of real numbers, float64."""
    return real_view(y).flatten(1).double()
