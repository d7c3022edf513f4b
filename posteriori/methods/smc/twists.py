"""Twists: approximations of p(y | x) at a noise level, Gaussian in the measurement, that steer and
weigh particles.

    p(y | x) ~ N(y; A D, V),   V = sigma_y^2 I + A S A^T

    "moments"   S = sigma^2 J, the denoiser's own Jacobian: one vector-Jacobian product for each
                number of y, which share passes through the denoiser's graph
    "row sums"  the row sums of that, on the diagonal of V: one product
    "pigdm"     S = r2 I with r2 the prior's ``max_variance``: none
    "narrow"    S = 0: none, and weights with heavy tails

Too wide a twist costs particles, too narrow a one the finite variance of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.smc import particles
from posteriori.operators.base import LinearOperator, solve
from posteriori.priors.base import Pull
from posteriori.priors.pulls import pulled_together

# Numbers of y whose covariance "moments" keeps for each particle.
MOST_MEASURED = 512

Twist = Literal["moments", "row sums", "pigdm", "narrow"]


class _View(NamedTuple):
    """x0 = D (B, *E), log p(y | x) (B,) float64, and its gradient in x (B, *E), V held fixed."""

    x0: Tensor
    log_p: Tensor
    gradient: Tensor


def view(post: Posterior, x: Tensor, sigma: Tensor, kind: Twist) -> _View:
    """The twist at x (B, *E)."""
    A, y, noise2 = post.likelihood.linear, post.likelihood.y, post.likelihood.std**2
    x0, pull = post.prior.linearize(x, sigma)
    r = y - A(x0)
    s2 = float(sigma) ** 2
    if kind == "moments":
        K = columns(A, pull, s2, x, y)
        v, log_p = gaussian_log_density(r.flatten(1), predicted_covariance(A, K, noise2))
        v = v.view(r.shape).to(r)
    elif kind == "row sums":
        variance = (noise2 + s2 * A(pull(A.adjoint(torch.ones_like(r))))).clamp(min=noise2)
        v = r / variance
        log_p = -0.5 * (
            r.square() / variance + variance.log() + math.log(2 * math.pi)
        ).double().flatten(1).sum(1)
    else:
        r2 = post.prior.know().max_variance(sigma) if kind == "pigdm" else 0.0
        v, log_p = solve(A, r, r2, noise2), post.likelihood.widen(r2).log_prob(x0).double()
    return _View(x0, log_p, pull(A.adjoint(v)))


def columns(A: LinearOperator, pull: Pull, s2: float, x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """s2 J A^T e_i for the numbers of y, (k, B, *E) of them at a time: as many as pass through the
    denoiser's graph together, since all m may be too many to hold."""
    eye = torch.eye(y.numel(), dtype=y.dtype, device=y.device).view(-1, *y.shape)
    at_once = max(1, particles.NUMBERS_AT_ONCE // max(x.numel(), 1))
    for e in eye.split(at_once):
        yield s2 * pulled_together(pull, A.adjoint(e)[:, None].expand(-1, *x.shape))


def predicted_covariance(A: LinearOperator, K: Iterable[Tensor], noise2: float) -> Tensor:
    """sigma_y^2 I + A K, (B, m, m) float64, made symmetric: K = S A^T, in pieces (k, B, *E)."""
    seen = [A(k.flatten(0, 1)).reshape(*k.shape[:2], -1) for k in K]
    V = torch.cat(seen).permute(1, 2, 0).double()
    return 0.5 * (V + V.mT) + noise2 * torch.eye(V.shape[1], dtype=torch.float64, device=V.device)


def gaussian_log_density(r: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """V^-1 r and log N(r; 0, V), float64: r (B, m), V (B, m, m). A V that is not positive definite
    gives NaN, which weighs nothing."""
    L, info = torch.linalg.cholesky_ex(V)
    half = torch.linalg.solve_triangular(L, r.double()[..., None], upper=False)
    logs = L.diagonal(dim1=1, dim2=2).log().sum(1)
    log_p = -0.5 * half.square().sum((1, 2)) - logs - 0.5 * r.shape[1] * math.log(2 * math.pi)
    v = torch.linalg.solve_triangular(L.mT, half, upper=True)[..., 0]
    bad = info != 0
    return torch.where(bad[:, None], torch.zeros_like(v), v), torch.where(
        bad, torch.full_like(log_p, torch.nan), log_p
    )
