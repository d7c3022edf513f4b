"""``posteriori compare``: several methods, or settings of one, on the problem of a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posteriori import problem_file, report
from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.methods.courses import steps_of
from posteriori.problem_file.advice import rivals
from posteriori.problem_file.entries import Entry, entries, read_entries
from posteriori.problem_file.file import USUAL_STEPS
from posteriori.report import comparison
from posteriori.report.comparison import ComparedRow
from posteriori.report.volumes import middle_slice
from posteriori.run import Run, read_json, write_json
from posteriori.storage import write_text

# What one method may raise without ending the others: a refusal, a divergence, a solve that fails,
# a missing derivative, too little memory.
ITS_OWN = (ArithmeticError, ValueError, TypeError, RuntimeError, NotImplementedError, MemoryError)


def compare_methods(problem: Path, methods: Sequence[str], out: Path, *, progress: bool) -> None:
    """Run what is not there yet, each method in a folder of its own; print the table and write it,
    and the page, into ``out``."""
    given = problem_file.load(problem, problem_file.settled_in(out / "problem.json", problem))
    check_comparison(given, out)
    task = given.build()
    for note in task.notes:
        print(note, file=sys.stderr)
    chosen = (
        entries(read_entries(methods), {"folder": Path.cwd()})
        if methods
        else given.methods or entries(rivals(task.posterior))
    )
    if given.antithetic:
        print("antithetic is left out: scores ask for independent samples", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "problem.json", _said(given))
    rows = []
    for entry in chosen:
        rows.append(attempt(entry, given, task, out / entry.folder, progress))
        if rows[-1].reason:
            print(f"{entry.label}: {rows[-1].reason}", file=sys.stderr)
    table = comparison.comparison_table(rows)
    write_text(out / "table.md", table + "\n")
    page = comparison.write_comparison(
        out, rows, f"{type(task.posterior.given.A).__name__}: {len(rows)} methods compared"
    )
    print(f"{table}\n\npage: {page}")


def attempt(
    entry: Entry, given: problem_file.Problem, task: problem_file.Task, folder: Path, progress: bool
) -> ComparedRow:
    """One method: its run, drawn or completed, or why there is none."""
    settings: dict[str, Any] = task.settings | {
        "steps": steps_of(entry.method, entry.steps or given.steps, USUAL_STEPS)
    }
    settings |= {"grid": entry.grid or given.grid, "antithetic": False}
    try:
        with quiet():
            done = sample(
                task.posterior,
                entry.method,
                **settings,
                folder=folder,
                resume=True,
                progress=progress,
            )
        record = report.save(
            done, task.posterior, folder, task.reference, **task.usual, method=entry.method
        )
    except ITS_OWN as error:
        kind = "" if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: "
        return ComparedRow(entry.label, reason=f"{kind}{error}".removesuffix(": "))
    # The run comes with the pictures that were kept beside the samples.
    shown = middle_slice(Run.load(folder).in_frame())
    return ComparedRow.of(entry.label, shown, record)


def check_comparison(given: problem_file.Problem, out: Path) -> None:
    """Raise ``ValueError`` when the folder holds runs of another problem, or something else."""
    place = out / "problem.json"
    if not place.exists():
        if out.exists() and any(out.iterdir()):
            raise ValueError(
                f"{out} exists and holds no comparison; choose another folder by --out"
            )
        return
    changes = problem_file.unlike(read_json(place), json.loads(json.dumps(_said(given))))
    if changes:
        raise ValueError(
            f"the runs in {out} belong to another problem, "
            f"so they cannot be resumed ({changes[:600]})"
        )


def _said(given: problem_file.Problem) -> dict[str, Any]:
    """The problem without its methods, of which a folder may get more."""
    return {
        key: value
        for key, value in given.record.items()
        if key not in ("method", "methods", "code")
    }
