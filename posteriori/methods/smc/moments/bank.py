"""A start from images of the prior itself: a bank of M of them, drawn once and kept with the prior,
of which those that agree with y are taken.

    j ~ r,   r_j ~ N(y; A b_j, 4 V),   x = b_j + sigma z,   w = 1 / (M r_j)

b_j is an image of the bank. V is the covariance of y given x at the level sigma, the mean over a
few images near y. So x is drawn from the mixture of N(b_j, sigma^2 I), which tends to the prior's
law at the level sigma as M grows, whatever r; r only saves particles. 4 V, twice as wide as what y
says of an image, keeps the variance of w finite: within a mode that y does not see into, b_j
scatters as y does, and N(y; A b_j, V) has a variance without bound over it.

Levels above the first one at which r still has as many effective images as there are particles are
not needed: the bank has crossed them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.methods.smc import particles
from posteriori.methods.smc.moments.adaptive_levels import bent, curvatures, masses, spaced
from posteriori.methods.smc.moments.second_moments import SecondMoments, second_moments
from posteriori.methods.smc.particles import Particles, in_chunks
from posteriori.priors.base import bank_images
from posteriori.rng import Rng, Streams

# Images near y that tell V and where levels are needed, levels at which they are looked at, and
# the seed of the noise they are given.
NEAR, LOOKED_AT, NOISE_SEED = 16, 24, 2**42
WIDER = 4.0
# The share of the particles that so many images of the bank must come to; bends that are rounding.
ENOUGH, NOTHING = 0.5, 1e-6


@dataclass(frozen=True, eq=False)
class Bank:
    """images (M, *E), and what y would be of each without noise: seen (M, m) float64."""

    images: Tensor
    seen: Tensor

    def log_r(self, post: Posterior, V: Tensor) -> Tensor:
        """log r (M,) float64, normalised, for V (m, m)."""
        L = torch.linalg.cholesky(WIDER * V)
        gap = (post.likelihood.y.flatten().double() - self.seen).T
        return (
            -0.5 * torch.linalg.solve_triangular(L, gap, upper=False).square().sum(0)
        ).log_softmax(0)

    def near(self, post: Posterior) -> Tensor:
        """The ``NEAR`` images (NEAR, *E) that stand for those which y may be of: by the density of
        y to the power at which four times as many still count."""
        q = (post.likelihood.y.flatten().double() - self.seen).square().sum(1)
        q = 0.5 * (q - q.min()) / post.likelihood.std**2
        low, high = -60.0, 0.0
        for _ in range(40):
            middle = 0.5 * (low + high)
            count = len(q) * float(particles.effective_share(-math.exp(middle) * q[None]))
            low, high = (middle, high) if count >= 4 * NEAR else (low, middle)
        w = (-math.exp(low) * q).softmax(0)
        places = (torch.arange(NEAR, dtype=w.dtype, device=w.device) + 0.5) / NEAR
        return self.images[torch.searchsorted(w.cumsum(0), places).clamp(max=len(w) - 1)]


@dataclass(frozen=True)
class BankOf:
    """``post.once(BankOf(M))``: the bank of M images, in the order of the direction in which they
    differ most, so that images that are drawn at equal distances are spread out."""

    size: int

    def __call__(self, post: Posterior) -> Bank:
        y = post.likelihood.y
        images = bank_images(post.prior, self.size, post.shape).to(device=y.device, dtype=y.dtype)
        images = images[particles.leading(images, self.size)[1].argsort()]
        (seen,) = in_chunks(
            lambda x: (post.likelihood.linear(x).flatten(1).double(),), None, images
        )
        return Bank(images, seen)


def looks(
    post: Posterior, bank: Bank, levels: Tensor, rows: int
) -> Iterator[tuple[list[SecondMoments], Tensor]]:
    """The images near y with one noise at each level of ``levels``, ``rows`` at a time, and the
    mean of V over them."""
    b = bank.near(post)
    z = Streams(NOISE_SEED, range(NEAR)).normal(b)
    for sigma in levels:
        parts = [second_moments(post, x, sigma) for x in (b + float(sigma) * z).split(rows)]
        V = torch.cat([part.V for part in parts])
        yield parts, V[V.flatten(1).isfinite().all(1)].mean(0)


def bank_levels(
    post: Posterior, bank: Bank, steps: int, top: float, count: int, rows: int
) -> Tensor:
    """Noise levels from the lowest one at which ``count`` images of the bank agree with y, or from
    ``top``, to the one from which x0 given x is Gaussian, then 0: at most ``steps`` of them, a
    single one where the bank reaches so far."""
    fine = grid.log(LOOKED_AT, top, post.prior.sigma_min)
    probes = Streams(NOISE_SEED + 1, range(NEAR))
    gaps: list[float] = []
    enough: list[bool] = []
    told: list[tuple[Tensor, ...]] = []
    for (parts, V), (sigma, s) in zip(
        looks(post, bank, fine[:-2], rows), pairwise(fine[:-1]), strict=True
    ):
        z = probes.normal(bank.images[:NEAR]).split(rows)
        seen = [
            curvatures(part.pull, sigma, s, u, *before)
            for part, u, before in zip(parts, z, told or [()] * len(z), strict=True)
        ]
        if told:
            gap = torch.cat([part[1] for part in seen])
            gaps.append(float(gap[gap.isfinite()].pow(4).mean() ** 0.25))
        told = [(u, ahead) for u, (ahead, _) in zip(z, seen, strict=True)]
        share = particles.effective_share(bank.log_r(post, V)[None])
        enough.append(len(bank.images) * float(share) >= ENOUGH * count)
    b = torch.tensor(gaps, dtype=torch.float64).nan_to_num(1.0)
    b = torch.where(b < NOTHING, 0.0, b)
    last = bent(b)
    first = max((k for k in range(last + 1) if enough[k]), default=0)
    if first == last or steps == 1:
        return torch.stack([fine[last], fine.new_zeros(())])
    # As close as ``steps`` of them would be from the top.
    left = float(masses(b[first:last])[-1] / masses(b[:last])[-1])
    return spaced(fine[first:], b[first:last], max(2, math.ceil(left * steps)))


def waiting(x: Tensor, count: int) -> Particles:
    """Clouds of ``count`` particles that have not met the bank: their ancestor is -1."""
    cloud = particles.start(x, count)
    return replace(cloud, first=torch.full_like(cloud.first, -1))


def from_bank(
    post: Posterior, bank: Bank, cloud: Particles, sigma: Tensor, rng: Rng, rows: int
) -> Particles:
    """A cloud that is ``waiting`` as it starts from the bank at the level sigma."""
    _, V = next(looks(post, bank, sigma[None], rows))
    log_r = bank.log_r(post, V)
    j = particles.evenly_drawn(log_r.exp(), rng, cloud.clouds.shape[1]).flatten()
    x = bank.images[j] + float(sigma) * rng.normal(cloud.x)
    return Particles(x, -log_r[j] - math.log(len(log_r)), cloud.log_z, j)
