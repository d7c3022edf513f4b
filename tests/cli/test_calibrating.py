"""``posteriori calibrate``: of a problem file or of a run, on drawn and on given truths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from console import call, problem

import posteriori as po
from posteriori.cli.calibrating import _simulated
from posteriori.trials import trial_of


@pytest.fixture
def measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    g = np.random.default_rng(0)
    (tmp_path / "clean").mkdir()
    for k in range(10):
        image = g.normal(0.5, 0.2, (1, 16, 16)).astype(np.float32)
        np.save(tmp_path / "clean" / f"image{k}.npy", image)
    np.save(tmp_path / "y.npy", g.normal(0.5, 0.2, (1, 16, 16)).astype(np.float32))
    return tmp_path


def described(folder):
    file = problem(folder, "{file: y.npy}", operator="identity")
    # In few steps samples are seen to be a little too wide.
    file.write_text(file.read_text().replace("steps: 6", "steps: 24"))
    return file


def test_a_run_is_calibrated_in_its_own_folder_and_its_intervals_scaled(
    measured, monkeypatch, capsys
):
    file = described(measured)
    assert call(monkeypatch, "solve", file, "--out", "run", "--quiet") == 0
    assert call(monkeypatch, "calibrate", "run", "--trials", 12, "--quiet") == 0
    told = capsys.readouterr().out
    assert "12 of 12 trials" in told
    assert "calibrated='run'" in told
    done = po.Run.load("run")
    low, high = done.interval(0.9, calibrated="run")
    factor = po.Conformal.load("run").factor(0.9)
    assert torch.allclose((low + high) / 2, done.mean, atol=1e-5)
    # Three samples of a Gaussian, whose 90 % interval is 3.4 standard deviations, are not far off.
    assert 2 < factor < 8
    # It is complete: the same command computes nothing more.
    monkeypatch.setattr("posteriori.trials.judged.sample_each", None)
    assert call(monkeypatch, "calibrate", "run", "--trials", 12, "--quiet") == 0
    # The page and a further look at the run are not disturbed.
    assert call(monkeypatch, "report", "run") == 0


def test_a_method_that_ignores_the_measurement_fails_with_exit_code_1(
    measured, monkeypatch, capsys
):
    file = described(measured)
    file.write_text(file.read_text().replace("MMPS", "Unconditional"))
    words = ("calibrate", file, "--out", "cal", "--trials", 12, "--quiet", "--json")
    assert call(monkeypatch, *words) == 1
    record = json.loads(capsys.readouterr().out)
    lines = {line["name"]: line["verdict"] for line in record["findings"]}
    assert (lines["ranks"], lines["complete"], record["passed"]) == ("fail", "pass", False)
    assert json.loads((measured / "cal/calibration.json").read_text())["findings"]


def test_given_truths_are_measured_or_come_with_their_measurements(measured, monkeypatch, capsys):
    file = described(measured)
    words = ("calibrate", file, "--quiet", "--out")
    assert call(monkeypatch, *words, "one", "--truths", "clean/*.npy") == 0
    assert "given truths" in capsys.readouterr().out
    task = po.problem_file.load(file).build()
    (measured / "shots").mkdir()
    for k, place in enumerate(sorted((measured / "clean").glob("*.npy"))):
        x = torch.from_numpy(np.load(place))
        y = trial_of(task.posterior, x, k).posterior.given.y
        np.save(measured / "shots" / f"{k}.npy", y.numpy())
    both = (*words, "two", "--truths", "clean/*.npy", "--measured", "shots/*.npy")
    assert call(monkeypatch, *both) == 0
    # Noise of the same seeds: the same trials.
    assert torch.equal(po.Conformal.load("one").ratios, po.Conformal.load("two").ratios)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--trials", 3), "at least 10 truths, got 3"),
        (("--truths", "none/*.npy"), "there is no such file"),
        (("--truths", "clean/*1.npy"), "at least 10 truths, got 1"),
        (("--measured", "y.npy"), "--measured needs --truths"),
        (("--truths", "clean/*.npy", "--measured", "y.npy"), "10 truths and 1 measurements"),
    ],
)
def test_what_does_not_go_together_is_said(measured, monkeypatch, capsys, words, told):
    file = described(measured)
    assert call(monkeypatch, "calibrate", file, "--quiet", *words) == 2
    assert told in capsys.readouterr().err


def test_pictures_need_a_range_to_be_read_in():
    prior = po.priors.Gaussian(torch.zeros(3), 1.0)
    A = po.operators.Dense(torch.eye(3))
    post = po.Posterior(prior, po.Likelihood(torch.zeros(3), A, po.noise.Gaussian(0.1)))
    with pytest.raises(ValueError, match="--truths are images in a range"):
        next(_simulated(None, post, [], 0))


def test_a_folder_that_holds_no_run_of_a_problem_file_is_refused(measured, monkeypatch, capsys):
    assert call(monkeypatch, "calibrate", "clean") == 2
    assert "problem.json is missing; give the problem file" in capsys.readouterr().err
    file = described(measured)
    assert call(monkeypatch, "calibrate", file, "--out", "cal", "--trials", 10, "--quiet") in (0, 1)
    other = ("calibrate", file, "--out", "cal", "--trials", 11, "--quiet")
    assert call(monkeypatch, *other) == 2
    assert "another calibration" in capsys.readouterr().err
