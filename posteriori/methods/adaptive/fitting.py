"""Adapting a prior to one measurement: Adam on the adapters of each row, ended by the discrepancy
principle.

    r = y - A D_theta(x),   M = sigma_y^2 I + e A A^T,   e the mean squared error of D at sigma
    likelihood   minimise  r^T M^-1 r / 2               -log p(y | x), D_theta for E[x0 | x]
    residual     minimise  sigma_y^4 ||M^-1 r||^2 / 2   ||A x' - y||^2, x' the data step from D

M is the covariance of r for a prior that is right. A row is adapted while

    chi2 = r^T M^-1 r / m  >  discrepancy,             m the count of real numbers in y

For a right prior E chi2 = 1 at every level, and nothing is fitted that noise explains; at the end
of a run M is sigma_y^2 I, and the residual itself is as large as the noise. Without this stop
(discrepancy 0) adaptation goes on to fit the noise of y.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.adaptive.low_rank import Adapter
from posteriori.methods.base import Info
from posteriori.operators.base import solve
from posteriori.priors.leaves import linearize_leaves

LossName = Literal["likelihood", "residual"]


class Adapting(NamedTuple):
    """Images (B, *E), adapters (B, size) with their two moments of Adam, and how often each row was
    moved since the moments were 0, (B,)."""

    x: Tensor
    theta: Tensor
    first: Tensor
    second: Tensor
    moves: Tensor

    def rested(self) -> Adapting:
        """With new moments: another optimiser."""
        zero = torch.zeros_like(self.theta)
        return self._replace(first=zero, second=zero, moves=torch.zeros_like(self.moves))


def beginning(x: Tensor, theta: Tensor) -> Adapting:
    zero = torch.zeros_like(theta)
    return Adapting(x, theta, zero, zero, theta.new_zeros(len(theta)))


def fitted(
    post: Posterior,
    state: Adapting,
    sigma: Tensor,
    adapter: Adapter,
    *,
    r2: float,
    s2: float,
    loss: LossName,
    iterations: int,
    rate: float,
    discrepancy: float,
) -> tuple[Adapting, Info]:
    """The state after at most ``iterations`` moves at the level sigma, and in ``Info`` how often
    each row was moved and its last chi2. M = s2 I + r2 A A^T."""
    A, y = post.likelihood.linear, post.likelihood.y
    count = y[0].numel() if y.ndim > len(A.out_shape) else y.numel()
    count *= 2 if y.is_complex() else 1
    moved, chi2 = torch.zeros_like(state.moves), torch.full_like(state.moves, torch.nan)
    for _ in range(iterations):
        leaves = adapter.leaves(state.theta)
        x0, pull = linearize_leaves(post.prior, state.x, sigma, **leaves)
        r = post.likelihood.residual(x0)
        w = solve(A, r, r2, s2)
        chi2 = (dot(r, w) / count).to(chi2)
        live = chi2 > discrepancy
        if not bool(live.any()):
            break
        slope = -A.adjoint(w if loss == "likelihood" else s2**2 * solve(A, w, r2, s2))
        g = adapter.gradient(state.theta, pull(slope))
        state = _moved(state, g, live, rate)
        moved = moved + live
    return state, {"adaptations": moved, "chi2": chi2}


def _moved(state: Adapting, g: Tensor, live: Tensor, rate: float) -> Adapting:
    """One step of Adam (Kingma and Ba, 2015) for the rows that are live."""
    first = torch.lerp(g, state.first, 0.9)
    second = torch.lerp(g.square(), state.second, 0.999)
    k = per_row(state.moves + 1, g)
    root = (second / (1 - 0.999**k)).sqrt()
    # Relative to the row's own gradients: 1e-8 would depend on the unit of y.
    least = 1e-8 * root.square().mean(1, keepdim=True).sqrt() + 1e-30
    theta = state.theta - rate * (first / (1 - 0.9**k)) / (root + least)
    kept = per_row(live, g)
    return Adapting(
        state.x,
        torch.where(kept, theta, state.theta),
        torch.where(kept, first, state.first),
        torch.where(kept, second, state.second),
        state.moves + live,
    )
