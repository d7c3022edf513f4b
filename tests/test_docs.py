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


def test_the_table_names_the_schedule_and_shows_means_beside_medians():
    """SITCOM's median hides the problems that it gets wrong; methods of particles were measured on the extended schedule alone."""
    table = markdown(scores()).splitlines()
    lines = {line.split("**")[1]: line.split(" | ") for line in table if line.startswith("| **")}
    head = next(line for line in table if line.startswith("| method")).split(" | ")
    original, extended = (head.index(f"SW1 gmm25 8,2, {schedule}, 20 steps") for schedule in ("original", "extended"))
    mine = [r["value"] for r in scores() if (r["method"], r["cell"], r["schedule"], r["steps"]) == ("SITCOM", "8,2", "original", 20)]
    ordered = sorted(mine)
    assert len(mine) == 20
    assert lines["SITCOM"][original] == f"{(ordered[9] + ordered[10]) / 2:.2g} ({sum(mine) / 20:.2g})"
    for name in ("AFDPS", "TDS", "FPS", "MCGDiff", "MomentSMC"):
        assert lines[name][original] == "-"
        assert lines[name][extended] != "-"
    lost = [{"bed": "gmm25", "cell": "8,2", "schedule": "original", "steps": 20, "method": "DPS", "value": v} for v in (1.0, None, 3.0)]
    assert "| 2 (2), 1 of 3 lost |" in markdown(lost)
