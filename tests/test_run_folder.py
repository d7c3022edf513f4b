"""What a run that stops leaves in its folder, and how it goes on from there."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import posteriori as po
from posteriori import run_folder
from posteriori.cli import main
from posteriori.methods.base import Method
from posteriori.run import Run

SETTINGS = {"n": 4, "steps": 6, "batch": 2, "checkpoint_seconds": 0.0}


def toy():
    prior = po.priors.Gaussian(torch.zeros(1, 4, 4), 0.5)
    A = po.operators.Blur(po.operators.gaussian_kernel(1.0, 3), (1, 4, 4))
    return po.Posterior(prior, po.Likelihood(A(prior.sample(1, 0))[0], A, po.noise.Gaussian(0.1)))


@dataclass(frozen=True)
class Fragile(Method[torch.Tensor]):
    """Fails where the class, not the instance, says so: a cause outside the run, which can be
    mended."""

    error: ClassVar[BaseException | None] = None
    at: ClassVar[int] = 0
    family: ClassVar[str] = "test"
    cost: ClassVar[str] = "1 denoiser"
    done: ClassVar[int] = 0

    def levels(self, post, steps):
        if Fragile.error is not None and Fragile.at < 0:
            raise Fragile.error

    def step(self, post, state, sigma, s, rng):
        Fragile.done += 1
        if Fragile.error is not None and Fragile.done > Fragile.at:
            raise Fragile.error
        return po.methods.DDIM(1.0)(post.prior.denoise, state, sigma, s, rng), {}


def stopped(monkeypatch, folder, error, at, **settings):
    """A run that is ended by ``error`` after ``at`` steps, and what its folder says then."""
    monkeypatch.setattr(Fragile, "error", error)
    monkeypatch.setattr(Fragile, "at", at)
    monkeypatch.setattr(Fragile, "done", 0)
    with pytest.raises(type(error)):
        po.sample(toy(), Fragile(), folder=folder, **SETTINGS | settings)
    monkeypatch.setattr(Fragile, "error", None)
    return json.loads((folder / "run.json").read_text())


ERRORS = [
    (po.operators.SolveError("no convergence"), "failed", "SolveError: no convergence"),
    (torch.OutOfMemoryError("out of memory"), "failed", "OutOfMemoryError: out of memory"),
    (MemoryError(), "failed", "MemoryError"),
    (OSError(28, "No space left on device"), "failed", "No space left on device"),
    (KeyboardInterrupt(), "interrupted", "Ctrl-C"),
    (SystemExit(3), "failed", "SystemExit: 3"),
]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    ERRORS,
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else "",
)
@pytest.mark.parametrize("at", [-1, 0, 3, 9])
def test_a_run_that_stops_says_why_and_goes_on_to_the_same_bits(
    monkeypatch, tmp_path, error, state, reason, at
):
    """At its levels, its first step, within its first batch and after it; a batch that memory ends
    is one row here."""
    settings = {"batch": 1} if isinstance(error, MemoryError | torch.OutOfMemoryError) else {}
    record = stopped(monkeypatch, tmp_path, error, at, **settings)
    assert record["state"] == state
    assert reason in record["reason"]
    with pytest.raises(RuntimeError, match=f"is {state} .*{reason.split(':')[0]}.*, not complete"):
        Run.load(tmp_path)
    done = po.sample(toy(), Fragile(), folder=tmp_path, resume=True, **SETTINGS | settings)
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "complete"
    assert torch.equal(done.samples, po.sample(toy(), Fragile(), **SETTINGS | settings).samples)
    assert torch.equal(done.samples, Run.load(tmp_path).samples)


def test_a_failed_run_is_still_told_from_another_one(monkeypatch, tmp_path):
    for at in (-1, 0, 9):
        stopped(monkeypatch, tmp_path / str(at), po.operators.SolveError("no convergence"), at)
        with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
            po.sample(toy(), Fragile(), folder=tmp_path / str(at), resume=True, seed=1, **SETTINGS)
        assert json.loads((tmp_path / str(at) / "run.json").read_text())["state"] == "failed"


def test_a_folder_is_free_again_where_nothing_was_kept(monkeypatch, tmp_path):
    stopped(monkeypatch, tmp_path / "early", po.operators.SolveError("no convergence"), 0)
    assert run_folder.holds(tmp_path / "early") is None
    assert (
        len(po.sample(toy(), Fragile(), folder=tmp_path / "early", seed=1, **SETTINGS).samples) == 4
    )
    stopped(monkeypatch, tmp_path / "late", po.operators.SolveError("no convergence"), 3)
    with pytest.raises(
        ValueError, match=r"already holds a run \(failed: SolveError: no convergence\)"
    ):
        po.sample(toy(), Fragile(), folder=tmp_path / "late", seed=1, **SETTINGS)


def test_a_run_that_cannot_be_saved_has_failed(monkeypatch, tmp_path):
    def full(self, folder):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as within:
        within.setattr(Run, "save", full)
        with pytest.raises(OSError, match="No space"):
            po.sample(toy(), Fragile(), folder=tmp_path, **SETTINGS)
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "failed"
    before = Fragile.done
    assert len(po.sample(toy(), Fragile(), folder=tmp_path, resume=True, **SETTINGS).samples) == 4
    assert Fragile.done == before  # the rows were kept


def test_a_plan_that_fails_leaves_a_failed_folder_too(monkeypatch, tmp_path, capsys):
    """The command plans first, which takes a step before the run has begun."""
    np.save(tmp_path / "y.npy", np.zeros((1, 8, 8), dtype=np.float32))
    file = tmp_path / "problem.yaml"
    file.write_text(
        "prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 8, 8]}}\noperator: identity\n"
        "noise: {law: gaussian, sigma: 0.1, range: [0, 1]}\nmeasurement: {file: y.npy}\n"
        "method: DiffPIR\nn: 2\nsteps: 3\n"
    )

    def call(*more):
        monkeypatch.setattr(
            sys,
            "argv",
            ["posteriori", "solve", str(file), "--out", str(tmp_path / "run"), "--quiet", *more],
        )
        try:
            main()
        except SystemExit as stop:
            return stop.code
        return 0

    def fail(*args, **settings):
        raise po.operators.SolveError("no convergence")

    with monkeypatch.context() as within:
        within.setattr("posteriori.plan.plan", fail)
        assert call() == 2
    assert "no convergence" in capsys.readouterr().err
    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["reason"]
        == "SolveError: no convergence"
    )
    assert call("--resume") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "complete"
    assert call() == 2  # what is complete is not replaced
