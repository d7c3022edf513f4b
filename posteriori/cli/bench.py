"""``posteriori bench``: methods on problems whose posterior is known."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tqdm import tqdm

from posteriori.cli.machine import text as machine
from posteriori.evaluation import scoreboard
from posteriori.problems import beds
from posteriori.run import replace_file

GAUSSIAN_CELLS = ("white", "diagonal", "general")
SAVE_SECONDS = 10.0


@dataclass(frozen=True)
class Selection:
    """What to measure; an empty tuple means all."""

    bed: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    schedule: tuple[str, ...] = ()
    seeds: int = 20

    def plan(self) -> list[scoreboard.Cell]:
        """Every row in order. Raises ``ValueError`` for a cell that no chosen bed has, and as ``scoreboard.plan`` does."""
        every = {"gmm25": [f"{d},{m}" for d in beds.DIMENSIONS for m in beds.MEASURED], "gaussian": list(GAUSSIAN_CELLS)}
        chosen = self.bed or tuple(every)
        for name in chosen:
            if name not in every:
                raise ValueError(f"unknown bed {name!r}; known: {', '.join(every)}")
        unknown = set(self.cells) - {cell for name in chosen for cell in every[name]}
        if unknown:
            raise ValueError(f"unknown cell {sorted(unknown)[0]!r}; known: " + "; ".join(f"{b}: {' '.join(every[b])}" for b in chosen))
        names = list(self.methods or (*scoreboard.REFERENCES, *scoreboard.settings()))
        out: list[scoreboard.Cell] = []
        for name in chosen:
            cells = [cell for cell in every[name] if not self.cells or cell in self.cells]
            mixture = name == "gmm25"
            schedules = list(self.schedule or beds.SCHEDULES) if mixture else ["karras"]
            out += scoreboard.plan(name, cells, schedules, list(self.steps or (20, 100)), names, self.seeds if mixture else 1)
        return out


def run(selection: Selection, file: Path | None, progress: bool) -> None:
    """Measure what ``file`` does not hold yet; print the table; write ``file`` (rows as JSON) and a table beside it as Markdown."""
    plan = selection.plan()
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file and file.exists() else []
    have = {tuple(row[name] for name in scoreboard.Cell._fields): row for row in rows}
    refused: set[tuple[str, str]] = set()
    saved = time.monotonic()
    try:
        for cell in tqdm([c for c in plan if tuple(c) not in have], disable=not progress, file=sys.stderr, desc="bench"):
            if (cell.bed, cell.method) in refused:
                continue
            row = scoreboard.measure(cell)
            if row is None:
                refused.add((cell.bed, cell.method))
                continue
            have[tuple(cell)] = row
            # The whole file is written each time: not after every row of thousands.
            if file and time.monotonic() - saved > SAVE_SECONDS:
                _write(file, json.dumps(list(have.values()), indent=0))
                saved = time.monotonic()
    finally:
        if file:
            _write(file, json.dumps(list(have.values()), indent=0))
    table = scoreboard.table([have[tuple(cell)] for cell in plan if tuple(cell) in have])
    print(table, end="")
    for bed, method in sorted(refused):
        print(f"{method}: no row on {bed}; it refuses the problem, or is no affine map of its random numbers", file=sys.stderr)
    if file:
        head = f"`posteriori {shlex.join(sys.argv[1:])}`, {date.today().isoformat()}"
        _write(file.with_suffix(".md"), f"# Scoreboard\n\n{head}\n\n{table}\n```\n{machine()}\n```\n")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".partial")
    beside.write_text(text)
    replace_file(beside, file)
