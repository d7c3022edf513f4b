"""The jobs under ``examples/`` at small size, from the file to the page."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
import yaml
from PIL import Image
from reference import REPOSITORY

from posteriori.cli import main
from posteriori.run import Run, read_json

EXAMPLES = REPOSITORY / "examples" / "problems"


def solved(folder, name, **changes):
    """The run of an example with other settings, and its summary."""
    record = yaml.safe_load((EXAMPLES / name).read_text())
    for key in ("measurement", "reference"):
        if key in record:
            given = record[key] if isinstance(record[key], dict) else {"file": record[key]}
            record[key] = {
                word: str(EXAMPLES / value) if word in ("file", "image") else value
                for word, value in given.items()
            }
    if "photons" in record["operator"]:
        record["operator"] = record["operator"] | {
            "photons": str(EXAMPLES / record["operator"]["photons"])
        }
    (folder / "problem.yaml").write_text(yaml.safe_dump(record | changes))
    with pytest.raises(SystemExit) as ended:
        main(["solve", str(folder / "problem.yaml"), "--out", str(folder / "run"), "--quiet"])
    assert ended.value.code == 0
    return (
        Run.load(folder / "run"),
        read_json(folder / "run" / "summary.json"),
        (folder / "run" / "index.html").read_text(),
    )


def test_a_k_space_of_eight_coils(tmp_path):
    run, record, page = solved(tmp_path, "kspace.yaml", n=1, steps=8)
    assert run.samples.shape == (1, 1, 48, 48)
    assert record["psnr_mean"] > record["baseline"]["psnr"] + 3
    assert 0.5 < record["chi2_samples"] < 2
    assert "Zero-filled" in page
    assert "Measurement" not in page


def test_a_complex_prior_shows_magnitudes(tmp_path):
    """Black is 0 and white the end of the range, though it starts below 0."""
    prior = {"gaussian": {"mean": 0.0, "std": 0.2, "shape": [2, 48, 48], "range": [-1, 1]}}
    run, record, _ = solved(tmp_path, "kspace.yaml", prior=prior, n=1, steps=3)
    assert run.samples.is_complex()
    assert record["numbers"] == "magnitude"
    assert record["baseline"]["psnr"] > 10
    shown = np.asarray(Image.open(tmp_path / "run" / "sample-000.png"))
    white = run.config["range"][1]
    assert np.abs(shown / 255 - (run.samples[0].abs() / white).clamp(max=1).numpy()).max() < 0.01


def test_photon_counts_of_a_chest_in_hounsfield_units(tmp_path):
    run, record, page = solved(tmp_path, "counts.yaml", n=1, steps=6)
    assert float(run.samples.min()) < -800
    assert record["data_range"] == 1600
    assert 0.5 < record["chi2_samples"] < 2
    assert record["psnr_mean"] > record["baseline"]["psnr"] + 1
    assert record["baseline"]["name"] == "Filtered back-projection"
    assert 25 < record["baseline"]["psnr"] < 32
    assert "Filtered back-projection" in page


def test_the_committed_files_are_what_their_scripts_write(tmp_path):
    for script, names in (
        ("make_kspace.py", ("kspace", "magnitude")),
        ("make_counts.py", ("blank", "chest", "counts")),
    ):
        runpy.run_path(str(EXAMPLES / script))["main"](tmp_path)
        for name in names:
            made, kept = np.load(tmp_path / f"{name}.npy"), np.load(EXAMPLES / f"{name}.npy")
            assert (made.shape, made.dtype) == (kept.shape, kept.dtype)
            # Other libraries round otherwise; counts may then be other draws of the same means.
            room = 10 * np.sqrt(kept) if name == "counts" else 1e-3
            assert (np.abs(made.astype(complex) - kept) <= room).all()


def test_a_photograph_with_a_real_border(tmp_path):
    """Beats what was measured at 10 steps, fits it, and is shown in its frame."""
    run, record, page = solved(tmp_path, "photo.yaml", n=1, steps=10)
    measured, sharp = (
        np.asarray(Image.open(EXAMPLES / f"{name}.png")) / 255 for name in ("photo", "photo-sharp")
    )
    assert run.samples.shape == (1, 3, 87, 111)
    assert run.in_frame().samples.shape == (1, 3, 73, 97)
    assert Image.open(tmp_path / "run" / "mean.png").size == (97, 73)
    assert record["psnr_mean"] > -10 * np.log10(((measured - sharp) ** 2).mean()) + 1
    assert 0.8 < record["chi2_samples"] < 1.2
    assert "of shape 3 x 73 x 97 (the part that was measured, of 3 x 87 x 111)" in page


def test_the_committed_photograph_is_what_its_script_writes(tmp_path):
    runpy.run_path(str(EXAMPLES / "make_photo.py"))["main"](tmp_path)
    for name in ("photo.png", "photo-sharp.png"):
        made, kept = (
            np.asarray(Image.open(folder / name)).astype(int) for folder in (tmp_path, EXAMPLES)
        )
        assert made.shape == kept.shape
        assert np.abs(made - kept).max() <= 1
