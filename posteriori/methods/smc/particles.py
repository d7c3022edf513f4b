"""Clouds of weighted particles: weighing, resampling, evidence. Rows of a batch are G clouds of N
particles, cloud by cloud.

    W_i += log increment,      ESS = (sum w)^2 / sum w^2
    when ESS < share N:        log Z += log mean w, resample, W = 0
    at the end:                log p(y) ~ log Z + log mean w

exp(log Z + log mean w) is unbiased whatever N, as every scheme here has E[count_i] = N w_i.
Log-weights are float64: increments of images are large and their differences small.

Reference: Chopin and Papaspiliopoulos, An introduction to sequential Monte Carlo, 2020, chapters 9
    and 10.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from posteriori.grid import above
from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info
from posteriori.rng import Rng

Scheme = Literal["systematic", "stratified", "residual", "multinomial"]

# Numbers of images that pass through a prior together unless a method's ``chunk`` says otherwise:
# 21 rows of 3x64x64. A network keeps some hundred numbers for each of them until a vector-Jacobian
# product is done, and gains no speed from more.
NUMBERS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Particles:
    """Weighted images, cloud by cloud.

    x: (B, *E).
    log_w: (B,), since the last resampling.
    log_z: (G,), up to it.
    first: (B,), the index of each one's ancestor; see ``near``.
    """

    x: Tensor
    log_w: Tensor
    log_z: Tensor
    first: Tensor

    @property
    def clouds(self) -> Tensor:
        """log_w as (G, N)."""
        return self.log_w.view(len(self.log_z), -1)


def start(x: Tensor, particles: int) -> Particles:
    """Clouds of equal weights at x (G * particles, *E)."""
    groups = len(x) // particles
    log_w = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    first = torch.arange(particles, device=x.device).repeat(groups)
    return Particles(x, log_w, log_w.new_zeros(groups), first)


def effective_share(log_w: Tensor) -> Tensor:
    """ESS / N of log-weights (G, N): (G,); 0 for a cloud without weight."""
    w = (log_w - log_w.amax(1, keepdim=True)).exp().nan_to_num(0.0)
    return w.sum(1).square() / w.square().sum(1).clamp(min=1e-300) / w.shape[1]


def weigh(cloud: Particles, increment: Tensor) -> Particles:
    """Add log-increments (B,). NaN counts as no weight at all, so that one particle cannot poison
    its cloud.

    Warns of it: a weight of 0 has log-weight -inf. A cloud that is left without weight is an
    estimate of 0 of p(y), or of nothing at all where a NaN took the last of it: log_z is NaN.
    """
    log_w = cloud.log_w + increment.double()
    broken = (log_w.isnan() | log_w.isposinf()) & (cloud.log_w > -math.inf)
    if bool(broken.any()):
        warnings.warn(
            "particles whose numbers are not finite have lost their weight, and others take their "
            "place",
            stacklevel=3,
        )
    out = replace(cloud, log_w=log_w.nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf))
    unknown = (out.clouds == -math.inf).all(1) & broken.view_as(out.clouds).any(1)
    return replace(out, log_z=torch.where(unknown, torch.nan, out.log_z))


def width(post: Posterior) -> float:
    """The standard deviation of the prior's images along the direction in which they differ most,
    or a bound of it."""
    return min(post.prior.max_std, math.sqrt(post.prior.variance * math.prod(post.shape)))


def near(post: Posterior, sigma: Tensor | float) -> bool:
    """Whether particles that are copies of one another at the level sigma are bound to be alike in
    the end. Far above the prior's width they are not, the noise having drowned the image: ancestors
    are counted from the first level at or below it."""
    return not above(sigma, width(post))


def resample_particles(
    cloud: Particles,
    rng: Rng,
    share: float,
    scheme: Scheme,
    along: Tensor | None = None,
    near: bool = True,
    power: float = 1.0,
) -> tuple[Particles, Tensor, Info]:
    """Resample the clouds whose ESS is below ``share`` N; share 1 resamples always.

    along: (B,), order the particles by it first: neighbours then share their counts, and a mode's
        count hardly varies.
    near: whether copies share an ancestor; see ``near``.
    power: in (0, 1]; children are drawn in proportion to w^power and keep w^(1 - power). Below 1 a
        weight that is about to be taken back, as approximate twists do, costs less, and E of every
        weighted sum stays.

    Returns the cloud, the row each one was copied from (B,), and info, which holds for each row its
    cloud's ESS as a share of N before, and the number of distinct ancestors after it.
    A cloud without any weight has lost the posterior: it stays without, its images are NaN wherever
    it moves, and the driver says so.
    """
    W, groups = cloud.clouds, len(cloud.log_z)
    size = effective_share(W)
    due = (size < share) | (share >= 1.0)
    order = (
        torch.arange(W.shape[1], device=W.device).expand_as(W)
        if along is None
        else along.view_as(W).argsort(dim=1, stable=True)
    )
    chosen = order.gather(
        1,
        indices((power * W).gather(1, order).softmax(1).nan_to_num(0.0), rng, scheme).clamp(
            max=W.shape[1] - 1
        ),
    )
    stay = torch.arange(W.shape[1], device=W.device).expand_as(W)
    source = (
        torch.where(due[:, None], chosen, stay)
        + W.shape[1] * torch.arange(groups, device=W.device)[:, None]
    ).flatten()
    level = _mean(W)[:, 0]
    # What is kept, so that sums over the cloud stay what they were: the mean weight itself goes
    # into log Z.
    kept = (
        ((1 - power) * W.gather(1, chosen) if power < 1 else torch.zeros_like(W))
        + _mean(power * W)
        - level[:, None]
    )
    kept = torch.where(level[:, None].isneginf(), -math.inf, kept)
    first = cloud.first[source] if near else stay.flatten()
    out = moved(
        Particles(
            cloud.x,
            torch.where(due[:, None], kept, W).flatten(),
            cloud.log_z + torch.where(due, level, torch.zeros_like(level)),
            first,
        ),
        cloud.x[source],
    )
    distinct = torch.tensor([len(row.unique()) for row in first.view_as(W)], dtype=torch.float64)
    return (
        out,
        source,
        {
            "ess": size.repeat_interleave(W.shape[1]),
            "ancestors": distinct.repeat_interleave(W.shape[1]),
        },
    )


def _mean(W: Tensor) -> Tensor:
    """log of the mean weight of each cloud: (G, N) to (G, 1)."""
    return W.logsumexp(1, keepdim=True) - math.log(W.shape[1])


def pulled(
    x0: Tensor, x: Tensor, g: Tensor, sigma: Tensor, s: Tensor, rng: Rng
) -> tuple[Tensor, Tensor]:
    """x' at s > 0 from x at sigma: the ancestral step to x0, its mean moved by (sigma^2 - s^2) g,
    all (B, *E); and log of what the step without g gives x' over what this one gives it, (B,)
    float64."""
    kept = float(s) ** 2 / float(sigma) ** 2
    std, shift = float(s) * (1 - kept) ** 0.5, (float(sigma) ** 2 - float(s) ** 2) * g
    z = rng.normal(x)
    ahead = x0.lerp(x, kept) + shift + std * z
    shift, z = (v.to(torch.promote_types(v.dtype, torch.float64)) for v in (shift, z))
    return ahead, -(dot(shift, z) / std + dot(shift, shift) / (2 * std**2))


def ended(cloud: Particles, info: Info) -> tuple[Particles, Info]:
    """The end of a last step that weighs after its resampling: ESS is then the lower of the two, or
    a collapse there would not be seen."""
    size = effective_share(cloud.clouds).repeat_interleave(cloud.clouds.shape[1])
    return cloud, info | {"ess": torch.minimum(info["ess"], size)}


def indices(w: Tensor, rng: Rng, scheme: Scheme) -> Tensor:
    """Ancestors (G, N) for weights w (G, N) that sum to 1: E[count_i] = N w_i for every scheme."""
    n = w.shape[1]
    if scheme == "residual":
        return _residual(w, rng)
    u = rng.uniform(1 if scheme == "systematic" else n).to(w)
    grid = torch.arange(n, dtype=w.dtype, device=w.device)
    places = u.sort(1).values if scheme == "multinomial" else (grid + u) / n
    return _at(w, places)


def evenly_drawn(w: Tensor, rng: Rng, count: int) -> Tensor:
    """(groups, count) indices of weights w (M,) that sum to 1, E[count_j] = count w_j, at equal
    distances along w: neighbours share their counts."""
    u = rng.uniform(1).to(w)
    places = (torch.arange(count, dtype=w.dtype, device=w.device) + u) / count
    return _at(w.expand(len(u), -1), places)


def _at(w: Tensor, places: Tensor) -> Tensor:
    """The index at which the cumulative weight passes each place in [0, 1)."""
    edges = w.cumsum(1)
    # Rounding leaves the last edge a little off 1; a place beyond it would have no ancestor.
    edges = edges / edges[:, -1:].clamp(min=1e-300)
    last = (w > 0).long().mul(torch.arange(w.shape[1], device=w.device)).amax(1, keepdim=True)
    return torch.searchsorted(edges, places.contiguous(), right=True).minimum(last)


def _residual(w: Tensor, rng: Rng) -> Tensor:
    """floor(N w_i) copies of each, the rest drawn from what is left."""
    groups, n = w.shape
    u, whole = rng.uniform(n).to(w), (n * w * (1 + 1e-12)).floor()
    left = (n * w - whole).clamp(min=0)
    out = []
    for g in range(groups):
        sure = torch.arange(n, device=w.device).repeat_interleave(whole[g].long())[:n]
        rest = left[g] / left[g].sum().clamp(min=1e-300)
        out.append(
            torch.cat([sure, _at(rest[None], u[g : g + 1, : n - len(sure)].sort(1).values)[0]])
        )
    return torch.stack(out)


def collect(cloud: Particles, rng: Rng, returned: int, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """``returned`` samples of each cloud, all of weight 1, in random order: the cloud resampled
    once more if its weights differ."""
    # Equal weights up to rounding are left alone: drawing among them again would only double some
    # of them.
    even, _, _ = resample_particles(cloud, rng, 1.0 - 1e-9, scheme)
    groups = len(cloud.log_z)
    n = len(cloud.x) // groups
    shuffled = rng.uniform(n).argsort(1)[:, :returned].to(cloud.x.device)
    rows = even.x[(shuffled + n * torch.arange(groups, device=cloud.x.device)[:, None]).flatten()]
    return rows, torch.zeros(len(rows), dtype=torch.float64, device=rows.device)


def log_evidence(cloud: Particles) -> Tensor:
    """(G,) log of the unbiased estimate of p(y), in the prior's coordinates:
    ``Posterior.log_volume`` is what is left to the user's."""
    return cloud.log_z + _mean(cloud.clouds)[:, 0]


def in_chunks(
    look: Callable[..., tuple[Tensor, ...]], rows: int | None, *parts: Tensor
) -> tuple[Tensor, ...]:
    """``look`` applied to at most ``rows`` rows at a time: the same numbers in less memory, up to
    the rounding of batched arithmetic.

    None: as many rows as hold ``NUMBERS_AT_ONCE`` numbers of the first part, at least one. Raises
    ``ValueError`` for less than one row.
    """
    rows = max(1, NUMBERS_AT_ONCE // max(parts[0][0].numel(), 1)) if rows is None else rows
    if rows < 1:
        raise ValueError(
            f"chunk is the number of rows worked on at a time: expected at least 1, got {rows}"
        )
    if len(parts[0]) <= rows:
        return look(*parts)
    pieces = [look(*chunk) for chunk in zip(*(part.split(rows) for part in parts), strict=True)]
    return tuple(torch.cat(column) for column in zip(*pieces, strict=True))


@dataclass(frozen=True)
class PerRow:
    """Random numbers for each of the ``particles`` of a cloud, where ``rng`` has uniform ones for a
    cloud as a whole."""

    rng: Rng
    particles: int

    def normal(self, like: Tensor) -> Tensor:
        return self.rng.normal(like)

    def uniform(self, count: int) -> Tensor:
        return self.rng.uniform(count * self.particles).view(-1, count)


class Pieces:
    """Random numbers of a batch of ``rows`` rows for a function that sees it piece by piece:
    ``take`` gives the next piece its own rows of what the whole batch would have drawn, so that no
    number depends on where it is cut. ``rng`` must have uniform numbers for each row."""

    def __init__(self, rng: Rng, rows: int) -> None:
        self.rng, self.rows, self.taken = rng, rows, 0
        self.drawn: list[Tensor] = []

    def take(self, count: int) -> Rng:
        self.taken += count
        return _Piece(self, slice(self.taken - count, self.taken))


class _Piece:
    def __init__(self, whole: Pieces, place: slice) -> None:
        self.whole, self.place, self.calls = whole, place, 0

    def normal(self, like: Tensor) -> Tensor:
        return self._next(
            lambda: self.whole.rng.normal(like.new_zeros(self.whole.rows, *like.shape[1:]))
        )

    def uniform(self, count: int) -> Tensor:
        return self._next(lambda: self.whole.rng.uniform(count))

    def _next(self, draw: Callable[[], Tensor]) -> Tensor:
        """The first piece draws for all; the others take their rows of the same draws in the same
        order."""
        if self.calls == len(self.whole.drawn):
            self.whole.drawn.append(draw())
        self.calls += 1
        return self.whole.drawn[self.calls - 1][self.place]


def moved(cloud: Particles, x: Tensor) -> Particles:
    """The same weights at new places (B, *E). A particle whose image is not finite has none from
    here on, and the image of another in its place until the next resampling, so that no number of
    it is left; a cloud without weight has no images."""
    particles = cloud.clouds.shape[1]
    dead = cloud.clouds.isneginf().all(1)
    broken = ~x.flatten(1).isfinite().all(1) & ~dead.repeat_interleave(particles)
    if bool(broken.any()):
        cloud = weigh(cloud, torch.where(broken, torch.nan, 0.0))
        dead, sound = cloud.clouds.isneginf().all(1), ~broken.view(-1, particles)
        heir = sound.long().argmax(1) + particles * torch.arange(len(sound), device=x.device)
        x = torch.where(per_row(broken, x), x[heir.repeat_interleave(particles)], x)
    return replace(
        cloud, x=torch.where(per_row(dead.repeat_interleave(particles), x), torch.nan, x)
    )


def leading(x: Tensor, particles: int) -> tuple[Tensor, Tensor]:
    """The unit direction (G, d) in which the images of each cloud differ most, by a few power
    iterations, and coordinates (B,) along it."""
    v = x.flatten(1).view(-1, particles, x[0].numel())
    # An image that is not finite has no direction, and its coordinate is 0.
    sound = v.isfinite().all(2, keepdim=True)
    v = torch.where(sound, v, 0.0)
    v = torch.where(
        sound, v - v.sum(1, keepdim=True) / sound.sum(1, keepdim=True).clamp(min=1), 0.0
    )
    far = v.square().sum(2).argmax(1)
    axis = v[torch.arange(len(v), device=v.device), far][..., None]
    for _ in range(8):
        axis = v.mT @ (v @ axis)
        axis = axis / axis.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return axis[..., 0], (v @ axis).flatten()


def spread_evenly(z: Tensor, axis: Tensor, along: Tensor, base: int, rng: Rng) -> Tensor:
    """Normal numbers z (B, *E) whose part along each cloud's unit ``axis`` (G, d) is even over the
    particles in the order ``along`` (B,).

    The k-th particle takes Phi^-1 of the k-th number of van der Corput's sequence in ``base``,
    shifted by one uniform number for the cloud. Each particle's numbers are normal as before, so
    that means over the cloud stay unbiased, but neighbours draw different ones.

    Source: L'Ecuyer, Lecot, Tuffin, A randomized quasi-Monte Carlo simulation method for Markov
        chains, 2008.
    """
    order = along.view(len(axis), -1).argsort(dim=1, stable=True)
    points = _van_der_corput(order.shape[1], base).to(order.device).expand(order.shape)
    u = torch.empty_like(points).scatter(1, order, points)
    u = ((u + rng.uniform(1).to(u)) % 1.0).clamp(1e-12, 1 - 1e-12)
    flat = z.flatten(1).view(len(axis), -1, axis.shape[1])
    part = (flat @ axis[..., None])[..., 0]
    even = torch.special.ndtri(u).to(z)
    # An axis of length 0, of a cloud in one point, changes nothing.
    return (flat + (even - part)[..., None] * axis[:, None]).view(z.shape)


def _van_der_corput(n: int, base: int) -> Tensor:
    """The first n numbers of the radical inverse in ``base``, float64."""
    k, out, scale = torch.arange(n), torch.zeros(n, dtype=torch.float64), 1.0
    while bool((k > 0).any()):
        scale /= base
        out += scale * (k % base)
        k = k // base
    return out
