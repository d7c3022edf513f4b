"""Where a sampler with Gaussian kernels must go slowly: a small run that measures how far x0 given x is from Gaussian.

Were p(x0 | x) Gaussian, its covariance S = sigma^2 J at a level would tell that at the next one, s:

    S' = tau^2 S (S + tau^2 I)^-1,   tau^2 = s^2 / (1 - s^2 / sigma^2)

so along random directions z the two sides of z^T S(x') z and z^T S' z agree for every prior that is Gaussian around x, whatever its
covariance. The relative gap, b, is large exactly where modes part from each other. Levels are then spaced evenly in the integral of
sqrt(b) + 0.02 over log sigma: the error of a step grows faster than its length, and a little everywhere bridges what the pilot missed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.linalg import cg, dot
from posteriori.methods.base import Method
from posteriori.rng import Streams

EVERYWHERE = 0.02


def bends(post: Posterior, method: Method[Any], levels: Tensor) -> Tensor:
    """b of each step between ``levels`` but the last (to 0), along one group of ``method``: the 4-norm over its rows, which heeds the few
    rows that are still undecided. Every row's numbers come from the same fixed streams, so that the levels do not depend on a seed."""
    rng = Streams(0, [0], method.group)
    x = torch.zeros(method.group, *post.shape, dtype=post.likelihood.y.dtype, device=post.likelihood.y.device)
    state = method.init(post, post.prior.start(rng.normal(x), levels[0]), rng)
    out: list[float] = []
    told: tuple[Tensor, Tensor] | None = None
    for sigma, s in pairwise(levels[:-1]):
        s2, x = float(sigma) ** 2, method.rows(state)
        _, pull = post.prior.linearize(x, sigma)
        if told is not None:
            z, before = told
            now = dot(z, s2 * pull(z))
            gap = (now - before).abs() / (now + before).abs().clamp(min=1e-300)
            out.append(float(gap.pow(4).mean() ** 0.25))
        tau2 = float(s) ** 2 / (1 - float(s) ** 2 / s2)
        z = rng.normal(x)
        solved = cg(lambda v, pull=pull, s2=s2, tau2=tau2: s2 * pull(v) + tau2 * v, z, max_iter=12, rtol=1e-6).x  # type: ignore[misc]
        told = z, dot(z, tau2 * (z - tau2 * solved))
        state, _ = method.step(post, state, sigma, s, rng)
    return torch.tensor(out, dtype=torch.float64)


def adapted(post: Posterior, method: Method[Any], steps: int, top: float, count: int = 64) -> Tensor:
    """(steps + 1,) float64: levels from ``top`` downwards, dense where b is large, then 0. The pilot takes ``count`` levels."""
    fine = grid.log(count, top, post.prior.sigma_min)
    b = bends(post, method, fine)
    mass = torch.cat([torch.zeros(1, dtype=torch.float64), (b.nan_to_num(1.0).sqrt() + EVERYWHERE).cumsum(0)])
    # The last half of a step's share is left to the final draw, which is exact where p(x0 | x) is Gaussian.
    wanted = torch.linspace(0, 1 - 0.5 / steps, steps, dtype=torch.float64) * mass[-1]
    places = np.interp(wanted.numpy(), mass.numpy(), fine[: len(mass)].log().numpy())
    return torch.cat([torch.from_numpy(places).exp(), torch.zeros(1, dtype=torch.float64)])
