"""Pages that are generated agree with what they are generated from."""

from __future__ import annotations

import json
from pathlib import Path

from posteriori.cli.listing import markdown, records

DOCS = Path(__file__).parent.parent / "docs"


def scores():
    return json.loads((DOCS / "results" / "exact.json").read_text())


def test_the_method_table_is_what_the_methods_and_the_scoreboard_say():
    assert (DOCS / "methods.md").read_text() == markdown(scores()), "run `make docs`"


def test_the_table_names_every_method_and_would_notice_a_change():
    rows = scores()
    table = markdown(rows)
    for record in records():
        assert f"**{record['name']}**" in table
    moved = [{**row, "value": 2 * row["value"]} for row in rows if row["value"] is not None]
    assert markdown(moved) != table
