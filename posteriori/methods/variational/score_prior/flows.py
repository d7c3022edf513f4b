"""Families of distributions that are invertible maps of standard normal numbers, each with its
density.

    u = T(z),   z ~ N(0, I),   log q(u) = log N(z; 0, I) - log |det dT/dz|

``push`` maps z to u, ``pull`` maps u back to z; both also give log |det dT/dz|. A family holds no
numbers of its own: G members of it are the G rows of one parameter tensor (G, P), so that G fits
run as one batch. z and u are (G, N, d), the log-determinants (G, N).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Mapped = tuple[Tensor, Tensor]
Net = tuple[Tensor, ...]


class Family(Protocol):
    def size(self, d: int) -> int:
        """P, the number of parameters of one member on R^d."""
        ...

    def initial(self, uniform: Tensor, d: int) -> Tensor:
        """Parameters close to the identity T(z) = z from uniform numbers in [0, 1), both (G, P)."""
        ...

    def push(self, params: Tensor, z: Tensor) -> Mapped: ...

    def pull(self, params: Tensor, u: Tensor) -> Mapped: ...


def flow_log_density(family: Family, params: Tensor, u: Tensor) -> Tensor:
    """log q(u) of the members ``params`` (G, P) at u (G, N, d): (G, N)."""
    z, log_det = family.pull(params, u)
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi)) - log_det


@dataclass(frozen=True)
class Diagonal:
    """u = m + exp(l) z: independent Gaussians (mean field)."""

    def size(self, d: int) -> int:
        return 2 * d

    def initial(self, uniform: Tensor, d: int) -> Tensor:
        return torch.zeros_like(uniform)

    def push(self, params: Tensor, z: Tensor) -> Mapped:
        m, log_s = params[:, None].chunk(2, -1)
        return m + log_s.exp() * z, log_s.sum(-1).expand(z.shape[:2])

    def pull(self, params: Tensor, u: Tensor) -> Mapped:
        m, log_s = params[:, None].chunk(2, -1)
        return (u - m) * (-log_s).exp(), log_s.sum(-1).expand(u.shape[:2])


@dataclass(frozen=True)
class LowRank:
    """u = m + exp(l) (I + V V^T) z, V (d, rank): covariance S^2 + S W W^T S, every diagonal plus a
    matrix of rank ``rank``."""

    rank: int = 8

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(
                f"the rank of a low-rank Gaussian must be at least 1, got {self.rank}; use the "
                f"diagonal family for 0"
            )

    def size(self, d: int) -> int:
        return d * (2 + self.rank)

    def initial(self, uniform: Tensor, d: int) -> Tensor:
        # V = 0 is a stationary point of every objective, since only V V^T enters.
        return torch.cat(
            [torch.zeros_like(uniform[:, : 2 * d]), 0.2 * (uniform[:, 2 * d :] - 0.5) / d**0.5], 1
        )

    def _parts(self, params: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        m, log_s, V = (
            params[:, None, :d],
            params[:, None, d : 2 * d],
            params[:, 2 * d :].view(len(params), d, self.rank),
        )
        return m, log_s, V, torch.eye(self.rank).to(V) + V.mT @ V

    def push(self, params: Tensor, z: Tensor) -> Mapped:
        m, log_s, V, K = self._parts(params, z.shape[-1])
        log_det = log_s.sum(-1) + torch.linalg.slogdet(K)[1][:, None]
        return m + log_s.exp() * (z + (z @ V) @ V.mT), log_det.expand(z.shape[:2])

    def pull(self, params: Tensor, u: Tensor) -> Mapped:
        m, log_s, V, K = self._parts(params, u.shape[-1])
        w = (u - m) * (-log_s).exp()
        log_det = log_s.sum(-1) + torch.linalg.slogdet(K)[1][:, None]
        return w - torch.linalg.solve(K, (w @ V).mT).mT @ V.mT, log_det.expand(u.shape[:2])


@dataclass(frozen=True)
class RealNVP:
    """Affine couplings: half of the numbers, b, is scaled and moved by a network of the other half,
    a; halves change places in turn.

        b' = b exp(s(a)) + t(a),   s = bound tanh(. / bound),
        (s, t) by two hidden layers of width ``hidden``

    Every second coupling is preceded by a fixed permutation. Needs d >= 2.

    Source: Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, 2017.
    """

    couplings: int = 8
    hidden: int = 32
    bound: float = 2.0

    def __post_init__(self) -> None:
        if self.couplings < 1 or self.hidden < 1 or not self.bound > 0:
            raise ValueError(f"RealNVP needs couplings >= 1, hidden >= 1 and bound > 0, got {self}")

    def _sides(self, d: int) -> list[tuple[int, int]]:
        """Numbers read and numbers changed by each coupling."""
        a = d // 2
        return [(a, d - a) if k % 2 == 0 else (d - a, a) for k in range(self.couplings)]

    def _shapes(self, a: int, b: int) -> list[tuple[int, int]]:
        h = self.hidden
        return [(a, h), (1, h), (h, h), (1, h), (h, 2 * b), (1, 2 * b)]

    def size(self, d: int) -> int:
        if d < 2:
            raise ValueError(
                f"RealNVP couples halves of an image and needs at least 2 numbers, got {d}; use a "
                f"Gaussian family"
            )
        return sum(i * o for a, b in self._sides(d) for i, o in self._shapes(a, b))

    def initial(self, uniform: Tensor, d: int) -> Tensor:
        parts, at = [], 0
        for a, b in self._sides(d):
            for layer, (i, o) in enumerate(self._shapes(a, b)):
                fan = (a, a, self.hidden, self.hidden)[layer] if layer < 4 else 0
                parts.append((2 * uniform[:, at : at + i * o] - 1) * (fan**-0.5 if fan else 0.0))
                at += i * o
        return torch.cat(parts, 1)

    def _orders(self, d: int, device: torch.device) -> list[Tensor]:
        """For each coupling, the order in which it reads its numbers: first those that it reads,
        then those that it changes."""
        out, a = [], d // 2
        for k in range(self.couplings):
            if k % 2 == 0:
                order = (
                    torch.arange(d)
                    if k == 0
                    else torch.randperm(d, generator=torch.Generator().manual_seed(k))
                )
            out.append((order if k % 2 == 0 else torch.cat([order[a:], order[:a]])).to(device))
        return out

    def _couplings(self, params: Tensor, d: int) -> Iterator[tuple[Tensor, int, Net]]:
        at = 0
        for order, (a, b) in zip(self._orders(d, params.device), self._sides(d), strict=True):
            net = []
            for i, o in self._shapes(a, b):
                net.append(params[:, at : at + i * o].view(-1, i, o))
                at += i * o
            yield order, a, tuple(net)

    def _affine(self, net: Net, a: Tensor) -> tuple[Tensor, Tensor]:
        """s and t of one coupling."""
        w1, b1, w2, b2, w3, b3 = net
        h = torch.nn.functional.silu(torch.baddbmm(b1, a, w1))
        h = torch.nn.functional.silu(torch.baddbmm(b2, h, w2))
        s, t = torch.baddbmm(b3, h, w3).chunk(2, -1)
        return self.bound * (s / self.bound).tanh(), t

    def push(self, params: Tensor, z: Tensor) -> Mapped:
        d, total = z.shape[-1], z.new_zeros(z.shape[:2])
        for order, split, net in self._couplings(params, d):
            moved = z[..., order]
            a, b = moved[..., :split], moved[..., split:]
            s, t = self._affine(net, a)
            z = torch.cat([a, b * s.exp() + t], -1)[..., order.argsort()]
            total = total + s.sum(-1)
        return z, total

    def pull(self, params: Tensor, u: Tensor) -> Mapped:
        d, total = u.shape[-1], u.new_zeros(u.shape[:2])
        for order, split, net in reversed(list(self._couplings(params, d))):
            moved = u[..., order]
            a, b = moved[..., :split], moved[..., split:]
            s, t = self._affine(net, a)
            u = torch.cat([a, (b - t) * (-s).exp()], -1)[..., order.argsort()]
            total = total + s.sum(-1)
        return u, total
