"""What the site tells from the code and from measured results."""

from __future__ import annotations

import guide_tables
import pytest
import reproduction
import tables
import yaml

from posteriori.experiments.boards import BOARDS
from posteriori.experiments.scoreboard import REFERENCES, board_methods
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
        == ("gmm25", "8,1", "original", 100, "DDRM")
    ]
    part = reproduction.reproduction().split("## GMM-25, original levels, 100 steps")[1]
    line = next(line for line in part.splitlines() if line.startswith("| DDRM |"))
    assert f"3.43 ± 0.8; **{sum(mine) / len(mine):.3g} ± " in line


@pytest.mark.parametrize("told", reproduction.experiments(), ids=lambda told: told["title"])
def test_every_published_figure_says_where_it_was_read_and_is_of_a_row_of_ours(told):
    assert told["read"]
    assert told["differs"]
    assert told["at"]["bed"] in BOARDS
    if "beside" in told:
        assert all(set(figures) == set(told["scores"]) for figures in told["beside"].values())
        return
    known = {*REFERENCES, *board_methods()}
    assert set(told["paper"]) == set(told["why"])
    assert set(told["paper"]) <= known
    found = {entry.method for entry in reproduction.entries(told, reproduction.board_rows())}
    assert found == set(told["paper"])


def entry(compare, paper, ours, exact=(1.0, 1.0), half=0.1, beyond=None):
    """A figure of a paper without spread, and ours with one."""
    figures = (reproduction.Figure(paper), reproduction.Figure(exact[0]))
    mine = (reproduction.Figure(ours, half, 5), reproduction.Figure(exact[1]))
    made = reproduction.Entry("m", "c", "s", *figures, *mine, beyond)
    return reproduction.reading(made, {"scores": {"s": {"compare": compare}}})


def test_a_reading_allows_for_both_intervals_and_knows_what_is_wrong_on_both_sides():
    assert entry("value", 2.0, 2.2) == "same"  # 0.2 apart, 0.1 and a tenth of 2 uncertain
    assert entry("value", 2.0, 2.3) == "worse"
    assert entry("value", 2.0, 1.7) == "better"
    # RMSE of exact samples to one truth is not 0: less is as wrong as more, and 1 there is 3 here.
    assert entry("exact", 0.7, 3.0, exact=(1.0, 3.0)) == "better"
    assert entry("exact", 1.1, 2.5, exact=(1.0, 3.0)) == "worse"
    assert entry("exact", 1.1, 3.1, exact=(1.0, 3.0)) == "same"
    # The discrepancies themselves are of other numbers of samples: what is beyond is compared.
    over = reproduction.Figure(0.3), reproduction.Figure(0.31, 0.01, 5)
    assert entry("over", 0.5, 9.0, beyond=over) == "same"


def test_what_a_discrepancy_has_over_exact_samples_does_not_depend_on_their_number():
    """KSD^2 of N samples of a law q is that of q and E[u(x, x)] / N, for the posterior itself the
    latter alone where the trace is the same."""
    of_law, trace = 0.2, 40.0
    for n in (100, 500):
        exact, ours = (trace / n) ** 0.5, (of_law**2 + trace / n) ** 0.5
        assert reproduction.over(ours, exact) == pytest.approx(of_law)
    assert reproduction.over(0.1, 0.2) == 0
