"""The command line: problem files, a measured file, a killed run, messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posteriori import problems
from posteriori.cli import main
from posteriori.measurements import write_image
from posteriori.methods import ALL

COMMAND = [sys.executable, "-c", "from posteriori.cli import main; main()"]
PRIOR = "prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 16, 16]}}\n"


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["posteriori", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def problem(folder, measurement, extra="", operator="{name: blur, std: 1}"):
    file = folder / "problem.yaml"
    noise = "noise: {law: gaussian, sigma: 0.05, range: [0, 1]}\n"
    file.write_text(PRIOR + f"operator: {operator}\n" + noise + f"measurement: {measurement}\nmethod: MMPS\nn: 3\nsteps: 6\n" + extra)
    return file


@pytest.mark.parametrize("name", ["y.npy", "y.png", "y16.png", "y.tiff"])
def test_a_measured_file_is_solved_without_a_reference(tmp_path, monkeypatch, capsys, name):
    y = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    if name.endswith(".npy"):
        np.save(tmp_path / name, y.numpy())
    else:
        write_image(tmp_path / name, y, range=(0, 1), bits=16 if "16" in name else 8)
    assert call(monkeypatch, "solve", problem(tmp_path, f"{{file: {name}}}"), "--out", tmp_path / "run", "--quiet") == 0
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


def test_a_clean_image_is_degraded_and_compared(tmp_path, monkeypatch, capsys):
    write_image(tmp_path / "clean.png", torch.rand(1, 16, 16), range=(0, 1))
    assert call(monkeypatch, "solve", problem(tmp_path, "{image: clean.png}"), "--out", tmp_path / "run", "--quiet") == 0
    said = capsys.readouterr()
    assert "PSNR" in said.out
    assert "If it is the measurement, write `file: clean.png`" in said.err


def test_an_image_given_as_the_measurement_of_another_shape_gets_a_hint(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: x.npy}", operator="{name: downsample, factor: 2}")
    assert call(monkeypatch, "solve", file, "--out", tmp_path / "run", "--quiet") == 2
    assert "image" in capsys.readouterr().err


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
    assert problems.load(file).build().posterior.given.std == 0.05


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


def test_a_killed_run_is_completed_to_the_same_bits(tmp_path):
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((1, 16, 16), dtype=np.float32))
    file = problem(tmp_path, "{file: y.npy}")
    file.write_text(file.read_text().replace("steps: 6", "steps: 3000").replace("n: 3", "n: 2"))
    words = [*COMMAND, "solve", str(file), "--quiet", "--checkpoint-seconds", "0.05", "--out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    victim = subprocess.Popen([*words, str(tmp_path / "killed")], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    place = tmp_path / "killed" / "checkpoint.safetensors"
    deadline = time.monotonic() + 90
    while not place.exists() and victim.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert victim.poll() is None, victim.communicate()
    time.sleep(0.3)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["state"] == "running"
    assert place.exists()
    refused = subprocess.run([*words, str(tmp_path / "killed")], env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "already holds a run" in refused.stderr
    subprocess.run([*words, str(tmp_path / "killed"), "--resume"], env=environment, check=True, capture_output=True)
    subprocess.run([*words, str(tmp_path / "straight")], env=environment, check=True, capture_output=True)
    a, b = (load_file(tmp_path / name / "samples.safetensors")["samples"] for name in ("killed", "straight"))
    assert torch.equal(a, b)
