"""What is asked of a study, and of what it hands over, while it runs: a row that breaks its promise
is found when it is measured."""

from __future__ import annotations

import json
import math
import re

from posteriori.experiments import Cell, Row
from posteriori.experiments.studies.base import Study


def key(cell: Cell) -> str:
    """What recognises a cell in a stored file. Raises ``ValueError`` for a cell that is not made of
    JSON values."""
    try:
        return json.dumps(cell, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"a cell is a dict of finite numbers, strings and None, got {cell!r}: {error}"
        ) from None


def check_study(study: Study) -> None:
    """Raise ``ValueError`` naming the field of a study that is empty, unknown or malformed."""
    where = f"study {study.name!r}"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", study.name):
        raise ValueError(f"{where}: a name is made of small letters, digits and single hyphens")
    if not study.question.strip().endswith("?"):
        raise ValueError(f"{where}: the question ends with a question mark, got {study.question!r}")
    empty = [
        name
        for name in ("setting", "caption", "columns", "shows", "limits")
        if not getattr(study, name)
    ]
    empty += [
        f"columns[{name!r}]" for name, meaning in study.columns.items() if not meaning.strip()
    ]
    if empty:
        raise ValueError(f"{where}: {', '.join(empty)} must say something")
    unknown = [name for name in study.shows if name not in study.columns]
    if unknown:
        raise ValueError(
            f"{where}: the figure shows {unknown[0]!r}, "
            f"which is none of the columns {', '.join(study.columns)}"
        )


def check_plan(study: Study, quick: bool) -> list[Cell]:
    """The cells of a study. Raises ``ValueError`` for no cell, a cell twice, or a cell with a key
    that is no column."""
    plan = study.plan(quick)
    if not plan:
        raise ValueError(f"study {study.name!r} plans no cell")
    seen: set[str] = set()
    for cell in plan:
        foreign = [name for name in cell if name not in study.columns]
        if foreign:
            raise ValueError(
                f"study {study.name!r}: the cell {cell} has {foreign[0]!r}, "
                "which is none of the columns"
            )
        if key(cell) in seen:
            raise ValueError(f"study {study.name!r} plans the cell {cell} twice")
        seen.add(key(cell))
    return plan


def flaw(study: Study, cell: Cell, rows: list[Row]) -> str | None:
    """What is wrong with the rows of a cell, None when nothing is.

    They have exactly the declared columns, hold numbers, strings and None, and repeat the values of
    their cell.
    """
    if not rows:
        return "no row: what cannot be measured is a row that says so"
    for row in rows:
        missing, more = study.columns.keys() - row.keys(), row.keys() - study.columns.keys()
        if missing or more:
            return (
                f"a row without {sorted(missing)} "
                f"and with {sorted(more)} beyond the declared columns"
            )
        for name, value in row.items():
            if not (value is None or type(value) in (str, int, float, bool)):
                return (
                    f"{name} is {value!r}, a {type(value).__name__}; "
                    "a value is a Python number, a string or None"
                )
            if isinstance(value, float) and not math.isfinite(value):
                return f"{name} is {value}; write None, and in another column why"
        other = [name for name, value in cell.items() if row[name] != value]
        if other:
            return (
                f"{other[0]} is {row[other[0]]!r} in a row of the cell "
                f"in which it is {cell[other[0]]!r}"
            )
    return None


def check_findings(study: Study, rows: list[Row]) -> tuple[str, ...]:
    """The findings. Raises ``ValueError`` unless they are three sentences without a number that is
    not finite."""
    found = tuple(study.findings(rows))
    if len(found) != 3 or not all(isinstance(text, str) and text.strip() for text in found):
        raise ValueError(f"study {study.name!r} has three findings, each a sentence, got {found!r}")
    lost = [text for text in found if re.search(r"(?<![\w.])-?(nan|inf|None)\b", text)]
    if lost:
        raise ValueError(
            f"study {study.name!r}: a finding quotes a number that is not there: {lost[0]!r}"
        )
    return found
