"""EnKG: an ensemble of images is moved by its own covariance with what it measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.linalg import real_view
from posteriori.methods.base import Info, Method
from posteriori.methods.transitions import DDIM, along_flow
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative


@dataclass(frozen=True)
class EnKG(Method[Tensor]):
    """Ensemble Kalman diffusion guidance: an ensemble of images is moved by its own covariance with
    what it measures, without a derivative of the instrument or the denoiser.

        x_j' = D + (s / sigma) (x_j - D)                            the probability-flow ODE
        g_j  = A(x0_j),   x0_j the ODE's end from x_j'              in ``ode_steps`` steps
        d_jk = <g_k - g, y - g_j> / (N sigma_y^2)                   g: the ensemble's mean
        x_j' += w sum_k d_jk (x_k' - x'),   w = scale / ||d||       ``updates`` times

    x_j is image j of the ensemble at noise level sigma, x_j' at the next level s, x' the mean of
    the x_k', D = D(x_j, sigma) the denoised image, sigma_y the noise level of y.

    The sum in the last line is the gradient of log p(y | x_j) times the covariance of the ensemble,
    as if A and the flow were linear over it. Any instrument that can be called will do. At the last
    step there is no update.

    particles: N, all of them returned, >= 1; 64 by default.
    scale: of an update, >= 0; 1 by default.
    updates: at each level, >= 1; 1 by default.
    ode_steps: steps of the ODE from s to its end, >= 1; 4 by default.

    Raises ``ValueError`` for a setting out of its range.

    Reference: Zheng, Chu, Wang, Kovachki, Baptista, Yue, Ensemble Kalman diffusion guidance: a
        derivative-free method for inverse problems, 2024, algorithm 1.
    Cost per step: one denoiser and ``updates`` times ``ode_steps`` more and one operator.
    Assumes: Gaussian noise; more particles than directions that y tells.
    Exact when: never. The step has no unit (it is divided by the norm of d), so that the noise
        level of y does not enter, and images stay in the span of the ensemble: its spread falls far
        below the posterior's, which published comparisons find as well. It is an optimiser of many
        starts, whose mean is what it offers.
    Departs from the paper: ||d|| is that of each ensemble, guidance starts at the first level.
    """

    particles: Count = 64
    scale: NonNegative = 1.0
    updates: Count = 1
    ode_steps: Count = 4

    reference: ClassVar[str] = "zheng2024enkg"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "5 denoisers, 1 operator"

    @property
    def group(self) -> int:
        return self.particles

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x = DDIM(eta=0.0)(post.prior.denoise, state, sigma, s, rng)
        if not float(s) > 0:
            return x, {}
        for _ in range(self.updates):
            x = x + self.scale * self.move(post, x, s)
        return x, {}

    def move(self, post: Posterior, x: Tensor, s: Tensor) -> Tensor:
        """sum_k d_jk (x_k - mean) / ||d|| for an ensemble x at level s: (B, *E)."""
        like, N = post.likelihood, self.particles
        seen = real_view(like.A(self._ends(post, x, s))).flatten(1)
        g, y = seen.view(-1, N, seen.shape[1]), real_view(like.each).flatten(1)
        y = y.expand(len(seen), -1).view(g.shape)
        around = g - g.mean(1, keepdim=True)
        d = (y - g) @ around.mT / (N * like.std**2)
        size = d.flatten(1).norm(dim=1)[:, None, None]
        d = torch.where(size > 0, d / torch.where(size > 0, size, 1.0), 0.0)
        v = real_view(x).flatten(1).view(len(d), N, -1)
        moved = d.to(v) @ (v - v.mean(1, keepdim=True))
        pairs = moved.reshape(*x.shape, 2) if x.is_complex() else moved.reshape(x.shape)
        return torch.view_as_complex(pairs) if x.is_complex() else pairs

    def _ends(self, post: Posterior, x: Tensor, s: Tensor) -> Tensor:
        """The clean ends of the flow from x at level s."""
        low = min(post.prior.sigma_min, float(s))
        levels = grid.log(self.ode_steps, float(s), low).to(s)
        return along_flow(post.prior.denoise, x, levels)
