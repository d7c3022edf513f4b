"""Markov chains shared by methods: Langevin, with and without a Metropolis test, and Hamiltonian.
One random stream per row.

A target is a function of x (B, *E) that gives its log density, up to a constant, and the gradient
(B, *E). The density is (B,), or (B, *E) where the numbers of an image are independent: each then
has its own chain, step h and Metropolis test, and no more numbers make it slower. A density of -inf
is a wall that no chain passes.

During the first ``tune`` steps h follows the share of accepted steps towards the best one, as it
must near a wall, where a curvature does not say how far a step may go. Then it stays, and the
target is left unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.linalg import dot, per_row
from posteriori.rng import Rng

# Of tuning: the shares are the best for many independent numbers (Roberts and Rosenthal 1998;
# Beskos et al. 2013).
RATE = 0.3

Slope = Callable[[Tensor], Tensor]
Both = Callable[[Tensor], tuple[Tensor, Tensor]]


def ula(slope: Slope, x: Tensor, h: Tensor, steps: int, rng: Rng) -> Tensor:
    """The unadjusted Langevin chain.

        x' = x + h slope(x) + sqrt(2 h) z,   h (B,)

    For a Gaussian of precision Q its stationary covariance is (Q (I - h Q / 2))^-1: too wide, and
    without bound as h ||Q|| tends to 2.
    """
    for _ in range(steps):
        x = x + per_row(h, x) * slope(x) + per_row((2 * h).sqrt(), x) * rng.normal(x)
    return x


def mala(
    target: Both, x: Tensor, h: Tensor, steps: int, rng: Rng, tune: int = 0
) -> tuple[Tensor, Tensor]:
    """The Langevin chain with a Metropolis test, and the share of accepted steps (B,). Leaves the
    target unchanged for any h (B,).

    Source: Roberts and Tweedie, Exponential convergence of Langevin distributions and their
    discrete approximations, 1996.
    """
    value, slope = target(x)
    taken = torch.zeros_like(value)
    for k in range(steps):
        length = _wide(h, x)
        ahead = x + length * slope + (2 * length).sqrt() * rng.normal(x)
        new, back = target(ahead)
        there, here = ahead - x - length * slope, x - ahead - length * back
        ok = _accept(new - value + (_square(there, h) - _square(here, h)) / (4 * h), rng)
        x, slope = torch.where(_wide(ok, x), ahead, x), torch.where(_wide(ok, x), back, slope)
        value, taken = torch.where(ok, new, value), taken + ok
        h = h * (RATE * (ok.to(h) - 0.574)).exp() if k < tune else h
    return x, taken.view(len(x), -1).mean(1) / max(steps, 1)


def hmc(
    target: Both, x: Tensor, h: Tensor, steps: int, rng: Rng, leapfrogs: int = 10, tune: int = 0
) -> tuple[Tensor, Tensor]:
    """Hamiltonian Monte Carlo: ``steps`` paths of ``leapfrogs`` leapfrog steps of length h (B,),
    and the share of accepted paths (B,).

    h varies by 20 % from path to path, so that no path returns to its start by resonance. Leaves
    the target unchanged for any h.

    Source: Neal, MCMC using Hamiltonian dynamics, 2011.
    """
    value, slope = target(x)
    taken = torch.zeros_like(value)
    for k in range(steps):
        step = _wide(h, x) * per_row(0.8 + 0.4 * rng.uniform(1)[:, 0].to(h), x)
        p = rng.normal(x)
        before = 0.5 * _square(p, h)
        q, new, back = x, value, slope
        for _ in range(leapfrogs):
            p = p + 0.5 * step * back
            q = q + step * p
            new, back = target(q)
            p = p + 0.5 * step * back
        ok = _accept(new - value + before - 0.5 * _square(p, h), rng)
        x, slope = torch.where(_wide(ok, x), q, x), torch.where(_wide(ok, x), back, slope)
        value, taken = torch.where(ok, new, value), taken + ok
        h = h * (RATE * (ok.to(h) - 0.651)).exp() if k < tune else h
    return x, taken.view(len(x), -1).mean(1) / max(steps, 1)


def _wide(one: Tensor, x: Tensor) -> Tensor:
    """One number of each row, or of each number of an image, to go with x."""
    return per_row(one, x) if one.ndim == 1 else one


def _square(v: Tensor, h: Tensor) -> Tensor:
    """||v||^2 as h counts it: of each row, or of each number."""
    return dot(v, v) if h.ndim == 1 else v.abs().square()


def _accept(log_ratio: Tensor, rng: Rng) -> Tensor:
    """Metropolis's test, bool of the same shape; a ratio that is not a number is refused."""
    u = rng.uniform(log_ratio[0].numel()).to(log_ratio).view(log_ratio.shape)
    return u.log() < log_ratio
