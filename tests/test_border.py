"""What lies beyond the border of a measured picture: nothing is assumed of it, and what is shown is
the picture's own frame."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import posteriori as po
from posteriori import problem_file
from posteriori.cli import main
from posteriori.cli.compare import attempt
from posteriori.evaluation.summary import summary
from posteriori.likelihood import framed
from posteriori.measurements import write_image
from posteriori.problem_file.entries import entries
from posteriori.run import Run, read_json

GREY = {"name": "blur", "std": 0.8}


@pytest.fixture
def write(tmp_path):
    def file(y, **changes):
        np.save(tmp_path / "y.npy", y.numpy())
        record = {
            "prior": "photos",
            "operator": {"name": "blur", "std": 0.8},
            "noise": {"law": "gaussian", "sigma": 0.03, "range": [0, 1]},
            "measurement": {"file": "y.npy"},
            "method": "DiffPIR",
            "n": 2,
            "steps": 2,
        } | changes
        place = tmp_path / "problem.yaml"
        place.write_text(yaml.safe_dump(record))
        return place

    return file


def solve(monkeypatch, file, out, *more):
    monkeypatch.setattr(
        sys, "argv", ["posteriori", "solve", str(file), "--out", str(out), "--quiet", *more]
    )
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def picture(height, width, channels=3):
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sides", [(3, 3), (5, 3), (4, 3), (2, 5), (1, 6)])
@pytest.mark.parametrize("size", [(11, 13), (16, 8)])
def test_a_measured_blur_sees_from_beyond_its_border(write, tmp_path, sides, size):
    """A kernel of one tap, in its middle, shows the image itself: y is then the frame of x,
    whatever the sides of kernel and picture."""
    tap = np.zeros(sides)
    tap[sides[0] // 2, sides[1] // 2] = 1.0
    np.save(tmp_path / "kernel.npy", tap)
    given = (
        problem_file.load(write(picture(*size), operator={"name": "blur", "kernel": "kernel.npy"}))
        .build()
        .posterior.given
    )
    assert given.A.boundary == "valid"
    assert given.A.in_shape == (3, size[0] + sides[0] - 1, size[1] + sides[1] - 1)
    x = picture(*given.A.in_shape[1:])
    torch.testing.assert_close(given.A(x[None])[0], framed(x, given.frame))


@pytest.mark.parametrize(
    ("operator", "size", "channels"),
    [
        (GREY, (11, 13), 3),
        ({"name": "compose", "parts": [GREY, "grey"]}, (11, 13), 1),
        ({"name": "compose", "parts": ["grey", GREY]}, (11, 13), 1),
        ({"name": "compose", "parts": [GREY, {"name": "blur", "std": 0.4}]}, (11, 13), 3),
        ({"name": "compose", "parts": [{"name": "clip", "gain": 2}, GREY]}, (11, 13), 3),
    ],
)
def test_every_order_of_operators_has_its_frame(write, operator, size, channels):
    """A flat image with one bright pixel: it is seen where its frame has it."""
    task = problem_file.load(
        write(picture(*size, channels), operator=operator, method="DPS")
    ).build()
    A, frame = task.posterior.given.A, task.posterior.given.frame
    assert A.out_shape[-2:] == size
    x = torch.zeros(1, *A.in_shape)
    x[0, :, frame[0][0] + 5, frame[1][0] + 7] = 0.4
    y = A(x)[0].sum(0)
    assert (y.argmax() // size[1], y.argmax() % size[1]) == (5, 7)
    assert any("nothing is assumed of what lies beyond its border" in note for note in task.notes)


def test_what_is_simulated_or_stated_is_as_before(write, tmp_path):
    np.save(tmp_path / "x.npy", picture(16, 16).numpy())
    task = problem_file.load(write(picture(16, 16), measurement={"image": "x.npy"})).build()
    assert (task.posterior.given.A.boundary, task.posterior.given.frame) == ("circular", None)
    for boundary in ("circular", "reflect", "zero"):
        task = problem_file.load(
            write(picture(16, 16), operator=GREY | {"boundary": boundary})
        ).build()
        assert (task.posterior.given.A.boundary, task.posterior.given.frame) == (boundary, None)
    stated = (
        problem_file.load(write(picture(16, 16), operator=GREY | {"boundary": "valid"}))
        .build()
        .posterior.given
    )
    assert (
        stated.frame
        == problem_file.load(write(picture(16, 16))).build().posterior.given.frame
        == ((4, 20), (4, 20))
    )


def test_an_image_that_is_no_larger_than_y_is_mirrored_and_that_is_said(write):
    for changes in (
        {"image_shape": [3, 16, 16]},
        {"prior": {"gaussian": {"mean": 0.5, "std": 0.2, "shape": [3, 16, 16]}}},
    ):
        task = problem_file.load(write(picture(16, 16), **changes)).build()
        assert (task.posterior.given.A.boundary, task.posterior.given.frame) == ("reflect", None)
        assert any("taken for their mirror image" in note for note in task.notes)
    whole = (
        problem_file.load(write(picture(16, 16), image_shape=[3, 24, 24])).build().posterior.given
    )
    assert (whole.A.boundary, whole.A.in_shape, whole.frame) == ("valid", (3, 24, 24), None)


def test_a_measurement_that_fits_neither_way_is_refused(write):
    with pytest.raises(
        ValueError, match=r"has shape \(3, 16, 16\), but Blur makes measurements of shape"
    ):
        problem_file.load(write(picture(16, 16), image_shape=[3, 20, 20])).build()


def test_detail_that_the_blur_cannot_make_is_doubted_beyond_every_border(write):
    sharp, blur = picture(32, 32), {"name": "blur", "std": 2.5}
    for boundary in (None, "reflect"):
        stated = blur if boundary is None else blur | {"boundary": boundary}
        A = problem_file.load(write(sharp, operator=stated)).build().posterior.given.A
        blurred = A(picture(*A.in_shape[1:])[None])[0] + 0.03 * torch.randn(
            A.out_shape, generator=torch.Generator().manual_seed(1)
        )
        for y, doubted in ((sharp, True), (blurred, False)):
            notes = problem_file.load(write(y, operator=stated)).build().notes
            assert any("holds detail that Blur cannot make" in note for note in notes) == doubted


@pytest.mark.parametrize("whole", [True, False])
def test_solve_shows_and_scores_the_frame_and_keeps_the_whole(
    write, tmp_path, monkeypatch, capsys, whole
):
    truth = picture(21 + 8, 13 + 8)
    A = po.operators.Blur(po.operators.gaussian_kernel(0.8), (3, 29, 21), boundary="valid")
    y = A(truth[None])[0]
    frame = truth[:, 4:-4, 4:-4]
    np.save(tmp_path / "truth.npy", (truth if whole else frame).numpy())
    file, out = write(y, reference="truth.npy"), tmp_path / "run"
    assert solve(monkeypatch, file, out) == 0
    said = capsys.readouterr()
    assert "images are 29 x 21, larger by what the blur reaches" in said.err.lower()
    assert "the 21 x 13 pixels that were measured, of 29 x 21" in said.out
    for name in ("sample-000", "sample-001", "mean"):
        assert Image.open(out / f"{name}.png").size == (13, 21)
    run = Run.load(out)
    cut = run.in_frame()
    assert run.samples.shape == (2, 3, 29, 21)
    assert torch.equal(cut.samples, run.samples[..., 4:-4, 4:-4])
    assert torch.equal(cut.in_frame().samples, cut.samples)
    assert cut.mean.shape == cut.std.shape == cut.interval(0.3)[0].shape == (3, 21, 13)
    record = read_json(out / "summary.json")
    assert record["psnr_mean"] == pytest.approx(
        float(-10 * (cut.mean - frame).square().mean().log10()), abs=1e-3
    )
    assert record["spread"] == pytest.approx(float(cut.std.mean()), rel=1e-4)
    given = problem_file.load(file).build().posterior.given
    assert record["chi2_samples"] == pytest.approx(float(given.chi2(run.samples).mean()), rel=1e-4)
    assert record["numbers"] == "real"
    page = (out / "index.html").read_text()
    assert "samples of shape 3 x 21 x 13 (the part that was measured, of 3 x 29 x 21)" in page
    assert Run.load(out).extras["reference"].shape == (3, 21, 13)
    # The frame is part of what a run is known by
    assert solve(monkeypatch, file, out, "--resume") == 0


def test_a_frame_lies_within_the_image():
    A = po.operators.Identity((1, 6, 8))
    for frame in (((0, 7), (0, 8)), ((3, 3), (0, 8)), ((-1, 4), (0, 8))):
        with pytest.raises(ValueError, match="frame .* must be the"):
            po.Likelihood(torch.zeros(1, 6, 8), A, po.noise.Gaussian(0.1), frame=frame)
    prior = po.priors.Gaussian(torch.zeros(1, 6, 8), 1.0)
    given = po.Likelihood(
        torch.zeros(1, 6, 8), A, po.noise.Gaussian(0.1), range=(0, 1), frame=((1, 4), (2, 8))
    )
    post = po.Posterior(prior, given)
    run = po.sample(post, po.methods.DiffPIR(), n=2, steps=3)
    assert run.samples.shape == (2, 1, 6, 8)
    assert run.in_frame().mean.shape == (1, 3, 6)
    assert (
        summary(run, post, torch.zeros(1, 6, 8))["psnr_mean"]
        == summary(run, post, torch.zeros(1, 3, 6))["psnr_mean"]
    )
    with pytest.raises(ValueError, match="the reference has shape"):
        summary(run, post, torch.zeros(1, 5, 5))


@pytest.mark.parametrize("size", [(17, 9), (8, 23)])
def test_pictures_of_any_size_are_solved(write, size):
    """The shipped network takes multiples of 8, which a picture with its surroundings rarely is."""
    task = problem_file.load(write(picture(*size))).build()
    run = po.sample(task.posterior, task.method, **task.settings)
    assert run.in_frame().samples.shape == (2, 3, *size)


def test_pictures_are_written_in_the_size_of_the_file(tmp_path, write, monkeypatch):
    write_image(tmp_path / "y.png", picture(15, 10), range=(0, 1))
    file = write(picture(2, 2), measurement={"file": "y.png"})
    assert solve(monkeypatch, file, tmp_path / "run") == 0
    assert Image.open(tmp_path / "run" / "mean.png").size == Image.open(tmp_path / "y.png").size


def test_a_comparison_shows_the_frame(write, tmp_path):
    given = problem_file.load(write(picture(11, 13)))
    row = attempt(entries(["DiffPIR"])[0], given, given.build(), tmp_path / "run", False)
    assert row.run.samples.shape == (2, 3, 11, 13)
    assert Run.load(tmp_path / "run").samples.shape[-2:] > (11, 13)
