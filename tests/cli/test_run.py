"""Many measurements x methods: every cell the same bits whoever draws it, and a table of their
means."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from console import COMMAND, call
from safetensors.torch import load_file

import posteriori as po
from posteriori import cells as cell_module
from posteriori import problem_file
from posteriori.cells import Cell, cells_of, deaths_of, draw_cell, steps_within
from posteriori.driver import Job
from posteriori.evaluation.ensembles import crps
from posteriori.problem_file.study import load_study
from posteriori.report.means import (
    SCORES,
    MeanInterval,
    MethodCells,
    means_latex,
    means_markdown,
)

STUDY = """
prior: {prior}
operator: {{name: mask, keep: 0.5, seed: 0}}
noise: {{law: gaussian, sigma: 0.1, range: [0, 1]}}
measurements: {measurements}
methods: {methods}
n: 3
{more}
"""
GAUSSIAN = "{gaussian: {mean: 0.5, std: 0.2, shape: [1, 12, 12], range: [0, 1]}}"


@pytest.fixture
def study(tmp_path):
    (tmp_path / "clean").mkdir()
    for k in range(3):
        image = np.clip(np.random.default_rng(k).normal(0.5, 0.2, (1, 12, 12)), 0, 1)
        np.save(tmp_path / "clean" / f"image{k}.npy", image.astype(np.float32))

    def made(methods="[MMPS, DPS]", more="steps: 4", prior=GAUSSIAN, measurements=None):
        path = tmp_path / "study.yaml"
        measurements = measurements or "{images: clean/*.npy, seed: 1}"
        path.write_text(
            STUDY.format(methods=methods, more=more, prior=prior, measurements=measurements)
        )
        return path

    return made


def samples(out):
    return {
        place.parent.relative_to(out): load_file(place)["samples"]
        for place in sorted(out.glob("cells/*/*/samples.safetensors"))
    }


def rows(out, name="results.csv"):
    with (out / name).open() as handle:
        return list(csv.DictReader(handle))


def cell(measurement, method):
    return Path("cells") / measurement / method


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_study_has_a_run_for_each_cell_and_the_numbers_of_each(
    study, tmp_path, monkeypatch, capsys
):
    """What a cell holds is what ``sample`` draws of its problem by hand."""
    out = tmp_path / "out"
    assert call(monkeypatch, "run", study(), "--out", out, "--quiet") == 0
    assert "| MMPS" in capsys.readouterr().out
    drawn = samples(out)
    assert len(drawn) == 6
    truth = torch.from_numpy(np.load(tmp_path / "clean" / "image1.npy"))
    alone = tmp_path / "alone.yaml"
    alone.write_text(
        f"prior: {GAUSSIAN}\noperator: {{name: mask, keep: 0.5, seed: 0}}\n"
        "noise: {law: gaussian, sigma: 0.1, range: [0, 1]}\n"
        "measurement: {image: clean/image1.npy, seed: 2}\nmethod: DPS\n"
    )
    post = problem_file.load(alone).build().posterior
    run = po.sample(post, po.methods.DPS(), n=3, steps=4, seed=1)
    assert torch.equal(drawn[cell("image1", "DPS")], run.samples)
    (row,) = [r for r in rows(out) if (r["measurement"], r["method"]) == ("image1", "DPS")]
    assert float(row["crps"]) == crps(run.samples, truth)
    assert float(row["network"]) == run.counts["denoiser"] + run.counts["vjp"]
    error = (run.mean - truth).double().square().mean()
    assert math.isclose(float(row["psnr_mean"]), -10 * math.log10(error), rel_tol=1e-5)
    # mean +- t_{0.75, 2} sqrt(1 + 1 / 3) std
    width = 0.8164965809277260 * math.sqrt(4 / 3) * run.std
    assert float(row["inside_50"]) == float(((run.mean - truth).abs() <= width).double().mean())


def test_a_measured_study_with_references_and_a_problem_file_of_its_own(
    study, tmp_path, monkeypatch
):
    """Files and references of one stem are pairs; the paths of a problem file start beside it."""
    inner = tmp_path / "inner"
    inner.mkdir()
    np.save(
        inner / "mask.npy", (np.random.default_rng(0).random((12, 12)) < 0.5).astype(np.float32)
    )
    (inner / "problem.yaml").write_text(
        f"prior: {GAUSSIAN}\noperator: {{name: mask, file: mask.npy}}\nmethod: DPS\nn: 9\n"
        "noise: {law: gaussian, sigma: 0.1, range: [0, 1]}\nmeasurement: {file: absent.npy}\n"
    )
    (tmp_path / "scans").mkdir()
    for k in range(2):
        np.save(tmp_path / "scans" / f"image{k}.npy", np.full((1, 12, 12), 0.4, dtype=np.float32))
    path, out = tmp_path / "study.yaml", tmp_path / "out"
    path.write_text(
        "problem: inner/problem.yaml\nmethods: [DiffPIR]\nn: 2\nsteps: 3\n"
        "measurements: {files: scans/*.npy, references: clean/*.npy}\n"
    )
    assert call(monkeypatch, "run", path, "--out", out, "--quiet") == 0
    found = rows(out)
    assert [(row["measurement"], row["method"]) for row in found] == [
        ("image0", "DiffPIR"),
        ("image1", "DiffPIR"),
    ]
    assert all(float(row["psnr_mean"]) > 0 for row in found)
    path.write_text(path.read_text().replace(", references: clean/*.npy", ""))
    assert call(monkeypatch, "run", path, "--out", tmp_path / "blank", "--quiet") == 0
    assert {row["psnr_mean"] for row in rows(tmp_path / "blank")} == {""}
    assert "PSNR" not in (tmp_path / "blank" / "table.md").read_text().partition("Means")[0]


def test_a_study_that_was_stopped_goes_on_to_the_same_bits_and_repeats_no_call(
    study, tmp_path, monkeypatch, capsys
):
    path = study()
    assert call(monkeypatch, "run", path, "--out", tmp_path / "whole", "--quiet") == 0
    calls, advance = [], Job.advance

    def stopped(self, *batch):
        calls.append(1)
        if len(calls) == 10:  # in the middle of the third cell
            raise KeyboardInterrupt
        advance(self, *batch)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Job, "advance", stopped)
        assert call(patch, "run", path, "--out", out, "--quiet") == 130
    assert "2 complete cells are kept in" in capsys.readouterr().err

    def counted(self, *batch):
        calls.append(1)
        advance(self, *batch)

    calls.clear()
    monkeypatch.setattr(Job, "advance", counted)
    assert call(monkeypatch, "run", path, "--out", out, "--quiet") == 0
    assert len(calls) <= 4 * 4
    assert same(samples(out), samples(tmp_path / "whole"))
    calls.clear()
    assert call(monkeypatch, "run", path, "--out", out, "--quiet") == 0
    assert not calls


def test_another_study_in_the_same_folder_is_refused_and_more_methods_are_not(
    study, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    assert call(monkeypatch, "run", study("[MMPS]"), "--out", out, "--quiet") == 0
    before = samples(out)
    assert call(monkeypatch, "run", study(), "--out", out, "--quiet") == 0
    after = samples(out)
    assert len(after) == 6
    assert same(before, {name: after[name] for name in before})
    capsys.readouterr()
    for change in ({"more": "steps: 5"}, {"measurements": "{images: clean/*.npy, seed: 2}"}):
        assert call(monkeypatch, "run", study(**change), "--out", out, "--quiet") == 2
        assert "holds another study" in capsys.readouterr().err
    np.save(tmp_path / "clean" / "image1.npy", np.full((1, 12, 12), 0.5, dtype=np.float32))
    assert call(monkeypatch, "run", study(), "--out", out, "--quiet") == 2
    assert "measurements.image1.measurement" in capsys.readouterr().err


def test_a_method_that_refuses_has_a_row_with_its_reason_and_the_others_finish(
    study, tmp_path, monkeypatch, capsys
):
    """DDRM knows no Poisson noise."""
    path = study("[DPS, DDRM]")
    path.write_text(path.read_text().replace("law: gaussian, sigma: 0.1", "law: poisson, peak: 90"))
    out = tmp_path / "out"
    assert call(monkeypatch, "run", path, "--out", out, "--quiet") == 1
    table = (out / "table.md").read_text()
    assert re.search(r"\| DDRM +\| 0 of 3", table)
    assert re.search(r"\| DPS +\| 3 of 3", table)
    assert "- DDRM, image0: " in table
    assert "3 of 6 cells failed" in capsys.readouterr().err
    assert [bool(row["reason"]) for row in rows(out)] == [False, True] * 3


def test_equal_calls_choose_the_steps_of_each_method_and_are_kept_to(study, tmp_path, monkeypatch):
    """The most steps whose calls do not exceed the budget: one more would."""
    out, methods = tmp_path / "out", "[DPS, DiffPIR, {name: MMPS, iterations: 2}]"
    assert call(monkeypatch, "run", study(methods, "calls: 13"), "--out", out, "--quiet") == 0
    told = {row["method"]: row for row in rows(out) if row["measurement"] == "image0"}
    budget = json.loads((out / "study.json").read_text())["budget"]
    post = cell_module.cell_task(cells_of(load_study(tmp_path / "study.yaml"), [1] * 3, out)[0])[0]
    assert len(budget) == 3
    for name, (steps, planned) in budget.items():
        assert planned <= 13
        entry = next(e for e in load_study(tmp_path / "study.yaml").entries if e.label == name)
        more = po.sample(post, entry.method, n=1, steps=steps + 1).counts
        assert more["denoiser"] + more["vjp"] > 13, name
        assert int(told[name]["steps"]) == steps
        assert float(told[name]["network"]) == planned
    assert int(told["DiffPIR"]["steps"]) == 13
    assert int(told["DPS"]["steps"]) == 6


def test_a_budget_below_one_step_is_named(study):
    given = load_study(study("[{name: MMPS, iterations: 9}]", "calls: 2"))
    post = cell_module.cell_task(cells_of(given, [1], Path("out"))[0]).posterior
    settings = {"n": 3, "seed": 0, "batch": None, "grid": None}
    with pytest.raises(ValueError, match="MMPS.* in one step, more than calls: 1"):
        steps_within(post, given.entries[0], 1, settings=settings, steps=None)


def test_bad_studies_are_refused_by_name_before_anything_is_run(
    study, tmp_path, monkeypatch, capsys
):
    for change, sentence in (
        ({"more": "stepz: 4"}, "unknown setting 'stepz'; did you mean 'steps'"),
        ({"more": "measurement: y.npy"}, "unknown setting 'measurement'; a study has measurements"),
        ({"more": "steps: 4\ncalls: 9"}, "give either steps or calls"),
        ({"more": "calls: 1"}, "calls: "),
        ({"more": "slurm: {cpus: 4}"}, "slurm: unknown setting 'cpus'"),
        ({"methods": "[MMPS, MMPZ]"}, "unknown method 'MMPZ'"),
        ({"methods": "[{name: DPS, steps: 3}]", "more": "calls: 9"}, "DPS(steps=3) states its own"),
        ({"measurements": "{files: none/*.npy}"}, "none/*.npy: there is no such file"),
        ({"measurements": "{files: clean/*.npy, seed: 1}"}, "measured files have no seed"),
        ({"measurements": "{files: clean/*.npy, images: clean/*.npy}"}, "give either `files`"),
        (
            {"measurements": "{files: clean/*.npy, references: clean/image1.npy}"},
            "measurements.references: none is called image0",
        ),
        ({"prior": "{path: absent}"}, "absent"),
    ):
        path, out = study(**change), tmp_path / "out"
        assert call(monkeypatch, "run", path, "--out", out, "--quiet") == 2, change
        assert sentence in capsys.readouterr().err
        assert not list(out.glob("cells/*/*/run.json"))
    assert call(monkeypatch, "solve", study(), "--out", tmp_path / "run") == 2
    assert "posteriori run" in capsys.readouterr().err
    words = ("run", study(), "--out", tmp_path / "out", "--workers", 0)
    assert call(monkeypatch, *words) == 2
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err


def test_means_intervals_and_paired_differences_are_those_by_hand():
    """Student's law of 2 degrees of freedom: t_p = a sqrt(2 / (1 - a^2)), a = 2 p - 1."""
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    found = MeanInterval.of([1.0, 2.0, 6.0])
    assert found.mean == 3.0
    assert math.isclose(found.half, t * math.sqrt(7.0 / 3), rel_tol=1e-8)
    assert MeanInterval.of([]) is None
    assert MeanInterval.of([2.0]).text(1) == "2.0"
    names = ("a", "b", "c", "d")

    def cells(*values):
        return {n: {"psnr_mean": v} for n, v in zip(names, values, strict=False)}

    first = MethodCells("A_1", 4, 8.0, cells(1.0, 2.0, 6.0, 9.0))
    other = MethodCells("B", 8, None, cells(1.5, 3.5, 8.5) | {"d": failed()})
    pairs = other.difference(first, "psnr_mean")
    assert (pairs.mean, pairs.count) == (1.5, 3)
    assert math.isclose(pairs.half, t / math.sqrt(3), rel_tol=1e-8)
    table = means_markdown([first, other])
    assert "| 3 of 4 |" in table
    assert "+1.50 +- 2.48" in table
    assert "- B, d: it broke & more" in table


def failed():
    return {"reason": "it broke\n& more"}


def test_the_latex_table_is_rectangular_and_escapes_what_latex_reads(tmp_path):
    cells = {"a": {"psnr_mean": 1.0}, "b": {"psnr_mean": 3.0}}
    text = means_latex(
        [MethodCells("A_1 & 50 %", 4, 8.0, cells), MethodCells("B(x=#1)", 4, 8.5, cells)]
    )
    assert r"A\_1 \& 50 \%" in text
    assert r"B(x=\#1)" in text
    assert r"$2.00 \pm 12.71$" in text
    for table in text.split(r"\end{tabular}")[:2]:
        columns = len(re.search(r"\{(lr*)\}", table).group(1))
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert lines
        assert all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in lines)


def labelled(*labels):
    """The tables of two measurements that have every number."""
    cells = {"a": {s.key: 0.25 for s in SCORES}, "b": {s.key: 0.75 for s in SCORES}}
    return means_latex([MethodCells(label, 4, 8.0, cells) for label in labels])


def test_a_label_of_the_latex_table_begins_no_row():
    """The end of a row takes a bracket and a star as its arguments."""
    for text in labelled("A", "[2] DPS", "*DPS").split("\n\n"):
        starts = [line.partition(" &")[0] for line in text.splitlines() if line.endswith(r"\\")]
        assert starts[0] in ("Method", "Minus A")
        assert starts[-1] == "Seconds"
        assert len(starts) == len(SCORES) + (4 if starts[0] == "Method" else 2)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
@pytest.mark.parametrize(
    "label", ["DPS", "A_1 & 50 %", r"\b^2~c{d}$<f>|", "[2] DPS", "*DPS", "étude", "3.5", ""]
)
def test_the_latex_table_compiles_and_lies_on_its_page(label, tmp_path):
    (tmp_path / "table.tex").write_text(labelled("DAPS", "DiffPIR", label))
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\n\\begin{document}\n\\input{table.tex}\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-800:]
    assert "Overfull" not in done.stdout


def test_a_cell_that_ended_its_process_three_times_in_one_command_is_given_up(study, tmp_path):
    given = load_study(study())
    one = cells_of(given, [4, 4], tmp_path / "out")[0]
    place = Path(one.place)
    place.mkdir(parents=True)
    (place / "begun").write_text("this\nother\nthis\nthis\n")
    assert deaths_of(one, "this") == 3
    assert "ended its process 3 times" in draw_cell(one, "this")["reason"]
    assert "reason" not in draw_cell(one, "other")
    assert not (place / "begun").exists()
    assert Cell(**json.loads(json.dumps(vars(one)))) == one


def test_a_cell_is_known_by_settings_that_are_not_written(study, tmp_path):
    """A version with other defaults does not take it for its own."""
    one = cells_of(load_study(study()), [4, 4], tmp_path / "out")[0]
    assert one.settings
    name = next(iter(one.settings))
    assert replace(one, settings=one.settings | {name: "another"}).digest != one.digest


def test_the_workers_of_a_scheduler_draw_the_same_cells(study, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    path, outs = study(more="steps: 3"), (tmp_path / "serial", tmp_path / "dask")
    assert call(monkeypatch, "run", path, "--out", outs[0], "--quiet") == 0
    alone = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    with distributed.LocalCluster(**alone, dashboard_address=None, protocol="tcp") as cluster:
        where = ("--scheduler", cluster.scheduler_address)
        assert call(monkeypatch, "run", path, "--out", outs[1], "--quiet", *where) == 0
    assert same(samples(outs[0]), samples(outs[1]))
    # But for the seconds.
    assert [row | {"seconds": ""} for row in rows(outs[0])] == [
        row | {"seconds": ""} for row in rows(outs[1])
    ]


FATAL = """
import os, signal
from dataclasses import dataclass
from posteriori.methods import MMPS

@dataclass(frozen=True)
class Fatal(MMPS):
    def step(self, post, state, s, t, rng):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow  # three processes load the library, and three again after each death
def test_a_worker_that_is_killed_costs_nothing_and_a_cell_that_kills_is_given_up(study, tmp_path):
    """With the digits prior on two workers: one is killed in the middle of a cell, and one cell of
    a method that kills its process is given up after three; all others are those of one process."""
    pytest.importorskip("distributed")
    path = study("[MMPS, DPS]", "steps: 30", "digits")
    told = {"capture_output": True, "text": True}
    words = [*COMMAND, "run", str(path), "--quiet", "--out"]
    subprocess.run([*words, str(tmp_path / "serial")], **told, check=True)
    (tmp_path / "fatal.py").write_text(FATAL)
    path.write_text(path.read_text().replace("DPS]", "DPS, {name: fatal.py:Fatal}]"))
    out = tmp_path / "out"
    run = subprocess.Popen([*words, str(out), "--workers", "2"], stderr=subprocess.PIPE, text=True)
    killed, until = False, time.time() + 200
    while not killed and time.time() < until and run.poll() is None:
        for lock in out.glob("cells/*/DPS/.cell.lock"):
            pid = lock.read_text().removeprefix("pid ")
            if pid and (lock.parent / "run.json").exists() and int(pid) != run.pid:
                os.kill(int(pid), signal.SIGKILL)
                killed = True
                break
        time.sleep(0.02)
    assert killed, "no worker was seen in the middle of a cell"
    _, said = run.communicate(timeout=280)
    assert run.returncode == 1, said
    assert "3 of 9 cells failed" in said
    given_up = [row for row in rows(out) if row["reason"]]
    assert {row["method"] for row in given_up} == {"fatal.py:Fatal"}
    assert all("ended its process 3 times" in row["reason"] for row in given_up)
    assert same(samples(tmp_path / "serial"), samples(out))
