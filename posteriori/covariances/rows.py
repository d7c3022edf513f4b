"""Noise of another covariance in each row of a batch, as measurements by different instruments
leave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of
from posteriori.covariances.told import Told


@dataclass(frozen=True, eq=False)
class RowsNoise(NoiseCovariance):
    """``members[which[k]]`` in row k."""

    words: ClassVar[str] = "another covariance in each row"
    members: tuple[NoiseCovariance, ...]
    which: tuple[int, ...]

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return self.each(lambda member, rows: member.applied(f, rows), x)

    def told(self, x: Tensor) -> Told | None:
        """None where that of a row is."""
        parts = [member.told(x) for member in self.members]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        levels = torch.broadcast_tensors(*(part.levels for part in known))
        which = list(self.which)
        return Told(torch.cat(levels)[which], torch.cat([part.colour for part in known])[which])

    def each(self, of: Callable[[NoiseCovariance, Tensor], Tensor], x: Tensor) -> Tensor:
        """``of`` each member on its rows of x (B, *E): (B, *E)."""
        if len(x) != len(self.which):
            raise ValueError(
                f"RowsNoise holds covariances for {len(self.which)} rows, the batch has {len(x)}"
            )
        places = [
            torch.tensor([k for k, j in enumerate(self.which) if j == m])
            for m in range(len(self.members))
        ]
        out = torch.cat([of(m, x[p]) for m, p in zip(self.members, places, strict=True)])
        return out[torch.cat(places).argsort().to(x.device)]
