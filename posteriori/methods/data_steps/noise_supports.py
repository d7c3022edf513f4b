"""Noise laws that know only some clean measurements, as photon counts know none below 0: where a
chain may start, how finely it may move.

A chain that starts where log p(y | x) is -inf never moves, and what it returns has not seen y. So
it starts inside, and its step comes from the Gaussian that the law stands for
(``NoiseLaw.gaussian``): the slope of a law near its wall tells nothing of how near the wall is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood
from posteriori.linalg import Map, per_row
from posteriori.methods.data_steps.descent import Conjugate
from posteriori.methods.data_steps.misfit import Local, Misfit, misfit

# The distance that a start keeps from a wall, as a share of what y leaves open of the clean
# measurement.
MARGIN = 0.1


def bounded(like: Likelihood) -> bool:
    """Whether the law has walls at all."""
    return not all(map(math.isinf, like.noise.support))


def whitened(like: Likelihood, temperature: float = 1.0) -> Misfit:
    """||(y - A x) / std||^2 for the Gaussian that the law stands for; its curvature is the
    information that y holds of x."""
    data = misfit(like)
    mean, variance = like.noise.gaussian(like.y)
    std = (temperature * variance).sqrt()

    def f(x: Tensor) -> Local:
        clean, pull, push = data.f(x)
        return clean / std, lambda u: pull(u / std), lambda d: push(d) / std

    return Misfit(mean / std, f)


def feasible(like: Likelihood, x: Tensor, steps: int = 100) -> Tensor:
    """x (B, *E), moved by least squares to where A x lies inside the support by ``MARGIN``; rows
    that are inside already stay."""
    data, (low, high) = misfit(like), like.noise.support
    margin = MARGIN * like.noise.gaussian(like.y)[1].sqrt().expand(like.y.shape).clamp(
        max=high - low
    )

    def f(x: Tensor) -> Local:
        """How far A x is from two margins inside, in margins: 1 is one margin inside."""
        clean, pull, push = data.f(x)
        short = (2 - (clean - low) / margin).clamp(min=0) - (2 - (high - clean) / margin).clamp(
            min=0
        )
        slope = (short != 0) / margin
        return -short, lambda u: pull(slope * u), lambda d: slope * push(d)

    clean = like.A(x)
    out = ((clean <= low) | (clean >= high)).flatten(1).any(1)
    if not bool(out.any()):
        return x
    return torch.where(
        per_row(out, x), Conjugate()(Misfit(torch.zeros_like(margin), f), x, steps, 1.0), x
    )


class Parts(NamedTuple):
    """Sums over the measured numbers that see a number of x: (B, *O) -> (B, *E), as they are, and
    weighed by the squares of A."""

    gather: Map
    weigh: Map


def one_by_one(like: Likelihood, x: Tensor) -> Parts | None:
    """Where every measured number sees at most one number of x, so that p(y | x) is a product over
    the numbers of x; else None.

    None as well for complex numbers, for an A that is not affine, and for a law that does not name
    its terms (``log_prob_each``).
    """
    A = like.A
    if (
        not A.affine
        or A.complex_in
        or A.complex_out
        or like.noise.log_prob_each(like.y, like.y[None]) is None
    ):
        return None
    z = (
        torch.rand(A.in_shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
        .to(x.device)
        .expand_as(x)
    )
    _, pull, push = misfit(like).f(torch.zeros_like(z))
    ones, once, twice = push(torch.ones_like(z)), push(z), push(z.square())
    # Of a row a: sum(a z^2) sum(a) = sum(a z)^2 for no z of distinct numbers but by chance, unless
    # a single number of a is not 0.
    slack = 1e3 * torch.finfo(x.dtype).eps * ones.abs().max().square()
    if bool(((twice * ones - once.square()).abs() > slack).any()):
        return None
    share = torch.where(ones.abs() > 1e-6 * ones.abs().max(), 1 / ones, 0.0)
    return Parts(lambda u: pull(share * u), lambda u: pull(ones * u.expand_as(ones)))
