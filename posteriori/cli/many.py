"""``posteriori run``: many measurements x methods, one table."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posteriori.cells import Cell, cell_task, cells_of, steps_within
from posteriori.cli.engines import Engine
from posteriori.diagnostics import quiet
from posteriori.identity import changes
from posteriori.problem_file.study import ManyProblems, load_study
from posteriori.progress import Progress
from posteriori.report.means import (
    MethodCells,
    cells_csv,
    means_csv,
    means_latex,
    means_markdown,
)
from posteriori.run import locked, read_json, write_json
from posteriori.storage import write_text

_RECORD = "study.json"


def run_many(path: Path, out: Path, engine: Engine, *, progress: bool) -> int:
    """Draw every cell that is not there yet, write the tables, print the first; returns how many
    cells failed. A folder that holds another study is refused before anything is computed."""
    held = out / _RECORD
    settled = read_json(held)["study"]["problem"] if held.exists() else None
    study = load_study(path, settled and settled.get("precision", "float32"))
    record = json.loads(json.dumps(study.record))
    check_many(record, out)
    with locked(out, ".study.lock"):
        budget = _budget(study, out)
        write_json(out / _RECORD, {"study": record, "budget": budget})
        cells = cells_of(study, [steps for steps, _ in budget.values()], out)
        found = _draw(cells, engine, out, progress)
        methods = [
            MethodCells(
                entry.label,
                *budget[entry.label],
                {item.name: found[item.name][entry.label] for item in study.items},
            )
            for entry in study.entries
        ]
        return _told(methods, out)


def check_many(record: dict[str, Any], out: Path) -> None:
    """Raise ``ValueError`` when the folder holds another study, or something else."""
    place = out / _RECORD
    if not place.exists():
        if out.exists() and any(p.name != ".study.lock" for p in out.iterdir()):
            raise ValueError(f"{out} exists and holds no study; choose another folder by --out")
        return
    found = list(changes(read_json(place)["study"], record))
    if found:
        raise ValueError(
            f"{out} holds another study, so it cannot be gone on with "
            f"({'; '.join(found)[:600]}); choose another folder by --out"
        )


def cells_kept(out: Path) -> str:
    """What an interrupted study has kept, for the message."""
    done = len(list((out / "cells").glob("*/*/summary.json")))
    return f"{done} complete cells are kept in {out}"


def _budget(study: ManyProblems, out: Path) -> dict[str, tuple[int, float | None]]:
    """Steps and planned passes of each method, by its label, from the first measurement. Those of a
    study that is gone on with are as they were."""
    kept = read_json(out / _RECORD)["budget"] if (out / _RECORD).exists() else {}
    stated, task = study.stated, None
    budget: dict[str, tuple[int, float | None]] = {}
    for entry in study.entries:
        if entry.label in kept:
            steps, passes = kept[entry.label]
            budget[entry.label] = steps, passes
            continue
        if task is None:
            task = cell_task(cells_of(study, [1] * len(study.entries), out)[0])
            for note in task.notes:
                print(note, file=sys.stderr)
        with quiet():
            budget[entry.label] = steps_within(
                task.posterior,
                entry,
                stated.calls,
                settings={key: task.settings[key] for key in ("n", "seed", "batch", "grid")},
                steps=stated.steps,
            )
    return budget


def _draw(
    cells: Sequence[Cell], engine: Engine, out: Path, progress: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """The numbers of every cell, by measurement and method."""
    bar = Progress("cells", len(cells), progress)
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    bar.at(0)

    def done(cell: Cell, record: dict[str, Any]) -> None:
        found[cell.measurement][cell.method] = record
        bar.at(sum(map(len, found.values())))
        if "reason" in record:
            print(f"{cell.method}, {cell.measurement}: {record['reason']}", file=sys.stderr)

    engine.draw(cells, done, out / "logs")
    bar.close()
    return found


def _told(methods: Sequence[MethodCells], out: Path) -> int:
    table = means_markdown(methods)
    for name, text in (
        ("table.md", table + "\n"),
        ("table.csv", means_csv(methods)),
        ("table.tex", means_latex(methods)),
        ("results.csv", cells_csv(methods)),
    ):
        write_text(out / name, text)
    failed = sum(len(m.failed) for m in methods)
    print(f"{table}\n\ntables: {out}/table.md, table.csv, table.tex; every cell: {out}/results.csv")
    if failed:
        print(f"{failed} of {sum(len(m.cells) for m in methods)} cells failed", file=sys.stderr)
    return failed
