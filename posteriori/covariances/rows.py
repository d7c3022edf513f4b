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
    """``members[which[k]]`` in row k. Raises ``ValueError`` where ``which`` names none of them, and
    for a batch of another number of rows."""

    words: ClassVar[str] = "another covariance in each row"
    members: tuple[NoiseCovariance, ...]
    which: tuple[int, ...]

    def __post_init__(self) -> None:
        none = [j for j in self.which if not 0 <= j < len(self.members)]
        if none:
            raise ValueError(
                f"RowsNoise: which says for each row a member from 0 to {len(self.members) - 1}, "
                f"got {none[0]}"
            )

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return self.each(lambda member, rows: member.applied(f, rows), x)

    def is_white(self, like: Tensor) -> bool:
        """Whether that of each row is."""
        return all(member.is_white(like) for member in self.members)

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
        places = {m: [k for k, j in enumerate(self.which) if j == m] for m in set(self.which)}
        out = torch.cat([of(self.members[m], x[rows]) for m, rows in places.items()])
        order = torch.tensor([k for rows in places.values() for k in rows], device=x.device)
        return out[order.argsort()]
