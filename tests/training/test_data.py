"""What a network may be trained on: measured numbers of any kind in a stated window, complex
images, many sizes; what is held out."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile
import torch
from reference import REPOSITORY
from trainings import written

from posteriori.cli import main
from posteriori.measurements import write_image
from posteriori.priors import from_pretrained
from posteriori.training import sources, trainer
from posteriori.training.arrays import read_windowed
from posteriori.training.config import read_config
from posteriori.training.data import Crops, apart


def test_a_window_becomes_the_range_of_the_network(tmp_path):
    hu = np.array([[-1000, 0, 500], [250, 1500, 249]], dtype=np.int16)
    np.save(tmp_path / "hu.npy", hu)
    (image,) = read_windowed([tmp_path / "hu.npy"], 1, (-1000, 1500))
    np.testing.assert_allclose(image[..., 0], 2 * (hu + 1000.0) / 2500 - 1, rtol=1e-6)
    assert image.dtype == np.float32
    with pytest.raises(
        ValueError,
        match=r"hu.npy has values from -1000 to 1500, "
        r"of which 17 % lie outside the window \[-1000, 1000\]",
    ):
        read_windowed([tmp_path / "hu.npy"], 1, (-1000, 1000))
    (image,) = read_windowed([tmp_path / "hu.npy"], 1, (-1000, 1000), clip=True)
    assert float(image.max()) == 1


def test_files_of_every_kind_and_size_in_one_folder(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 4096, (3, 9, 12))
    np.save(tmp_path / "a.npy", whole[0].astype(np.uint16))
    np.savez(tmp_path / "b.npz", scans=whole[:, :8].astype(np.int32))
    tifffile.imwrite(tmp_path / "c.tif", whole[2].astype(np.uint16))
    torch.save(torch.from_numpy(whole[1, :, :10].astype(np.float32)), tmp_path / "d.pt")
    write_image(
        tmp_path / "e.png",
        torch.from_numpy(whole[0] / 65535.0)[None].float(),
        range=(0, 1),
        bits=16,
    )
    images = read_windowed([tmp_path], 1, (0, 4095))
    assert [im.shape for im in images] == [
        (9, 12, 1),
        *[(8, 12, 1)] * 3,
        (9, 12, 1),
        (9, 10, 1),
        (9, 12, 1),
    ]
    for image, want in zip(
        images, [whole[0], *whole[:, :8], whole[2], whole[1, :, :10], whole[0]], strict=True
    ):
        np.testing.assert_allclose(image[..., 0], 2 * want / 4095 - 1, atol=1e-6)
    batch = Crops(images, 8).batch(6, 0, 0)
    assert (batch.shape, batch.dtype) == ((6, 1, 8, 8), torch.float32)


def test_complex_images_are_two_channels(tmp_path):
    x = np.random.default_rng(0).standard_normal((2, 8, 9)) + 1j
    np.save(tmp_path / "x.npy", x.astype(np.complex64))
    images = read_windowed([tmp_path], 2, (-5, 5))
    assert [im.shape for im in images] == [(8, 9, 2)] * 2
    np.testing.assert_allclose(5 * (images[1][..., 0] + 1j * images[1][..., 1]), x[1], rtol=1e-5)
    with pytest.raises(ValueError, match="network.channels: 2 are expected"):
        read_windowed([tmp_path], 1, (-5, 5))


@pytest.mark.parametrize(
    ("array", "channels", "message"),
    [
        (np.zeros((4, 8, 8)), 3, r"shape \(4, 8, 8\), the network has 3 channels"),
        (np.zeros((8, 8, 3)), 3, r"shape \(8, 8, 3\), the network has 3 channels"),
        (np.full((8, 8), np.nan), 1, "64 of 64 values are not finite"),
        (np.zeros(8), 1, r"shape \(8,\), the network has 1 channels"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path, array, channels, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=f"x.npy.*{message}"):
        read_windowed([tmp_path], channels, (0, 1))


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no array .* in the training folder"):
        read_windowed([tmp_path], 1, (0, 1))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_windowed([tmp_path / "a.npz"], 1, (0, 1))
    np.savez(tmp_path / "b.npz", one=np.zeros((8, 8)), two=np.zeros((8, 8)))
    with pytest.raises(ValueError, match="holds one, two: choose one by key"):
        read_windowed([tmp_path], 1, (0, 1))
    with pytest.raises(ValueError, match="holds one, two: there is no array 'three'"):
        read_windowed([tmp_path], 1, (0, 1), key="three")
    assert len(read_windowed([tmp_path], 1, (0, 1), key="two")) == 1
    (tmp_path / "b.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"b\.npz"):
        read_windowed([tmp_path], 1, (0, 1))


def test_what_is_held_out_depends_on_the_seed_and_is_never_trained_on():
    assert apart(10, 0.0, 0) == (list(range(10)), [])
    assert apart(1, 0.5, 0) == ([0], [])
    train, held = apart(40, 0.1, 3)
    assert sorted(train + held) == list(range(40))
    assert len(held) == 4
    assert apart(40, 0.1, 3) == (train, held)
    assert any(apart(40, 0.1, seed)[1] != held for seed in range(4))
    assert len(apart(5, 0.01, 0)[1]) == 1


def test_the_scales_of_a_photograph_are_held_out_together(tmp_path):
    (tmp_path / "data").mkdir()
    for k in range(4):
        write_image(tmp_path / "data" / f"{k}.png", torch.full((3, 16, 16), k / 10), range=(0, 1))
    data = {"kind": "images", "folders": ["data"], "scales": [1.0, 0.5], "crop": 8}
    network = {"channels": 3, "widths": [8], "blocks": [1], "embedding": 8}
    train, held = sources.training_images(
        read_config(written(tmp_path, data=data, network=network))
    )
    assert [im.shape[0] for im in held.images] == [16, 8]
    values = {int(im[0, 0, 0]) for im in held.images}
    assert len(values) == 1
    assert values.isdisjoint(int(im[0, 0, 0]) for im in train.images)
    assert len(train.images) == 6


def test_complex_scans_larger_than_the_crop_become_a_prior_by_one_command(tmp_path, capsys):
    """From files of several sizes to a prior of two channels of any size; losses and the split are
    said."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for k, shape in enumerate([(12, 20), (30, 9), (16, 16), (8, 8)]):
        x = rng.uniform(-0.7, 0.7, (*shape, 2)) @ [1, 1j]
        np.save(tmp_path / "data" / f"{k}.npy", x.astype(np.complex64))
    data = {"kind": "arrays", "paths": ["data"], "window": [-1, 1], "crop": 8}
    file = written(
        tmp_path, data=data, network={"channels": 2, "widths": [8], "blocks": [1], "embedding": 8}
    )
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "train",
                str(file),
                "--out",
                str(tmp_path / "run"),
                "--export",
                str(tmp_path / "prior"),
                "--device",
                "cpu",
            ]
        )
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "3 images to train on, 1 of 4 held out by seed 0" in said
    assert "step 2 of 4: loss " in said
    assert "on held-out images " in said
    prior = from_pretrained(tmp_path / "prior")
    assert prior.shape == (2, None, None)
    assert prior.train_size is None
    assert (tmp_path / "prior" / "samples.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"kind": "arrays", "paths": ["data"], "window": [1, 0], "crop": 8}},
            r"data\.arrays: window is \[lowest, highest\]",
        ),
        (
            {"data": {"kind": "arrays", "paths": ["data"], "window": [0, 1], "crop": 9}},
            "the crop 9",
        ),
        (
            {
                "network": {
                    "channels": 1,
                    "widths": [8, 8],
                    "blocks": [1, 1],
                    "unshuffle": 8,
                    "embedding": 8,
                }
            },
            "sides that are multiples of 16",
        ),
        ({"network": {"channels": 2, "widths": [8], "blocks": [1]}}, "the network has 2 channels"),
        ({"data": {"kind": "images", "folders": ["data"], "crop": 8}}, "no image"),
        ({"data": {"kind": "npz", "file": "none.npz", "key": "x", "crop": 8}}, r"none\.npz"),
        ({"steps": 0}, "steps: input should be greater than 0, got 0"),
    ],
)
def test_a_mistake_is_one_message_without_a_trace(tmp_path, capsys, changes, message):
    (tmp_path / "data").mkdir()
    np.save(
        tmp_path / "data" / "x.npy", np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    )
    with pytest.raises(SystemExit) as ended:
        main(["train", str(written(tmp_path, **changes)), "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("posteriori: ")
    assert "Traceback" not in said
    assert re.search(message, said), said


def test_files_that_are_no_yaml_and_devices_that_are_not_there(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("a: [1")
    for words in (["train", str(tmp_path / "bad.yaml"), "--out", str(tmp_path / "run")],):
        with pytest.raises(SystemExit):
            main(words)
        assert "bad.yaml is not YAML" in capsys.readouterr().err
    with pytest.raises(ValueError, match="device 'nonsense' is not available here"):
        trainer.device_named("nonsense")
    assert trainer.device_named("auto").type in ("cpu", "cuda")


def test_the_example_is_trained_on_scans_in_hounsfield_units(tmp_path):
    plan = read_config(REPOSITORY / "examples" / "training" / "scans.yaml")
    said = []
    small = {"steps": 2, "batch": 2, "autocast": "none", "threads": torch.get_num_threads()}
    trainer.train(plan.model_copy(update=small), tmp_path / "run", progress=False, say=said.append)
    assert said[0] == "1 images, none of them held out"
    batch = sources.crops(plan).batch(4, 0, 0)
    assert batch.shape == (4, 1, 32, 32)
    assert float(batch.min()) >= -1
