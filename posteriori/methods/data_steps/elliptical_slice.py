"""Elliptical slice sampling: a move that leaves N(f; 0, C) L(f) unchanged, without a step size.

    nu ~ N(0, C),  f' = f cos(theta) + nu sin(theta),  log L(f') > log L(f) + log U

theta is drawn from a bracket that shrinks towards 0 until f' is above the level. Source: Murray,
Adams, MacKay, Elliptical slice sampling, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.linalg import per_row
from posteriori.rng import Rng

# Shrinkings of the bracket: it is then 1e-7 of the circle or so, and a row stays where it was.
_MOST = 24


def elliptical_slice(
    log_like: Callable[[Tensor], Tensor], f: Tensor, nu: Tensor, rng: Rng
) -> Tensor:
    """One move of every row of f (B, *P), nu (B, *P) being a draw of N(0, C) each. log_like: (B,).

    Every row draws the same number of uniform numbers, however soon it is done.
    """
    u = rng.uniform(_MOST + 1).to(f.device)
    level = log_like(f).double() + u[:, 0].clamp(min=1e-300).log()
    theta = 2 * math.pi * u[:, 1]
    low, high = theta - 2 * math.pi, theta
    done, out = torch.zeros_like(theta, dtype=torch.bool), f
    for k in range(_MOST):
        ahead = per_row(theta.cos().to(f), f) * f + per_row(theta.sin().to(f), f) * nu
        ok = ~done & (log_like(ahead).double() > level)
        out, done = torch.where(per_row(ok, f), ahead, out), done | ok
        if k + 2 > _MOST or bool(done.all()):
            break
        low, high = torch.where(theta < 0, theta, low), torch.where(theta < 0, high, theta)
        theta = low + (high - low) * u[:, k + 2]
    return out
