"""A measurement of more numbers than the image has, told by as many as the image has.

    A = Q R,   y' = Q^T y,   N(y; A x, s2 I) = N(y'; R x, s2 I) c
    log c = -|y - Q y'|^2 / (2 s2) - (m - d) / 2 log(2 pi s2)

Q is m x d with orthonormal columns, R d x d: the rest of y is noise, whatever x. Of an A that is
linear and Gaussian noise of one level, without loss. R is written as a matrix, once a run.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from posteriori.likelihood import Posterior
from posteriori.methods.smc.twists import MOST_MEASURED
from posteriori.operators.dense import Dense
from posteriori.operators.dense_matrix import matrix


class Fewer(NamedTuple):
    """A posterior of no more numbers of y than the image has, and log p(y | x) - log p(y' | x)."""

    post: Posterior
    rest: float


def fewest(post: Posterior) -> int:
    """How many numbers of y are needed: those that there are, or as many as the image has."""
    m = post.likelihood.y.numel()
    return m if m <= MOST_MEASURED else min(m, math.prod(post.shape))


def fewer(post: Posterior) -> Fewer:
    """``post`` as it is where its y has at most ``MOST_MEASURED`` numbers, or no more than the
    image; else as above."""
    return Fewer(post, 0.0) if post.likelihood.y.numel() == fewest(post) else post.once(_reduced)


def _reduced(post: Posterior) -> Fewer:
    like, d = post.likelihood, math.prod(post.shape)
    m = like.y.numel()
    Q, R = torch.linalg.qr(matrix(like.linear))
    y = like.y.flatten().double()
    seen = Q.T @ y
    rest = float((y - Q @ seen).square().sum()) / (2 * like.std**2)
    logs = 0.5 * (m - d) * math.log(2 * math.pi * like.std**2)
    A = like.A.counting(Dense(R.to(like.y), tuple(post.shape)))
    return Fewer(post.for_rows(seen.to(like.y), A), -rest - logs)
