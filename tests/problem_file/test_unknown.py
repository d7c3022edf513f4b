"""Problem files whose instrument is not known: what they build, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import yaml
from reference import draw

import posteriori as po
from posteriori import problem_file
from posteriori.cli.solve import solve_problem
from posteriori.evaluation import summary
from posteriori.packing import unpack

F64 = torch.float64
BASE = {
    "prior": {"gaussian": {"mean": 0.5, "std": 0.2, "shape": [1, 8, 8]}},
    "operator": {"name": "blur", "std": 1.2, "size": 5, "boundary": "circular"},
    "unknown": {"std": {"median": 1.0, "factor": 1.5}},
    "noise": {"law": "gaussian", "sigma": 0.02, "range": [0, 1]},
    "measurement": {"image": "x.npy"},
    "method": "DAPS",
}


@pytest.fixture
def write(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("x", (1, 8, 8)), ("y", (1, 8, 8)), ("ray", (1, 3, 12))):
        np.save(tmp_path / f"{name}.npy", rng.random(shape, dtype=np.float32))

    def file(**changes):
        place = tmp_path / "problem.yaml"
        told = {k: v for k, v in (BASE | changes).items() if v is not None}
        place.write_text(yaml.safe_dump(told))
        return place

    return file


def test_a_width_is_a_part_beside_the_image_with_the_stated_law(write):
    task = problem_file.load(write()).build()
    post = task.posterior
    assert isinstance(post.given.A, po.operators.BlindGaussianBlur)
    assert post.prior.names == ("image", "log_width")
    width = post.prior.priors[1]
    assert float(width.mean) == pytest.approx(0.0)
    assert width.variance == pytest.approx(math.log(1.5) ** 2)
    image, log_width = unpack(task.reference[None], post.given.A.in_parts).values()
    assert float(log_width) == pytest.approx(math.log(1.2))
    # y was made by the operator that the file states: the family at its width.
    known = problem_file.load(write(unknown=None)).build()
    torch.testing.assert_close(post.given.y, known.posterior.given.y, rtol=0, atol=0)
    torch.testing.assert_close(
        post.given.A.at(log_width[0])(image), known.posterior.given.A(image), rtol=1e-5, atol=1e-6
    )


def test_without_a_median_the_operators_number_is_it(write):
    post = problem_file.load(write(unknown={"std": {"factor": 2}})).build().posterior
    assert float(post.prior.priors[1].mean) == pytest.approx(math.log(1.2))


@pytest.mark.parametrize(
    ("operator", "unknown", "family"),
    [
        (
            {"name": "blur", "std": 1.2, "size": 5, "boundary": "circular"},
            {"kernel": {"widths": [0.5, 2], "spread": 0.01}},
            po.operators.BlindConvolution,
        ),
        (
            {"name": "radon", "angles": 3, "pixel_mm": 1, "detectors": 12},
            {"offset_mm": {"std": 1}},
            po.operators.BlindRotationCentre,
        ),
        ({"name": "gamma", "exponent": 2.2}, {"exponent": {}}, po.operators.BlindGamma),
    ],
)
def test_each_number_has_its_family_and_runs(write, operator, unknown, family):
    task = problem_file.load(write(operator=operator, unknown=unknown)).build()
    A = task.posterior.given.A
    assert isinstance(A, family)
    clean = A(task.reference[None])[0]
    assert float((task.posterior.given.y - clean).std()) == pytest.approx(0.02, rel=0.4)
    run = po.sample(task.posterior, task.method, n=2, steps=4)
    record = summary(run, task.posterior, task.reference)
    assert record["parameters"]
    assert all(told["truth"] is not None for told in record["parameters"])


def test_a_measured_blur_has_an_image_larger_than_y_and_a_reference_of_the_image_alone(
    write, tmp_path
):
    np.save(tmp_path / "true.npy", np.random.default_rng(1).random((1, 12, 12), dtype=np.float32))
    place = write(
        prior={"gaussian": {"mean": 0.5, "std": 0.2, "shape": [1, 12, 12]}},
        operator={"name": "blur", "std": 1.2, "size": 5},
        measurement={"file": "y.npy"},
        reference="true.npy",
    )
    task = problem_file.load(place).build()
    assert task.posterior.given.A.boundary == "valid"
    assert task.posterior.given.A.image_shape == (1, 12, 12)
    run = po.sample(task.posterior, task.method, n=3, steps=4)
    record = po.report.save(run, task.posterior, tmp_path / "out", task.reference)
    wanted = (run.parts["image"].mean - task.reference).square().mean().sqrt()
    assert record["rmse_mean"] == pytest.approx(float(wanted), rel=1e-4)
    assert record["data_range"] == 1.0
    assert [told["truth"] for told in record["parameters"]] == [None]
    assert [told["level"] for told in record["parameters"]] == [0.5]  # what three samples state
    assert po.report.page(tmp_path / "out").exists()


def test_solve_tells_the_width_with_an_interval(write, tmp_path, capsys):
    place = write(n=20, steps=6)
    solve_problem(place, tmp_path / "run", resume=False, progress=False, checkpoint_seconds=60)
    said = capsys.readouterr().out
    assert "width (pixels): " in said
    assert "% interval" in said
    assert "None" not in said
    assert "no pictures" not in said
    assert (tmp_path / "run" / "mean.png").exists()
    (told,) = json.loads((tmp_path / "run" / "summary.json").read_text())["parameters"]
    assert told["low"] <= told["mean"] <= told["high"]
    assert told["level"] == 0.9
    assert told["truth"] == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unknown": {}}, "exactly one of std, kernel"),
        ({"unknown": {"std": {}, "exponent": {}}}, "exactly one of std, kernel"),
        ({"unknown": {"std": {"factor": 1}}}, "greater than 1"),
        ({"unknown": {"offset_mm": {"std": 1}}}, "belongs to the operator radon"),
        ({"operator": {"name": "blur", "std": 2}}, "odd size"),
        ({"operator": {"name": "blur", "std": 2, "size": 4}}, "odd size"),
        (
            {"operator": {"name": "blur", "std": 2, "size": 5, "boundary": "symmetric"}},
            "unknown.std needs the boundary circular",
        ),
        ({"unknown": {"kernel": {"widths": [0, 1], "spread": 1}}}, "must be > 0 pixels"),
        (
            {
                "noise": {"law": "gaussian", "sigma": "estimate", "range": [0, 1]},
                "measurement": {"file": "y.npy"},
            },
            "takes the operator for known",
        ),
    ],
)
def test_what_cannot_be_unknown_is_refused_in_words(write, changes, said):
    with pytest.raises(ValueError, match=said):
        problem_file.load(write(**changes))


def test_a_kernel_family_is_the_mixture_of_its_members_with_a_fixed_sum():
    prior = po.priors.gaussian_kernels(5, torch.tensor([0.6, 1.5], dtype=F64), spread=0.01)
    members = torch.stack([po.operators.gaussian_kernel(w, 5).double() for w in (0.6, 1.5)])
    torch.testing.assert_close(prior.means.view(2, 5, 5), members, rtol=1e-5, atol=1e-7)
    k = prior.sample(500, seed=1)
    assert float((k.sum((1, 2)) - 1).abs().max()) < 5 * 1e-2 * 0.01 * 5
    near = (k[:, None] - members).square().sum((2, 3)).amin(1)
    assert float(near.mean()) == pytest.approx(24 * 0.01**2, rel=0.1)
    # Whatever is looked at, the denoised kernel has the sum of a member.
    x0 = prior.denoise(draw(3, 5, 5), torch.tensor(0.1, dtype=F64))
    torch.testing.assert_close(x0.sum((1, 2)), torch.ones(3, dtype=F64), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="spread must be > 0"):
        po.priors.kernel_family(members, 0.0)
