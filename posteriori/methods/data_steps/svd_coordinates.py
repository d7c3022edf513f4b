"""Singular coordinates: each number of a linear measurement is a coordinate of the image at a noise
level of its own.

    A = U diag(a) V^H,   c = V^H x,   u = U^H y / a = c + tau z,   tau = sigma_y / a

So u_i is coordinate i of the diffusion itself at level tau_i: the chain given c_i(tau_i) = u_i is
p(x | y). A step from sigma to s is cut in two at t = max(s, tau_i), which leaves its law as it was:

    D + (t / sigma)^2 (x - D) + t sqrt(1 - t^2 / sigma^2) z,   and the same from t to s
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from posteriori import grid
from posteriori.likelihood import Posterior
from posteriori.methods.smc.particles import in_chunks
from posteriori.operators.base import Spectrum, closed_spectrum
from posteriori.rng import Rng


@dataclass(frozen=True)
class SVDFrame:
    """The measurement in singular coordinates.

    a, tau: (n,) float64; tau is infinite where a counts as 0 (below 1e-6 of the largest).
    u: (1, n), 0 there.
    y: (1, m) = U^H y.

    u and y have a row for each row of the batch where these have measurements of their own.
    """

    spectrum: Spectrum
    a: Tensor
    tau: Tensor
    u: Tensor
    y: Tensor
    noise: float

    @property
    def channels(self) -> int:
        """Real numbers in a coordinate."""
        return 2 if self.u.is_complex() else 1

    def reach(self, sigma: Tensor, s: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
        """Which coordinates are measured better than sigma, and than half of the first level
        ``top`` (the kernel has no room above it to meet a tau), and the level t (n,) at which a
        step to s meets them."""
        looked = self.tau < min(float(sigma), float(top) / 2)
        return looked, torch.where(looked, self.tau, 0.0).clamp(min=float(s))

    def log_density(self, r: Tensor, variance: Tensor, which: Tensor) -> Tensor:
        """Sum over the coordinates ``which`` (n,) of log N(r; 0, variance): (B, n) -> (B,)
        float64."""
        v = torch.where(which, variance, 1.0)
        logs = -0.5 * (r.abs().double().square() / v + self.channels * (2 * math.pi * v).log())
        return torch.where(which, logs, 0.0).sum(1)

    def closing(self, c: Tensor, left: Tensor) -> Tensor:
        """The last weight (B,) of images c (B, n).

        It is log p(y | x) of the numbers ``left`` (n,) over and of those that no image reaches
        (none without noise, where these have no density); and what makes densities of u densities
        of y for the others.
        """
        turned = -self.channels * torch.where(left, 0.0, self.a.clamp(min=1e-300).log()).sum()
        if self.noise == 0:
            return turned.expand(len(c))
        k = self.spectrum.s.numel()
        r = self.y.expand(len(c), -1).clone()
        r[:, :k] -= self.a[:k].to(c.real) * c[:, :k]
        which = pad(left[:k], (0, r.shape[1] - k), value=True)
        return turned + self.log_density(
            r, torch.full_like(which, self.noise**2, dtype=torch.float64), which
        )


def frame(post: Posterior, *levels: Tensor) -> SVDFrame:
    """The frame of a posterior. A tau that is one of ``levels`` up to rounding is that level
    exactly, so that comparing the two says the same on every processor; a small singular value is
    known to the rounding of the largest."""
    f = post.once(_measured)
    tau = f.tau
    slack = (
        16 * torch.finfo(f.spectrum.s.dtype).eps * f.a.max() / torch.where(tau.isfinite(), f.a, 1.0)
    ).clamp(grid.SLACK, 1e-3)
    for level in levels:
        tau = torch.where((tau - float(level)).abs() <= slack * float(level), float(level), tau)
    return replace(f, tau=tau) if levels else f


def _measured(post: Posterior) -> SVDFrame:
    """The frame as it is computed."""
    like, spectrum = post.likelihood, closed_spectrum(post.likelihood.linear)
    n, k = like.linear.coordinates, spectrum.s.numel()
    a = pad(spectrum.s.double(), (0, n - k))
    seen = a > 1e-6 * a.max()
    divisor = torch.where(seen, a, 1.0)
    y = spectrum.Uh(like.each)
    u = torch.where(seen, pad(y[:, :k], (0, n - k)) / divisor.to(y.real), 0.0)
    tau = torch.where(seen, like.std / divisor, math.inf)
    return SVDFrame(spectrum, a, tau, u, y, like.std)


def bridge(x0: Tensor, x: Tensor, sigma: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, n) and variance (n,) of the coordinates at levels t (n,), from x at sigma with the
    denoised x0."""
    kept = (t / float(sigma)).square()
    return torch.lerp(x0, x, kept.to(x).expand_as(x)), t.square() * (1 - kept)


def denoised(post: Posterior, f: SVDFrame, x: Tensor, sigma: Tensor, rows: int | None) -> Tensor:
    # At most ``rows`` images at a time: (B, n).
    return in_chunks(lambda part: (f.spectrum.Vh(post.prior.denoise(part, sigma)),), rows, x)[0]


def move(mean: Tensor, v: Tensor, seen: Tensor, h: Tensor, looked: Tensor, z: Tensor) -> Tensor:
    """A draw (B, n) of N(mean, v), in coordinates that are ``looked`` at (n,) given a look ``seen``
    at it of variance h; v, h (n,)."""
    gain = torch.where(looked, v / (v + h), 0.0)
    return (
        mean
        + gain.to(mean.real) * (seen - mean)
        + torch.where(looked, gain * h, v).sqrt().to(mean.real) * z
    )


def onwards(
    x0: Tensor, x: Tensor, t: Tensor, s: Tensor, f: SVDFrame, like: Tensor, rng: Rng
) -> Tensor:
    """From coordinates x at levels t >= s to s, where the two differ; ``like`` is a batch of
    images."""
    if not bool((t > float(s)).any()):
        return x
    mean, variance = bridge(x0, x, torch.ones(()), float(s) / t)
    return mean + (t * variance.sqrt()).to(x.real) * f.spectrum.Vh(rng.normal(like))


def last(f: SVDFrame, x0: Tensor, sigma: Tensor, top: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, n) from x0 at sigma, the last level, and log weights (B,): x0 itself, but
    coordinates measured better than sigma are draws of N(x0, sigma^2) given u. That variance is
    never too small: weights stay bounded, and u is met where it has no noise."""
    s2, looked = float(sigma) ** 2, f.reach(sigma, sigma, top)[0]
    tau2 = torch.where(looked, f.tau, 1.0).square()
    gain = torch.where(looked, s2 / (s2 + tau2), 0.0)
    drawn = x0 + gain.to(x0.real) * (f.u - x0) + (gain * tau2).sqrt().to(x0.real) * z
    return drawn, f.log_density(f.u - x0, s2 + tau2, looked)


def levels(post: Posterior, steps: int) -> Tensor:
    """(steps + 1,) float64: geometric levels and the tau among them, at most half of the steps,
    evenly by rank. Where a tau is one of the geometric levels, the widest step is cut in two
    instead."""
    high, low = post.prior.sigma_max, post.prior.sigma_min
    ends = torch.tensor([low, high], dtype=torch.float64)
    tau = frame(post, *ends).tau.cpu()
    tau = grid.distinct(tau[(tau > low) & (tau < high)])
    if len(tau) > (most := steps // 2):
        tau = tau[torch.linspace(0, len(tau) - 1, most).round().long()]
    out = grid.distinct(torch.cat([grid.log(steps - len(tau), high, low), tau]))
    while len(out) <= steps:
        k = int(out[1:].log().diff().argmax()) + 1
        out = torch.cat([out[: k + 1], (out[k] * out[k + 1]).sqrt()[None], out[k + 1 :]])
    return out.flip(0)
