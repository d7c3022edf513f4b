"""What y says of an instrument's parameters once the image is known, for a family that is linear
in them: X_i is the matrix phi -> A(x_i; phi) of an image x_i, and

    G = sum_i X_i^T X_i / s^2,   h = sum_i X_i^T y / s^2

Believed of the parameters is p(phi) = sum_j w_j N(m_j, R_j R_j^T). Given the images

    phi ~ sum_j w_j' N(m_j + R_j Q_j^-1 b_j, R_j Q_j^-1 R_j^T)
    Q_j = I + R_j^T G R_j,   b_j = R_j^T (h - G m_j)
    w_j' ~ w_j |Q_j|^(-1/2) exp(h^T m_j - m_j^T G m_j / 2 + b_j^T Q_j^-1 b_j / 2)

Of one Gaussian the mean of that law is where the density is largest. Near a point z, that is with
N(z, rho^2 I) for the belief, it is largest at (G + I / rho^2)^-1 (h + z / rho^2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import per_row
from posteriori.methods.blind.pair import BlindPair, blind_pair
from posteriori.methods.data_steps.elliptical_slice import elliptical_slice
from posteriori.priors.mixture import GaussianMixture
from posteriori.rng import Rng


def family_of(pair: BlindPair) -> GaussianMixture:
    """The law of the parameters, a mixture. Raises ``TypeError`` where it is none."""
    closed = pair.belief.know().closed
    if not isinstance(closed, GaussianMixture):
        raise TypeError("this needs a belief in the parameters that is a mixture in closed form")
    return closed


def belief_of(pair: BlindPair) -> GaussianMixture:
    """The same, of one Gaussian. Raises ``TypeError`` where it is none."""
    closed = pair.belief.know().closed
    if not isinstance(closed, GaussianMixture) or len(closed.means) != 1:
        raise TypeError("this needs a belief in the parameters that is one Gaussian in closed form")
    return closed


def exact_belief(pair: BlindPair) -> bool:
    """Whether it is one Gaussian."""
    closed = pair.belief.know().closed
    return isinstance(closed, GaussianMixture) and len(closed.means) == 1


def belief_refusal(post: Posterior, name: str) -> str | None:
    """Why the parameters of a pair cannot be drawn given the image; None where they can: one
    Gaussian, or a mixture where y is linear in them."""
    pair = blind_pair(post)
    try:
        family_of(pair) if pair.A.bilinear else belief_of(pair)
    except TypeError as error:
        return f"{name}: {error}"
    return None


def linear_refusal(post: Posterior, name: str) -> str | None:
    """Why the parameters of a pair cannot be solved for; None where y is linear in them."""
    A = blind_pair(post).A
    return (
        None
        if A.bilinear
        else f"{name}: this needs an instrument linear in {A.name}, {A.label} is not"
    )


def roots_of(belief: GaussianMixture, like: Tensor) -> Tensor:
    """R_j (K or 1, P, P) with R_j R_j^T = C_j."""
    root = belief.variances.clamp(min=0).sqrt().to(like)
    return torch.diag_embed(root) if belief.axes is None else belief.axes.to(like) * root[:, None]


def deviation(belief: GaussianMixture, z: Tensor) -> Tensor:
    """Draws of N(0, C) of one Gaussian from standard normal z (B, *P)."""
    return (z.flatten(1) @ roots_of(belief, z)[0].T).view_as(z)


def drawn_beliefs(pair: BlindPair, like: Tensor, rng: Rng) -> Tensor:
    """Draws of p(phi), shaped as ``like`` (B, *P), in the coordinates of the parameters' prior."""
    nothing = like.new_zeros(len(like), like[0].numel(), like[0].numel(), dtype=torch.float64)
    return NormalEquations(nothing, nothing[:, 0], family_of(pair)).draw(rng, like)


@dataclass(frozen=True)
class NormalEquations:
    """G (B, P, P) and h (B, P) of each row in float64, and the belief in the parameters."""

    G: Tensor
    h: Tensor
    belief: GaussianMixture | None

    def summed(self, group: int) -> NormalEquations:
        """Those of every ``group`` rows together, which share their parameters."""
        n = self.G.shape[-1]
        G, h = self.G.view(-1, group, n, n).sum(1), self.h.view(-1, group, n).sum(1)
        return NormalEquations(G, h, self.belief)

    def over(self, n: int) -> NormalEquations:
        """Those of a mean over n images, in the place of their sum."""
        return NormalEquations(self.G / n, self.h / n, self.belief)

    def near(self, z: Tensor, rho: float) -> Tensor:
        """The parameters (B, P) of the largest density near z (B, P)."""
        eye = torch.eye(self.G.shape[-1]).to(self.G)
        return torch.linalg.solve(self.G + eye / rho**2, self.h + z / rho**2)

    def best(self) -> Tensor:
        """Those of the largest density under a belief of one Gaussian, (B, P)."""
        means, roots, L, b, _ = self._given()
        e = torch.cholesky_solve(b[:, 0, :, None], L[:, 0])[..., 0]
        return means[0] + e @ roots[0].T

    def draw(self, rng: Rng, like: Tensor) -> Tensor:
        """Draws of them, shaped as ``like`` (B, *P)."""
        means, roots, L, b, log_w = self._given()
        rows, j = torch.arange(len(b)), torch.zeros(len(b), dtype=torch.long)
        if len(means) > 1:
            u = rng.uniform(1).to(log_w)
            j = (log_w.softmax(1).cumsum(1) < u).sum(1).clamp(max=len(means) - 1)
        own = j if len(roots) > 1 else torch.zeros_like(j)
        z = rng.normal(like).flatten(1).to(b)
        L = L[rows, own]
        half = torch.linalg.solve_triangular(L, b[rows, j][..., None], upper=False)
        e = torch.linalg.solve_triangular(L.mT, half + z[..., None], upper=True)
        return (means[j] + (roots[own] @ e)[..., 0]).to(like).view_as(like)

    def _given(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """m_j (K, P), R_j (K or 1, P, P), the roots of Q_j (B, K or 1, P, P), b_j (B, K, P) and
        log w_j' (B, K)."""
        assert self.belief is not None  # whoever draws has asked for one
        means, roots = self.belief.means.to(self.h), roots_of(self.belief, self.h)
        Q = roots.mT @ self.G[:, None] @ roots + torch.eye(self.h.shape[1]).to(self.h)
        L = torch.linalg.cholesky(Q)
        pulled = means @ self.G  # (B, K, P)
        b = (roots.mT @ (self.h[:, None] - pulled)[..., None])[..., 0]
        half = torch.linalg.solve_triangular(
            L.expand(*b.shape[:2], -1, -1), b[..., None], upper=False
        )
        fit = self.h @ means.T - 0.5 * (pulled * means).sum(2)
        log_w = fit + 0.5 * half.square().sum((2, 3)) - L.diagonal(dim1=2, dim2=3).log().sum(2)
        return means, roots, L, b, log_w + self.belief.log_weights.to(log_w)


def normal_equations(
    pair: BlindPair, x: Tensor, noise: Tensor, y: Tensor | None = None
) -> NormalEquations:
    """Those of images x (B, *E) in the user's terms, parameters being in the coordinates of their
    prior, and noise levels (B,). y: of each row (B, *O), by default the measurement."""
    own, closed = pair.chart.parts[1], pair.belief.know().closed
    if y is None:
        y = pair.post.likelihood.each.expand(len(x), *pair.A.out_shape)
    if own.b:
        y = y - pair.A.apply(x, x.new_full(pair.A.parameters_shape, own.b))
    G, h = pair.A.gram(x, y)
    s2 = noise.double().square()
    belief = closed if isinstance(closed, GaussianMixture) else None
    return NormalEquations(own.a**2 * G / per_row(s2, G), own.a * h / per_row(s2, h), belief)


def maximised(pair: BlindPair, data: NormalEquations, phi: Tensor, rho: float) -> Tensor:
    """The M-step (B, P): exactly under a Gaussian belief, else a round of half-quadratic splitting
    from phi (B, P) at the weight 1 / rho^2."""
    if exact_belief(pair):
        return data.best()
    shape, own, belief = pair.A.parameters_shape, pair.chart.parts[1], pair.belief
    near = data.near(phi.to(data.h), rho).to(phi).view(-1, *shape)
    level = near.new_tensor(min(max(rho, belief.sigma_min), belief.sigma_max))
    k = pair.A.feasible(own.push(belief.denoise(near, level)))
    return ((k - own.b) / own.a).flatten(1)


def move_parameters(
    pair: BlindPair, x: Tensor, phi: Tensor, noise: Tensor, rng: Rng, moves: int
) -> Tensor:
    """phi (B, *P), in the coordinates of its prior, moved so that p(phi) p(y | x, phi) is left
    unchanged: a draw of it where y is linear in phi, else ``moves`` elliptical slices. x (B, *E) in
    the user's terms."""
    if pair.A.bilinear:
        return normal_equations(pair, x, noise).draw(rng, phi)
    belief, like = belief_of(pair), pair.of_parameters(x, noise)
    mean = belief.mean.to(phi)
    for _ in range(moves):
        nu = deviation(belief, rng.normal(phi))
        phi = mean + elliptical_slice(lambda f: like.log_prob(mean + f), phi - mean, nu, rng)
    return phi
