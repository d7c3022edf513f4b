"""``posteriori bench``: methods on problems whose posterior is known."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from posteriori.cli.lists import parted
from posteriori.cli.machine import machine_text as machine
from posteriori.cli.resuming import resumable, rows_kept, stored_rows
from posteriori.experiments import Experiment, Row, costs, run_experiment, scoreboard, standings
from posteriori.experiments.boards import BOARDS
from posteriori.extras import require_extra
from posteriori.settings import Count, Setting, suggestion
from posteriori.storage import write_text

SAVE_SECONDS = 10.0


@dataclass(frozen=True)
class BoardSelection:
    """What to measure; an empty tuple means all. sample_seed: as ``scoreboard.measure_cell`` has
    it."""

    bed: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    schedule: tuple[str, ...] = ()
    seeds: int | None = None
    without: tuple[str, ...] = ()
    sample_seed: int | None = None

    def plan(self) -> list[scoreboard.BoardCell]:
        """Every row in order. Raises ``ValueError`` for a cell or schedule that no chosen bed has,
        as ``plan_board`` does."""
        for what, value in (("--seeds", self.seeds), *(("--steps", count) for count in self.steps)):
            if value is not None:
                Setting(Count).valid(value, what)
        chosen = self.bed or tuple(BOARDS)
        for name in chosen:
            if name not in BOARDS:
                raise ValueError(f"unknown bed {name!r}; {suggestion(name, BOARDS)}")
        wanted = parted(self.cells, [cell for name in chosen for cell in BOARDS[name].cells])
        for kind, asked in (("cell", wanted), ("schedule", self.schedule)):
            of = {name: getattr(BOARDS[name], f"{kind}s") for name in chosen}
            unknown = set(asked) - {value for values in of.values() for value in values}
            if unknown:
                raise ValueError(
                    f"unknown {kind} {sorted(unknown)[0]!r}; known: "
                    + "; ".join(f"{b}: {' '.join(v)}" for b, v in of.items())
                )
        names = [
            n
            for n in self.methods or (*scoreboard.REFERENCES, *scoreboard.board_methods())
            if n not in self.without
        ]
        out: list[scoreboard.BoardCell] = []
        for name in chosen:
            board = BOARDS[name]
            cells = [cell for cell in board.cells if not wanted or cell in wanted]
            # A bed with one schedule has no choice to offer.
            schedules = [
                s
                for s in board.schedules
                if not self.schedule or s in self.schedule or len(board.schedules) == 1
            ]
            seeds = board.seeds if self.seeds is None or board.seeds == 1 else self.seeds
            out += scoreboard.plan_board(
                name, cells, schedules, list(self.steps or board.steps), names, seeds
            )
        return out


class Scoreboard(Experiment[scoreboard.BoardCell, Row]):
    """The rows of a selection in ``file``, beside those of other selections; refused: (bed, method)
    without rows."""

    title, save_seconds = "bench", SAVE_SECONDS

    def __init__(self, selection: BoardSelection, file: Path | None) -> None:
        self.selection, self.file = selection, file
        self.entries: dict[Hashable, Row] = {}
        self.refused: set[tuple[str, str]] = set()

    def plan(self) -> list[scoreboard.BoardCell]:
        return self.selection.plan()

    def load(self, plan: list[scoreboard.BoardCell]) -> None:
        rows = stored_rows(self.file, {*scoreboard.BoardCell._fields, "value"}, "bench exact")
        self.entries |= {_named(row): row for row in rows if scoreboard.current(row, plan)}

    def key(self, cell: scoreboard.BoardCell) -> Hashable:
        return cell

    def measure(self, cell: scoreboard.BoardCell) -> Row | None:
        if (cell.bed, cell.method) in self.refused:
            return None
        row = scoreboard.measure_cell(cell, self.selection.sample_seed)
        if row is None:
            self.refused.add((cell.bed, cell.method))
            return None
        return {**row, "measured": date.today().isoformat()}

    def save(self) -> None:
        if self.file:
            write_text(self.file, json.dumps(list(self.entries.values()), indent=0))


def bench_exact(selection: BoardSelection, file: Path | None, progress: bool) -> None:
    """Measure what ``file`` does not hold yet, write it there as JSON, and beside it tables and a
    page of all that it then holds.

    The tables of the selection are printed.
    """
    if file:
        require_extra(
            "experiments", "bench exact --json, which draws error against cost,", "matplotlib"
        )
    board = Scoreboard(selection, file)
    with resumable(lambda: rows_kept(len(board.entries), file)):
        plan = run_experiment(board, progress=progress)
    print(
        standings.board_markdown([board.entries[cell] for cell in plan if cell in board.entries]),
        end="",
    )
    for bed, method in sorted(board.refused):
        print(
            f"{method}: no row on {bed}; it refuses the problem, "
            "or is no affine map of its random numbers",
            file=sys.stderr,
        )
    if file:
        _show(_ordered(list(board.entries.values())), file)


def _named(row: Row) -> scoreboard.BoardCell:
    return scoreboard.BoardCell(**{name: row[name] for name in scoreboard.BoardCell._fields})


def _ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the boards, their cells and the methods, however many runs they come
    from."""
    names = [*scoreboard.REFERENCES, *scoreboard.board_methods()]

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        board = BOARDS[row["bed"]]
        method = names.index(row["method"]) if row["method"] in names else len(names)
        where = (
            board.schedules.index(row["schedule"]),
            row["steps"],
            board.cells.index(row["cell"]),
            method,
        )
        return (list(BOARDS).index(row["bed"]), *where, row["method"], row["seed"])

    return sorted(rows, key=place)


def _show(rows: list[dict[str, Any]], file: Path) -> None:
    """Tables as Markdown, the pictures and the page beside ``file``."""
    command, said = f"posteriori {shlex.join(sys.argv[1:])}", standings.plateau(rows)
    head = f"Last command: `{command}`, {date.today().isoformat()}" + (
        f"\n\n{said}" if said else ""
    )
    write_text(
        file.with_suffix(".md"),
        f"# Scoreboard\n\n{head}\n\n{standings.board_markdown(rows)}\n```\n{machine()}\n```\n",
    )
    drawn = [
        _costs(rows, file, schedule)
        for schedule in dict.fromkeys(r["schedule"] for r in rows if r["bed"] == "gmm25")
    ]
    write_text(
        file.with_suffix(".html"),
        standings.board_page(rows, command, machine(), [p for p in drawn if p]),
    )


def _costs(rows: list[dict[str, Any]], file: Path, schedule: str) -> Path | None:
    """The picture of error against cost beside ``file``; None where only references were run."""
    families = scoreboard.families()
    if not costs.chosen(
        [r for r in rows if r["bed"] == "gmm25" and r["schedule"] == schedule], families
    ):
        return None
    return costs.cost_figure(
        rows, families, file.with_name(f"{file.stem}-{schedule}.png"), schedule
    )
