"""The only place where randomness is drawn.

One stream per *group* of rows (a group is one row, or the particles of one cloud). The stream of group k depends on (seed, k) alone,
so sample k is the same number whatever the batch size, the device, or the samples drawn beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Noise(Protocol):
    """What a method may ask of randomness. Tests replace it by a recorded sequence (the affine probe)."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers shaped like ``like`` (B, *E); a complex number gets a unit-variance real *and* imaginary part."""
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
    rows: rows per group; a batch passed to ``normal`` has ``len(groups) * rows`` rows, group by group.
    """

    def __init__(self, seed: int, groups: Sequence[int], rows: int = 1) -> None:
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
        self.rows = rows
        self.streams = [np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence([seed, k]))) for k in groups]

    def normal(self, like: Tensor) -> Tensor:
        if like.shape[0] != len(self.streams) * self.rows:
            raise ValueError(f"{len(self.streams)} streams of {self.rows} rows cannot fill a batch of {like.shape[0]} rows")
        real = torch.view_as_real(like) if like.is_complex() else like
        kind = np.float64 if real.dtype == torch.float64 else np.float32
        size = real[: self.rows].numel()
        out = np.empty((len(self.streams), size), dtype=kind)
        for row, stream in zip(out, self.streams, strict=True):
            stream.standard_normal(dtype=kind, out=row)
        z = torch.from_numpy(out).view(real.shape).to(device=like.device, dtype=real.dtype)
        return torch.view_as_complex(z) if like.is_complex() else z

    def uniform(self, count: int) -> Tensor:
        return torch.from_numpy(np.stack([stream.random(count) for stream in self.streams]))

    def poisson(self, rate: Tensor) -> Tensor:
        """Poisson counts with the given rates (B, *E), as floating point numbers."""
        rows = rate.detach().cpu().double().numpy().reshape(len(self.streams), -1)
        counts = np.stack([stream.poisson(row) for stream, row in zip(self.streams, rows, strict=True)])
        return torch.from_numpy(counts).view(rate.shape).to(rate)

    def state(self) -> str:
        """The exact position of every stream, as JSON text."""
        return json.dumps([stream.bit_generator.state for stream in self.streams])

    def restore(self, state: str) -> None:
        for stream, saved in zip(self.streams, json.loads(state), strict=True):
            stream.bit_generator.state = saved
