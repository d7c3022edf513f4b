"""What y says of an instrument's parameters once the image is known, where they are believed to be
Gaussian: phi = m + R e, e ~ N(0, I), R R^T = C.

For a family that is linear in phi, with X_i the matrix phi -> A(x_i; phi) of an image x_i,

    Q = I + sum_i R^T X_i^T X_i R / s^2,   b = sum_i R^T X_i^T (y - X_i m) / s^2
    e ~ N(Q^-1 b, Q^-1) of one image;      m + R Q^-1 b maximises the sum of several log densities
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import real_view
from posteriori.methods.blind.pair import BlindPair, blind_pair
from posteriori.methods.data_steps.elliptical_slice import elliptical_slice
from posteriori.priors.mixture import GaussianMixture
from posteriori.rng import Rng


def belief_of(pair: BlindPair) -> GaussianMixture:
    """The Gaussian law of the parameters. Raises ``TypeError`` where it is none."""
    closed = pair.belief.know().closed
    if not isinstance(closed, GaussianMixture) or len(closed.means) != 1:
        raise TypeError("this needs a belief in the parameters that is one Gaussian in closed form")
    return closed


def belief_refusal(post: Posterior, name: str, *, linear: bool = False) -> str | None:
    """Why the parameters of a pair cannot be drawn, or with ``linear`` solved for; None where they
    can."""
    pair = blind_pair(post)
    try:
        belief_of(pair)
    except TypeError as error:
        return f"{name}: {error}"
    if linear and not pair.A.bilinear:
        return f"{name}: this needs an instrument linear in {pair.A.name}, {pair.A.label} is not"
    return None


def root_of(belief: GaussianMixture, like: Tensor) -> Tensor:
    """R (P, P) with R R^T = C."""
    root = belief.variances[0].clamp(min=0).sqrt().to(like)
    return torch.diag(root) if belief.axes is None else belief.axes[0].to(like) * root


def deviation(belief: GaussianMixture, z: Tensor) -> Tensor:
    """Draws of N(0, C) from standard normal z (B, *P)."""
    return (z.flatten(1) @ root_of(belief, z).T).view_as(z)


@dataclass(frozen=True)
class NormalEquations:
    """Q (B, P, P) and b (B, P) of each row, with m (P,) and R (P, P)."""

    Q: Tensor
    b: Tensor
    mean: Tensor
    root: Tensor

    def summed(self, group: int) -> NormalEquations:
        """Those of every ``group`` rows together, which share their parameters."""
        n = self.Q.shape[-1]
        eye = torch.eye(n, dtype=self.Q.dtype, device=self.Q.device)
        Q = (self.Q - eye).view(-1, group, n, n).sum(1) + eye
        return NormalEquations(Q, self.b.view(-1, group, n).sum(1), self.mean, self.root)

    def best(self) -> Tensor:
        """The parameters that maximise the density, (B, P)."""
        return self.mean + torch.linalg.solve(self.Q, self.b) @ self.root.T

    def draw(self, z: Tensor) -> Tensor:
        """Draws of them (B, P) from standard normal z (B, P)."""
        L = torch.linalg.cholesky(self.Q)
        noise = torch.linalg.solve_triangular(L.mT, z[..., None], upper=True)[..., 0]
        return self.best() + noise @ self.root.T


def normal_equations(pair: BlindPair, x: Tensor, noise: Tensor) -> NormalEquations:
    """Those of images x (B, *E) in the user's terms, parameters being in the coordinates of their
    prior, and noise levels (B,)."""
    belief, own = belief_of(pair), pair.chart.parts[1]
    shape = pair.A.parameters_shape
    mean, root = belief.mean.to(x).flatten(), root_of(belief, x)
    y = pair.post.likelihood.each.expand(len(x), *pair.A.out_shape)
    units = root.T.reshape(-1, *shape)
    Q, b = [], []
    for k in range(len(x)):
        row = x[k : k + 1]
        seen = pair.A.apply(row.expand(len(units), *row.shape[1:]), own.a * units)
        X = real_view(seen).flatten(1).T / noise[k]
        gap = y[k] - pair.A.apply(row, own.push(mean.view(shape)))[0]
        Q.append(X.T @ X + torch.eye(len(units), dtype=x.dtype, device=x.device))
        b.append(X.T @ (real_view(gap).flatten() / noise[k]))
    return NormalEquations(torch.stack(Q), torch.stack(b), mean, root)


def move_parameters(
    pair: BlindPair, x: Tensor, phi: Tensor, noise: Tensor, rng: Rng, moves: int
) -> Tensor:
    """phi (B, *P), in the coordinates of its prior, moved so that p(phi) p(y | x, phi) is left
    unchanged: a draw of it where y is linear in phi, else ``moves`` elliptical slices. x (B, *E) in
    the user's terms."""
    if pair.A.bilinear:
        z = rng.normal(phi).flatten(1)
        return normal_equations(pair, x, noise).draw(z).view_as(phi)
    belief, like = belief_of(pair), pair.of_parameters(x, noise)
    mean = belief.mean.to(phi)
    for _ in range(moves):
        nu = deviation(belief, rng.normal(phi))
        phi = mean + elliptical_slice(lambda f: like.log_prob(mean + f), phi - mean, nu, rng)
    return phi
