"""A run in pieces: one process's samples bit by bit, whatever was stopped on the way."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import posteriori as po
from posteriori import problem_file
from posteriori.counting import CountedPrior
from posteriori.driver import Job
from posteriori.run import Run, read_json
from posteriori.shards import Work, merge, plan, planned, work

PROBLEM = """
prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 4, 4], range: [0, 1]}}
operator: {name: blur, std: 0.5, boundary: reflect}
noise: {law: gaussian, sigma: 0.05, range: [0, 1]}
measurement: {image: clean.npy, seed: 1}
method: %s
n: %d
steps: 6
seed: 3
batch: 4
"""


@pytest.fixture
def problem(tmp_path):
    def made(method="MMPS", n=22):
        np.save(tmp_path / "clean.npy", np.full((1, 4, 4), 0.4, dtype=np.float32))
        path = tmp_path / "problem.yaml"
        path.write_text(PROBLEM % (method, n))
        return path

    return made


def whole(path, batch):
    task = problem_file.load(path).build()
    return po.sample(task.posterior, task.method, **task.settings | {"batch": batch})


@pytest.mark.parametrize("method", ["MMPS", "DAPS", "{name: TDS, particles: 3}"])
def test_three_pieces_one_of_them_stopped_and_repeated_are_the_whole_run_bit_by_bit(
    problem, tmp_path, monkeypatch, method
):
    path = problem(method)
    pieces = plan(path, tmp_path / "run", shards=3)
    assert len(pieces) == 3
    assert sum(piece.n for piece in pieces) == 22
    calls, advance = [], Job.advance

    def stopped(self, *batch):
        calls.append(1)
        if len(calls) == 8:  # in the middle of the second batch
            raise KeyboardInterrupt
        advance(self, *batch)

    work(pieces[2])
    with monkeypatch.context() as patch:
        patch.setattr(Job, "advance", stopped)
        with pytest.raises(KeyboardInterrupt):
            work(pieces[1])
    work(pieces[0])
    with pytest.raises(
        RuntimeError, match=f"samples {pieces[1].first} to {pieces[2].first - 1} are not drawn"
    ):
        merge(tmp_path / "run")
    work(pieces[1])
    run, alone = merge(tmp_path / "run"), whole(path, pieces[0].batch)
    assert torch.equal(run.samples, alone.samples)
    assert torch.equal(run.log_w, alone.log_w)
    assert run.counts == alone.counts
    assert all(torch.equal(run.trace[name], alone.trace[name]) for name in alone.trace)
    if alone.log_evidence is not None:
        assert run.log_evidence == pytest.approx(alone.log_evidence, abs=1e-9)
    assert torch.equal(Run.load(tmp_path / "run").samples, alone.samples)


def test_a_piece_that_is_done_costs_no_call_and_its_json_is_the_piece(
    problem, tmp_path, monkeypatch
):
    pieces = plan(problem(), tmp_path / "run", shards=2)
    again = Work(**json.loads(json.dumps(asdict(pieces[0]))))
    assert again == pieces[0]
    place = work(again)
    for call in ("denoise", "linearize"):
        monkeypatch.setattr(CountedPrior, call, lambda *_: pytest.fail("a denoiser was called"))
    assert work(pieces[0]) == place == pieces[0].place


def test_a_plan_is_kept_and_another_one_refused(problem, tmp_path):
    path = problem()
    pieces = plan(path, tmp_path / "run", shards=3)
    assert plan(path, tmp_path / "run", shards=3) == pieces == planned(tmp_path / "run")
    with pytest.raises(ValueError, match=r"holds the plan of another run \(n: 22 then, 40 now"):
        plan(path, tmp_path / "run", shards=3, n=40)
    with pytest.raises(FileNotFoundError, match="no plan of a run"):
        planned(tmp_path)
    for bad in (0, 2.0, True):
        with pytest.raises(ValueError, match="an integer >= 1"):
            plan(path, tmp_path / "other", shards=bad)


@pytest.mark.parametrize(
    ("method", "n", "cut"),
    [("MMPS", 20, 3), ("MMPS", 2, 5), ("{name: TDS, particles: 3}", 7, 2), ("MMPS", 9, 1)],
)
def test_pieces_hold_every_sample_once_in_whole_batches(problem, tmp_path, method, n, cut):
    pieces = plan(problem(method, n), tmp_path / "run", shards=cut)
    assert 1 <= len(pieces) <= cut
    assert [k for piece in pieces for k in range(piece.first, piece.first + piece.n)] == list(
        range(n)
    )
    assert len({piece.batch for piece in pieces}) == 1
    assert method != "MMPS" or all(piece.first % piece.batch == 0 for piece in pieces), (
        "a batch is cut"
    )


def test_method_and_number_of_samples_may_be_given_in_place_of_the_files(problem, tmp_path):
    method = {"name": "DPS", "scale": 0.5}
    pieces = plan(problem(), tmp_path / "run", shards=2, n=4, method=method)
    for piece in pieces:
        work(piece)
    run = merge(tmp_path / "run")
    assert (len(run.samples), run.config["method"]) == (4, "DPS")
    assert run.config["settings"]["scale"] == 0.5


def test_pieces_of_two_runs_are_not_merged(problem, tmp_path):
    """The file was changed between two pieces."""
    path = problem()
    first, second = plan(path, tmp_path / "run", shards=2)
    work(first)
    path.write_text(path.read_text().replace("sigma: 0.05", "sigma: 0.06"))
    work(second)
    with pytest.raises(ValueError, match="not parts of one run .*noise"):
        merge(tmp_path / "run")


def test_a_plan_moves_with_its_folder_and_problem(problem, tmp_path):
    """The plan names the problem as seen from its folder."""
    path = problem()
    plan(path, tmp_path / "run", shards=2)
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(moved)
    pieces = planned(moved / "run")
    assert [replace(piece, folder="", problem="") for piece in pieces] == [
        replace(p, folder="", problem="") for p in pieces
    ]
    assert work(pieces[0]).is_relative_to(moved)
    assert read_json(pieces[0].place / "run.json")["state"] == "complete"
