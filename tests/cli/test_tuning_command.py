"""``posteriori tune``: the problem file that it writes, and what it says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from console import call, problem

from posteriori import problem_file
from posteriori.tuning import halving
from posteriori.tuning.scores import score_block

WORDS = ("--calls", 3000, "--methods", "DPS,DiffPIR", "--samples", 3, "--quiet")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = np.random.default_rng(0).normal(0.5, 0.2, (1, 16, 16)).astype(np.float32)
    np.save(tmp_path / "y.npy", y)
    made = problem(tmp_path, "{file: y.npy}", "batch: 7\n", operator="identity")
    made.write_text("# my own words\n" + made.read_text())
    return made


def test_the_chosen_method_is_in_a_new_file_with_all_other_keys(file, monkeypatch, capsys):
    assert call(monkeypatch, "tune", file, *WORDS, "--out", "search") == 0
    told = capsys.readouterr().out
    tuned = file.with_name("problem.tuned.yaml")
    assert f"problem: {tuned.name}" in told or f"problem: {tuned}" in told
    before, after = (yaml.safe_load(place.read_text()) for place in (file, tuned))
    ours = ("method", "steps")
    assert {k: v for k, v in after.items() if k not in ours} == {
        k: v for k, v in before.items() if k not in ours
    }
    record = json.loads((file.parent / "search/outcome.json").read_text())
    entry = record["choice"]["entry"]
    named = after["method"] if isinstance(after["method"], str) else after["method"]["name"]
    assert (named, after.get("steps")) == (entry["name"], entry.get("steps"))
    assert type(problem_file.load(tuned).method).__name__ == entry["name"]
    words = tuned.read_text()
    assert words.startswith("# The problem of problem.yaml, its method chosen by")
    assert "energy score on truths drawn from the prior, seed 0, 3 samples each" in words
    assert "# chosen:" in words
    table = (file.parent / "search/tuning.md").read_text()
    assert "| front |" in table
    assert "not tried" in table
    assert (file.parent / "search/front.png").read_bytes()[:4] == b"\x89PNG"
    # The file with the choice is a problem like any other.
    assert call(monkeypatch, "solve", tuned, "--out", "run", "--quiet") == 0


def test_without_matplotlib_the_table_is_there_and_says_what_draws_it(file, monkeypatch, capsys):
    monkeypatch.setattr("posteriori.tuning.written.find_spec", lambda name: None)
    assert call(monkeypatch, "tune", file, *WORDS) == 0
    assert "posteriori[experiments]" in capsys.readouterr().out
    assert not (file.parent / "tuning/front.png").exists()


def test_json_is_all_that_is_printed(file, monkeypatch, capsys):
    assert call(monkeypatch, "tune", file, *WORDS, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["choice"]["label"] == record["candidates"][0]["label"]
    assert record["metric"] == "energy"
    assert record["not_tried"]


def test_an_interrupted_search_says_what_is_kept_and_goes_on(file, monkeypatch, capsys):
    calls = []

    def once(*args, **settings):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return score_block(*args, **settings)

    monkeypatch.setattr(halving, "score_block", once)
    assert call(monkeypatch, "tune", file, *WORDS) == 130
    said = capsys.readouterr().err
    assert "1 scored cells are kept in tuning" in said
    assert "go on by: posteriori tune" in said
    monkeypatch.setattr(halving, "score_block", score_block)
    assert call(monkeypatch, "tune", file, *WORDS) == 0
    assert call(monkeypatch, "tune", file, *WORDS, "--seed", 3) == 2
    assert "another search" in capsys.readouterr().err


def test_where_no_method_could_be_scored_the_exit_code_is_1_and_no_file_is_written(
    file, monkeypatch, capsys
):
    monkeypatch.setattr(halving, "score_block", lambda *a, **k: {"reason": "it diverged"})
    assert call(monkeypatch, "tune", file, *WORDS) == 1
    assert "it diverged" in capsys.readouterr().out
    assert not file.with_name("problem.tuned.yaml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--budget 2m, or --calls"),
        (("--budget", "soon"), "expected a duration such as 90s, 2m or 1.5h"),
        (("--calls", 100, "--methods", "MMPZ"), "unknown method 'MMPZ'"),
        (("--calls", 100, "--samples", 1), "at least 2 samples"),
        (("--calls", 100, "--out", "y.npy"), "is a file"),
        (("--calls", 100, "--out", "."), "holds no search"),
    ],
)
def test_what_does_not_go_together_is_said(file, monkeypatch, capsys, words, told):
    assert call(monkeypatch, "tune", file, "--quiet", *words) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_another_wrote_is_not_overwritten(file, monkeypatch, capsys):
    other = file.with_name("problem.tuned.yaml")
    other.write_text("prior: mine\n")
    assert call(monkeypatch, "tune", file, *WORDS) == 2
    assert "no file that `posteriori tune` wrote" in capsys.readouterr().err
    assert other.read_text() == "prior: mine\n"
