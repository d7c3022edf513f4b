"""Draws shared by methods that split a posterior: from the product of a Gaussian around a centre
and the likelihood.

    x ~ N(x; m, r2 I) p(y | x)^(1 / temperature)

Pure functions with one random stream per row.

    ``exact_draw``      exact for a linear operator and Gaussian noise
    ``rto``             the same draw for any differentiable operator, exact when it is linear
    ``ula``             biased by its step
    ``mala``, ``hmc``   not biased, for any noise law with a density: they start at a short ``rto``,
                        in a mode, or inside the support of the law where that ends outside

Steps come from the largest curvature L of the target, measured: no constant belongs to one data
set. For other noise than Gaussian L is that of the Gaussian that the law stands for, and where
every measured number sees one number of the image those numbers are drawn one by one (see
``noise_supports``). A row for which no start is found becomes NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import dot, per_row, real_view
from posteriori.methods.courses import prior_scale
from posteriori.methods.data_steps.chains import Both, hmc, mala, ula
from posteriori.methods.data_steps.descent import Conjugate, Descent
from posteriori.methods.data_steps.misfit import Local, Misfit, misfit
from posteriori.methods.data_steps.noise_supports import (
    Parts,
    bounded,
    feasible,
    one_by_one,
    whitened,
)
from posteriori.operators.base import norm2
from posteriori.operators.gain import gain
from posteriori.rng import Rng

DrawName = Literal["conditional", "rto", "langevin", "mala", "hmc"]
# Those that do not heed where the law of the noise ends.
UNBOUNDED = ("rto", "langevin")
# The noise level that DAPS states for images in [-1, 1].
TAU = 0.01


@dataclass(frozen=True, eq=False)
class Tilted:
    """N(x; m, r2 I) p(y | x)^(1 / temperature), up to a constant.

    m: (B, *E).
    r2, temperature: numbers > 0; raises ``ValueError`` for others.
    """

    like: Likelihood
    m: Tensor
    r2: float
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (self.r2 > 0 and self.temperature > 0):
            raise ValueError(
                f"a draw needs r2 > 0 and temperature > 0, got r2={self.r2} and "
                f"temperature={self.temperature}"
            )

    @property
    def std(self) -> float:
        """The standard deviation of the tempered measurement noise, which is Gaussian."""
        return self.like.std * self.temperature**0.5

    @property
    def spread(self) -> Tensor:
        """The same for any noise law, that of ``NoiseLaw.gaussian``: broadcasts against y."""
        return (self.temperature * self.like.noise.gaussian(self.like.y)[1]).sqrt()

    def slope(self, x: Tensor) -> Tensor:
        """Gradient of the log density: (B, *E) -> (B, *E)."""
        return (self.m - x) / self.r2 + self.like.score(x) / self.temperature

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (B,) and its gradient, from one evaluation of A."""
        clean, pull = self.like.A.linearize(x)
        noise, y, gap = self.like.noise, self.like.y, self.m - x
        value = noise.log_prob(y, clean) / self.temperature - 0.5 * dot(gap, gap) / self.r2
        return value, gap / self.r2 + pull(self._score(clean)) / self.temperature

    def each(self, parts: Parts) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The same with a log density for each number of x (B, *E), which the numbers of x have for
        themselves."""
        noise, y, (low, high) = self.like.noise, self.like.y, self.like.noise.support

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            clean, pull = self.like.A.linearize(x)
            terms = noise.log_prob_each(y, clean)
            assert terms is not None  # by ``one_by_one``
            barred = (clean < low) | (clean > high) | ~terms.isfinite()
            value = (
                parts.gather(torch.where(barred, 0.0, terms)) / self.temperature
                - 0.5 * (self.m - x).square() / self.r2
            )
            value = torch.where(parts.gather(barred.to(x)) > 0.5, -math.inf, value)
            return value, (self.m - x) / self.r2 + pull(self._score(clean)) / self.temperature

        return both

    def _score(self, clean: Tensor) -> Tensor:
        """The law's score, 0 beyond its walls: paths that end there are refused, and NaN would
        spread through A to what is not."""
        score, (low, high) = self.like.noise.score(self.like.y, clean), self.like.noise.support
        return (
            score
            if (low, high) == (-math.inf, math.inf)
            else torch.where((clean < low) | (clean > high), 0.0, score)
        )

    def curvature(self, x: Tensor, rng: Rng) -> Tensor:
        """Largest eigenvalue of minus the Hessian, (B,).

            1 / r2 + ||A||^2 / std^2        for a linear A and Gaussian noise
            1 / r2 + ||A' / spread||^2      at x for other noise: the information

        For a curved A a few power iterations at x on differences of the slope, and at least 1 / r2.
        """
        if self.like.conjugate:
            return torch.full_like(
                x.real.flatten(1)[:, 0], 1 / self.r2 + (norm2(self.like.linear) / self.std) ** 2
            )
        if self.like.noise.std is None:
            return 1 / self.r2 + whitened(self.like, self.temperature).curvature(x)
        v, here = rng.normal(x), self.slope(x)
        size, near = dot(v, v).sqrt(), 1e-2 * self.r2**0.5
        for _ in range(4):
            v = (here - self.slope(x + per_row(near / size, v) * v)) / near
            size = dot(v, v).sqrt()
        return size.clamp(min=1 / self.r2)


def draw_tilted(
    name: DrawName, target: Tilted, rng: Rng, steps: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """One draw per row by the named rule, and what to show of it.

    name: "conditional" is ``exact_draw`` for a linear A and Gaussian noise, ``rto`` for a curved A,
        and "mala" for other noise.
    steps: of the chain, or of the minimisation in ``rto``; not used by the exact draw.
    """
    if name == "conditional":
        if target.like.conjugate:
            return exact_draw(target, rng), {}
        name = "mala" if target.like.noise.std is None else "rto"
    if name == "rto":
        return rto(target, rng, steps), {}
    if name == "langevin":
        return ula(target.slope, target.m, 0.5 / target.curvature(target.m, rng), steps, rng), {}
    x, parts = _start(target, rng), None
    if target.like.noise.std is None:
        parts = one_by_one(target.like, x)
    both: Both = target.both
    if parts is None:
        L, d = target.curvature(x, rng), target.m[0].numel() * (2 if target.m.is_complex() else 1)
    else:
        both, L, d = (
            target.each(parts),
            1 / target.r2 + parts.weigh(target.spread.square().reciprocal()).expand_as(x),
            1,
        )
    tune = 0
    if bounded(target.like):
        both, tune = _tamed(both, L), steps // 2
    if name == "mala":
        x, accepted = mala(both, x, d ** (-1 / 3) / L, steps, rng, tune)
    else:
        x, accepted = hmc(both, x, d ** (-1 / 4) / L.sqrt(), steps, rng, tune=tune)
    return x, {"acceptance": accepted}


def _tamed(both: Both, L: Tensor) -> Both:
    """The target with slopes of at most 4 sqrt(L) for each number: beside a wall to which a density
    falls they have no bound, and a chain that starts there would leap from it and be refused. The
    test of a chain makes good for any slope that is a function of x."""
    most = 4 * L.sqrt()

    def tame(x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = both(x)
        bound = per_row(most, x) if most.ndim == 1 else most
        return value, slope if slope.is_complex() else slope.clamp(-bound, bound)

    return tame


def _start(target: Tilted, rng: Rng) -> Tensor:
    """A short minimisation, inside the support; the centre where that has no density, and NaN where
    neither has: such a chain is stuck."""
    x = rto(target, rng, 10)
    if bounded(target.like):
        x = feasible(target.like, x)
    for other in (target.m, torch.full_like(target.m, math.nan)):
        x = torch.where(per_row(target.both(x)[0].isfinite(), x), x, other)
    return x


def exact_draw(target: Tilted, rng: Rng) -> Tensor:
    """Perturb and solve, for a linear A.

        xi ~ N(m, r2 I),   eta ~ N(0, std^2 I)
        x  = xi + r2 A^H (r2 A A^H + std^2 I)^-1 (y - A xi - eta)

    This has exactly the mean and the covariance (I / r2 + A^H A / std^2)^-1 of the product.

    Source: Papandreou and Yuille, Gaussian sampling by local perturbations, 2010.
    """
    A, r2 = target.like.linear, target.r2
    x = target.m.add(rng.normal(target.m), alpha=r2**0.5)
    clean = A(x)
    gap = target.like.y - clean.add(rng.normal(clean), alpha=target.std)
    return x.add(gain(A, gap, r2, target.std**2), alpha=r2)


def rto(target: Tilted, rng: Rng, iterations: int) -> Tensor:
    """Randomise, then optimise.

        m' ~ N(m, r2 I),   y' ~ N(y, std^2 I)
        x  = argmin_x ||x - m'||^2 / r2 + ||y' - A x||^2 / std^2

    Exact for a linear A when the minimisation converges. For a curved A it lacks the weight |det|
    of the map from noise to minimiser, but every draw sits in a mode and fits the measurement,
    which a short chain does not. Other noise than Gaussian is the Gaussian that it stands for, and
    draws may then lie where the law knows no y.

    Source: Bardsley, Solonen, Haario, Laine, Randomize-then-optimize, 2014; without its Metropolis
        test.
    """
    goal = target.m.add(rng.normal(target.m), alpha=target.r2**0.5)
    y = target.like.noise.gaussian(target.like.y)[0] + target.spread * rng.normal(
        target.like.y.expand(len(goal), *target.like.A.out_shape)
    )
    return _nearest(target, goal, y, iterations, Conjugate())


def mode(
    target: Tilted, iterations: int, descent: Descent | None = None, unit: float = 1.0
) -> Tensor:
    """Where the product is largest, other noise than Gaussian being the Gaussian that it stands
    for: (B, *E).

    In closed form for a linear A and Gaussian noise, else after so many iterations from m.
    descent: by conjugate gradients when None; ``unit`` is what its rate counts in.
    """
    like, r2 = target.like, target.r2
    if like.conjugate:
        return target.m.add(
            gain(like.linear, like.y - like.A(target.m), r2, target.std**2), alpha=r2
        )
    y = like.noise.gaussian(like.y)[0].expand(len(target.m), *like.A.out_shape)
    return _nearest(target, target.m, y, iterations, descent or Conjugate(), unit)


def _nearest(
    target: Tilted,
    goal: Tensor,
    y: Tensor,
    iterations: int,
    descent: Descent,
    unit: float = 1.0,
) -> Tensor:
    """argmin_x ||x - goal||^2 / r2 + ||y - A x||^2 / std^2, from the goal."""
    data = misfit(target.like)
    weight = target.r2**0.5 / target.spread

    def both(x: Tensor, clean: Tensor) -> Tensor:
        return torch.cat([_real(x), _real(weight * clean)], 1)

    def f(x: Tensor) -> Local:
        clean, pull, push = data.f(x)

        def back(u: Tensor) -> Tensor:
            near, far = u.split([_real(x).shape[1], _real(clean).shape[1]], 1)
            return _like(near, x) + pull(weight * _like(far, clean))

        return both(x, clean), back, lambda d: both(d, push(d))

    return descent(Misfit(both(goal, y), f, unit=unit), goal, iterations, 0.0)


def annealed(
    post: Posterior, m: Tensor, sigma: Tensor, rate: float, steps: int, rng: Rng
) -> Tensor:
    """The Langevin chain of DAPS as published, from m and for images in [-1, 1], with tau = 0.01
    whatever the noise of y.

        x' = x + h ((m - x) / sigma^2 + 2 / tau^2 A^H (y - A x)) + sqrt(2 h) z

    h falls from ``rate`` at sigma = 100 to a hundredth of it at 0.1, linearly in sigma^(1/7), that
    is in the number of the paper's level. A chain so short stays near m, which at large sigma is a
    narrower law than N(m, sigma^2 I). h is at most 2 / L, L the largest curvature, beyond which no
    chain is stable: the paper's rate is that of ||A|| = 1.
    """
    like, unit = post.likelihood, prior_scale(post.prior)
    top, bottom = ((level * unit) ** (1 / 7) for level in (100.0, 0.1))
    walked = min(max((top - float(sigma) ** (1 / 7)) / (top - bottom), 0.0), 1.0)
    weight, s2 = 2 / (TAU * unit) ** 2, float(sigma) ** 2

    def slope(x: Tensor) -> Tensor:
        clean, pull = like.A.linearize(x)
        return (m - x) / s2 + weight * pull(like.y - clean)

    steady = like.A.steady_norm
    size = norm2(like.A, m) if steady is None else steady
    h = m.real.new_ones(len(m)) * (2 / (1 / s2 + weight * size**2))
    return ula(slope, m, h.clamp(max=rate * unit**2 * (1 - 0.99 * walked)), steps, rng)


def _real(x: Tensor) -> Tensor:
    """(B, *E), complex numbers as pairs, as (B, n)."""
    return real_view(x).flatten(1)


def _like(flat: Tensor, x: Tensor) -> Tensor:
    """What ``_real`` made of a tensor like x, back."""
    return torch.view_as_complex(flat.reshape(*x.shape, 2)) if x.is_complex() else flat.view_as(x)
