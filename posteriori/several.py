"""Several measurements worked on in one batch: which one a row belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from posteriori.operators.base import LinearOperator
from posteriori.operators.row_wise import RowWise


@dataclass(frozen=True, eq=False)
class Several:
    """y: (J, *O), in the prior's coordinates. seeds: of each. n: samples of each, which follow one
    another. operators: of each, also in the prior's coordinates; None where all have one."""

    y: Tensor
    seeds: tuple[int, ...]
    n: int
    operators: tuple[LinearOperator, ...] | None = None

    def places(self, done: int, rows: int) -> list[tuple[int, int]]:
        """Seed and number of the sample, for so many rows after ``done`` ones."""
        return [(self.seeds[row // self.n], row % self.n) for row in range(done, done + rows)]

    def measured(self, done: int, rows: int) -> Tensor:
        """Their measurements, (rows, *O)."""
        return self.y[[row // self.n for row in range(done, done + rows)]]

    def instrument(self, done: int, rows: int) -> LinearOperator | None:
        """Their operators; None where all rows have that of the posterior."""
        if self.operators is None:
            return None
        return RowWise([self.operators[row // self.n] for row in range(done, done + rows)])
