"""Total variation along the first axis of images, which ties the slices of a volume together, by
the alternating direction method of multipliers (ADMM).

    minimise  1/2 ||y - A x||^2 + w/2 ||x - m||^2 + lam ||D x||_1,      (D x)[k] = x[k + 1] - x[k]

    x = (A^H A + w I + rho D^T D)^-1 (A^H y + w m + rho D^T (z - u))    by conjugate gradients
    z = shrink(D x + u, lam / rho),    u = u + D x - z

D has no wrap: the last slice has no neighbour behind it. Of complex images the modulus of a jump
counts. lam = 0 leaves out D altogether: each slice is then solved by itself.

Reference: Boyd, Parikh, Chu, Peleato, Eckstein, Distributed optimization and statistical learning
via the alternating direction method of multipliers, 2011, section 6.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg
from posteriori.operators.base import LinearOperator, norm2


class Split(NamedTuple):
    """What ADMM remembers: the split jumps z and the scaled dual u, both (B, slices - 1, *E')."""

    z: Tensor
    u: Tensor


def jumps(x: Tensor) -> Tensor:
    """D x: (B, slices, *E') -> (B, slices - 1, *E')."""
    return x.diff(dim=1)


def jumps_adjoint(v: Tensor) -> Tensor:
    """D^T v: (B, slices - 1, *E') -> (B, slices, *E')."""
    edge = v.new_zeros(len(v), 1, *v.shape[2:])
    return torch.cat([edge, v], 1) - torch.cat([v, edge], 1)


def shrink(v: Tensor, threshold: float) -> Tensor:
    """v (1 - threshold / |v|) where |v| > threshold, else 0."""
    size = v.abs()
    return v * ((size - threshold).clamp(min=0) / torch.where(size > 0, size, 1.0))


def tied(post: Posterior, lam: float, rho: float, outer: int, inner: int, rtol: float) -> Coupling:
    """The coupling whose ``lam`` and ``rho`` are those for an operator of norm 1 and images in a
    range of width 1: the same settings do the same in every unit."""
    size = norm2(post.likelihood.linear) ** 2
    width = 1.0 if post.prior.range is None else post.prior.range[1] - post.prior.range[0]
    return Coupling(lam * size * width, rho * size, outer, inner, rtol)


def no_split(x: Tensor) -> Split:
    """The start of ADMM for images x (B, slices, *E')."""
    return Split(torch.zeros_like(jumps(x)), torch.zeros_like(jumps(x)))


@dataclass(frozen=True)
class Coupling:
    """How ADMM is run: the weight ``lam`` >= 0 of the total variation and its penalty ``rho`` > 0;
    ``outer`` rounds, each of ``inner`` conjugate gradients at most, to the relative residual
    ``rtol``."""

    lam: float
    rho: float
    outer: int
    inner: int
    rtol: float

    def solve(
        self,
        A: LinearOperator,
        y: Tensor,
        x: Tensor,
        split: Split,
        *,
        w: float = 0.0,
        toward: Tensor | None = None,
    ) -> tuple[Tensor, Split]:
        """Images (B, *E) from x and the split of an earlier call, and the new split.

        w, toward: the weight w and the images m of the module; none without ``toward``.
        """
        # Divided by 1 + w, so that a flat likelihood does not leave the range of single precision.
        unit = 1 / (1 + w)
        rho = self.rho * unit if self.lam > 0 else 0.0

        def normal(v: Tensor) -> Tensor:
            out = (w * unit) * v + unit * A.adjoint(A(v))
            return out + rho * jumps_adjoint(jumps(v)) if rho else out

        for _ in range(self.outer):
            # Of the shift from x, each part in its own range: what A does not see gets no rounding
            # of A^H y to divide by nothing.
            gap = unit * A.adjoint(y - A(x))
            if toward is not None:
                gap = gap.add(toward - x, alpha=w * unit)
            if rho:
                gap = gap + rho * jumps_adjoint(split.z - split.u - jumps(x))
            moved = cg(normal, gap, max_iter=self.inner, rtol=self.rtol, attainable=True)
            x = x + moved.x
            if rho:
                seen = jumps(x) + split.u
                z = shrink(seen, self.lam / self.rho)
                split = Split(z, seen - z)
        return x, split
