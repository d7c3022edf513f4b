"""One study from end to end: what is missing is measured, kept cell by cell, checked, drawn and
written up.

    NAME.json   the data: every cell with its rows (see ``posteriori.experiments.studies.pages``)
    NAME.csv    the rows, from which NAME.png is drawn
    NAME.md     question, findings, figure, setting, limits, columns, how to repeat it
    NAME.html   the same on one page with the figure and the rows in it

A cell that the stored file holds is not measured again; an interruption loses the cell in progress
at most.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Hashable
from datetime import date
from pathlib import Path
from typing import Any

from posteriori.diagnostics import quiet
from posteriori.experiments import Cell, Experiment, run_experiment
from posteriori.experiments.studies.base import Study
from posteriori.experiments.studies.contract import (
    check_findings,
    check_plan,
    check_study,
    flaw,
    key,
)
from posteriori.experiments.studies.pages import (
    StudyRecord,
    data,
    rows_of,
    study_page,
    study_section,
)
from posteriori.run import locked
from posteriori.storage import write_bytes, write_text

STUDY_FILES = ("json", "csv", "png", "md", "html")
FIELDS = {"study", "quick", "command", "columns", "machines", "cells"}
DPI = 130


class StudyRun(Experiment[Cell, dict[str, Any]]):
    """A study and its record in ``file``: of each cell its rows, when, how long and where they were
    measured."""

    save_seconds = 0.0

    def __init__(self, study: Study, file: Path, quick: bool, machine: str) -> None:
        self.study, self.file, self.quick, self.machine = study, file, quick, machine
        self.title = study.name
        self.entries: dict[Hashable, dict[str, Any]] = {}
        self.record = _record(study, quick)
        self.planned: list[Cell] = []

    def plan(self) -> list[Cell]:
        self.planned = check_plan(self.study, self.quick)
        return self.planned

    def load(self, plan: list[Cell]) -> None:
        kept = _kept(self.study, self.file, self.record)
        _tell(self.study, self.file, kept, {key(cell) for cell in plan})
        self.entries.update(kept)

    def key(self, cell: Cell) -> Hashable:
        return key(cell)

    def measure(self, cell: Cell) -> dict[str, Any]:
        began = time.perf_counter()
        with quiet():
            rows = self.study.measure(cell)
        wrong = flaw(self.study, cell, rows)
        if wrong:
            raise ValueError(f"study {self.study.name!r}, cell {cell}: {wrong}")
        machines = self.record["machines"]
        if self.machine not in machines:
            machines.append(self.machine)
        ended = {"date": date.today().isoformat(), "seconds": time.perf_counter() - began}
        return {"cell": cell, "rows": rows, **ended, "machine": machines.index(self.machine)}

    def save(self) -> None:
        self.record["cells"] = [
            self.entries[k] for k in map(key, self.planned) if k in self.entries
        ]
        write_text(self.file, json.dumps(self.record, indent=0, allow_nan=False) + "\n")


def run_study(
    study: Study, out: Path, *, quick: bool, machine: str, progress: bool = False
) -> tuple[str, ...]:
    """Measure what ``out`` does not hold yet and write the five files; returns the findings.

    machine: versions and hardware, as text. progress: show a bar.
    Raises ``ValueError`` when the study breaks its contract, when ``out`` holds a quick run and
    this is none or the other way round, or a file of another kind; ``RuntimeError`` when another
    process measures this study into ``out``.
    """
    check_study(study)
    whole = StudyRun(study, out / f"{study.name}.json", quick, machine)
    check_plan(study, quick)
    with locked(out, f".{study.name}.lock"):
        try:
            run_experiment(whole, progress=progress)
        except (KeyboardInterrupt, OSError) as error:
            error.add_note(
                f"{len(whole.entries)} of {len(whole.planned)} cells are kept in {whole.file}; "
                "the same command goes on"
            )
            raise
        return _publish(study, whole.file, whole.record)


def read_record(file: Path) -> StudyRecord:
    """A stored record. Raises ``ValueError`` for a file that is none."""
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(
            f"{file} is not JSON: {error}; give another folder with --out, or remove the file"
        ) from None
    if not isinstance(record, dict) or not record.keys() >= FIELDS:
        raise ValueError(
            f"{file} is not the data of a study: it lacks some of {sorted(FIELDS)}; "
            "give another folder with --out"
        )
    return record


def _record(study: Study, quick: bool) -> StudyRecord:
    command = f"posteriori study {study.name}{' --quick' if quick else ''}"
    return {
        "study": study.name,
        "quick": quick,
        "command": command,
        "columns": study.columns,
        "machines": [],
        "cells": [],
    }


def _kept(study: Study, file: Path, record: StudyRecord) -> dict[str, dict[str, Any]]:
    """The cells that ``file`` holds, by their key; the machines that measured them go to
    ``record``."""
    if not file.exists():
        return {}
    old = read_record(file)
    if old["study"] != study.name:
        raise ValueError(
            f"{file} holds the study {old['study']!r}, not {study.name!r}; "
            "give another folder with --out"
        )
    if old["quick"] != record["quick"]:
        then, now = ("quick", "full") if old["quick"] else ("full", "quick")
        raise ValueError(
            f"{file} holds a {then} run of {study.name}, this is a {now} run, "
            "and their rows must not mix; give another folder with --out, or remove that file"
        )
    record["machines"] = old["machines"]
    return {key(entry["cell"]): entry for entry in old["cells"]}


def _tell(study: Study, file: Path, have: dict[str, dict[str, Any]], planned: set[str]) -> None:
    """Leave out what was kept and is of no use any more, and say so."""
    gone = [name for name in have if name not in planned]
    stale = {
        name: flaw(study, entry["cell"], entry["rows"])
        for name, entry in have.items()
        if name in planned
    }
    stale = {name: why for name, why in stale.items() if why}
    for name in (*gone, *stale):
        del have[name]
    if gone:
        warnings.warn(
            f"{file}: {len(gone)} cells are not in the plan of {study.name} any more "
            f"and are dropped, such as {gone[0]}",
            stacklevel=3,
        )
    if stale:
        name, why = next(iter(stale.items()))
        warnings.warn(
            f"{file}: {len(stale)} cells are measured again "
            f"because their rows are not as declared: {name}: {why}",
            stacklevel=3,
        )


def _publish(study: Study, file: Path, record: StudyRecord) -> tuple[str, ...]:
    """Draw and write what is made from the record."""
    rows = rows_of(record)
    found = check_findings(study, rows)
    picture = io.BytesIO()
    # The version of the drawing package would make two equal pictures differ.
    study.draw(rows).savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    place = file.with_suffix(".png")
    write_bytes(place, picture.getvalue())
    write_text(file.with_suffix(".csv"), data(study, record))
    write_text(file.with_suffix(".md"), study_section(study, record))
    write_text(file.with_suffix(".html"), study_page(study, record, picture.getvalue()))
    return found
