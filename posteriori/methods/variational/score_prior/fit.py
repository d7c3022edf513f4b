"""Fitting an invertible family q to a posterior by path gradients and Adam, a member per group.

    x = m + scale T(z)
    gradient of KL(q || p) over the parameters = -E (grad_x log p - grad_x log q) dT/dparams

One member of the family is fitted for each group of rows. The part that goes through the parameters
of log q alone has mean zero and is left out: what remains vanishes row by row when q = p.

Source: Roeder, Wu, Duvenaud, Sticking the landing, 2017 (path gradients).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row, real_view
from posteriori.methods.transitions import adam
from posteriori.methods.variational.score_prior import flows
from posteriori.methods.variational.score_prior.flows import Family
from posteriori.operators.base import norm2
from posteriori.priors import log_density as densities
from posteriori.rng import Rng


class VariationalFit(NamedTuple):
    """The fits of all groups.

    params, first, second: (G, P), and Adam's moments.
    updates: (), how many they have seen.
    x: (B, *E), the last draws.
    log_w, bound: their log-weights (B,) and bound (G,), float64.
    """

    params: Tensor
    first: Tensor
    second: Tensor
    updates: Tensor
    x: Tensor
    log_w: Tensor
    bound: Tensor


def begin(params: Tensor, x: Tensor) -> VariationalFit:
    """The fit before its first update, at images x (B, *E)."""
    zero, nothing = (
        torch.zeros_like(params),
        torch.zeros(len(x), dtype=torch.float64, device=x.device),
    )
    return VariationalFit(
        params,
        zero,
        zero.clone(),
        torch.zeros((), dtype=torch.int64),
        x,
        nothing,
        nothing[: len(params)].clone(),
    )


@dataclass(frozen=True, eq=False)
class FitFrame:
    """The coordinates u of a fit, x = m + scale u: images (G N, *E) <-> real numbers (G, N, d), N
    rows of each group."""

    m: Tensor
    scale: float
    rows: int

    def images(self, u: Tensor) -> Tensor:
        flat = u.flatten(0, 1) * self.scale
        if self.m.is_complex():
            return self.m + torch.view_as_complex(flat.view(-1, *self.m.shape[1:], 2))
        return self.m + flat.view(-1, *self.m.shape[1:])

    def numbers(self, x: Tensor) -> Tensor:
        """Images as rows of real numbers, neither shifted nor scaled: a gradient is such a
        thing."""
        return real_view(x).reshape(-1, self.rows, densities.count_numbers(x))

    def inside(self, x: Tensor) -> Tensor:
        return self.numbers(x - self.m) / self.scale

    def log_q(self, family: Family, params: Tensor, x: Tensor) -> Tensor:
        """log q(x), (B,) float64."""
        u = self.inside(x)
        return (
            flows.flow_log_density(family, params, u).double() - u.shape[-1] * math.log(self.scale)
        ).flatten()


@dataclass(frozen=True, eq=False)
class Target:
    """The posterior blurred to a noise level, by its gradient; ``gradient`` as in
    ``ScorePriorVI``."""

    post: Posterior
    level: Tensor
    gradient: str

    def slope(self, x: Tensor, m: Tensor, turn: int, plain: bool, rows: int, rng: Rng) -> Tensor:
        """grad_x log p_level(x): (B, *E).

        turn: which update this is.
        plain: the likelihood at x itself, not widened.
        rows: of a group.
        """
        prior, A, like, level = (
            self.post.prior,
            self.post.likelihood.A,
            self.post.likelihood,
            float(self.level),
        )
        r2, at, pull = x.real.new_zeros(len(x)), x, None
        if self.gradient == "bound":
            width = math.log(prior.sigma_max / level)
            # Multiples of the golden section cover the levels evenly, alike for every group.
            above = self.level * math.exp(width * ((turn * 0.6180339887498949 + 0.5) % 1.0))
            own = width * densities.denoising_slope(prior, x, rng.normal(x), above) - (x - m) / (
                prior.variance + prior.sigma_max**2
            )
            r2 = r2 + (0.0 if plain else prior.know().max_variance(level))
        elif plain:
            own = (prior.denoise(x, self.level) - x) / level**2
        else:
            at, pull = prior.linearize(x, self.level)
            own = (at - x) / level**2
            v = rng.normal(x)
            # The mean of v^T J v / v^T v over the group: the spread of x0 given x where q is. A
            # wider one shifts mass between modes.
            share = (
                (dot(v, pull(v)) / dot(v, v))
                .view(-1, rows)
                .mean(1, keepdim=True)
                .expand(-1, rows)
                .flatten()
            )
            r2 = (level**2 * share).clamp(0.0, prior.know().max_variance(level))
        clean, adjoint = A.linearize(at)
        residual = like.y - clean
        wider = r2 * norm2(A, at).square() if bool(r2.any()) else r2
        fit = adjoint(residual / per_row(like.std**2 + wider, residual))
        return own + (fit if pull is None else pull(fit))


def ascend(
    family: Family,
    fit: VariationalFit,
    frame: FitFrame,
    slope: Callable[[Tensor], Tensor],
    z: Tensor,
    rate: float,
    clip: float,
) -> VariationalFit:
    """One update at z (G, N, d); ``slope`` is grad_x log p of images. Gradients of a group longer
    than ``clip`` are shortened to it."""
    with torch.enable_grad():
        params = fit.params.detach().requires_grad_()
        u, _ = family.push(params, z)
        at = u.detach().requires_grad_()
        (of_q,) = torch.autograd.grad(flows.flow_log_density(family, fit.params, at).sum(), at)
        x = frame.images(u.detach())
        uphill = frame.scale * frame.numbers(slope(x)) - of_q
        (g,) = torch.autograd.grad(-(u * uphill).sum(-1).mean(1).sum(), params)
    length = g.norm(dim=1, keepdim=True)
    direction, first, second = adam(
        g * (clip / length.clamp(min=clip)), fit.first, fit.second, int(fit.updates) + 1
    )
    return fit._replace(
        params=fit.params - rate * direction,
        first=first,
        second=second,
        updates=fit.updates + 1,
        x=x,
    )
