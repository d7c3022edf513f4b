"""Markov chains shared by methods: Langevin, with and without a Metropolis test, and Hamiltonian. One random stream per row.

A target is a function of x (B, *E) that gives its log density (B,), up to a constant, and the gradient (B, *E).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.linalg import dot, per_row
from posteriori.rng import Noise

Slope = Callable[[Tensor], Tensor]
Both = Callable[[Tensor], tuple[Tensor, Tensor]]


def ula(slope: Slope, x: Tensor, h: Tensor, steps: int, rng: Noise) -> Tensor:
    """The unadjusted Langevin chain x' = x + h slope(x) + sqrt(2 h) z, h (B,).

    For a Gaussian of precision Q its stationary covariance is (Q (I - h Q / 2))^-1: too wide, and without bound as h ||Q|| tends to 2.
    """
    for _ in range(steps):
        x = x + per_row(h, x) * slope(x) + per_row((2 * h).sqrt(), x) * rng.normal(x)
    return x


def mala(target: Both, x: Tensor, h: Tensor, steps: int, rng: Noise) -> tuple[Tensor, Tensor]:
    """The Langevin chain with a Metropolis test, and the share of accepted steps (B,). Leaves the target unchanged for any h (B,).

    Source: Roberts and Tweedie, Exponential convergence of Langevin distributions and their discrete approximations, 1996.
    """
    value, slope = target(x)
    taken = torch.zeros_like(value)
    for _ in range(steps):
        ahead = x + per_row(h, x) * slope + per_row((2 * h).sqrt(), x) * rng.normal(x)
        new, back = target(ahead)
        there, here = ahead - x - per_row(h, x) * slope, x - ahead - per_row(h, x) * back
        ok = _accept(new - value + (dot(there, there) - dot(here, here)) / (4 * h), rng)
        x, slope = torch.where(per_row(ok, x), ahead, x), torch.where(per_row(ok, x), back, slope)
        value, taken = torch.where(ok, new, value), taken + ok
    return x, taken / max(steps, 1)


def hmc(target: Both, x: Tensor, h: Tensor, steps: int, rng: Noise, leapfrogs: int = 10) -> tuple[Tensor, Tensor]:
    """Hamiltonian Monte Carlo: ``steps`` paths of ``leapfrogs`` leapfrog steps of length h (B,), and the share of accepted paths (B,).

    h varies by 20 % from path to path, so that no path returns to its start by resonance. Leaves the target unchanged for any h.
    Source: Neal, MCMC using Hamiltonian dynamics, 2011.
    """
    value, slope = target(x)
    taken = torch.zeros_like(value)
    for _ in range(steps):
        step = per_row(h * (0.8 + 0.4 * rng.uniform(1)[:, 0].to(h)), x)
        p = rng.normal(x)
        before = 0.5 * dot(p, p)
        q, new, back = x, value, slope
        for _ in range(leapfrogs):
            p = p + 0.5 * step * back
            q = q + step * p
            new, back = target(q)
            p = p + 0.5 * step * back
        ok = _accept(new - value + before - 0.5 * dot(p, p), rng)
        x, slope = torch.where(per_row(ok, x), q, x), torch.where(per_row(ok, x), back, slope)
        value, taken = torch.where(ok, new, value), taken + ok
    return x, taken / max(steps, 1)


def _accept(log_ratio: Tensor, rng: Noise) -> Tensor:
    """Metropolis's test, (B,) bool; a ratio that is not a number is refused."""
    return rng.uniform(1)[:, 0].to(log_ratio).log() < log_ratio
