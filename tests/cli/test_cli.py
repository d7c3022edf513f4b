"""The command line: problem files, a measured file, a killed run, messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from console import call, problem
from PIL import Image
from safetensors.torch import load_file

from posteriori import problem_file, report
from posteriori.driver import Job
from posteriori.measurements import write_image
from posteriori.methods import ALL


@pytest.mark.parametrize("name", ["y.npy", "y.png", "y16.png", "y.tiff"])
def test_a_measured_file_is_solved_without_a_reference(tmp_path, monkeypatch, capsys, name):
    y = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    if name.endswith(".npy"):
        np.save(tmp_path / name, y.numpy())
    else:
        write_image(tmp_path / name, y, range=(0, 1), bits=16 if "16" in name else 8)
    status = call(
        monkeypatch,
        "solve",
        problem(tmp_path, f"{{file: {name}}}"),
        "--out",
        tmp_path / "run",
        "--quiet",
    )
    assert status == 0
    out = capsys.readouterr().out
    assert "chi-square" in out
    assert "PSNR" not in out
    assert "sigma 0.05" in out
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "complete"
    assert (tmp_path / "run" / "index.html").exists()
    assert (tmp_path / "run" / "mean.png").exists()
    kept = load_file(tmp_path / "run" / "samples.safetensors")
    assert kept["samples"].shape == (3, 1, 16, 16)


def test_live_is_a_page_of_the_run_while_it_lasts_and_then_its_page(tmp_path, monkeypatch):
    np.save(tmp_path / "y.npy", torch.rand(1, 16, 16).numpy())
    seen, place = [], tmp_path / "run" / "index.html"
    write = report.LivePage._write

    def written(self, said, *, again):
        write(self, said, again=again)
        seen.append(place.read_text())

    monkeypatch.setattr(report.LivePage, "_write", written)
    made = report.LivePage.__init__.__kwdefaults__
    monkeypatch.setattr(report.LivePage.__init__, "__kwdefaults__", made | {"every": 0.0})
    monkeypatch.setattr("posteriori.report.live.SHARE", 1e9)
    file = problem(tmp_path, "{file: y.npy}")
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet", "--live") == 0
    assert len(seen) > 2
    assert all('http-equiv="refresh"' in page for page in seen)
    assert "All samples are drawn." in seen[-1]
    assert 'http-equiv="refresh"' not in place.read_text()
    assert 'id="explorer"' in place.read_text()


def test_a_clean_image_is_degraded_and_compared(tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "clean.png", torch.rand(1, 16, 16), range=(0, 1))
    status = call(
        monkeypatch,
        "solve",
        problem(tmp_path, "{image: clean.png}"),
        "--out",
        tmp_path / "run",
        "--quiet",
    )
    assert status == 0
    said = capsys.readouterr()
    assert "PSNR" in said.out
    assert "If it is the measurement, write `file: clean.png`" in said.err


def test_what_is_doubtful_in_the_files_is_said_first(tmp_path, monkeypatch, capsys):
    stored = (4000 * np.random.default_rng(0).random((16, 16))).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "y.png")
    k = np.zeros((3, 3))
    k[1, 2] = 1.7
    np.save(tmp_path / "k.npy", k)
    file = problem(
        tmp_path, "{file: y.png}", operator="{name: blur, kernel: k.npy, normalize: true}"
    )
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet") == 0
    first, second = capsys.readouterr().err.splitlines()[:2]
    assert "centre of mass (+0.00, +1.00)" in first
    assert f"brightest value is {stored.max()} of 65535" in second


def test_an_image_given_as_the_measurement_of_another_shape_gets_a_hint(
    tmp_path, monkeypatch, capsys
):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: x.npy}", operator="{name: downsample, factor: 2, kind: box}")
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet") == 2
    assert "It looks like the clean image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps: 6", "stepz: 6", ["stepz", "steps"]),
        ("method: MMPS", "method: MMSP", ["MMSP", "MMPS"]),
        ("method: MMPS", "method: {name: MMPS, iteration: 2}", ["iteration", "iterations"]),
        ("name: blur", "name: blurr", ["blurr", "blur"]),
        ("n: 3", "n: true", ["n"]),
        ("range: [0, 1]}", "}", ["range"]),
    ],
)
def test_mistakes_are_named_with_a_suggestion(tmp_path, monkeypatch, capsys, old, new, words):
    np.save(tmp_path / "y.npy", np.zeros((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: y.npy}")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_numbers_written_with_an_exponent_are_numbers(tmp_path):
    np.save(tmp_path / "y.npy", np.zeros((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: y.npy}")
    file.write_text(file.read_text().replace("sigma: 0.05", "sigma: 5e-2"))
    assert problem_file.load(file).build().posterior.given.std == 0.05


def test_methods_are_listed(monkeypatch, capsys):
    assert call(monkeypatch, "methods", "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in records] == list(ALL)
    assert all(r["family"] and r["cost"] and r["reference"] for r in records)
    assert call(monkeypatch, "methods") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ALL)


def test_env_names_versions(monkeypatch, capsys):
    assert call(monkeypatch, "env") == 0
    assert f"torch: {torch.__version__.split('+')[0]}" in capsys.readouterr().out


# The command, whose process kills itself in the middle of a step.
KILLED = """
import os, signal
from posteriori.cli import main
from posteriori.driver import Job
advance, steps = Job.advance, []
def killed(*step):
    advance(*step)
    steps.append(step)
    if len(steps) == 12:
        os.kill(os.getpid(), signal.SIGKILL)
Job.advance = killed
main()
"""


def test_a_killed_run_is_completed_to_the_same_bits(tmp_path, monkeypatch, capsys):
    """A process that gets no chance to say or to tidy anything: what the steps before have left is
    gone on with, in another."""
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: y.npy}")
    text = file.read_text().replace("std: 1", "std: 1, boundary: circular")
    file.write_text(text.replace("steps: 6", "steps: 20").replace("n: 3", "n: 2"))
    words = ["solve", str(file), "--quiet", "--checkpoint-seconds", "0", "--out"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words, str(tmp_path / "killed")],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # as of the bits
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["state"] == "running"
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists()
    assert call(monkeypatch, *words, tmp_path / "killed") == 2
    assert "already holds a run" in capsys.readouterr().err
    steps, advance = [], Job.advance
    monkeypatch.setattr(Job, "advance", lambda *step: (steps.append(step), advance(*step)))
    assert call(monkeypatch, *words, tmp_path / "killed", "--resume") == 0
    assert len(steps) == 20 - 11
    assert call(monkeypatch, *words, tmp_path / "straight") == 0
    a, b = (
        load_file(tmp_path / name / "samples.safetensors")["samples"]
        for name in ("killed", "straight")
    )
    assert torch.equal(a, b)


def test_a_problem_that_changed_is_not_resumed(tmp_path, monkeypatch, capsys):
    """Also a change that the run's own record does not hold: another prior of the same kind."""
    np.save(tmp_path / "y.npy", np.zeros((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: y.npy}")
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet") == 0
    before = load_file(tmp_path / "run" / "samples.safetensors")["samples"]
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet", "--resume") == 0
    assert torch.equal(load_file(tmp_path / "run" / "samples.safetensors")["samples"], before)
    file.write_text(file.read_text().replace("mean: 0.5", "mean: 0.4"))
    capsys.readouterr()
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet", "--resume") == 2
    error = capsys.readouterr().err
    assert "belongs to another problem" in error
    assert "'mean': 0.5" in error
    assert "'mean': 0.4" in error


def test_clipped_values_and_the_scale_of_the_spread_are_said(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "y.npy", np.full((1, 16, 16), 1.5, dtype=np.float32))
    status = call(
        monkeypatch,
        "solve",
        problem(tmp_path, "{file: y.npy}"),
        "--out",
        tmp_path / "run",
        "--quiet",
    )
    assert status == 0
    out = capsys.readouterr().out
    outside = int(
        (load_file(tmp_path / "run" / "samples.safetensors")["samples"] > 1 + 0.5 / 255).sum()
    )
    assert outside > 100
    assert f"pictures: {outside} of 768 values lie outside [0, 1]" in out
    assert "std.png: the scale ends at" in out


def test_samples_that_are_no_pictures_are_kept_all_the_same(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "y.npy", np.zeros(12, dtype=np.float32))
    file = problem(tmp_path, "{file: y.npy}", operator="identity")
    file.write_text(file.read_text().replace("[1, 16, 16]", "[12]"))
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet") == 0
    assert "no pictures: samples of shape (12,)" in capsys.readouterr().out
    assert list((tmp_path / "run").glob("*.png")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["solv"], 'Did you mean "solve"'),
        (["solve", "x.yaml", "--ot", "y"], "Did you mean --out"),
        (["methods", "--jsn"], "Did you mean --json"),
        (["solve", "none.yaml", "--out", "y"], "no such file: none.yaml"),
        (["report", "nowhere"], "no run in nowhere"),
        (["train", "none.yaml", "--out", "y"], "none.yaml"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_code_2(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_an_error_came_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        call(monkeypatch, "solve", "none.yaml", "--out", "y", "--debug")


def test_warnings_are_sentences(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", np.full((1, 16, 16), 0.5, dtype=np.float32))
    file = problem(tmp_path, "{image: x.npy}", operator="identity")
    file.write_text(
        file.read_text()
        .replace("law: gaussian, sigma: 0.05", "law: poisson, peak: 5")
        .replace("method: MMPS", "method: DPS")
    )
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet") == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("warning: Poisson noise with a peak of 5 photons") for line in lines)
    assert not any(".py" in line for line in lines)


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; from posteriori.cli import app; "
        "app(['--help'], result_action='return_value'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in ("demo", "solve", "methods", "train", "report", "env"):
        assert command in done.stdout


def test_the_demo_does_not_replace_a_folder_of_somebody_else(tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.txt").write_text("x")
    assert call(monkeypatch, "demo", "--out", tmp_path) == 2
    assert "is not a demo folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
def test_the_demo_beats_the_wiener_filter(tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "demo", "--out", tmp_path / "demo", "--quick") == 0
    assert "Over the Wiener filter: +" in capsys.readouterr().out
    assert (tmp_path / "demo" / "index.html").stat().st_size > 100_000
