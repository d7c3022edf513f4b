"""The one loop of every experiment: cells that are stored are kept, the others are measured and
saved.

The scoreboard, the methods on photographs and the studies say what a cell is, how it is measured
and where it is kept; an interruption loses the cell in progress, and what ``save_seconds`` allow.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from tqdm import tqdm

Cell = dict[str, Any]
Row = dict[str, Any]
C = TypeVar("C")
E = TypeVar("E")


class Experiment(ABC, Generic[C, E]):
    """Cells of type C and what is kept of each, an entry of type E.

    title: beside the progress bar. save_seconds: between two savings while cells are measured; 0
    saves after each. entries: what is kept, by ``key``; ``run_experiment`` adds to it.
    """

    title: str
    save_seconds: float
    entries: dict[Hashable, E]

    @abstractmethod
    def plan(self) -> list[C]:
        """The cells in their order. Raises ``ValueError`` for a selection that makes no sense."""

    @abstractmethod
    def load(self, plan: list[C]) -> None:
        """Fill ``entries`` with what is stored. Raises ``ValueError`` where the file holds
        something else."""

    @abstractmethod
    def key(self, cell: C) -> Hashable:
        """What recognises a cell among ``entries``."""

    def current(self, cell: C) -> bool:
        """Whether the entry of a cell, which is there, says what a new measurement would."""
        return True

    @abstractmethod
    def measure(self, cell: C) -> E | None:
        """The entry of a cell, a function of the cell alone; None where there can be none."""

    @abstractmethod
    def save(self) -> None:
        """Write ``entries``, whole or not at all."""


def run_experiment(experiment: Experiment[C, E], *, progress: bool = False) -> list[C]:
    """Measure and save the cells of the plan that are not stored; returns the whole plan.

    What was measured is saved also when measuring ends before its time. progress: show a bar.
    """
    plan = experiment.plan()
    experiment.load(plan)
    missing = [
        cell
        for cell in plan
        if experiment.key(cell) not in experiment.entries or not experiment.current(cell)
    ]
    saved, unsaved = time.monotonic(), False
    try:
        for cell in tqdm(missing, disable=not progress, file=sys.stderr, desc=experiment.title):
            entry = experiment.measure(cell)
            if entry is None:
                continue
            experiment.entries[experiment.key(cell)], unsaved = entry, True
            # The whole file is written each time: not after every row of thousands.
            if time.monotonic() - saved >= experiment.save_seconds:
                experiment.save()
                saved, unsaved = time.monotonic(), False
    except BaseException:
        if unsaved:
            experiment.save()
        raise
    experiment.save()
    return plan
