"""Draws shared by methods that split a posterior: from the product of a Gaussian around a centre and the likelihood,

    x ~ N(x; m, r2 I) p(y | x)^(1 / temperature)

Pure functions with one random stream per row. ``exact`` is exact for a linear operator and Gaussian noise; ``rto`` is the same draw for
any differentiable operator, exact when it is linear; ``ula`` is biased by its step, ``mala`` and ``hmc`` are not, for any noise law
with a density: they start at a short ``rto``, in a mode. Steps come from the largest curvature L of the target, measured: no constant
belongs to one data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood
from posteriori.linalg import dot, per_row, real_view
from posteriori.methods.chains import hmc, mala, ula
from posteriori.methods.descent import Conjugate
from posteriori.methods.misfit import Local, Misfit, misfit
from posteriori.operators.base import LinearOperator, norm2, solve
from posteriori.rng import Noise

Name = Literal["conditional", "rto", "langevin", "mala", "hmc"]


@dataclass(frozen=True, eq=False)
class Product:
    """N(x; m, r2 I) p(y | x)^(1 / temperature), up to a constant. m: (B, *E); r2, temperature: numbers > 0."""

    like: Likelihood
    m: Tensor
    r2: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.r2 > 0 and self.temperature > 0):
            raise ValueError(f"a draw needs r2 > 0 and temperature > 0, got r2={self.r2} and temperature={self.temperature}")

    @property
    def std(self) -> float:
        """The standard deviation of the tempered measurement noise, which is Gaussian."""
        return self.like.std * self.temperature**0.5

    @property
    def spread(self) -> Tensor:
        """The same for any noise law, estimated from y: broadcasts against y."""
        return (self.temperature * self.like.noise.variance(self.like.y)).sqrt()

    def slope(self, x: Tensor) -> Tensor:
        """Gradient of the log density: (B, *E) -> (B, *E)."""
        return (self.m - x) / self.r2 + self.like.score(x) / self.temperature

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (B,) and its gradient, from one evaluation of A."""
        clean, pull = self.like.A.linearize(x)
        noise, y, gap = self.like.noise, self.like.y, self.m - x
        value = noise.log_prob(y, clean) / self.temperature - 0.5 * dot(gap, gap) / self.r2
        return value, gap / self.r2 + pull(noise.score(y, clean)) / self.temperature

    def curvature(self, x: Tensor, rng: Noise) -> Tensor:
        """Largest eigenvalue of minus the Hessian, (B,): 1 / r2 + ||A||^2 / std^2 for a linear A and Gaussian noise. Otherwise a few power
        iterations at x on differences of the slope, and at least 1 / r2."""
        if isinstance(self.like.A, LinearOperator) and self.like.noise.std is not None:
            return torch.full_like(x.real.flatten(1)[:, 0], 1 / self.r2 + (norm2(self.like.A) / self.std) ** 2)
        v, here = rng.normal(x), self.slope(x)
        size, near = dot(v, v).sqrt(), 1e-2 * self.r2**0.5
        for _ in range(4):
            v = (here - self.slope(x + per_row(near / size, v) * v)) / near
            size = dot(v, v).sqrt()
        return size.clamp(min=1 / self.r2)


def draw(name: Name, target: Product, rng: Noise, steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """One draw per row by the named rule, and what to show of it. "conditional" is ``exact`` for a linear A and Gaussian noise, ``rto`` for
    a curved A, and "mala" for other noise.

    steps: of the chain, or of the minimisation in ``rto``; not used by the exact draw.
    """
    if name == "conditional":
        if target.like.noise.std is not None and isinstance(target.like.A, LinearOperator):
            return exact(target, rng), {}
        name = "mala" if target.like.noise.std is None else "rto"
    if name == "rto":
        return rto(target, rng, steps), {}
    if name == "langevin":
        return ula(target.slope, target.m, 0.5 / target.curvature(target.m, rng), steps, rng), {}
    x, d = rto(target, rng, 10), target.m[0].numel() * (2 if target.m.is_complex() else 1)
    # A short minimisation may leave where y is possible at all; a chain that starts there is pushed further out.
    x = torch.where(per_row(target.both(x)[0].isfinite(), x), x, target.m)
    L = target.curvature(x, rng)
    if name == "mala":
        x, accepted = mala(target.both, x, d ** (-1 / 3) / L, steps, rng)
    else:
        x, accepted = hmc(target.both, x, d ** (-1 / 4) / L.sqrt(), steps, rng)
    return x, {"acceptance": accepted}


def exact(target: Product, rng: Noise) -> Tensor:
    """Perturb and solve, for a linear A: with xi ~ N(m, r2 I) and eta ~ N(0, std^2 I),

        x = xi + r2 A^H (r2 A A^H + std^2 I)^-1 (y - A xi - eta)

    has exactly the mean and the covariance (I / r2 + A^H A / std^2)^-1 of the product.
    Source: Papandreou and Yuille, Gaussian sampling by local perturbations, 2010.
    """
    A, r2 = target.like.linear, target.r2
    x = target.m.add(rng.normal(target.m), alpha=r2**0.5)
    clean = A(x)
    gap = target.like.y - clean.add(rng.normal(clean), alpha=target.std)
    return x.add(A.adjoint(solve(A, gap, r2, target.std**2)), alpha=r2)


def rto(target: Product, rng: Noise, iterations: int) -> Tensor:
    """Randomise, then optimise: with m' ~ N(m, r2 I) and y' ~ N(y, std^2 I), the minimiser of ||x - m'||^2 / r2 + ||y' - A x||^2 / std^2.

    Exact for a linear A when the minimisation converges. For a curved A it lacks the weight |det| of the map from noise to minimiser, but
    every draw sits in a mode and fits the measurement, which a short chain does not. Other noise than Gaussian has its variance at y.
    Source: Bardsley, Solonen, Haario, Laine, Randomize-then-optimize, 2014; without its Metropolis test.
    """
    A, data = target.like.A, misfit(target.like)
    goal = target.m.add(rng.normal(target.m), alpha=target.r2**0.5)
    y = target.like.y + target.spread * rng.normal(target.like.y.expand(len(goal), *A.out_shape))
    weight = target.r2**0.5 / target.spread

    def both(x: Tensor, clean: Tensor) -> Tensor:
        return torch.cat([_real(x), _real(weight * clean)], 1)

    def f(x: Tensor) -> Local:
        clean, pull, push = data.f(x)

        def back(u: Tensor) -> Tensor:
            near, far = u.split([_real(x).shape[1], _real(clean).shape[1]], 1)
            return _like(near, x) + pull(weight * _like(far, clean))

        return both(x, clean), back, lambda d: both(d, push(d))

    return Conjugate()(Misfit(both(goal, y), f), goal, iterations, 0.0)


def _real(x: Tensor) -> Tensor:
    """(B, *E), complex numbers as pairs, as (B, n)."""
    return real_view(x).flatten(1)


def _like(flat: Tensor, x: Tensor) -> Tensor:
    """What ``_real`` made of a tensor like x, back."""
    return torch.view_as_complex(flat.reshape(*x.shape, 2)) if x.is_complex() else flat.view_as(x)
