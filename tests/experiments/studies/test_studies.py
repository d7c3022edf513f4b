"""Studies: each --quick run through the command line, and what the runner promises, on a tiny study
of its own."""

from __future__ import annotations

import csv
import html
import json
import re
import sys
from dataclasses import replace
from functools import partial

import pytest
from cases import brief
from matplotlib.figure import Figure
from PIL import Image
from reference import REPOSITORY

from posteriori.cli import main
from posteriori.experiments.studies import (
    STUDIES,
    Study,
    coverage_problems,
    explicit_accuracy,
    jensen_limits,
    multimodal,
    pages,
)
from posteriori.experiments.studies import record as runner
from posteriori.run import locked

PAGES = REPOSITORY / "docs" / "studies"
NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["posteriori", "study", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def counted(study):
    """The study, and the list of cells that it was asked to measure."""
    asked = []

    def measure(cell):
        asked.append(cell)
        return study.measure(cell)

    return replace(study, measure=measure), asked


def plain(page):
    """What a reader of the page sees."""
    return html.unescape(
        re.sub(r"<[^>]+>", "", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    )


def check_files(study, folder):
    """Everything that a finished run must have written; returns its rows as CSV text."""
    for suffix in runner.STUDY_FILES:
        assert (folder / f"{study.name}.{suffix}").exists(), suffix
    record = runner.read_record(folder / f"{study.name}.json")
    assert record["columns"] == study.columns
    with (folder / f"{study.name}.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == list(study.columns)
    assert len(lines) - 1 == len(pages.rows_of(record)) > 0
    section, page = ((folder / f"{study.name}.{suffix}").read_text() for suffix in ("md", "html"))
    for column in study.shows:
        assert column in lines[0]
        assert f"`{column}`" in section
    seen = plain(page)
    findings = study.findings(pages.rows_of(record))
    for text in findings:
        assert re.search(NUMBER, text), f"a finding without a number: {text}"
        for number in re.findall(NUMBER, text):
            assert number in section
            assert number in seen
        assert text in section
        assert text.replace("`", "") in seen
    for text in (
        study.question,
        record["command"],
        *study.limits,
        *study.columns.values(),
        *study.setting.split("\n\n"),
        study.caption,
    ):
        assert text.strip().replace("`", "") in seen, f"the page does not say {text!r}"
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    width, height = Image.open(folder / f"{study.name}.png").size
    assert width >= 600
    assert height >= 300
    return lines


def quickly(tmp_path, monkeypatch, capsys, study):
    """A quick run by the command, and what a second one and a full one make of it."""
    name = study.name
    study, asked = counted(study)
    monkeypatch.setitem(STUDIES, name, study)
    assert call(monkeypatch, name, "--quick", "--out", tmp_path, "--quiet") == 0
    assert len(asked) == len(study.plan(True)) <= len(study.plan(False))
    check_files(study, tmp_path)
    said = capsys.readouterr().out
    assert study.question in said
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    asked.clear()
    assert call(monkeypatch, name, "--quick", "--out", tmp_path, "--quiet") == 0
    assert asked == []
    assert capsys.readouterr().out == said
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert call(monkeypatch, name, "--out", tmp_path, "--quiet") == 2
    assert "holds a quick run" in capsys.readouterr().err
    assert asked == []


# The command's promises are kept for every study by one that takes no time, and what each study
# measures is seen below.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_a_quick_run_answers_its_question_and_is_taken_up_again(
    tmp_path, monkeypatch, capsys, name
):
    quickly(tmp_path, monkeypatch, capsys, STUDIES[name])


def of_each_kind(plan):
    """Cells in which every word of a plan occurs (bed, problem, method), in two steps and on two
    problems where they have a number."""
    few = {"steps": 2, "problems": 2}
    seen, cells = set(), []
    for cell in sorted(plan, key=lambda cell: cell.get("steps") or 0):
        words = {(key, value) for key, value in cell.items() if isinstance(value, str)} - seen
        if words:
            cells.append(
                {
                    key: min(value, few[key]) if value and key in few else value
                    for key, value in cell.items()
                }
            )
            seen |= words
    return cells


@pytest.fixture
def small(monkeypatch):
    """Studies on few numbers: samples, draws of the reference, directions, noise levels of a truth,
    updates of a fit. What is kept of problems is forgotten before and after."""
    sizes = {
        explicit_accuracy: {"DRAWS": 4},
        multimodal: {"N": 32, "REFERENCE": 100, "FEW": 3},
        jensen_limits: {"N": 20, "PHASE_N": 20, "REFERENCE": 100, "SLICES": 10},
        coverage_problems: {"TRUTH_STEPS": 3},
    }
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    once = partial(jensen_limits.by_importance, proposals=1)
    monkeypatch.setattr(jensen_limits, "by_importance", once)
    build = multimodal._build
    monkeypatch.setattr(multimodal, "_build", lambda *cell: (m := build(*cell)) and brief(m))
    mixture = coverage_problems.SETUPS["mixture"]
    fit, *numbers = mixture["ScorePriorVI"]
    monkeypatch.setitem(mixture, "ScorePriorVI", (brief(fit), *numbers))
    kept = coverage_problems.drawn_problem, jensen_limits.truth
    for problems in kept:
        problems.cache_clear()
    yield
    for problems in kept:
        problems.cache_clear()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", sorted(STUDIES))
def test_every_method_and_bed_of_a_study_is_measured_and_its_kept_rows_are_drawn(
    tmp_path, monkeypatch, name
):
    """Each kind of cell, as short as it can be, through the runner, which checks its rows; figure
    and findings are of the kept rows."""
    study, rows = STUDIES[name], pages.rows_of(runner.read_record(PAGES / f"{name}.json"))
    cells = of_each_kind(study.plan(True))
    kept = {"draw": lambda _: study.draw(rows), "findings": lambda _: study.findings(rows)}
    short = replace(study, plan=lambda quick: cells, **kept)
    runner.run_study(short, tmp_path, quick=True, machine="python: 3.11\ngpu: none")
    record = check_files(short, tmp_path)
    assert len(record) - 1 >= len(cells)
    outcomes = {
        row["outcome"] for row in pages.rows_of(runner.read_record(tmp_path / f"{name}.json"))
    }
    assert "finished" in outcomes


@pytest.mark.parametrize("name", sorted(STUDIES))
def test_full_and_quick_plans_have_the_declared_columns(name):
    for quick in (True, False):
        assert all(set(cell) <= set(STUDIES[name].columns) for cell in STUDIES[name].plan(quick))


@pytest.mark.parametrize("file", sorted(PAGES.glob("*.json")), ids=lambda file: file.stem)
def test_a_kept_page_is_what_the_kept_numbers_say(file):
    record = runner.read_record(file)
    study = STUDIES[record["study"]]
    again = "the kept run is not the study's: run the command again in that folder"
    assert file.stem == study.name
    assert not record["quick"]
    assert record["columns"] == study.columns, again
    assert [entry["cell"] for entry in record["cells"]] == study.plan(False), again
    assert file.with_suffix(".md").read_text() == pages.study_section(study, record), again
    assert file.with_suffix(".csv").read_text() == pages.data(study, record), again
    check_files(study, file.parent)


# The runner's own promises, on a study that takes no time.

COLUMNS = {"x": "a number | of its own", "y": "its square, in units", "note": "what happened"}


def measure(cell):
    return [{"x": cell["x"], "y": float(cell["x"]) ** 2, "note": "ok" if cell["x"] else None}]


def draw(rows):
    figure = Figure(figsize=(6, 4))
    figure.subplots().plot([row["x"] for row in rows], [row["y"] for row in rows])
    return figure


def findings(rows):
    top = max(row["y"] for row in rows)
    return (
        f"The largest square is {top:.2f} < 100 & true.",
        f"There are {len(rows)} rows.",
        f"`y` starts at {rows[0]['y']:g}.",
    )


FAKE = Study(
    name="fake-study",
    question="Do squares grow?",
    setting="Squares of whole numbers.\n\nAll are exact.",
    columns=COLUMNS,
    plan=lambda quick: [{"x": k} for k in range(2 if quick else 4)],
    measure=measure,
    draw=draw,
    shows=("x", "y"),
    caption="Squares (up) against numbers (right).",
    findings=findings,
    limits=("It says nothing about cubes.",),
)


def test_a_quick_run_by_the_command_is_taken_up_again(tmp_path, monkeypatch, capsys):
    quickly(tmp_path, monkeypatch, capsys, FAKE)


def run(study, folder, quick=False):
    return runner.run_study(study, folder, quick=quick, machine="python: 3.11\ngpu: none")


def test_a_run_writes_everything_and_says_where_it_was_made(tmp_path):
    found = run(FAKE, tmp_path)
    assert found == findings([measure({"x": k})[0] for k in range(4)])
    lines = check_files(FAKE, tmp_path)
    assert lines[1:] == [
        ["0", "0.0", ""],
        ["1", "1.0", "ok"],
        ["2", "4.0", "ok"],
        ["3", "9.0", "ok"],
    ]
    section = (tmp_path / "fake-study.md").read_text()
    for text in (
        "posteriori study fake-study\n",
        "gpu: none",
        "a number \\| of its own",
        "It says nothing about cubes.",
        "4 cells, 4 rows",
    ):
        assert text in section
    assert (tmp_path / "fake-study.html").read_text().count("<tr>") == 1 + len(COLUMNS)


def test_the_section_is_made_from_the_stored_file_alone(tmp_path):
    run(FAKE, tmp_path)
    record = runner.read_record(tmp_path / "fake-study.json")
    assert pages.study_section(FAKE, record) == (tmp_path / "fake-study.md").read_text()
    record["cells"][3]["rows"][0]["y"] = 10.0
    assert pages.study_section(FAKE, record) != (tmp_path / "fake-study.md").read_text()


def test_an_interrupted_run_loses_the_cell_in_progress_alone(tmp_path):
    run(FAKE, tmp_path / "whole")

    def stop(cell):
        if cell["x"] == 2:
            raise KeyboardInterrupt
        return measure(cell)

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(replace(FAKE, measure=stop), tmp_path / "cut")
    assert "2 of 4 cells are kept in" in stopped.value.__notes__[0]
    assert not (tmp_path / "cut" / "fake-study.md").exists()
    assert len(runner.read_record(tmp_path / "cut" / "fake-study.json")["cells"]) == 2
    study, asked = counted(FAKE)
    run(study, tmp_path / "cut")
    assert asked == [{"x": 2}, {"x": 3}]
    for suffix in ("csv", "png"):
        assert (tmp_path / "cut" / f"fake-study.{suffix}").read_bytes() == (
            tmp_path / "whole" / f"fake-study.{suffix}"
        ).read_bytes()


def test_a_second_machine_is_named_beside_the_first(tmp_path):
    short = replace(FAKE, plan=lambda quick: [{"x": 0}])
    run(short, tmp_path)
    runner.run_study(FAKE, tmp_path, quick=False, machine="python: 3.12\ngpu: one")
    section = (tmp_path / "fake-study.md").read_text()
    assert "python: 3.11" in section
    assert "python: 3.12" in section
    runner.run_study(FAKE, tmp_path, quick=False, machine="python: 3.13\ngpu: two")
    assert (tmp_path / "fake-study.md").read_text() == section, (
        "a machine that measured nothing is named"
    )


def test_cells_out_of_the_plan_are_dropped_and_it_is_said(tmp_path):
    run(FAKE, tmp_path)
    study, asked = counted(replace(FAKE, plan=lambda quick: [{"x": 3}, {"x": 7}]))
    with pytest.warns(
        UserWarning,
        match="3 cells are not in the plan of fake-study any more "
        r'and are dropped, such as \{"x": 0\}',
    ):
        run(study, tmp_path)
    assert asked == [{"x": 7}]
    assert [
        row["x"] for row in pages.rows_of(runner.read_record(tmp_path / "fake-study.json"))
    ] == [3, 7]


def test_rows_of_other_columns_are_measured_again(tmp_path):
    run(FAKE, tmp_path)
    more = {**COLUMNS, "z": "nothing"}
    study, asked = counted(
        replace(FAKE, columns=more, measure=lambda cell: [{**measure(cell)[0], "z": None}])
    )
    with pytest.warns(
        UserWarning, match="4 cells are measured again because their rows are not as declared.*'z'"
    ):
        run(study, tmp_path)
    assert len(asked) == 4


@pytest.mark.parametrize("first", [True, False])
def test_quick_and_full_rows_never_mix(tmp_path, first):
    run(FAKE, tmp_path, first)
    before = (tmp_path / "fake-study.json").read_text()
    then, now = ("quick", "full") if first else ("full", "quick")
    with pytest.raises(
        ValueError,
        match=f"fake-study.json holds a {then} run of fake-study, this is a {now} run.*--out",
    ):
        run(FAKE, tmp_path, not first)
    assert (tmp_path / "fake-study.json").read_text() == before
    assert ("This is the quick run" in (tmp_path / "fake-study.md").read_text()) == first


def test_a_folder_that_is_in_use_or_holds_something_else_is_refused(tmp_path):
    with locked(tmp_path, ".fake-study.lock"), pytest.raises(RuntimeError, match="another process"):
        run(FAKE, tmp_path)
    for text, message in (("[]", "is not the data of a study"), ("{", "is not JSON")):
        (tmp_path / "fake-study.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            run(FAKE, tmp_path)
        assert (tmp_path / "fake-study.json").read_text() == text
    run(replace(FAKE, name="other"), tmp_path / "other")
    (tmp_path / "fake-study.json").write_text((tmp_path / "other" / "other.json").read_text())
    with pytest.raises(ValueError, match="holds the study 'other', not 'fake-study'"):
        run(FAKE, tmp_path)


def row(**change):
    return lambda cell: [{**measure(cell)[0], **change}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Fake Study"}, "small letters"),
        ({"question": "Squares grow."}, "question mark"),
        ({"limits": ()}, "limits must say something"),
        ({"columns": {**COLUMNS, "note": " "}}, r"columns\['note'\] must say something"),
        ({"shows": ("x", "z")}, "'z', which is none of the columns"),
        ({"plan": lambda quick: []}, "plans no cell"),
        ({"plan": lambda quick: [{"x": 1}, {"x": 1}]}, "twice"),
        ({"plan": lambda quick: [{"q": 1}]}, "'q', which is none of the columns"),
        ({"plan": lambda quick: [{"x": {1}}]}, "a cell is a dict"),
        ({"measure": lambda cell: []}, "no row"),
        ({"measure": row(z=1)}, r"with \['z'\] beyond"),
        ({"measure": lambda cell: [{"x": cell["x"], "y": 1.0}]}, r"without \['note'\]"),
        ({"measure": row(y=float("nan"))}, "y is nan"),
        ({"measure": row(y=float("inf"))}, "y is inf"),
        ({"measure": row(note=["ok"])}, "a list; a value is"),
        ({"measure": row(x=5)}, "x is 5 in a row of the cell in which it is 0"),
        ({"findings": lambda rows: ("one 1.", "two 2.")}, "three findings"),
        ({"findings": lambda rows: ("one 1.", "two 2.", " ")}, "three findings"),
        (
            {"findings": lambda rows: ("one 1.", "two 2.", f"three {float('nan'):.2f} dB")},
            "a number that is not there",
        ),
    ],
)
def test_a_study_that_breaks_its_contract_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(replace(FAKE, **change), tmp_path)


def test_the_command_lists_the_studies_and_refuses_other_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(STUDIES, "fake-study", FAKE)
    assert call(monkeypatch, "--list") == 0
    assert "fake-study: Do squares grow?\n" in capsys.readouterr().out
    wrong = "unknown study 'fake'; did you mean 'fake-study'? Known: "
    for words, message in ((["fake"], wrong), ([], "give the name of a study; known: ")):
        assert call(monkeypatch, *words) == 2
        said = capsys.readouterr().err
        assert message in said
        assert "fake-study" in said
    assert list(tmp_path.iterdir()) == []
    assert call(monkeypatch, "fake-study", "--quiet") == 0
    said = capsys.readouterr().out
    assert "The largest square is 9.00 < 100 & true." in said
    assert json.loads((tmp_path / "studies" / "fake-study.json").read_text())["quick"] is False
