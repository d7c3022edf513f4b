"""Low-rank adapters of a prior: a few numbers per row that move its weights, written into it by
``prior.at``.

    matrix or kernel W, as rows of its output       W + up down,    up (n, r), down (r, m)
    vector b                                        b + shift

up and the shifts are 0 at the start, so that the adapted prior is the prior, bit by bit; down is
random. An adapter is removed by asking the prior itself.

Reference: Hu et al., LoRA: low-rank adaptation of large language models, 2022, section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.priors.base import Prior
from posteriori.rng import Rng


@dataclass(frozen=True, eq=False)
class Adapter:
    """Of some leaves, at their values ``base``; ``rank`` at most. All numbers of a row lie in one
    vector theta (B, size), leaf by leaf, down before up."""

    base: dict[str, Tensor]
    rank: int

    @classmethod
    def of(cls, prior: Prior, rank: int, *, vectors: bool) -> Adapter:
        """Of what ``prior`` lets be adjusted, without its vectors (biases, gains) unless
        ``vectors``. Raises ``TypeError`` for a prior that has nothing of the kind."""
        known = prior.know()
        base = {
            name: value
            for name, value in known.adjustable().items()
            if value.is_floating_point() and (vectors or value.ndim > 1)
        }
        if not base:
            what = "weights" if vectors else "matrices or kernels"
            raise TypeError(f"a {known.name} prior has no {what} that could be adapted")
        return cls(base, rank)

    def sizes(self) -> list[tuple[int, int]]:
        """Of down and of up of each leaf; a vector has a shift alone, in the place of up."""
        out = []
        for value in self.base.values():
            n, m = _sides(value)
            r = min(self.rank, n, m)
            out.append((r * m, r * n) if value.ndim > 1 else (0, value.numel()))
        return out

    @property
    def size(self) -> int:
        return sum(map(sum, self.sizes()))

    def start(self, x: Tensor, rng: Rng) -> Tensor:
        """theta of each row of x: every down N(0, 1 / m), all else 0."""
        dtype = next(iter(self.base.values())).dtype
        theta = rng.normal(torch.empty(len(x), self.size, dtype=dtype, device=x.device))
        scales = [
            part
            for value, (down, up) in zip(self.base.values(), self.sizes(), strict=True)
            for part in (
                theta.new_full((down,), 1 / math.sqrt(_sides(value)[1])),
                theta.new_zeros(up),
            )
        ]
        return theta * torch.cat(scales)

    def leaves(self, theta: Tensor) -> dict[str, Tensor]:
        """The moved leaves, (B, *shape) each, as ``prior.at`` takes them."""
        out = {}
        for (name, value), (down, up) in zip(self.base.items(), self._parts(theta), strict=True):
            move = up if value.ndim < 2 else _matrix(up, value, rows=True) @ _matrix(down, value)
            out[name] = value + move.reshape(len(theta), *value.shape).to(value.dtype)
        return out

    def gradient(self, theta: Tensor, of_leaves: dict[str, Tensor]) -> Tensor:
        """That of theta (B, size), from those of the leaves (B, *shape)."""
        out = []
        for (name, value), (down, up) in zip(self.base.items(), self._parts(theta), strict=True):
            g = of_leaves[name].to(theta.dtype)
            if value.ndim < 2:
                out.append(g.flatten(1))
                continue
            g = g.reshape(len(theta), *_sides(value))
            out.append((_matrix(up, value, rows=True).mT @ g).flatten(1))
            out.append((g @ _matrix(down, value).mT).flatten(1))
        return torch.cat(out, 1)

    def _parts(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        sizes = [n for pair in self.sizes() for n in pair]
        parts = theta.split(sizes, 1)
        return list(zip(parts[::2], parts[1::2], strict=True))


def _sides(value: Tensor) -> tuple[int, int]:
    """Rows and columns of a leaf as a matrix: its first axis, and all others together."""
    n = value.shape[0] if value.ndim else 1
    return n, value.numel() // n


def _matrix(part: Tensor, value: Tensor, *, rows: bool = False) -> Tensor:
    """down (B, r, m), or with ``rows`` up (B, n, r)."""
    n, m = _sides(value)
    return part.view(len(part), n, -1) if rows else part.view(len(part), -1, m)
