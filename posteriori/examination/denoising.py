"""What a denoiser says of its own error, compared with its error.

For x = x0 + sigma z with x0 drawn from the prior whose denoiser D is (Stein's identity, which is
Tweedie's formula of second order),

    E ||x0 - D(x, sigma)||^2 = sigma^2 E tr J,    J = dD/dx

The left side needs x0, the right side D alone: a denoiser of another noise level, scale or world
misses one of them. tr J is the mean of v^T J v over random signs v, J v a difference quotient.

For a Gaussian prior the two differ by chance with a variance of at most 4 sigma^4 ||J||_F^2, half
of it from x0 and z and half from v; ||J v||^2 has the mean ||J||_F^2. Where rows are many the
scatter among them is taken instead when it is larger.

Source: Efron, Tweedie's formula and selection bias, 2011; Hutchinson, A stochastic estimator of the
trace of the influence matrix, 1989.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.linalg import dot
from posteriori.priors.base import Prior
from posteriori.rng import Streams

# The step of the difference quotient, in units of sigma: D varies over distances of sigma or more.
STEP = 0.05
# Rows from which on their own scatter says how much is chance.
MANY = 8


@dataclass(frozen=True)
class Consistency:
    """Both sides at one noise level, of all rows together. chance: a standard error of
    error - promised. numbers: of all rows."""

    sigma: float
    error: float
    promised: float
    chance: float
    numbers: int

    @property
    def ratio(self) -> float:
        """error / promised: 1 for a sound denoiser on images of its world; infinite where it
        promises none, or less."""
        return self.error / self.promised if self.promised > 0 else math.inf

    def beyond(self, low: float, high: float, errors: float = 4.0) -> bool:
        """Whether the error lies outside [low, high] times the promised one by more than so many
        standard errors."""
        promised, room = max(self.promised, 0.0), errors * self.chance
        # A number that is none lies outside too.
        return not low * promised - room <= self.error <= high * promised + room


@torch.no_grad()
def consistency(prior: Prior, x0: Tensor, sigma: float, seed: int = 0) -> Consistency:
    """Both sides on images x0 (B, *E) in the prior's coordinates: two denoiser calls a row."""
    rng, level = Streams(seed, range(len(x0))), torch.tensor(sigma, dtype=torch.float64)
    x = x0 + sigma * rng.normal(x0)
    v = rng.normal(x0).real.sign().to(x0)
    D = prior.denoise(x, level)
    Jv = (prior.denoise(x + STEP * sigma * v, level) - D) / (STEP * sigma)
    parts = 2 if x0.is_complex() else 1  # z has a real and an imaginary number, v a real one only
    error, promised = dot(D - x0, D - x0).double(), parts * sigma**2 * dot(v, Jv).double()
    gaussian = 2 * parts * sigma**2 * math.sqrt(float(dot(Jv, Jv).double().sum()))
    scatter = (error - promised).std() * math.sqrt(len(x0)) if len(x0) >= MANY else 0.0
    chance = max(gaussian, float(scatter))
    return Consistency(sigma, float(error.sum()), float(promised.sum()), chance, x0.numel())


@torch.no_grad()
def asymmetry(prior: Prior, x: Tensor, sigma: float, seed: int = 0) -> float:
    """||J v - J^T v|| / ||J v|| of one image x (1, *E) at sigma, v random signs: 0 for an exact
    denoiser, sqrt(2) for a J that has nothing to do with its transpose."""
    level = torch.tensor(sigma, dtype=torch.float64)
    v = Streams(seed, [0]).normal(x).real.sign().to(x)
    D, pull = prior.linearize(x, level)
    Jv = (prior.denoise(x + STEP * sigma * v, level) - D) / (STEP * sigma)
    return float((Jv - pull(v)).norm() / Jv.norm().clamp(min=1e-30))
