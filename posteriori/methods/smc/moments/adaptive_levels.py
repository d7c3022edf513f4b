"""Where a sampler with Gaussian kernels must go slowly: a small run that measures how far x0
given x is from Gaussian.

Were p(x0 | x) Gaussian, its covariance S = sigma^2 J at a level would tell that at the next one, s:

    S' = tau^2 S (S + tau^2 I)^-1,   tau^2 = s^2 / (1 - s^2 / sigma^2)

So along random directions z the two sides of z^T S(x') z and z^T S' z agree for every prior that is
Gaussian around x, whatever its covariance. The relative gap, b, is large exactly where modes part
from each other.

Levels are then spaced evenly in the integral of sqrt(b) + 0.02 over log sigma: the error of a step
grows faster than its length, and a little everywhere bridges what the pilot missed.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.linalg import cg, dot
from posteriori.methods.base import Method
from posteriori.methods.smc.particles import in_chunks
from posteriori.priors.base import Pull
from posteriori.rng import Streams

EVERYWHERE, NEGLIGIBLE = 0.02, 1e-3


def bends(post: Posterior, method: Method[Any], levels: Tensor, rows: int | None = None) -> Tensor:
    """b of each step between ``levels`` but the last (to 0), along one group of ``method``: the
    4-norm over its rows, which heeds the few rows that are still undecided. Every row's numbers
    come from the same fixed streams, so that the levels do not depend on a seed.

    rows: how many are worked on at a time."""
    rng = Streams(0, [0], method.group)
    x = torch.zeros(
        method.group, *post.shape, dtype=post.likelihood.y.dtype, device=post.likelihood.y.device
    )
    state = method.init(post, post.prior.start(rng.normal(x), levels[0]), rng)
    out: list[float] = []
    told: tuple[Tensor, ...] = ()
    for sigma, s in pairwise(levels[:-1]):
        x = method.rows(state)
        z = rng.normal(x)
        ahead, gap = in_chunks(partial(_looked, post, sigma, s), rows, x, z, *told)
        if told:
            out.append(float(gap[gap.isfinite()].pow(4).mean() ** 0.25))
        told = z, ahead
        state, _ = method.step(post, state, sigma, s, rng)
    return torch.tensor(out, dtype=torch.float64)


def _looked(
    post: Posterior, sigma: Tensor, s: Tensor, x: Tensor, *told: Tensor
) -> tuple[Tensor, Tensor]:
    return curvatures(post.prior.linearize(x, sigma)[1], sigma, s, *told)


def curvatures(
    pull: Pull,
    sigma: Tensor,
    s: Tensor,
    z: Tensor,
    before: Tensor | None = None,
    told: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z^T S' z (B,) as x at sigma, of which ``pull`` is u -> J u, tells it for s, and how far what
    was ``told`` of z = ``before`` is from the truth (0 without it)."""
    s2 = float(sigma) ** 2
    tau2 = float(s) ** 2 / (1 - float(s) ** 2 / s2)
    solved = cg(lambda v: s2 * pull(v) + tau2 * v, z, max_iter=12, rtol=1e-6).x
    ahead = dot(z, tau2 * (z - tau2 * solved))
    if before is None or told is None:
        return ahead, torch.zeros_like(ahead)
    now = dot(before, s2 * pull(before))
    return ahead, (now - told).abs() / (now + told).abs().clamp(min=1e-300)


def adapted(
    post: Posterior,
    method: Method[Any],
    steps: int,
    top: float,
    count: int = 64,
    rows: int | None = None,
) -> Tensor:
    """(steps + 1,) float64: levels from ``top`` downwards, dense where b is large, then 0. The
    pilot takes ``count`` levels.

    They end where a share ``NEGLIGIBLE`` of all b is left: p(x0 | x) is Gaussian from there on and
    the last draw exact, and the higher it starts, the less do particles with a common ancestor stay
    alike."""
    fine = grid.log(count, top, post.prior.sigma_min)
    return spaced(fine, bends(post, method, fine, rows), steps)


def bent(b: Tensor) -> int:
    """How many of the steps of the bends b (K,) there are before a share ``NEGLIGIBLE`` of them is
    left, at least one."""
    left = b.flip(0).cumsum(0).flip(0)
    return max(int((left > NEGLIGIBLE * left[0]).sum()), 1)


def masses(b: Tensor) -> Tensor:
    """(K + 1,): the integral along which levels are evenly spaced, of the bends b (K,)."""
    return torch.cat([torch.zeros(1, dtype=torch.float64), (b.sqrt() + EVERYWHERE).cumsum(0)])


def spaced(fine: Tensor, b: Tensor, steps: int) -> Tensor:
    """(steps + 1,) float64: levels along ``fine`` (K + 1 or more) by the bends b (K,) of its steps,
    then 0."""
    b = b.nan_to_num(1.0)
    mass = masses(b[: bent(b)])
    wanted = torch.linspace(0, 1, steps, dtype=torch.float64) * mass[-1]
    places = np.interp(wanted.numpy(), mass.numpy(), fine[: len(mass)].log().numpy())
    return torch.cat([torch.from_numpy(places).exp(), torch.zeros(1, dtype=torch.float64)])
