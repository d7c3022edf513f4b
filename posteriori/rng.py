"""The only place where randomness is drawn.

One stream per *group* of rows (a group is one row, or the particles of one cloud). The stream of
group k depends on (seed, k) alone, so sample k is the same number whatever the batch size, the
device, or the samples drawn beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Rng(Protocol):
    """What a method may ask of randomness. Tests replace it by a recorded sequence
    (the affine probe)."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers shaped like ``like`` (B, *E); a complex number gets a
        unit-variance real *and* imaginary part."""
        ...

    def uniform(self, count: int) -> Tensor:
        """(groups, count) float64 numbers in [0, 1)."""
        ...


class Streams:
    """Independent random streams for the groups ``first, first + 1, ...`` of a seeded run.

    Parameters
    ----------
    seed: any integer >= 0.
    groups: the indices of the groups in this batch.
    rows: rows per group; a batch passed to ``normal`` has ``len(groups) * rows`` rows, group by
        group.
    antithetic: groups 2 j and 2 j + 1 share the stream of (seed, j), and the second one's numbers
        are mirrored, which leaves their law as it is: -z for normal z, 1 - u for uniform u. Poisson
        counts, whose law is not symmetric, are drawn as they are.

    Numbers are drawn on the CPU, whatever the device they are used on.
    """

    def __init__(
        self, seed: int, groups: Sequence[int], rows: int = 1, antithetic: bool = False
    ) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
        self._open([(_base(seed), k) for k in groups], rows, antithetic)

    @classmethod
    def of(
        cls, places: Sequence[tuple[int, int]], rows: int = 1, antithetic: bool = False
    ) -> Streams:
        """The streams of several runs: a group for each (seed, k)."""
        out, bases = cls(0, []), {seed: _base(seed) for seed, _ in places}
        out._open([(bases[seed], k) for seed, k in places], rows, antithetic)
        return out

    def _open(self, places: list[tuple[int, int]], rows: int, antithetic: bool) -> None:
        self.rows = rows
        self.mirrored = [antithetic and k % 2 == 1 for _, k in places]
        self.streams = [_generator(base, k // 2 if antithetic else k) for base, k in places]

    def normal(self, like: Tensor) -> Tensor:
        if like.shape[0] != len(self.streams) * self.rows:
            raise ValueError(
                f"{len(self.streams)} streams of {self.rows} rows cannot fill a batch "
                f"of {like.shape[0]} rows"
            )
        shape = (*like.shape, 2) if like.is_complex() else like.shape
        z = torch.empty(
            shape, dtype=torch.float64 if like.real.dtype == torch.float64 else torch.float32
        )
        rows = z.view(len(self.streams), -1).unbind(0)
        for row, stream, mirrored in zip(rows, self.streams, self.mirrored, strict=True):
            row.normal_(generator=stream)
            if mirrored:
                row.neg_()
        z = z.to(device=like.device, dtype=like.real.dtype)
        return torch.view_as_complex(z) if like.is_complex() else z

    def uniform(self, count: int) -> Tensor:
        u = torch.stack(
            [torch.rand(count, generator=stream, dtype=torch.float64) for stream in self.streams]
        )
        mirrored = torch.tensor(self.mirrored)[:, None]
        return torch.where(mirrored, (1 - u).clamp(max=1 - 2**-53), u)

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts with the given rates (B, *E), as floating point numbers."""
        rows = rate.detach().cpu().double().reshape(len(self.streams), -1)
        counts = [
            torch.poisson(row, generator=stream)
            for row, stream in zip(rows, self.streams, strict=True)
        ]
        return torch.stack(counts).view(rate.shape).to(rate)

    def state(self) -> Tensor:
        """The exact position of every stream: (groups, bytes) uint8."""
        return torch.stack([stream.get_state() for stream in self.streams])

    def restore(self, state: Tensor) -> None:
        for stream, saved in zip(self.streams, state, strict=True):
            stream.set_state(saved.clone())


def _base(seed: int) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _generator(base: int, k: int) -> torch.Generator:
    return torch.Generator().manual_seed(_mix(base + k))


def _mix(k: int) -> int:
    """A bijection of the 32-bit integers that scatters neighbours (the finaliser of MurmurHash3).

    torch seeds its generator with 32 bits: a bijection makes the streams of one run distinct for
    certain, where a hash of (seed, k) would let two of a few thousand rows coincide now and then.
    """
    k &= 0xFFFFFFFF
    for factor, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        k = ((k ^ (k >> shift)) * factor) & 0xFFFFFFFF
    return k ^ (k >> 16)
