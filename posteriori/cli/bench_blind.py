"""``posteriori bench blind``: photographs behind a blur that is not known."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from posteriori.cli.machine import machine_text as machine
from posteriori.cli.resuming import resumable, rows_kept, stored_rows
from posteriori.experiments import Experiment, Row, blind_photographs, run_experiment
from posteriori.storage import write_text


@dataclass(frozen=True)
class BlindSelection:
    """What to measure. images: a folder of pictures, None for the one that ships."""

    images: Path | None
    methods: tuple[str, ...]
    crops: int
    side: int
    steps: int

    def plan(self) -> list[blind_photographs.BlindCell]:
        """Every row in order. Raises ``ValueError`` as ``plan_blind`` does."""
        names = list(self.methods or ("FastDiffusionEM",))
        return blind_photographs.plan_blind(self.images, names, self.crops, self.side, self.steps)


class BlindRows(Experiment[blind_photographs.BlindCell, Row]):
    """The rows of a selection in ``file``, beside those of other selections."""

    title, save_seconds = "bench", 0.0

    def __init__(self, selection: BlindSelection, file: Path | None) -> None:
        self.selection, self.file = selection, file
        self.entries: dict[Hashable, Row] = {}

    def plan(self) -> list[blind_photographs.BlindCell]:
        return self.selection.plan()

    def load(self, plan: list[blind_photographs.BlindCell]) -> None:
        names = blind_photographs.BlindCell._fields
        for row in stored_rows(self.file, {*names, "outcome"}, "bench blind"):
            self.entries[tuple(row[name] for name in names)] = row

    def key(self, cell: blind_photographs.BlindCell) -> Hashable:
        """The place of a picture on this machine says nothing of it."""
        return tuple(cell._replace(picture=Path(cell.picture).name))

    def current(self, cell: blind_photographs.BlindCell) -> bool:
        kept = self.entries[self.key(cell)]["settings"]
        return kept == blind_photographs.settings_by_name(cell.method)

    def measure(self, cell: blind_photographs.BlindCell) -> Row:
        return blind_photographs.measure_blind(cell)

    def save(self) -> None:
        if self.file:
            write_text(self.file, json.dumps(list(self.entries.values()), indent=0))


def bench_blind(selection: BlindSelection, file: Path | None, progress: bool) -> None:
    """Measure what ``file`` does not hold yet; print the table, and write it beside ``file``."""
    about = BlindRows(selection, file)
    with resumable(lambda: rows_kept(len(about.entries), file)):
        plan = run_experiment(about, progress=progress)
    rows = [about.entries[about.key(cell)] for cell in plan]
    table = "\n".join(blind_photographs.blind_tables(rows))
    print(table)
    if file:
        head = f"`posteriori {shlex.join(sys.argv[1:])}`, {date.today().isoformat()}"
        write_text(
            file.with_suffix(".md"),
            f"# Photographs behind an unknown blur\n\n{head}\n\n{table}\n\n```\n{machine()}\n```\n",
        )
