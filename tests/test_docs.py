"""Pages that are generated agree with what they are generated from."""

from __future__ import annotations

import json
import re

import pytest
from reference import REPOSITORY

from posteriori.cli.listing import method_table, records
from posteriori.cli.problem_file import key_reference as problem_file
from posteriori.cli.problem_file import named
from posteriori.problem_file import keys

DOCS = REPOSITORY / "docs"


def scores():
    return json.loads((DOCS / "results" / "exact.json").read_text())


def test_the_method_table_is_what_the_methods_and_the_scoreboard_say():
    assert (DOCS / "methods.md").read_text() == method_table(scores()), "run `make docs`"


def test_the_table_names_every_method_and_would_notice_a_change():
    rows = scores()
    table = method_table(rows)
    for record in records():
        assert f"**{record['name']}**" in table
    moved = [{**row, "value": 2 * row["value"]} for row in rows if row["value"] is not None]
    assert method_table(moved) != table


def test_the_table_names_the_schedule_and_shows_means_beside_medians():
    """SITCOM's median hides the problems that it gets wrong; methods of particles were measured on
    the extended schedule alone."""
    table = method_table(scores()).splitlines()
    lines = {line.split("**")[1]: line.split(" | ") for line in table if line.startswith("| **")}
    head = next(line for line in table if line.startswith("| method")).split(" | ")
    original, extended = (
        head.index(f"SW1 gmm25 8,2, {schedule}, 20 steps") for schedule in ("original", "extended")
    )
    mine = [
        r["value"]
        for r in scores()
        if (r["method"], r["cell"], r["schedule"], r["steps"]) == ("SITCOM", "8,2", "original", 20)
    ]
    ordered = sorted(mine)
    assert len(mine) == 20
    assert (
        lines["SITCOM"][original] == f"{(ordered[9] + ordered[10]) / 2:.2g} ({sum(mine) / 20:.2g})"
    )
    for name in ("AFDPS", "TDS", "FPS", "MCGDiff", "MomentSMC"):
        assert lines[name][original] == "-"
        assert lines[name][extended] != "-"
    particles = [record["name"] for record in records() if record["family"] == "smc"]
    assert len(particles) == 8
    for name in particles:
        assert re.fullmatch(r"[\d.]+ \([\d.]+\)", lines[name][extended]), f"{name} shows no score"
    about = ("DDSMC 8 clouds", "general", 100)
    (clouds,) = [r["value"] for r in scores() if (r["method"], r["cell"], r["steps"]) == about]
    karras = head.index("KL gaussian general, karras, 100 steps")
    assert lines["DDSMC"][karras] == f"8 clouds: {clouds:.2g}"
    assert lines["SMCDiff"][karras] == "8 clouds: no spread along some direction"
    lost = [
        {
            "bed": "gmm25",
            "cell": "8,2",
            "schedule": "original",
            "steps": 20,
            "method": "DPS",
            "value": v,
        }
        for v in (1.0, None, 3.0)
    ]
    assert "| 2 (2), 1 of 3 lost |" in method_table(lost)


def test_the_reference_of_the_problem_file_is_current():
    assert (DOCS / "problem-file.md").read_text() == problem_file(), "run `make docs`"


def test_every_key_of_a_problem_file_has_a_meaning_and_every_meaning_a_key():
    told = {part.name: {key.name: key.meaning for key in part.keys} for part in keys.parts()}
    for name, rows in told.items():
        assert all(rows.values()), (
            "say in posteriori.problem_file.keys what these mean: "
            f"{name} {[k for k, text in rows.items() if not text]}"
        )
    stale = {
        name: set(rows) - {"shipped"} - set(told.get(name, {}))
        for name, rows in keys.MEANING.items()
    }
    assert not any(stale.values()), f"no key any more: {stale}"


def test_types_defaults_and_allowed_values_are_those_of_the_models():
    told = {
        part.name: {key.name: key[1:3] for key in part.keys}
        for part in [*keys.parts(), *keys.method_sections()]
    }
    assert told["noise gaussian"] == {
        "sigma": ("number >= 0 or `estimate`", "required"),
        "trust": ("whole number >= 1", "-"),
        "range": ("[number, number]", "required"),
    }
    assert told["operator jpeg"]["quality"] == ("whole number >= 1 and <= 100", "required")
    assert told["operator mask"]["where"] == ("`centre` or [whole number, whole number]", "centre")
    assert told["operator masked-fourier"]["centred"] == ("`true` or `false`", "true")
    shipped = "`photos` or `photos_noise_maps` or `digits` or `digits_noise_maps` or `chest-ct`"
    assert told["prior"]["name"] == (f"{shipped} or `brain-mri` or `text-digits`", "-")
    assert told["measurement"]["file"] == ("path", "-")
    assert told["method DPS"]["scale"] == ("number >= 0", "1")
    assert len([name for name in told if name.startswith("method ")]) == len(records())


def test_one_part_is_printed_by_its_name_and_a_wrong_name_meets_the_nearest():
    assert named("blur").startswith("## operator blur")
    assert "## noise poisson" in named("noise")
    assert named("steps").startswith("## The file")
    assert "iterations" in named("MMPS")
    with pytest.raises(ValueError, match="did you mean 'blur'"):
        named("blurr")
