"""What the site tells from the code and from measured results."""

from __future__ import annotations

import guide_tables
import pytest
import tables
import yaml

from posteriori.methods import ALL, METHODS
from posteriori.problem_file.advice import RECOMMENDED


def rows():
    return [(group, row) for group, rows in guide_tables.coverage().items() for row in rows]


@pytest.mark.parametrize(("group", "row"), rows())
def test_a_method_of_the_survey_is_here_planned_or_left_out_for_a_reason(group, row):
    (status,) = set(row) - {"method"}
    assert status in ("here", "planned", "left-out")
    if status == "here":
        assert all(guide_tables.resolves(name) for name in row["here"]), row
    else:
        assert len(row[status].split()) > 4, f"say why: {row}"


def test_a_name_that_is_not_there_does_not_resolve():
    assert not guide_tables.resolves("methods.DPZ")
    assert not guide_tables.resolves("training clean")
    assert guide_tables.resolves("training ambient")


def test_the_coverage_table_has_every_method_of_the_package():
    table = guide_tables.coverage_table()
    assert not [
        name for name in ALL if f"`{name}`" not in table and f"`methods.{name}`" not in table
    ]


def test_every_kind_of_problem_has_its_reason_and_a_measurement():
    lines = guide_tables.by_kind().splitlines()[2:]
    assert len(lines) == len(RECOMMENDED)
    for line in lines:
        assert line.split(" | ")[2].strip(), f"docs/results/advice.md gives no reason: {line}"
    for line in guide_tables.by_wish().splitlines()[2:]:
        assert "](../" in line.split(" | ")[-1], f"no measurement is linked: {line}"


def test_prices_are_averages_of_the_measured_rows():
    mine = [row for row in guide_tables.result("images.json") if row["method"] == "DDRM"]
    assert len(mine) == 8
    told = guide_tables.photographs()["DDRM"]
    assert told["psnr"] == pytest.approx(sum(row["psnr"] for row in mine) / 8)
    table = guide_tables.by_price()
    assert f"| `DDRM` | {told['denoiser']:.0f} | 0 | {told['psnr']:.1f} |" in table
    lost = {row["method"] for row in guide_tables.result("images.json") if row["psnr"] is None}
    assert lost
    assert not lost & set(guide_tables.photographs())


def test_each_method_is_on_the_page_of_its_family_with_its_paper():
    for family in {method.family for method in METHODS}:
        page = tables.family(family)
        for method in (m for m in METHODS if m.family == family):
            assert f"## {method.__name__}\n" in page
            assert f"posteriori.methods.{method.__name__}\n" in page
    assert "Chung et al., *Diffusion posterior sampling" in tables.family("explicit")


def test_every_finding_is_on_its_page_with_a_title():
    page = tables.findings()
    scripts = sorted((tables.REPOSITORY / "findings").glob("*.sh"))
    assert len(scripts) > 10
    for script in scripts:
        title, text = tables.head(script)
        assert f"## {title}" in page
        assert "Seen with" in text


def test_every_published_error_names_a_test_that_is_there():
    told = yaml.safe_load((tables.DOCS / "site" / "published_errors.yaml").read_text())
    assert len(told) >= 15
    for row in told:
        file, name = row["test"].split("::")
        text = (tables.REPOSITORY / file).read_text()
        assert f"def {name}(" in text, row
    shown = "".join(
        guide_tables.errors(family) for family in {ALL[row["method"]].family for row in told}
    )
    assert all(row["what"] in shown for row in told)


def test_ours_in_the_reproduction_table_are_the_scoreboards_rows():
    mine = [
        row["value"]
        for row in guide_tables.result("exact.json")
        if (row["bed"], row["cell"], row["schedule"], row["steps"], row["method"])
        == ("gmm25", "8,1", "original", 100, "DPS")
    ]
    line = next(
        line
        for line in guide_tables.reproduction().splitlines()
        if "8,1" in line and "| DPS |" in line
    )
    assert f"| {sum(mine) / len(mine):.3g} +- " in line
