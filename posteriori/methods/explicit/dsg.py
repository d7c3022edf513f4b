"""DSG: the fresh noise of an ancestral step is turned towards the data, its length kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.transitions import renoise
from posteriori.rng import Rng
from posteriori.settings import Fraction, Share


@dataclass(frozen=True)
class DSG(Method[Tensor]):
    """Diffusion with a spherical Gaussian constraint: the fresh noise of an ancestral step is
    turned towards the data, its length kept.

        d  = std z                                          where the unguided step goes
        d* = r J^T A^T (y - A D) / ||J^T A^T (y - A D)||    J = dD/dx
        x' = mu + r (d + w (d* - d)) / ||d + w (d* - d)||

        mu, std   the mean and standard deviation of the DDIM(eta) transition from D
        r         sqrt(n) std, n numbers per image
        w         rate

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image. d* is the steepest descent of ||y - A D|| on the sphere of radius r. Images stay on the
    sphere around mu on which ancestral steps concentrate, whatever the size of the guidance. The
    noise level of y has no part in it, and there is no guidance where the transition adds no noise
    (the last step).

    rate: w, in [0, 1]; turns the draw towards the data; 0.2 by default (published for inpainting).
    eta: in (0, 1]; sizes the draw; 1 by default (published).

    Raises ``ValueError`` outside these ranges.

    Reference: Yang, Ding, Cai, Yu, Wang, Shi, Guidance with spherical Gaussian constraint for
        conditional diffusion, 2024, algorithm 1.
    Cost per step: one denoiser, one vector-Jacobian product, one operator and adjoint.
    Assumes: A differentiable, an image of many numbers.
    Exact when: never; w = 0 is the ancestral sampler with every draw scaled to its expected length.
    Departs from the authors' code: lengths are per row, not over the batch.
    """

    rate: Fraction = 0.2
    eta: Share = 1.0

    reference: ClassVar[str] = "yang2024dsg"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP"

    @classmethod
    @course(100, "ddpm")
    def published(cls) -> DSG:
        """The authors' inpainting setting: w = 0.2, eta = 1."""
        return cls(rate=0.2, eta=1.0)

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x0, pull = post.prior.linearize(state, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        std = self.eta * float(s * (1 - s**2 / sigma**2).sqrt())
        mean = torch.lerp(x0, state, math.sqrt(max(float(s) ** 2 - std**2, 0.0)) / float(sigma))
        radius = std * math.sqrt(state[0].numel() * (2 if state.is_complex() else 1))
        draw = renoise(x0, state, sigma, s, std, rng) - mean
        steer = pull(adjoint(post.likelihood.y - clean))
        turned = draw + self.rate * (radius * _unit(steer) - draw)
        return mean + radius * _unit(turned), {}


def _unit(v: Tensor) -> Tensor:
    """v / ||v|| row by row; 0 for 0."""
    size = dot(v, v).sqrt()
    return v * per_row((size > 0) / size.clamp(min=1e-30), v)
