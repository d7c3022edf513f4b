"""A full disk and Ctrl-C: nothing half-written, and a sentence that says what is kept and how to go
on."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from console import COMMAND, call, problem
from safetensors import SafetensorError
from safetensors.torch import load_file

from posteriori import checkpoint, run, storage
from posteriori.cli import bench, bench_images
from posteriori.experiments import photographs, scoreboard
from posteriori.methods import MMPS

FULL = Path("/dev/full")


def made(folder):
    np.save(folder / "y.npy", np.random.default_rng(0).random((1, 16, 16), dtype=np.float32))
    return problem(folder, "{file: y.npy}", extra="batch: 1\n")


@pytest.fixture
def measured(tmp_path):
    return made(tmp_path)


def text(place):
    storage.write_text(place, "x" * 10_000)


def arrays(place):
    run.write_arrays(place, {"x": torch.zeros(100_000)})


def no_room(flat, place, metadata=None):
    """What safetensors says on a full disk, half of the file being there by then."""
    Path(place).write_bytes(b"half")
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


@pytest.mark.parametrize("write", [text, arrays])
def test_a_full_disk_leaves_the_old_file_and_says_how_much_room_is_needed(
    tmp_path, monkeypatch, write
):
    """What is written beside the place goes to a device on which there is never any room."""
    place = tmp_path / "file"
    place.write_text("old")
    if write is arrays:
        monkeypatch.setattr(run, "save_file", no_room)
    elif FULL.exists():
        (tmp_path / "file.partial").symlink_to(FULL)
    else:
        pytest.skip("no /dev/full here")
    with pytest.raises(
        storage.FullDiskError,
        match=r"no room on the disk for .*file: it takes .* (kB|MB), .* are free",
    ) as full:
        write(place)
    assert storage.full(full.value)
    assert place.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_another_error_stays_what_it_is_and_leaves_nothing(tmp_path):
    def half():
        with storage.written_whole(tmp_path / "file", 1) as beside:
            beside.write_text("half")
            raise PermissionError(errno.EACCES, "not allowed")

    with pytest.raises(PermissionError):
        half()
    assert list(tmp_path.iterdir()) == []


def nothing_fits_after(monkeypatch, writes):
    """The disk is full from the n-th array file on; a part of the file was written by then."""
    made = run.save_file
    left = [writes]

    def fill(flat, place, metadata=None):
        left[0] -= 1
        if left[0] < 0:
            Path(place).write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
        made(flat, place, metadata=metadata)

    monkeypatch.setattr(run, "save_file", fill)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The samples of ``measured`` where nothing comes between."""
    folder = tmp_path_factory.mktemp("whole")
    path = made(folder)
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "solve", path, "--out", folder / "run", "--quiet") == 0
    return load_file(folder / "run" / "samples.safetensors")["samples"]


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_solve_on_a_full_disk_says_which_file_and_goes_on_to_the_same_bits(
    tmp_path, monkeypatch, capsys, measured, uninterrupted, writes
):
    """Three batches of one sample each, then samples.safetensors."""
    out = tmp_path / "run"
    with monkeypatch.context() as full:
        nothing_fits_after(full, writes)
        assert call(monkeypatch, "solve", measured, "--out", out, "--quiet") == 2
    said = capsys.readouterr().err
    name = f"rows/{writes:08d}.safetensors" if writes < 3 else "samples.safetensors"
    assert f"no room on the disk for {out / name}: it takes" in said
    kept = f"{writes} of 3 samples are kept in {out}" if writes else f"nothing is kept in {out} yet"
    command = f"posteriori solve {measured} --out {out} --quiet --resume"
    assert f"; {kept}; make room, then go on by: {command}" in said
    assert not list(tmp_path.rglob("*.partial"))
    assert call(monkeypatch, *shlex.split(command)[1:]) == 0
    assert torch.equal(load_file(out / "samples.safetensors")["samples"], uninterrupted)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(
    tmp_path, monkeypatch, capsys, measured
):
    saved = []
    keep = checkpoint.save_checkpoint

    def save(folder, *rest):
        if len(saved) == 2:
            nothing_fits_after(monkeypatch, 0)
        keep(folder, *rest)
        saved.append((folder / "checkpoint.safetensors").read_bytes())

    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    code = call(
        monkeypatch,
        "solve",
        measured,
        "--out",
        tmp_path / "run",
        "--quiet",
        "--checkpoint-seconds",
        "0",
    )
    assert code == 2
    said = capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == saved[1]
    assert "checkpoint.safetensors: it takes" in said
    assert "2 of 6 steps of the first batch are kept in" in said


@pytest.mark.parametrize("after", [0, 1, 2])
def test_ctrl_c_in_solve_says_what_is_kept_and_how_to_go_on(
    tmp_path, monkeypatch, capsys, measured, after
):
    begun = []
    init = MMPS.init

    def stop(self, *rest):
        begun.append(1)
        if len(begun) == after + 2:  # the plan begins one as well
            raise KeyboardInterrupt
        return init(self, *rest)

    monkeypatch.setattr(MMPS, "init", stop)
    out = tmp_path / "run"
    # A checkpoint of every step: that of a batch which has ended since is of no use, and no word is
    # said of it.
    words = ["solve", str(measured), "--out", str(out), "--quiet", "--checkpoint-seconds", "0"]
    assert call(monkeypatch, *words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    kept = f"{after} of 3 samples are kept in {out}" if after else f"nothing is kept in {out} yet"
    assert (
        said
        == f"posteriori: interrupted; {kept}; go on by: posteriori {shlex.join(words)} --resume"
    )
    assert call(monkeypatch, *shlex.split(said.partition("go on by: posteriori ")[2])) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_key_pressed_in_a_real_process(tmp_path, measured):
    measured.write_text(measured.read_text().replace("steps: 6", "steps: 3000"))
    words = [
        *COMMAND,
        "solve",
        str(measured),
        "--quiet",
        "--checkpoint-seconds",
        "0.05",
        "--out",
        str(tmp_path / "run"),
    ]
    # What a shell starts in the background ignores the key, and so would its children.
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    victim = subprocess.Popen(
        words,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )
    deadline = time.monotonic() + 90
    while (
        not (tmp_path / "run" / "checkpoint.safetensors").exists()
        and victim.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    victim.send_signal(signal.SIGINT)
    _, said = victim.communicate(timeout=60)
    assert victim.returncode == 130, said
    assert re.search(
        r"interrupted; \d+ of 3000 steps of the first batch are kept in .*; "
        r"go on by: posteriori solve .* --resume",
        said,
    )
    assert "Traceback" not in said


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("runner", "place", "words"),
    [
        (
            bench,
            (scoreboard, "measure_cell"),
            [
                "exact",
                "--bed",
                "gaussian",
                "--cells",
                "white",
                "--steps",
                "10",
                "--methods",
                "DPS,PiGDM",
            ],
        ),
        (
            bench_images,
            (photographs, "measure_photograph"),
            ["images", "--images", "chelsea", "--problems", "box", "--side", "32", "--steps", "2"],
        ),
    ],
)
def test_ctrl_c_in_a_bench_keeps_the_rows_that_have_a_file(
    tmp_path, monkeypatch, capsys, runner, place, words, kept
):
    measure, calls = getattr(*place), []

    def stop(*rest):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*rest)

    monkeypatch.setattr(*place, stop)
    file = ["--json", str(tmp_path / "rows.json")] if kept else []
    assert call(monkeypatch, "bench", *words, "--quiet", *file) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        ("1 rows are kept in" in said)
        if kept
        else ("no row was kept, as without --json FILE none is" in said)
    )
    assert said.endswith(f"go on by: posteriori {shlex.join(['bench', *words, '--quiet', *file])}")
    if kept:
        assert len(json.loads((tmp_path / "rows.json").read_text())) == 1


def test_whatever_the_package_writes_is_written_whole():
    package = Path(storage.__file__).parent
    writing = re.compile(
        r"\.(write_text|write_bytes)\(|\.replace\((place|target|path|file|folder)|open\([\"'][wa]"
    )
    found = {
        str(file.relative_to(package)): line.strip()
        for file in package.rglob("*.py")
        for line in file.read_text().splitlines()
        if writing.search(line)
    }
    assert set(found) == {"storage.py", "run.py", "cells.py"}, found
    assert "handle" in found["run.py"]  # the lock, which holds the number of a process
    assert "begun" in found["cells.py"]  # a line for each beginning, of which a part is no loss
