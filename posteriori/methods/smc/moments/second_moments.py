"""What a noisy image says of x0 and of y up to second moments, kept so that it need not be computed
again.

    x0 | x ~ N(D, S),     S = sigma^2 J
    y  | x ~ N(A D, V),   V = sigma_y^2 I + A K,   K = S A^T

For a linear A and Gaussian noise. K holds as many images as y has numbers, and ``pull`` the
denoiser's graph: a cloud of images is looked at in pieces of ``rows`` rows, and looked at again
where it is needed again.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg
from posteriori.methods.smc.particles import NUMBERS_AT_ONCE
from posteriori.methods.smc.twists import columns, gaussian_log_density, predicted_covariance
from posteriori.priors.base import Pull

# Numbers of K that are held together: 64 MiB in single precision.
HELD_NUMBERS = 2**24
# Relative residuals of 0.007 move log p(y) by less than 0.04, of 0.05 by 60 (40 numbers, 10 of y).
LOOSE = 0.01


@dataclass(frozen=True, eq=False)
class SecondMoments:
    """Images with the moments of x0 and y given each.

    x: (B, *E), at sigma.
    x0: D, (B, *E).
    clean: A D, (B, *O).
    K: (m, B, *E).
    V: (B, m, m), float64.
    pull: u -> J u.
    """

    post: Posterior
    sigma: Tensor
    x: Tensor
    x0: Tensor
    clean: Tensor
    K: Tensor
    V: Tensor
    pull: Pull

    @property
    def told(self) -> tuple[Tensor, Tensor]:
        """D (B, *E) and log N(y; A D, V) (B,) float64."""
        return self.x0, gaussian_log_density(
            (self.post.likelihood.y - self.clean).flatten(1), self.V
        )[1]

    def step_says(self, seen: Tensor, tau2: float, solves: int) -> Tensor:
        """The log density of y given x and ``seen`` = v (B, *E), a look at x0 through noise of
        variance tau^2: (B,) float64.

            log N(y; A D + R^T (v - D), sigma_y^2 I + tau^2 A R),   R = (S + tau^2 I)^-1 K

        At most ``solves`` iterations for each number of y; warns where they leave more than
        ``LOOSE`` of a right side.
        """
        like, s2 = self.post.likelihood, float(self.sigma) ** 2
        solved = [
            cg(lambda v: s2 * self.pull(v) + tau2 * v, k, max_iter=solves, rtol=1e-6)
            for k in self.K
        ]
        if max(float(one.residual.nan_to_num(0.0).max()) for one in solved) > LOOSE:
            warnings.warn(
                "solves of a step have stopped early, and its weights are inexact: use more steps, "
                "or more solves",
                stacklevel=3,
            )
        R = torch.stack([one.x for one in solved])
        gap = seen - self.x0
        expected = self.clean.flatten(1) + torch.stack([(r * gap).flatten(1).sum(1) for r in R], 1)
        return gaussian_log_density(
            like.y.flatten() - expected, predicted_covariance(like.linear, [tau2 * R], like.std**2)
        )[1]

    def at(self, source: Tensor) -> SecondMoments:
        """The moments at the rows ``source`` (B,); the graph belongs to its rows, so that one more
        denoiser is called where they change."""
        if bool((source == torch.arange(len(source), device=source.device)).all()):
            return self
        x = self.x[source]
        pull = self.post.prior.linearize(x, self.sigma)[1]
        return replace(
            self,
            x=x,
            x0=self.x0[source],
            clean=self.clean[source],
            K=self.K[:, source],
            V=self.V[source],
            pull=pull,
        )


def second_moments(post: Posterior, x: Tensor, sigma: Tensor) -> SecondMoments:
    A, s2 = post.likelihood.linear, float(sigma) ** 2
    x0, pull = post.prior.linearize(x, sigma)
    K = list(columns(A, pull, s2, x, post.likelihood.y))
    V = predicted_covariance(A, K, post.likelihood.std**2)
    return SecondMoments(post, sigma, x, x0, A(x0), torch.cat(K), V, pull)


def rows(post: Posterior) -> int:
    """How many images are looked at together unless a method's ``chunk`` says otherwise."""
    size = math.prod(post.shape)
    return max(1, min(NUMBERS_AT_ONCE // size, HELD_NUMBERS // (size * post.likelihood.y.numel())))
