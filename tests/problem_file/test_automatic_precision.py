"""``precision: auto``: settled once, by what the machine says of itself, and kept by every run that
goes on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from posteriori import problem_file, shards
from posteriori.cells import cell_task, cells_of
from posteriori.cli import workers
from posteriori.cli.calibrating import calibrate_problem
from posteriori.cli.solve import check_folder, solve_problem
from posteriori.cli.tuning import tune_problem
from posteriori.priors import arithmetic
from posteriori.problem_file.study import load_study
from posteriori.run import read_json, write_json

SIDE = 16


@pytest.fixture
def machine(monkeypatch):
    """A function that says which precision this machine is best at."""

    def best(name):
        monkeypatch.setattr("posteriori.problem_file.prior.quickest", lambda device: name)

    best("bfloat16")
    return best


def written(folder, prior="photos", name="problem.yaml", **more):
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "x.png")
    said = {
        "prior": prior,
        "operator": {"name": "mask", "keep": 0.5, "seed": 0},
        "noise": {"law": "gaussian", "sigma": 0.1, "range": [0, 1]},
        "measurement": {"image": "x.png"},
        "method": "DDNM",
        "n": 1,
        "steps": 2,
    }
    path = folder / name
    path.write_text(yaml.safe_dump(said | more))
    return path


@pytest.mark.parametrize(
    ("prior", "settled"),
    [
        ("photos", "bfloat16"),
        ("photos_noise_maps", "bfloat16"),
        ({"grey": "photos"}, "bfloat16"),
        ({"slices": {"grey": "photos"}}, "bfloat16"),
        ({"tiles": {"prior": "photos", "size": 8}}, "bfloat16"),
        ("digits", "float32"),
        ("brain-mri", "float32"),
        ({"path": "."}, "float32"),
    ],
)
def test_only_priors_whose_loss_was_measured_are_rounded(tmp_path, machine, prior, settled):
    path = written(tmp_path, prior)
    given = problem_file.load(path)
    assert given.precision == given.arithmetic == settled
    assert given.record.get("precision", "float32") == settled
    machine("float32")
    assert problem_file.load(path).precision == "float32"
    assert "precision" not in problem_file.load(path).record


def test_what_a_file_states_is_what_it_gets(tmp_path, machine):
    for stated in ("float32", "bfloat16"):
        given = problem_file.load(written(tmp_path, precision=stated), "float16")
        assert given.precision == stated
        assert given.build().posterior.prior.autocast == (None if stated == "float32" else stated)
    given = problem_file.load(written(tmp_path, precision="auto"))
    assert given.record["precision"] == "bfloat16"
    assert given.build().posterior.prior.autocast == "bfloat16"


@pytest.mark.parametrize(("first", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_run_goes_on_in_the_precision_it_began_with(tmp_path, machine, first, then):
    path, out = written(tmp_path), tmp_path / "out"
    how = {"progress": False, "checkpoint_seconds": 60.0}
    machine(first)
    solve_problem(path, out, resume=False, **how)
    autocast = read_json(out / "run.json")["config"]["identity"]["prior"]["autocast"]
    assert autocast == (None if first == "float32" else first)
    machine(then)
    solve_problem(path, out, resume=True, **how)
    assert read_json(out / "problem.json").get("precision", "float32") == first
    # What is stated against it is refused.
    with pytest.raises(ValueError, match="another problem.*precision"):
        check_folder(problem_file.load(written(tmp_path, precision=then)), out, True)


@pytest.mark.parametrize(
    "prior", ["digits", {"gaussian": {"mean": 0.5, "std": 0.2, "shape": [3, 16, 16]}}]
)
def test_a_refused_problem_leaves_no_precision_to_the_next(tmp_path, machine, prior):
    """EPS asks for more than ``photos`` knows; the next file states another prior."""
    out, how = tmp_path / "out", {"resume": False, "progress": False, "checkpoint_seconds": 60.0}
    with pytest.raises(ValueError, match="EPS"):
        solve_problem(written(tmp_path, method="EPS"), out, **how)
    assert read_json(out / "problem.json")["precision"] == "bfloat16"
    path = written(tmp_path, prior, name="next.yaml")
    assert problem_file.settled_in(out / "problem.json", path) is None
    assert problem_file.settled_in(out / "problem.json", written(tmp_path)) == "bfloat16"
    assert problem_file.settled_in(out / "none.json", path) is None
    if prior == "digits":
        machine("float32")
        solve_problem(written(tmp_path), out, **how)
        assert "precision" not in read_json(out / "problem.json")


def test_a_stated_precision_is_kept_by_a_prior_that_auto_does_not_round(tmp_path, machine):
    begun = problem_file.load(written(tmp_path, "digits", precision="bfloat16"))
    record = tmp_path / "out" / "problem.json"
    record.parent.mkdir()
    write_json(record, begun.record)
    for stated in ({}, {"precision": "auto"}):
        path = written(tmp_path, "digits", **stated)
        again = problem_file.load(path, problem_file.settled_in(record, path))
        assert again.precision == "bfloat16"
        check_folder(again, record.parent, True)


@pytest.mark.parametrize("first", ["float32", "auto"])
@pytest.mark.parametrize("then", ["float32", "auto", None])
def test_float32_is_what_no_precision_stands_for(tmp_path, machine, first, then):
    machine("float32")
    out, how = tmp_path / "out", {"progress": False, "checkpoint_seconds": 60.0}
    solve_problem(written(tmp_path, precision=first), out, resume=False, **how)
    machine("bfloat16")
    stated = {} if then is None else {"precision": then}
    again = written(tmp_path, name="again.yaml", **stated)
    solve_problem(again, out, resume=True, **how)


def test_the_cells_of_a_study_carry_the_precision_to_other_machines(tmp_path, machine):
    written(tmp_path, name="base.yaml")
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump({"problem": "base.yaml", "measurements": "x.png", "methods": ["DDNM"]})
    )
    study = load_study(path)
    (cell,) = cells_of(study, [2], tmp_path / "out")
    machine("float32")
    assert cell.problem["precision"] == "bfloat16"
    assert study.record["problem"]["precision"] == "bfloat16"
    assert "precision" not in json.loads(json.dumps(load_study(path).record))["problem"]
    assert load_study(path, "bfloat16").record == study.record


@pytest.mark.parametrize(("first", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_what_a_study_has_settled_holds_where_its_cells_are_drawn(tmp_path, machine, first, then):
    """Without a word in a cell it is float32, whatever its machine is best at."""
    written(tmp_path, name="base.yaml")
    path = tmp_path / "study.yaml"
    path.write_text(
        yaml.safe_dump({"problem": "base.yaml", "measurements": "x.png", "methods": ["DDNM"]})
    )
    machine(first)
    (cell,) = cells_of(load_study(path), [2], tmp_path / "out")
    machine(then)
    found = cell_task(cell).posterior.prior.autocast
    assert found == (None if first == "float32" else first)


@pytest.mark.parametrize(("first", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_worker_takes_the_precision_of_the_run_it_helps(tmp_path, machine, first, then):
    path, record = written(tmp_path), tmp_path / "out" / "problem.json"
    record.parent.mkdir()
    machine(first)
    write_json(record, problem_file.load(path).record)
    machine(then)
    task = workers._task(str(path), str(record.parent), first)
    assert task.posterior.prior.autocast == (None if first == "float32" else first)


@pytest.mark.parametrize(("first", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_plan_of_pieces_settles_the_precision_of_all(tmp_path, machine, first, then):
    path = written(tmp_path, n=2)
    machine(first)
    pieces = shards.plan(path, tmp_path / "run", shards=2)
    machine(then)
    assert shards.plan(path, tmp_path / "run", shards=2) == pieces
    assert {piece.precision for piece in pieces} == {first}
    for piece in pieces:
        shards.work(piece)
    identity = shards.merge(tmp_path / "run").config["identity"]
    assert identity["prior"]["autocast"] == (None if first == "float32" else first)


@pytest.mark.parametrize(("first", "then"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_a_search_and_a_calibration_go_on_in_the_precision_they_began_with(
    tmp_path, machine, monkeypatch, first, then
):
    """Both are asked with the posterior of the precision that was settled first."""
    seen = []

    def asked(post, *rest, **more):
        seen.append(post.prior.autocast)
        raise KeyboardInterrupt

    monkeypatch.setattr("posteriori.trials.calibrate", asked)
    monkeypatch.setattr("posteriori.tuning.tune", asked)
    path = written(tmp_path)
    for name in (first, then):
        machine(name)
        with pytest.raises(KeyboardInterrupt):
            calibrate_problem(path, tmp_path / "cal", 10, None, None, 0, progress=False)
        with pytest.raises(KeyboardInterrupt):
            tune_problem(path, "20 calls", "crps", [], 4, 0, tmp_path / "tune", False)
    assert seen == [None if first == "float32" else first] * 4


def test_a_device_is_asked_and_not_timed(monkeypatch):
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for has in ((), units[:1], units[1:]):
        for name in units:
            monkeypatch.setattr(torch.cpu, name, lambda there=name in has: there, raising=False)
        for multiplied in (True, False):
            library = SimpleNamespace(_is_mkldnn_bf16_supported=lambda found=multiplied: found)
            monkeypatch.setattr(torch.ops, "mkldnn", library)
            found = "bfloat16" if has and multiplied else "float32"
            assert arithmetic.quickest("cpu") == found
    for name in units:
        monkeypatch.delattr(torch.cpu, name)
    assert arithmetic.quickest("cpu") == "float32"
    assert arithmetic.quickest("nowhere") == "float32"
    monkeypatch.setattr(torch.version, "cuda", "12.0")
    for capability, name in (((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place, c=capability: c)
        assert arithmetic.quickest("cuda:0") == name
