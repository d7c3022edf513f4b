"""One study from end to end: what is missing is measured, kept cell by cell, checked, drawn and written up.

    NAME.json   the data: every cell with its rows (see ``posteriori.studies.pages``)
    NAME.csv    the rows, from which NAME.png is drawn
    NAME.md     question, findings, figure, setting, limits, columns, how to repeat it
    NAME.html   the same on one page with the figure and the rows in it

A cell that the stored file holds is not measured again; an interruption loses the cell in progress at most.
"""

from __future__ import annotations

import io
import json
import sys
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

from tqdm import tqdm

from posteriori.files import write_bytes, write_text
from posteriori.flags import quiet
from posteriori.run import locked
from posteriori.studies.base import Study
from posteriori.studies.contract import check_findings, check_plan, check_study, flaw, key
from posteriori.studies.pages import Record, data, markdown, page, rows_of

SUFFIXES = ("json", "csv", "png", "md", "html")
FIELDS = {"study", "quick", "command", "columns", "machines", "cells"}
DPI = 130


def run(study: Study, out: Path, *, quick: bool, machine: str, progress: bool = False) -> tuple[str, ...]:
    """Measure what ``out`` does not hold yet and write the five files; returns the findings.

    machine: versions and hardware, as text. progress: show a bar.
    Raises ``ValueError`` when the study breaks its contract, when ``out`` holds a quick run and this is none or the other way round, or
    a file of another kind; ``RuntimeError`` when another process measures this study into ``out``.
    """
    check_study(study)
    plan, file = check_plan(study, quick), out / f"{study.name}.json"
    with locked(out, f".{study.name}.lock"):
        record = _record(study, quick)
        have = _kept(study, file, record)
        _tell(study, file, have, {key(cell) for cell in plan})
        missing = [cell for cell in plan if key(cell) not in have]
        if machine not in record["machines"] and missing:
            record["machines"].append(machine)
        try:
            for cell in tqdm(missing, disable=not progress, file=sys.stderr, desc=study.name):
                began = time.perf_counter()
                with quiet():
                    rows = study.measure(cell)
                wrong = flaw(study, cell, rows)
                if wrong:
                    raise ValueError(f"study {study.name!r}, cell {cell}: {wrong}")
                ended = {"date": date.today().isoformat(), "seconds": time.perf_counter() - began}
                have[key(cell)] = {"cell": cell, "rows": rows, **ended, "machine": record["machines"].index(machine)}
                record["cells"] = [have[key(c)] for c in plan if key(c) in have]
                _write_record(file, record)
        except (KeyboardInterrupt, OSError) as error:
            error.add_note(f"{len(record['cells'])} of {len(plan)} cells are kept in {file}; the same command goes on")
            raise
        record["cells"] = [have[key(cell)] for cell in plan]
        _write_record(file, record)
        return _publish(study, file, record)


def read(file: Path) -> Record:
    """A stored record. Raises ``ValueError`` for a file that is none."""
    try:
        record = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}; give another folder with --out, or remove the file") from None
    if not isinstance(record, dict) or not record.keys() >= FIELDS:
        raise ValueError(f"{file} is not the data of a study: it lacks some of {sorted(FIELDS)}; give another folder with --out")
    return record


def _record(study: Study, quick: bool) -> Record:
    command = f"posteriori study {study.name}{' --quick' if quick else ''}"
    return {"study": study.name, "quick": quick, "command": command, "columns": study.columns, "machines": [], "cells": []}


def _kept(study: Study, file: Path, record: Record) -> dict[str, dict[str, Any]]:
    """The cells that ``file`` holds, by their key; the machines that measured them go to ``record``."""
    if not file.exists():
        return {}
    old = read(file)
    if old["study"] != study.name:
        raise ValueError(f"{file} holds the study {old['study']!r}, not {study.name!r}; give another folder with --out")
    if old["quick"] != record["quick"]:
        then, now = ("quick", "full") if old["quick"] else ("full", "quick")
        raise ValueError(
            f"{file} holds a {then} run of {study.name}, this is a {now} run, and their rows must not mix; give another folder with --out, "
            "or remove that file"
        )
    record["machines"] = old["machines"]
    return {key(entry["cell"]): entry for entry in old["cells"]}


def _tell(study: Study, file: Path, have: dict[str, dict[str, Any]], planned: set[str]) -> None:
    """Leave out what was kept and is of no use any more, and say so."""
    gone = [name for name in have if name not in planned]
    stale = {name: flaw(study, entry["cell"], entry["rows"]) for name, entry in have.items() if name in planned}
    stale = {name: why for name, why in stale.items() if why}
    for name in (*gone, *stale):
        del have[name]
    if gone:
        warnings.warn(
            f"{file}: {len(gone)} cells are not in the plan of {study.name} any more and are dropped, such as {gone[0]}", stacklevel=3
        )
    if stale:
        name, why = next(iter(stale.items()))
        warnings.warn(f"{file}: {len(stale)} cells are measured again because their rows are not as declared: {name}: {why}", stacklevel=3)


def _write_record(file: Path, record: Record) -> None:
    write_text(file, json.dumps(record, indent=0, allow_nan=False) + "\n")


def _publish(study: Study, file: Path, record: Record) -> tuple[str, ...]:
    """Draw and write what is made from the record."""
    rows = rows_of(record)
    found = check_findings(study, rows)
    picture = io.BytesIO()
    # The version of the drawing package would make two equal pictures differ.
    study.draw(rows).savefig(picture, format="png", dpi=DPI, metadata={"Software": None})
    place = file.with_suffix(".png")
    write_bytes(place, picture.getvalue())
    write_text(file.with_suffix(".csv"), data(study, record))
    write_text(file.with_suffix(".md"), markdown(study, record))
    write_text(file.with_suffix(".html"), page(study, record, picture.getvalue()))
    return found
