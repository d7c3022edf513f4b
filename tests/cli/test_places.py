"""A folder or file of the wrong kind: it is named for what it is, with what to do with it, wherever
it is given."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from console import call, problem
from PIL import Image
from reference import REPOSITORY

import posteriori as po

SHIPPED = Path(po.priors.__file__).parent / "weights" / "digits"
KINDS = {
    "run": "It is the folder of a run: `posteriori report",
    "prior": "It is the folder of a prior: a problem file uses it by prior: {path:",
    "priors": "It is a folder that holds priors: name one of mine",
    "training": "It is a training folder: `posteriori train CONFIG --out",
    "diffusers": "It is a folder of the diffusers library",
    "pictures": "It is a folder of pictures: name one of a.png",
    "empty": "It is an empty folder",
    "nothing": "There is no such file or folder",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """One of each."""
    base = tmp_path_factory.mktemp("places")
    for name in (*KINDS, "priors/mine", "diffusers/unet"):
        (base / name).mkdir(exist_ok=True)
    (base / "nothing").rmdir()
    shutil.copy(SHIPPED / "card.json", base / "prior")
    shutil.copy(SHIPPED / "card.json", base / "priors" / "mine")
    torch.save({}, base / "training" / "checkpoint.pt")
    (base / "diffusers" / "model_index.json").write_text("{}")
    (base / "run" / "run.json").write_text(json.dumps({"state": "running", "config": {}}))
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(base / "pictures" / "a.png")
    np.save(base / "y.npy", np.zeros((1, 16, 16), dtype=np.float32))
    (base / "net.pkl").write_bytes(b"")
    problem(base, "{file: y.npy}")
    return base


def solved(monkeypatch, places, **changes):
    """The exit code of a problem whose file has these changes."""
    file = places / "changed.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load((places / "problem.yaml").read_text()) | changes))
    return call(monkeypatch, "solve", file, "--out", places / "out", "--quiet")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["report", "solve", "train", "path", "diffusers", "file"])
def test_a_folder_of_another_kind_is_named(places, monkeypatch, capsys, where, kind):
    right = ("report", "run"), ("path", "prior"), ("path", "diffusers"), ("diffusers", "diffusers")
    if (where, kind) in right:
        pytest.skip("which is right")
    if where == "diffusers":
        pytest.importorskip("diffusers")
    place = places / kind
    if where in ("report", "solve", "train"):
        code = call(
            monkeypatch, where, place, *([] if where == "report" else ["--out", places / "out"])
        )
        assert code == 2
    else:
        code = solved(
            monkeypatch,
            places,
            **({"measurement": {"file": kind}} if where == "file" else {"prior": {where: kind}}),
        )
        assert code == 2
    said = capsys.readouterr().err
    if kind == "nothing" and where in ("solve", "train", "file"):
        assert "no such file" in said
    elif (where, kind) == ("diffusers", "prior"):
        assert "is a prior of this package" in said
    else:
        assert KINDS[kind] in said
    assert not (places / "out").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("prior/card.json", "It is the card of a prior: name its folder"),
        (
            "pictures/a.png",
            "It is a picture: a problem file names it by measurement: {file: a.png}",
        ),
        ("problem.yaml", "It is a YAML file: `posteriori solve"),
        ("net.pkl", "is empty"),
    ],
)
def test_a_file_in_the_place_of_a_prior_is_named(places, monkeypatch, capsys, path, said):
    assert solved(monkeypatch, places, prior={"path": path}) == 2
    assert said in capsys.readouterr().err


def test_weights_alone_say_what_they_need_also_in_a_problem_file(places, monkeypatch, capsys):
    torch.save({"a": torch.zeros(3), "b": torch.zeros(3)}, places / "net.pt")
    assert solved(monkeypatch, places, prior={"path": "net.pt"}) == 2
    assert "holds weights without a card" in (said := capsys.readouterr().err)
    assert "prior: {name: my_prior.py:load, weights: ...}" in said


def test_weights_in_the_place_of_a_measurement_are_not_listed_by_the_hundred(
    places, monkeypatch, capsys
):
    assert (
        solved(monkeypatch, places, measurement={"file": str(SHIPPED / "weights.safetensors")}) == 2
    )
    said = capsys.readouterr().err
    assert "more, as a network's weights do: choose one by key" in said
    assert len(said) < 700


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("prior", "the folder of a prior"),
        ("training", "the folder of a training"),
        ("diffusers", "the folder of a diff"),
        ("y.npy", "a file"),
    ],
)
def test_a_run_is_not_written_into_another_kind_of_folder(places, monkeypatch, capsys, kind, what):
    before = sorted((places / kind).rglob("*"))
    assert call(monkeypatch, "solve", places / "problem.yaml", "--out", places / kind) == 2
    assert f"is {what}" in capsys.readouterr().err
    assert sorted((places / kind).rglob("*")) == before


def test_a_training_file_and_a_problem_file_are_told_apart(places, monkeypatch, capsys):
    training = REPOSITORY / "configs" / "digits.yaml"
    assert call(monkeypatch, "solve", training, "--out", places / "out") == 2
    assert "describes a training, not a problem: posteriori train" in capsys.readouterr().err
    assert call(monkeypatch, "train", places / "problem.yaml", "--out", places / "out") == 2
    assert "describes a problem, not a training: posteriori solve" in capsys.readouterr().err


@pytest.mark.parametrize("bench", ["exact", "images"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "the rows of a bench"),
        ("\x89PNG", "the rows of a bench"),
        ('[{"a": 1}]', "other rows"),
    ],
)
def test_a_file_of_something_else_does_not_take_rows(
    tmp_path, monkeypatch, capsys, bench, content, said
):
    file = tmp_path / "rows.json"
    file.write_text(content)
    words = (
        ["--bed", "gaussian", "--cells", "white"]
        if bench == "exact"
        else ["--side", "32", "--images", "chelsea"]
    )
    assert call(monkeypatch, "bench", bench, *words, "--methods", "DPS", "--json", file) == 2
    assert said in capsys.readouterr().err
    assert file.read_text() == content


@pytest.mark.parametrize(
    ("stored", "prior", "words"),
    [(1, "photos", "is grey, the prior models colours"), (3, "digits", "has colours, the prior")],
)
@pytest.mark.parametrize("key", ["file", "image"])
def test_a_grey_photograph_meets_a_colour_prior_with_advice(
    places, monkeypatch, capsys, stored, prior, words, key
):
    Image.fromarray(np.zeros((32, 32, 3) if stored == 3 else (32, 32), dtype=np.uint8)).save(
        places / "photo.png"
    )
    assert solved(monkeypatch, places, measurement={key: "photo.png"}, prior=prior) == 2
    said = capsys.readouterr().err
    assert words in said
    assert (
        "prior: {grey: photos}" if stored == 1 else "take a prior of colours such as photos"
    ) in said
