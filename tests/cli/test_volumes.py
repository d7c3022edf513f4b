"""``posteriori solve`` on volumes: files in, files of the kind asked out, nothing about a person;
on several processes to the bits of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from console import COMMAND, call
from reference import draw
from safetensors.torch import load_file
from scans import SECRETS, series

from posteriori.driver import Job
from posteriori.measurements import VolumeInfo, read_volume, write_volume

PROBLEM = """
prior: {slices: {gaussian: {mean: 0, std: 300, shape: [1, 8, 8], range: [-1000, 1500]}}}
operator: %s
noise: {law: gaussian, sigma: 2, range: [-1000, 1500]}
measurement: {file: %s}
method: %s
n: 2
steps: %d
seed: 3
batch: 4
"""


def problem(folder, file, operator="identity", method="MMPS", steps=6):
    place = folder / "problem.yaml"
    place.write_text(PROBLEM % (operator, file, method, steps))
    return place


def scan(folder, name="scan"):
    """Hounsfield units as stored by a slope of 2 and an intercept of -1024."""
    stored = np.random.default_rng(0).integers(300, 700, (6, 8, 8))
    series(folder / name, stored, order=[4, 2, 0, 5, 1, 3])
    return 2.0 * torch.from_numpy(stored).float() - 1024


def secrets():
    """All strings that no output may hold, also in UTF-16."""
    for text in SECRETS.values():
        for part in {text, *text.split("^")} - {"Q"}:
            yield part.encode()
            yield part.encode("utf-16-le")


@pytest.mark.parametrize("kind", ["dicom", "nifti", "npy"])
def test_a_series_in_hounsfield_units_is_solved_and_no_patient_is_in_the_folder(
    tmp_path, monkeypatch, capsys, kind
):
    for package in ("pydicom", "nibabel"):
        pytest.importorskip(package)
    truth, out = scan(tmp_path, SECRETS["PatientName"]), tmp_path / "run"
    place = problem(tmp_path, SECRETS["PatientName"])
    words = [] if kind == "dicom" else ["--write", kind]
    assert call(monkeypatch, "solve", place, "--out", out, *words) == 0
    said = capsys.readouterr()
    (out / "log.txt").write_text(said.out + said.err)
    name = {"dicom": "mean", "nifti": "mean.nii.gz", "npy": "mean.npy"}[kind]
    mean, info = read_volume(out / name)
    # The posterior of each voxel has the measured number as its mean, and a deviation of 2.
    assert float((mean - truth).abs().max()) < 10
    assert float((mean - truth).square().mean().sqrt()) < 2.5
    samples = load_file(out / "samples.safetensors")["samples"]
    assert samples.shape == (2, 6, 1, 8, 8)
    assert float((samples.mean(0)[:, 0] - mean).abs().max()) < 0.02
    assert (out / "index.html").read_text().count("Pictures are of slice 3 of 6") == 1
    if kind != "npy":
        assert info.spacing_mm == pytest.approx((2.5, 0.7, 0.6))
        # The first slice is where that of the scan was.
        assert info.affine[:3, 3].tolist() == pytest.approx([10, -20, 5])
    assert read_volume(out / name.replace("mean", "std"))[0].shape == truth.shape
    assert not (out / "slabs").exists()
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 6
    for file in files:
        content = file.read_bytes()
        assert not [secret for secret in secrets() if secret in content], file
        assert not [s for s in SECRETS.values() if s in str(file.relative_to(out))]


def test_a_volume_with_thick_slices_gets_thin_ones_in_their_place(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nibabel")
    affine = torch.diag(torch.tensor([-1.0, -1.0, 4.0, 1.0], dtype=torch.float64))
    write_volume(tmp_path / "y.nii.gz", (300 * draw(3, 8, 8)).float(), VolumeInfo(affine))
    place = problem(tmp_path, "y.nii.gz", "{name: thick-slices, factor: 2}")
    assert call(monkeypatch, "solve", place, "--out", tmp_path / "run", "--quiet") == 0
    x, info = read_volume(tmp_path / "run" / "sample-001.nii.gz")
    assert x.shape == (6, 8, 8)
    assert info.spacing_mm == pytest.approx((2, 1, 1))
    assert info.affine[:3, 3].tolist() == pytest.approx([0, 0, -1])
    assert "volumes: sample-000, sample-001, mean, std as nifti" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["DDS3D", "DDS"])
def test_methods_and_operators_that_tie_slices_draw_the_volume_whole(
    tmp_path, monkeypatch, capsys, method
):
    np.save(tmp_path / "y.npy", (300 * draw(4, 8, 8)).numpy().astype(np.float32))
    operator = "identity" if method == "DDS3D" else "{name: temporal-blur, frames: 3}"
    place = problem(tmp_path, "y.npy", operator, method)
    words = ("solve", place, "--out", tmp_path / "run", "--quiet")
    assert call(monkeypatch, *words, "--workers", 2) == 2
    ties = "DDS3D ties" if method == "DDS3D" else "the operator ties"
    assert f"{ties} the slices together; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert call(monkeypatch, *words) == 0
    assert read_volume(tmp_path / "run" / "mean.npy")[0].shape == (4, 8, 8)


def test_methods_are_compared_on_a_volume(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "y.npy", (300 * draw(4, 8, 8)).numpy().astype(np.float32))
    place, out = problem(tmp_path, "y.npy"), tmp_path / "compared"
    words = ("compare", place, "--methods", "MMPS,DDS3D", "--out", out, "--quiet")
    assert call(monkeypatch, *words) == 0
    table = capsys.readouterr().out
    assert "| MMPS " in table
    assert "| DDS3D" in table
    page = (out / "index.html").read_text()
    assert page.count("<figcaption>Mean of 2") == 2
    assert "Measurement" in page


def test_options_of_volumes_are_refused_for_images(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "y.npy", np.zeros((1, 8, 8), dtype=np.float32))
    place = problem(tmp_path, "y.npy")
    place.write_text(
        place.read_text().replace("{slices: {gaussian", "{gaussian").replace("500]}}}", "500]}}")
    )
    words = ("solve", place, "--out", tmp_path / "run", "--quiet")
    for option, sentence in (
        (("--workers", 2), "the problem is one of images, not of volumes; leave it out"),
        (("--write", "dicom"), "write: dicom holds no image of shape (1, 8, 8)"),
        (("--workers", 0), "--workers must be at least 1, got 0"),
        (("--workers", 1, "--scheduler", "tcp://x:1"), "give either --workers"),
    ):
        assert call(monkeypatch, *words, *option) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_interrupted_volume_goes_on_to_the_same_bits(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "y.npy", (300 * draw(7, 8, 8)).numpy().astype(np.float32))
    place = problem(tmp_path, "y.npy")
    assert call(monkeypatch, "solve", place, "--out", tmp_path / "whole", "--quiet") == 0
    calls, advance = [], Job.advance

    def stopped(self, *batch):
        calls.append(1)
        if len(calls) == 10:  # in the middle of the second slab
            raise KeyboardInterrupt
        advance(self, *batch)

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Job, "advance", stopped)
        assert call(monkeypatch, "solve", place, "--out", out, "--quiet") == 130
    told = capsys.readouterr().err
    assert "1 complete slabs and 1 that have begun are kept" in told
    assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
    assert call(monkeypatch, "solve", place, "--out", out, "--quiet") == 2
    assert "--resume" in capsys.readouterr().err
    assert call(monkeypatch, "solve", place, "--out", out, "--quiet", "--resume") == 0
    runs = [load_file(folder / "samples.safetensors") for folder in (out, tmp_path / "whole")]
    assert torch.equal(runs[0]["samples"], runs[1]["samples"])
    assert not (out / "slabs").exists()
    place.write_text(place.read_text().replace("seed: 3", "seed: 4"))
    assert call(monkeypatch, "solve", place, "--out", out, "--quiet", "--resume") == 2
    assert "seed: 3 then, 4 now" in capsys.readouterr().err


def test_workers_need_a_package_that_is_named(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "y.npy", (300 * draw(2, 8, 8)).numpy().astype(np.float32))
    monkeypatch.setattr("posteriori.extras.find_spec", lambda name: None)
    place = problem(tmp_path, "y.npy")
    assert call(monkeypatch, "solve", place, "--out", tmp_path / "run", "--workers", 2) == 2
    sentence = "solving on several workers needs distributed: pip install 'posteriori[dask]'"
    assert sentence in capsys.readouterr().err


def test_the_workers_of_a_scheduler_draw_the_same_volume(tmp_path, monkeypatch, capsys):
    distributed = pytest.importorskip("distributed")
    np.save(tmp_path / "y.npy", (300 * draw(7, 8, 8)).numpy().astype(np.float32))
    place, folders = problem(tmp_path, "y.npy"), [tmp_path / "one", tmp_path / "several"]
    assert call(monkeypatch, "solve", place, "--out", folders[0], "--quiet") == 0
    alone = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
    with distributed.LocalCluster(**alone, dashboard_address=None, protocol="tcp") as cluster:
        where = ("--scheduler", cluster.scheduler_address)
        assert call(monkeypatch, "solve", place, "--out", folders[1], "--quiet", *where) == 0
    runs = [load_file(folder / "samples.safetensors")["samples"] for folder in folders]
    assert torch.equal(*runs)


@pytest.mark.slow  # three processes load the library
def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    """One of two workers dies in the middle of a slab: the volume is complete, with the bits of one
    process."""
    pytest.importorskip("distributed")
    np.save(tmp_path / "y.npy", (300 * draw(20, 8, 8)).numpy().astype(np.float32))
    place = problem(tmp_path, "y.npy", steps=200)
    told = {"capture_output": True, "text": True, "check": True}
    words = [*COMMAND, "solve", str(place), "--quiet", "--out"]
    subprocess.run([*words, str(tmp_path / "serial")], **told)
    out = tmp_path / "run"
    run = subprocess.Popen([*words, str(out), "--workers", "2"], stderr=subprocess.PIPE, text=True)
    killed, until = None, time.time() + 120
    while killed is None and time.time() < until and run.poll() is None:
        ended = list((out / "slabs").glob("*/*/samples.safetensors"))
        for lock in (out / "slabs").glob("*/*/.lock"):
            pid = lock.read_text().removeprefix("pid ")
            begun = lock.parent / "run.json"
            if len(ended) >= 2 and pid and begun.exists() and int(pid) != run.pid:
                os.kill(int(pid), signal.SIGKILL)
                killed = lock.parent
                break
        time.sleep(0.02)
    assert killed is not None, "no worker was seen in the middle of a slab"
    assert run.wait(timeout=240) == 0, run.stderr.read()
    serial, several = (load_file(p / "samples.safetensors") for p in (tmp_path / "serial", out))
    assert serial["samples"].shape == (2, 20, 1, 8, 8)
    assert torch.equal(several["samples"], serial["samples"])
    assert torch.equal(several["log_w"], serial["log_w"])
    configs = [json.loads((p / "run.json").read_text()) for p in (tmp_path / "serial", out)]
    assert configs[0]["config"] == configs[1]["config"]
    assert configs[0]["counts"] == configs[1]["counts"]
