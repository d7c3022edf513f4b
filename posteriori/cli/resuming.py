"""What a command that was interrupted, or met a full disk, has kept, and how to go on with it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posteriori.run import read_arrays, read_json
from posteriori.slabs import slabs_kept
from posteriori.storage import full


@contextmanager
def resumable(kept: Callable[[], str], option: str = "") -> Iterator[None]:
    """Add to an interruption, or to the error of a full disk, what is ``kept`` and the command that
    goes on: this one, with ``option``."""
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if isinstance(error, KeyboardInterrupt) or full(error):
            room = "" if isinstance(error, KeyboardInterrupt) else "make room, then "
            words = sys.argv[1:] + ([option] if option and option not in sys.argv else [])
            error.add_note(f"{kept()}; {room}go on by: posteriori {shlex.join(words)}")
        raise


def stored_rows(file: Path | None, names: set[str], command: str) -> list[dict[str, Any]]:
    """The rows that a bench has written, none where there is no file. names: what each of its rows
    has.

    Raises ``ValueError`` for a file that holds something else than rows of that ``command``.
    """
    if file is None or not file.exists():
        return []
    try:
        rows = json.loads(file.read_text())
    except ValueError:  # of bytes that are no text as well
        rows = None
    if not isinstance(rows, list) or any(not isinstance(row, dict) for row in rows):
        raise ValueError(
            f"{file} does not hold the rows of a bench; choose another file with --json"
        )
    if any(not row.keys() >= names for row in rows):
        raise ValueError(
            f"{file} holds other rows than those of `{command}`; choose another file with --json"
        )
    return rows


def runs_kept(folder: Path) -> str:
    """Of a comparison: the runs in the folders of its methods."""
    places = sorted(folder.glob("*/run.json"))
    ended = [place for place in places if read_json(place).get("state") == "complete"]
    under_way = [run_kept(place.parent) for place in places if place not in ended]
    return "; ".join([f"{len(ended)} complete runs are kept in {folder}", *under_way])


def rows_kept(count: int, file: Path | None) -> str:
    """Of a bench."""
    return (
        "no row was kept, as without --json FILE none is"
        if file is None
        else f"{count} rows are kept in {file}"
    )


def run_kept(folder: Path) -> str:
    """Of a run that is under way in a folder."""
    record = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    if record.get("state") == "complete":
        return f"all samples are kept in {folder}, only their pictures and page are missing"
    done, begun = slabs_kept(folder)
    if begun:
        return f"{done} complete slabs and {begun - done} that have begun are kept in {folder}"
    config = record.get("config") or {}
    rows = [
        json.loads(read_arrays(file)[1]["notes"])
        for file in sorted((folder / "rows").glob("*.safetensors"))
    ]
    samples = sum(len(notes["status"]) for notes in rows)
    groups = sum(notes["groups"] for notes in rows)
    said = [f"{samples} of {config['n']} samples"] if samples else []
    if (place := folder / "checkpoint.safetensors").exists():
        notes = json.loads(read_arrays(place)[1]["notes"])
        if notes["done"] == groups:
            said.append(
                f"{notes['step']} of {len(config['levels']) - 1} steps "
                f"of the {'next' if said else 'first'} batch"
            )
    return (
        f"{' and '.join(said)} are kept in {folder}" if said else f"nothing is kept in {folder} yet"
    )
