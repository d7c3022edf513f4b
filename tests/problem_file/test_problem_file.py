"""Problem files: what they describe is what is built, and what looks wrong is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image
from reference import REPOSITORY

import posteriori as po
from posteriori import problem_file
from posteriori.evaluation import exact_posterior
from posteriori.likelihood import framed
from posteriori.measurements import write_image
from posteriori.methods import (
    ALL,
    DAPS,
    DDIM,
    DPS,
    MMPS,
    ConstantFraction,
    DiffPIR,
    Heun,
    Midpoint,
    PiGDM,
    Unconditional,
)
from posteriori.problem_file import noise_level
from posteriori.problem_file.along_axis import AlongAxisEntry
from posteriori.problem_file.operator import Instrument, OwnOperator
from posteriori.rng import Streams

EXAMPLES = sorted((REPOSITORY / "examples" / "problems").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    """A problem file on an 8 x 8 Gaussian prior, with y.npy beside it and the given settings
    changed; None leaves one out."""
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((1, 8, 8), dtype=np.float32))

    def file(**changes):
        record = {
            "prior": {"gaussian": {"mean": 0.5, "std": 0.2, "shape": [1, 8, 8]}},
            "operator": {"name": "identity"},
            "noise": {"law": "gaussian", "sigma": 0.1, "range": [0, 1]},
            "measurement": {"file": "y.npy"},
            "method": "MMPS",
        } | changes
        place = tmp_path / "problem.yaml"
        place.write_text(
            yaml.safe_dump({key: value for key, value in record.items() if value is not None})
        )
        return place

    return file


def gaussian(*shape, **more):
    return {"gaussian": {"mean": 0.5, "std": 0.2, "shape": list(shape)} | more}


def varying():
    """Two kernels of sum 1, one above the other."""
    k = torch.arange(1.0, 13).view(2, 1, 3, 2)
    return k / k.sum((-2, -1), keepdim=True)


SECTIONS = [
    ({"name": "gamma", "exponent": 2.2}, lambda: po.operators.Gamma((3, 8, 8), 2.2)),
    ("identity", lambda: po.operators.Identity((3, 8, 8))),
    ("grey", lambda: po.operators.Grey((3, 8, 8))),
    (
        {"name": "blur", "std": "1e0"},
        lambda: po.operators.Blur(po.operators.gaussian_kernel(1.0), (3, 8, 8)),
    ),
    (
        {"name": "blur", "std": 0.5, "size": 3, "boundary": "valid"},
        lambda: po.operators.Blur(po.operators.gaussian_kernel(0.5, 3), (3, 8, 8), "valid"),
    ),
    (
        {"name": "blur", "kernel": "kernel.npy"},
        lambda: po.operators.Blur(torch.ones(3, 3) / 9, (3, 8, 8)),
    ),
    (
        {"name": "mask", "box": 4},
        lambda: po.operators.Mask(po.operators.box_mask((8, 8), 4), (3, 8, 8)),
    ),
    (
        {"name": "mask", "box": 4, "where": [0, 2]},
        lambda: po.operators.Mask(po.operators.box_mask((8, 8), 4, (0, 2)), (3, 8, 8)),
    ),
    (
        {"name": "mask", "keep": 0.3, "seed": 5},
        lambda: po.operators.Mask(po.operators.random_mask((8, 8), 0.3, 5), (3, 8, 8)),
    ),
    (
        {"name": "mask", "file": "mask.png"},
        lambda: po.operators.Mask(torch.arange(8).expand(8, 8) > 3, (3, 8, 8)),
    ),
    (
        {"name": "downsample", "factor": 2, "kind": "bicubic"},
        lambda: po.operators.Downsample((3, 8, 8), 2, "bicubic"),
    ),
    (
        {"name": "radon", "angles": 4, "pixel_mm": 0.5},
        lambda: po.operators.Radon((3, 8, 8), [0, 45, 90, 135], 0.5),
    ),
    (
        {"name": "radon", "angles": [10, 20.5], "pixel_mm": 1, "detectors": 9, "detector_mm": 2},
        lambda: po.operators.Radon((3, 8, 8), [10, 20.5], 1.0, 9, 2.0),
    ),
    (
        {"name": "transmission", "angles": 3, "pixel_mm": 0.5, "detectors": 8},
        lambda: po.operators.Transmission(po.operators.Radon((3, 8, 8), [0, 60, 120], 0.5, 8)),
    ),
    (
        {"name": "fan-beam", "angles": 4, "pixel_mm": 0.5, "source_mm": 9, "detector_at_mm": 0},
        lambda: po.operators.FanBeam((3, 8, 8), [0, 90, 180, 270], 0.5, 9.0, 0.0),
    ),
    (
        {"name": "mosaic", "pattern": "GRBG"},
        lambda: po.operators.Mask(po.operators.bayer_mask("GRBG", (3, 8, 8))),
    ),
    (
        {"name": "single-pixel", "count": 9, "order": "random", "seed": 2},
        lambda: po.operators.SinglePixel((3, 8, 8), 9, "random", 2),
    ),
    (
        {"name": "cone-beam", "angles": 3, "pixel_mm": 0.5, "source_mm": 9, "detector_at_mm": 4}
        | {"rows": 5, "detectors": 7, "detector_mm": 0.9, "slice_mm": 0.4},
        lambda: po.operators.ConeBeam((3, 8, 8), [0, 120, 240], 0.5, 9.0, 4.0, (5, 7), 0.9, 0.4),
    ),
    (
        {"name": "cone-beam", "angles": [5], "pixel_mm": 0.5, "source_mm": 9, "detector_at_mm": 0},
        lambda: po.operators.ConeBeam((3, 8, 8), [5], 0.5, 9.0, 0.0),
    ),
    (
        {"name": "quantize", "bits": 4, "gain": 12, "black": 2},
        lambda: po.operators.Quantize((3, 8, 8), 4, 12.0, 2.0),
    ),
    (
        {"name": "varying-blur", "kernels": "kernels.npy", "at_rows": [1, 6], "at_columns": [3]},
        lambda: po.operators.VaryingBlur(varying(), (3, 8, 8), "circular", [1, 6], [3]),
    ),
    (
        {"name": "varying-blur", "kernels": "kernels3.npy", "normalize": True}
        | {"boundary": "reflect"},
        lambda: po.operators.VaryingBlur(varying(), (3, 8, 8), "reflect"),
    ),
    ({"name": "clip", "gain": 3}, lambda: po.operators.Clip((3, 8, 8), 3.0)),
    (
        {"name": "jpeg", "quality": 40, "subsampling": "4:4:4"},
        lambda: po.operators.JPEG((3, 8, 8), 40, "4:4:4"),
    ),
    (
        {"name": "phase-retrieval", "oversampling": 2},
        lambda: po.operators.PhaseRetrieval((3, 8, 8), 2.0),
    ),
    (
        {"name": "compose", "parts": ["grey", {"name": "downsample", "factor": 2, "kind": "box"}]},
        lambda: po.operators.Downsample((1, 8, 8), 2, "box") @ po.operators.Grey((3, 8, 8)),
    ),
]


@pytest.mark.parametrize(
    ("section", "build"), SECTIONS, ids=lambda value: str(value) if not callable(value) else ""
)
def test_an_operator_section_builds_the_operator_of_that_name(write, tmp_path, section, build):
    np.save(tmp_path / "kernel.npy", np.full((3, 3), 1 / 9))
    np.save(tmp_path / "kernels.npy", varying().numpy())
    np.save(tmp_path / "kernels3.npy", 3 * varying().numpy())
    write_image(tmp_path / "mask.png", (torch.arange(8).expand(8, 8) > 3).float(), range=(0, 1))
    np.save(tmp_path / "x.npy", np.random.default_rng(1).random((3, 8, 8), dtype=np.float32))
    method = "DPS" if "phase" in str(section) or "transmission" in str(section) else "MMPS"
    task = problem_file.load(
        write(
            prior=gaussian(3, 8, 8), operator=section, measurement={"image": "x.npy"}, method=method
        )
    ).build()
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(task.posterior.given.A(x), build()(x))


def test_every_operator_section_is_tried():
    tried = {
        section if isinstance(section, str) else section["name"] for section, _ in SECTIONS
    } | {"nothing", "masked-fourier", "mri", "non-cartesian", "aperture-synthesis", "ptychography"}
    assert {
        cls.model_fields["name"].annotation.__args__[0]
        for cls in Instrument.__subclasses__()
        if cls not in (OwnOperator, AlongAxisEntry)  # those of volumes: test_volumes.py
    } == tried


def test_a_simulated_measurement_has_the_stated_noise_and_no_sample_shares_it(write, tmp_path):
    x = np.full((1, 200, 200), 0.5, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    file = write(prior=gaussian(1, 200, 200), measurement={"image": "x.npy", "seed": 3}, seed=3)
    task = problem_file.load(file).build()
    z = (task.posterior.given.y - 0.5) / 0.1
    assert abs(float(z.std()) - 1) < 4 / (2 * 40_000) ** 0.5
    for k in range(4):
        other = Streams(3, [k]).normal(z[None])[0]
        assert abs(float((z * other).mean())) < 4 / 200
    assert torch.equal(problem_file.load(file).build().posterior.given.y, task.posterior.given.y)
    torch.testing.assert_close(task.reference, torch.from_numpy(x))


def test_pictures_are_put_into_the_range_and_arrays_are_not(write, tmp_path):
    x = torch.linspace(0, 1, 64).view(1, 8, 8)
    write_image(tmp_path / "y.png", x, range=(0, 1), bits=16)
    noise = {"law": "gaussian", "sigma": 0.1, "range": [-1, 1]}
    prior = gaussian(1, 8, 8, range=[-1, 1])
    task = problem_file.load(
        write(prior=prior, noise=noise, measurement={"file": "y.png"}, reference="y.png")
    ).build()
    torch.testing.assert_close(task.posterior.given.y, 2 * x - 1, atol=2e-5, rtol=0)
    torch.testing.assert_close(task.reference, 2 * x - 1, atol=2e-5, rtol=0)
    task = problem_file.load(write(prior=prior, noise=noise)).build()
    np.testing.assert_array_equal(task.posterior.given.y.numpy(), np.load(tmp_path / "y.npy"))
    assert any("are taken as they are" in note for note in task.notes)


def test_the_noise_level_is_converted_to_the_prior_s_range(write):
    task = problem_file.load(write(prior=gaussian(1, 8, 8, range=[-1, 1]))).build()
    assert task.posterior.given.std == 0.1
    assert task.posterior.likelihood.std == pytest.approx(0.2)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (1, 1, 8, 8)])
def test_a_measurement_may_come_in_the_usual_layouts(write, tmp_path, shape):
    y = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    np.save(tmp_path / "y.npy", y.reshape(shape))
    assert torch.equal(
        problem_file.load(write()).build().posterior.given.y, torch.from_numpy(y[None])
    )


def test_a_picture_with_holes_gives_its_observed_pixels(write):
    file = write(operator={"name": "mask", "box": 4})
    given = problem_file.load(file).build().posterior.given
    assert given.y.shape == (48,)
    y = torch.from_numpy(np.load(file.with_name("y.npy")))
    torch.testing.assert_close(given.A(y[None])[0], given.y)


def test_a_decoded_jpeg_is_coded_again(write, tmp_path):
    x = np.random.default_rng(0).random((1, 16, 16))
    A = po.operators.JPEG((1, 16, 16), 50)
    y = A(torch.from_numpy(x)[None])
    np.save(tmp_path / "decoded.npy", A.pseudo_inverse(y)[0].numpy())
    changes = {
        "operator": {"name": "jpeg", "quality": 50},
        "measurement": {"file": "decoded.npy"},
        "method": "DPS",
    }
    changes |= {
        "prior": gaussian(1, 16, 16),
        "noise": {"law": "gaussian", "sigma": 0.3, "range": [0, 1]},
    }
    post = problem_file.load(write(**changes)).build().posterior
    torch.testing.assert_close(post.given.y.double(), y[0].double())


def test_k_space_is_complex_and_may_be_whole(write, tmp_path):
    pattern = torch.arange(8).expand(8, 8) % 2 == 0
    write_image(tmp_path / "pattern.png", pattern.float(), range=(0, 1))
    k = np.random.default_rng(0).standard_normal((8, 8)) + 1j * np.random.default_rng(
        1
    ).standard_normal((8, 8))
    noise = {"law": "complex-gaussian", "sigma_complex": 0.1, "range": [-1, 1]}
    operator = {"name": "masked-fourier", "file": "pattern.png"}
    for name, values in (("whole", k), ("sampled", k[pattern.numpy()])):
        np.save(tmp_path / f"{name}.npy", values.astype(np.complex64))
        prior = gaussian(2, 8, 8, range=[-1, 1])
        task = problem_file.load(
            write(prior=prior, operator=operator, noise=noise, measurement={"file": f"{name}.npy"})
        ).build()
        np.testing.assert_allclose(task.posterior.given.y.numpy(), k[pattern.numpy()], rtol=1e-6)
        assert task.posterior.given.std == pytest.approx(0.1 / 2**0.5)


def test_a_clean_image_in_the_place_of_the_measurement_gets_a_hint(write):
    with pytest.raises(
        ValueError, match=r"looks like the clean image: .* measurement: \{image: y.npy\}"
    ):
        problem_file.load(
            write(operator={"name": "downsample", "factor": 2, "kind": "box"})
        ).build()


def test_a_measurement_in_the_place_of_the_clean_image_gets_a_hint(write):
    file = write(
        prior=gaussian(1, 16, 16),
        operator={"name": "downsample", "factor": 2, "kind": "box"},
        measurement={"image": "y.npy"},
    )
    with pytest.raises(
        ValueError, match=r"shape \(1, 8, 8\) of a measurement.* measurement: \{file: y.npy\}"
    ):
        problem_file.load(file).build()
    with pytest.raises(
        ValueError, match=r"has shape \(1, 8, 8\), images here have shape \(1, 9, 9\)"
    ):
        problem_file.load(write(prior=gaussian(1, 9, 9), measurement={"image": "y.npy"})).build()


def test_an_image_of_unknown_shape_is_asked_for(write, tmp_path):
    """A prior of any size does not say how large the image is; the shapes alone cannot tell which
    of the two was meant."""
    np.save(tmp_path / "y.npy", np.zeros((3, 8, 8), dtype=np.float32))
    downsample = {"name": "downsample", "factor": 2, "kind": "box"}
    with pytest.raises(
        ValueError,
        match=r"state the shape of the image, image_shape: .* measurement: \{image: y.npy\}",
    ):
        problem_file.load(write(prior="photos", operator=downsample)).build()
    task = problem_file.load(
        write(prior="photos", operator=downsample, image_shape=[3, 16, 16])
    ).build()
    assert task.posterior.shape == (3, 16, 16)
    assert task.posterior.given.std == 0.1


def test_detail_that_the_operator_cannot_make_is_doubted(write, tmp_path):
    rng = np.random.default_rng(0)
    blur = {"name": "blur", "std": 2.5}
    kernel = po.operators.gaussian_kernel(2.5)
    x = torch.from_numpy(rng.random((1, 32, 32), dtype=np.float32))
    blurred = po.operators.Blur(kernel, (1, 32, 32))(x[None])[0] + 0.02 * torch.randn(
        x.shape, generator=torch.Generator().manual_seed(0)
    )
    noise = {"law": "gaussian", "sigma": 0.02, "range": [0, 1]}
    for name, y, doubted in (("sharp", x, True), ("blurred", blurred, False)):
        np.save(tmp_path / f"{name}.npy", y.numpy())
        task = problem_file.load(
            write(
                prior=gaussian(1, 32, 32),
                operator=blur,
                noise=noise,
                measurement={"file": f"{name}.npy"},
            )
        ).build()
        assert any("holds detail that Blur cannot make" in note for note in task.notes) == doubted


def test_rounding_coarser_than_the_noise_is_said(write, tmp_path):
    for bits, sigma, said in ((8, 1e-4, True), (8, 0.01, False), (16, 1e-4, False)):
        write_image(tmp_path / "y.png", torch.rand(1, 8, 8), range=(0, 1), bits=bits)
        noise = {"law": "gaussian", "sigma": sigma, "range": [0, 1]}
        task = problem_file.load(write(noise=noise, measurement={"file": "y.png"})).build()
        assert any("rounding alone" in note for note in task.notes) == said


METHODS = [
    ("MMPS", MMPS()),
    ({"name": "PiGDM", "transition": "Midpoint"}, PiGDM(transition=Midpoint())),
    ({"name": "MMPS", "iterations": 2, "rtol": "1e-3"}, MMPS(iterations=2, rtol=1e-3)),
    ({"name": "DPS", "preset": "published"}, DPS.published()),
    ({"name": "DPS", "preset": "published", "scale": 1}, DPS.published(scale=1.0)),
    (
        {"name": "DiffPIR", "transition": {"name": "ConstantFraction", "zeta": 0.5}},
        DiffPIR(transition=ConstantFraction(0.5)),
    ),
    ({"name": "DPS", "transition": {"name": "DDIM", "eta": 0.5}}, DPS(transition=DDIM(0.5))),
    ({"name": "Unconditional", "transition": "Heun"}, Unconditional(Heun())),
    ({"name": "DAPS", "draw": "langevin", "inner_steps": 7}, DAPS(draw="langevin", inner_steps=7)),
]


@pytest.mark.parametrize(("section", "method"), METHODS, ids=lambda value: str(value))
def test_a_method_section_makes_the_method(write, section, method):
    assert problem_file.load(write(method=section)).method == method


def test_every_method_can_be_named(write):
    for name, cls in ALL.items():
        assert type(problem_file.load(write(method=name)).method) is cls


MISTAKES = [
    ({"stepz": 3}, "unknown setting 'stepz'; did you mean 'steps'"),
    ({"steps": 0}, "steps: input should be greater than or equal to 1"),
    ({"n": True}, "n: expected a whole number, got True"),
    ({"n": "3"}, "n: expected a whole number, got '3'"),
    ({"grid": "karas"}, "grid: got 'karas'; did you mean 'karras'"),
    ({"prior": "photo"}, "unknown prior 'photo'; did you mean 'photos'"),
    ({"prior": {"pth": "x"}}, "prior: unknown setting 'pth'; did you mean 'path'"),
    (
        {"prior": {"gaussian": {"mean": 0, "std": -1, "shape": [1]}}},
        "prior.gaussian.std: input should be greater than 0, got -1",
    ),
    ({"operator": "gray"}, "operator: unknown name 'gray'; did you mean 'grey'"),
    ({"operator": {"std": 1}}, "operator: say which by the key 'name'"),
    ({"operator": {"name": "blur"}}, "give either std"),
    (
        {"operator": {"name": "blur", "std": True}},
        "operator.std: expected a finite number, got True",
    ),
    ({"operator": {"name": "blur", "std": ".inf"}}, "operator.std: expected a finite number"),
    (
        {"operator": {"name": "blur", "std": 1, "boundary": "circle"}},
        "got 'circle'; did you mean 'circular'",
    ),
    ({"operator": {"name": "mask", "keep": 0.5}}, "keep needs a seed"),
    ({"operator": {"name": "downsample", "factor": 2}}, "operator.kind: this setting is required"),
    (
        {"operator": {"name": "compose", "parts": ["grey", "blurr"]}},
        "operator.parts.1: unknown name 'blurr'; did you mean 'blur'",
    ),
    ({"noise": {"law": "gaussian", "sigma": 0.1}}, "noise.range: this setting is required"),
    ({"noise": {"law": "gaussian", "range": [0, 1]}}, "noise.sigma: this setting is required"),
    (
        {"noise": {"law": "gausian", "sigma": 1, "range": [0, 1]}},
        "unknown name 'gausian'; did you mean 'gaussian'",
    ),
    (
        {"noise": {"law": "gaussian", "sigma": 1, "range": [1, 0]}},
        "noise.range: expected [lowest, highest]",
    ),
    (
        {"noise": {"law": "poisson", "peak": 50, "range": [-1, 1]}},
        "photons are counted from black = 0",
    ),
    (
        {"noise": {"law": "complex-gaussian", "range": [0, 1]}},
        "give exactly one of sigma_per_channel",
    ),
    ({"method": "MMSP"}, "unknown method 'MMSP'; did you mean 'MMPS'"),
    (
        {"method": {"name": "DPS", "weighing": "norm"}},
        "DPS has no setting 'weighing'; did you mean 'weighting'",
    ),
    (
        {"method": {"name": "DPS", "weighting": "nrm"}},
        "DPS.weighting is 'nrm'; did you mean 'norm'",
    ),
    (
        {"method": {"name": "MMPS", "iterations": 2.0}},
        "MMPS.iterations: expected a whole number, got 2.0",
    ),
    ({"method": {"name": "MMPS", "rtol": True}}, "MMPS.rtol: expected a finite number, got True"),
    ({"method": {"name": "DPS", "preset": "publishd"}}, "no preset 'publishd'; known: published"),
    (
        {"method": {"name": "DPS", "transition": "DDMI"}},
        "unknown transition 'DDMI'; did you mean 'DDIM'",
    ),
    (
        {"method": {"name": "DPS", "transition": {"name": "DDIM", "eta": 3}}},
        "DDIM.eta: expected a number <= 1, got 3",
    ),
    ({"method": {"name": "os.system"}}, "unknown method 'os.system'"),
    ({"method": ["MMPS"]}, "expected a name, or a mapping with a name"),
    ({"measurement": {}}, "give either `file`"),
    ({"measurement": {"file": "y.npy", "image": "y.npy"}}, "give either `file`"),
    ({"measurement": {"file": "y.npy", "seed": 1}}, "a measured file has no seed"),
    ({"measurement": {"image": "y.npy"}, "reference": "y.npy"}, "the clean image is the reference"),
    ({"noise": None}, "noise: this setting is required"),
    (
        {"measurement": {"file": "y.npy", "whit": 4095}},
        "unknown setting 'whit'; did you mean 'white'",
    ),
    ({"measurement": {"file": "y.npy", "nodata": "nan"}}, "measurement.nodata"),
    ({"operator": {"name": "blur", "std": 1, "normalize": True}}, "normalize belongs to a kernel"),
    (
        {"operator": {"name": "mask", "box": 4, "threshold": 0.5}},
        "a threshold belongs to a mask from a file",
    ),
    (
        {"operator": {"name": "mask", "file": "m.png", "threshold": 1}},
        "operator.threshold: input should be less than 1",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_refused_with_field_value_and_suggestion(write, changes, message):
    with pytest.raises(ValueError, match="problem.yaml") as caught:
        problem_file.load(write(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measurement": {"file": "z.npy"}}, "no such file: .*z.npy .in that folder: .*y.npy"),
        (
            {"measurement": {"file": "whole.npy"}},
            "holds int64 values; store physical units as float",
        ),
        ({"measurement": {"file": "y.npy", "key": "a"}}, "holds one array without a name"),
        ({"prior": {"path": "nowhere"}}, "no prior in"),
        (
            {"reference": "other.npy"},
            r"reference .* has shape \(1, 4, 4\), images here have shape \(1, 8, 8\)",
        ),
        ({"device": "gpu"}, "device 'gpu' is not available here"),
        ({"precision": "bfloat16"}, "no network to run in bfloat16"),
        ({"operator": {"name": "mask", "file": "flat.npy"}}, "needs dark and bright pixels"),
    ],
)
def test_files_that_do_not_fit_are_named_when_the_problem_is_built(
    write, tmp_path, changes, message
):
    np.save(tmp_path / "whole.npy", np.zeros((1, 8, 8), dtype=np.int64))
    np.save(tmp_path / "other.npy", np.zeros((1, 4, 4), dtype=np.float32))
    np.save(tmp_path / "flat.npy", np.zeros((8, 8), dtype=np.float32))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        problem_file.load(write(**changes)).build()


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    for text, message in (("- 1", "expected a mapping"), ("a: [", "is not YAML"), ("", "is empty")):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            problem_file.load(tmp_path / "p.yaml")


def test_paths_start_at_the_folder_of_the_file(write, tmp_path, monkeypatch):
    file = write()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert problem_file.load(Path("..") / file.name).build().posterior.given.y.shape == (1, 8, 8)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_are_sound(file):
    problem = problem_file.load(file)
    if file.stem != "measured":  # which waits for the reader's own measurement
        task = problem.build()
        assert task.method.refuses(task.posterior) is None
        assert (
            task.reference.shape
            == framed(torch.empty(task.posterior.shape), task.posterior.given.frame).shape
        )


def test_the_example_with_an_exact_answer_finds_it():
    task = problem_file.load(next(file for file in EXAMPLES if file.stem == "exact")).build()
    run = po.sample(task.posterior, task.method, **(task.settings | {"n": 64}))
    exact = exact_posterior(task.posterior)
    error = (run.mean - exact.mean).flatten() / exact.covariance.diagonal().sqrt()
    assert float(error.square().mean()) < 2 / 64
    assert float(run.std.square().mean()) == pytest.approx(
        float(exact.covariance.diagonal().mean()), rel=0.02
    )


def test_a_method_with_levels_of_its_own_keeps_them(write):
    """The front door asks ``sample`` for what it asks for in Python; a stated grid is taken for
    every method."""
    methods = (
        {"name": "MCGDiff"},
        {"name": "FPS"},
        {"name": "MomentSMC", "particles": 8, "pilot": 8},
        {"name": "MMPS"},
    )
    for method, own in zip(methods, (True, True, True, False), strict=True):
        for changes in ({}, {"grid": None}):
            place = write(
                method=method, operator={"name": "mask", "keep": 0.05, "seed": 0}, **changes
            )
            place.write_text(place.read_text() + ("grid: null\n" if changes else ""))
            task = problem_file.load(place).build()
            assert task.settings["grid"] is None
        run = po.sample(
            task.posterior, task.method, n=1, steps=3, seed=0, grid=task.settings["grid"]
        )
        assert run.config["grid"] == ("the method's own" if own else "karras")
        if own:
            assert run.config["levels"] == task.method.levels(task.posterior, 3).tolist()
    assert problem_file.load(write(method="MCGDiff", grid="log")).grid == "log"


STORED = {
    "grey8.png": (1, lambda x, f: write_image(f, x, range=(0, 1))),
    "colour8.png": (3, lambda x, f: write_image(f, x, range=(0, 1))),
    "grey16.png": (1, lambda x, f: write_image(f, x, range=(0, 1), bits=16)),
    "colour16.png": (3, lambda x, f: write_image(f, x, range=(0, 1), bits=16)),
    "grey16.tif": (1, lambda x, f: write_image(f, x, range=(0, 1), bits=16)),
    "colour8.tif": (3, lambda x, f: write_image(f, x, range=(0, 1))),
    "colour.jpg": (
        3,
        lambda x, f: Image.fromarray((255 * x).byte().permute(1, 2, 0).numpy()).save(f),
    ),
    "grey.npy": (1, lambda x, f: np.save(f, x[0].numpy())),
    "colour.npy": (3, lambda x, f: np.save(f, np.asfortranarray(x.numpy()))),
    "colour.pt": (3, lambda x, f: torch.save(x.permute(1, 2, 0).contiguous().permute(2, 0, 1), f)),
}
LAWS = [
    {"law": "gaussian", "sigma": 0.1, "range": [0, 1]},
    {"law": "poisson", "peak": 50, "range": [0, 1]},
    {"law": "laplace", "scale": 0.1, "range": [0, 1]},
    {"law": "student-t", "scale": 0.1, "range": [0, 1]},
    {"law": "huber", "scale": 0.1, "range": [0, 1]},
    {"law": "gaussian", "sigma": 0.1, "trust": 3, "range": [0, 1]},
]
SEEN = [
    "identity",
    {"name": "blur", "std": 1},
    {"name": "blur", "std": 1, "size": 3, "boundary": "reflect"},
    {"name": "downsample", "factor": 2, "kind": "box"},
    {"name": "mask", "box": 4},
    {"name": "radon", "angles": 3, "pixel_mm": 0.2},
    {"name": "transmission", "angles": 3, "pixel_mm": 0.2},
    {"name": "clip", "gain": 1.5},
    {"name": "jpeg", "quality": 40, "subsampling": "4:4:4"},
]


def test_a_method_within_a_method_is_named_like_one(write):
    inner = {"name": "DPS", "scale": 0.5}
    within = {"name": "Reweighted", "method": inner, "precisions": "expected"}
    found = problem_file.load(write(method=within)).method
    assert found == po.methods.Reweighted(DPS(scale=0.5), "expected")
    plain = problem_file.load(write(method={"name": "Reweighted", "method": "DiffPIR"})).method
    assert plain == po.methods.Reweighted(DiffPIR())
    with pytest.raises(ValueError, match="did you mean 'DiffPIR'"):
        problem_file.load(write(method={"name": "Reweighted", "method": "DiffPIS"}))


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_the_level_is_told_under_texture(sigma):
    """A scene of gratings, of which differences of neighbours take a good part for noise: patches
    tell the level within 3 %; of a picture with holes they are not asked."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    x = 0.5 + 0.2 * torch.sin(2.2 * rows) * torch.sin(2.4 * columns) + 0.1 * torch.sin(rows / 9)
    x = x.expand(3, 96, 96).clone()
    y = po.noise.Gaussian(sigma).sample(x[None], Streams(5, [0]))[0]
    A = po.operators.Identity((3, 96, 96))
    level, words = noise_level.estimated(A, y)
    assert level == pytest.approx(sigma, rel=0.03)
    assert "patches" in words
    assert float(noise_level.details(y).median()) / 0.6745 > 1.2 * sigma
    y[:, 20:40, 20:40] = 0.0
    assert noise_level.by_patches(y) is None


def test_laws_are_built_as_they_are_stated(write, tmp_path):
    np.save(tmp_path / "levels.npy", np.full((1, 8, 8), 0.2))
    np.save(tmp_path / "power.npy", np.full((8, 8), 0.04))
    np.save(tmp_path / "matrix.npy", 0.04 * np.eye(64))
    laws, black = po.noise, {"range": [0, 1]}
    for law, built in (
        ({"law": "huber", "scale": 0.1, "corner": 2}, laws.Huber(0.1, 2)),
        (
            {"law": "outliers", "sigma": 0.1, "share": 0.2, "low": 0, "high": 1},
            laws.Outliers(0.1, 0.2, 0, 1),
        ),
        ({"law": "rician", "sigma": 0.1}, laws.Rician(0.1)),
        ({"law": "speckle", "looks": 4}, laws.Speckle(4)),
        ({"law": "poisson-gaussian", "peak": 30, "sigma": 0.1}, laws.PoissonGaussian(30, 0.1)),
        ({"law": "gaussian", "sigma": 0.1, "trust": 3}, laws.UnknownGaussian(0.1, 3)),
    ):
        assert problem_file.load(write(noise=law | black)).noise.build() == built
    rounded = {"law": "quantised", "sigma": 0.1, "step": 0.1, "low": 0}
    found = problem_file.load(write(noise=rounded | black)).noise.build()
    assert found == laws.Quantised(0.1, 0.1, 0)
    for key, name in (("levels", "levels"), ("power", "power"), ("covariance", "matrix")):
        law = {"law": "correlated-gaussian", key: f"{name}.npy"} | black
        post = problem_file.load(write(noise=law)).build().posterior
        assert post.likelihood.std == pytest.approx(0.2)
        y = torch.from_numpy(np.load(tmp_path / "y.npy"))
        torch.testing.assert_close(post.likelihood.y, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("law", "words"),
    [
        ({"law": "correlated-gaussian"}, "exactly one of levels, power and covariance"),
        ({"law": "correlated-gaussian", "levels": "y.png"}, "y.png is no .npy file"),
        ({"law": "correlated-gaussian", "power": "zero.npy"}, "noise.power: zero.npy has shape"),
        ({"law": "correlated-gaussian", "levels": "zero.npy"}, "levels must be finite numbers > 0"),
        ({"law": "outliers", "sigma": 0.1, "share": 1.5, "low": 0, "high": 1}, "noise.share"),
        ({"law": "outliers", "sigma": 0.1, "share": 0.5, "low": 1, "high": 0}, "low 1 must be"),
        ({"law": "speckle", "range": [-1, 1]}, "intensities >= 0.* cannot start at -1"),
        ({"law": "rician", "sigma": 0}, "noise.sigma"),
        ({"law": "speckle", "looks": 1.5}, "noise.looks"),
        ({"law": "huber", "scale": 0.1, "corner": -1}, "noise.corner"),
        ({"law": "quantised", "sigma": 0.1}, "noise.step: this setting is required"),
        ({"law": "poisson-gaussian", "peak": 1e4, "sigma": 0.1}, "hides the counts"),
        ({"law": "gaussian", "sigma": 0.1, "trust": 0}, "noise.trust"),
    ],
)
def test_what_a_law_cannot_be_is_said_of_the_file(write, tmp_path, law, words):
    np.save(tmp_path / "zero.npy", np.zeros((8, 8)))
    with pytest.raises(ValueError, match=words):
        problem_file.load(write(noise={"range": [0, 1]} | law)).build()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", STORED)
def test_every_kind_of_file_meets_every_law_and_operator(write, tmp_path, name):
    """A measurement is simulated from the file, and a step of a method made on it."""
    channels, store = STORED[name]
    store(
        0.1 + 0.8 * torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0)),
        tmp_path / name,
    )
    for law in LAWS:
        for operator in SEEN + (["grey"] if channels == 3 else []):
            if law["law"] == "poisson" and "jpeg" in str(operator):
                continue  # coefficients of a code are no counts
            problem = problem_file.load(
                write(
                    prior=gaussian(channels, 8, 8),
                    operator=operator,
                    noise=law,
                    measurement={"image": name},
                    method="DPS",
                )
            )
            task = problem.build()
            run = po.sample(task.posterior, task.method, n=1, steps=1, seed=0)
            assert bool(run.samples.isfinite().all()), (law, operator)


def built(write, **changes):
    return problem_file.load(write(**changes)).build()


def test_twelve_bits_in_a_file_of_sixteen(write, tmp_path):
    stored = np.random.default_rng(0).integers(0, 3900, (8, 8)).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "y.png")
    task = built(write, measurement={"file": "y.png"})
    assert any(
        f"brightest value is {stored.max()} of 65535" in note and "4095 for 12 bits" in note
        for note in task.notes
    )
    np.testing.assert_allclose(task.posterior.given.y[0].numpy(), stored / 65_535, rtol=1e-6)
    stated = {"file": "y.png", "white": 4095}
    noise = {"law": "gaussian", "sigma": 1e-4, "range": [-1, 1]}
    task = built(write, measurement=stated, reference=stated, noise=noise)
    np.testing.assert_allclose(task.posterior.given.y[0].numpy(), 2 * stored / 4095 - 1, atol=1e-6)
    np.testing.assert_allclose(task.reference[0].numpy(), 2 * stored / 4095 - 1, atol=1e-6)
    assert any("white is 4095 as stated" in note for note in task.notes)
    # Steps of 2 / 4095, not of 2 / 65535: their rounding is coarser than the stated noise.
    assert any("rounding alone has a standard deviation of 0.000141" in note for note in task.notes)
    np.save(tmp_path / "counts.npy", stored)
    task = built(write, measurement={"file": "counts.npy", "white": 4095})
    np.testing.assert_allclose(task.posterior.given.y[0].numpy(), stored / 4095, rtol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "normalize", "message"),
    [
        (np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]), False, "kernel of sum 0, not 1"),
        (
            np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]),
            True,
            "sum 0, its absolute values of 8: no blur has that",
        ),
        (-np.ones((3, 3)), True, "sum -9"),
        (
            np.full((3, 3), 1.7 / 9),
            False,
            "kernel of sum 1.7, not 1: a grey of 0.5 would become 0.85. State normalize: true",
        ),
        (np.full((3, 3), 83, dtype=np.uint8), False, "kernel of sum 747, not 1"),
        (
            np.ones((3, 3), dtype=np.complex64) / 9,
            False,
            "complex64 values of shape .3, 3., a kernel is",
        ),
        (np.array([[np.nan, 1.0]]), True, "finite real numbers"),
        (np.ones((2, 3, 3)) / 18, False, r"shape \(2, 3, 3\)"),
    ],
)
def test_kernels_that_change_the_brightness_are_refused(
    write, tmp_path, kernel, normalize, message
):
    np.save(tmp_path / "k.npy", kernel)
    with pytest.raises(ValueError, match=message):
        built(write, operator={"name": "blur", "kernel": "k.npy", "normalize": normalize})


def test_a_kernel_is_normalised_on_request_and_its_shift_is_said(write, tmp_path):
    """An 8-bit picture of a kernel with one bright pixel below and right of the middle: the blur is
    a shift by that much."""
    stored = np.zeros((5, 5), dtype=np.uint8)
    stored[3, 4] = 249
    Image.fromarray(stored).save(tmp_path / "k.png")
    np.save(tmp_path / "k.npy", stored)
    for name in ("k.png", "k.npy"):
        task = built(
            write,
            operator={"name": "blur", "kernel": name, "normalize": True, "boundary": "circular"},
        )
        x = torch.rand(1, 1, 8, 8)
        torch.testing.assert_close(task.posterior.given.A(x), x.roll((1, 2), (-2, -1)))
        (note,) = (note for note in task.notes if note.startswith(name))
        assert "centre of mass (+1.00, +2.00)" in note
        assert "moves down 1.00 and right 2.00" in note
        assert "divided by its sum of" in note
    np.save(tmp_path / "k.npy", po.operators.gaussian_kernel(1.0).numpy())
    notes = built(
        write,
        operator={"name": "compose", "parts": ["identity", {"name": "blur", "kernel": "k.npy"}]},
    ).notes
    assert any("sum 1, centre of mass" in note and "moves" not in note for note in notes)


def test_a_graded_mask_needs_a_threshold(write, tmp_path):
    grades = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
    Image.fromarray(grades).save(tmp_path / "m.png")
    np.save(tmp_path / "m.npy", grades / 255)
    for name in ("m.png", "m.npy"):
        with pytest.raises(
            ValueError,
            match="62 of 64 pixels lie between 0 and 1. State threshold.*0.5 observes 32 of 64",
        ):
            built(write, operator={"name": "mask", "file": name})
        task = built(write, operator={"name": "mask", "file": name, "threshold": 0.25})
        assert task.posterior.given.y.shape == ((grades > 255 / 4).sum(),)
        assert any(
            "48 of 64 pixels are bright" in n and "62 between dark and bright were cut at 0.25" in n
            for n in task.notes
        )
    noise = {"law": "complex-gaussian", "sigma_complex": 0.1, "range": [-1, 1]}
    np.save(tmp_path / "k.npy", np.ones((8, 8), dtype=np.complex64))
    fourier = {
        "prior": gaussian(2, 8, 8, range=[-1, 1]),
        "noise": noise,
        "measurement": {"file": "k.npy"},
    }
    with pytest.raises(ValueError, match="State threshold"):
        built(write, operator={"name": "masked-fourier", "file": "m.png"}, **fourier)
    assert built(
        write, operator={"name": "masked-fourier", "file": "m.png", "threshold": 0.5}, **fourier
    ).posterior.given.y.shape == (32,)


@pytest.mark.parametrize("zero_one", [np.uint8, np.int64, bool, np.float64])
def test_masks_of_two_values_are_taken_in_every_number_type(write, tmp_path, zero_one):
    np.save(tmp_path / "m.npy", (np.arange(64).reshape(8, 8) % 3 == 0).astype(zero_one))
    task = built(write, operator={"name": "mask", "file": "m.npy"})
    assert task.posterior.given.y.shape == (22,)
    assert any("22 of 64 pixels are bright, which means observed" in note for note in task.notes)


def test_whole_numbers_that_are_no_picture_need_a_scale(write, tmp_path):
    """A sinogram in a picture file: line integrals, which are not grey levels between the ends of
    ``range``."""
    stored = np.random.default_rng(0).integers(0, 40_000, (3, 12)).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "y.png")
    np.save(tmp_path / "y.npy", stored)
    radon = {"name": "radon", "angles": 3, "pixel_mm": 0.2, "detectors": 12}
    for operator in (radon, {"name": "compose", "parts": [{"name": "blur", "std": 1}, radon]}):
        with pytest.raises(
            ValueError,
            match=f"whole numbers up to {stored.max()}, "
            "and the operator makes no picture: state scale",
        ):
            built(write, operator=operator, measurement={"file": "y.png"})
        for name in ("y.png", "y.npy"):
            task = built(write, operator=operator, measurement={"file": name, "scale": 2.5e-4})
            np.testing.assert_allclose(
                task.posterior.given.y[0].numpy(), 2.5e-4 * stored, rtol=1e-6
            )
            assert any(
                note.startswith(name) and "0.00025 times the stored ones" in note
                for note in task.notes
            )
    with pytest.raises(
        ValueError, match="white belongs to a picture, and the operator makes none; state scale"
    ):
        built(write, operator=radon, measurement={"file": "y.png", "white": 4095})
    with pytest.raises(ValueError, match="give either white .* or scale"):
        built(write, operator=radon, measurement={"file": "y.png", "white": 4095, "scale": 1})


def test_values_without_data_may_be_hidden_and_nothing_else(write, tmp_path):
    y = np.random.default_rng(0).random((8, 8), dtype=np.float32)
    seen = np.ones((8, 8), dtype=bool)
    seen[2:4, 5:] = False
    y[~seen] = -9999
    tifffile.imwrite(tmp_path / "y.tif", y, extratags=[(42113, "s", 0, "-9999", True)])
    np.save(tmp_path / "plain.npy", y)
    np.save(tmp_path / "seen.npy", seen)
    for given in ({"file": "y.tif"}, {"file": "plain.npy", "nodata": -9999}):
        with pytest.raises(
            ValueError, match="6 of 64 values hold no data or are not finite. Hide them with a mask"
        ):
            built(write, measurement=given)
        task = built(write, measurement=given, operator={"name": "mask", "file": "seen.npy"})
        np.testing.assert_array_equal(task.posterior.given.y.numpy(), y[seen])
    with pytest.raises(
        ValueError, match="6 of 64 values hold no data, so that it is no clean image"
    ):
        built(write, measurement={"image": "y.tif"})
    assert (
        float(built(write, measurement={"file": "y.tif", "nodata": "none"}).posterior.given.y.min())
        == -9999
    )


def test_planes_are_stated_where_the_file_does_not_say(write, tmp_path):
    bands = np.random.default_rng(0).integers(0, 65_536, (4, 8, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "y.tif", bands, photometric="minisblack")
    with pytest.raises(
        ValueError, match="holds 4 pages, and does not say what they are. State channels: 4"
    ):
        built(write, prior=gaussian(4, 8, 8), measurement={"file": "y.tif"})
    task = built(write, prior=gaussian(4, 8, 8), measurement={"file": "y.tif", "channels": 4})
    np.testing.assert_allclose(task.posterior.given.y.numpy(), bands / 65_535, rtol=1e-6)


def test_a_grey_picture_meets_a_colour_prior_and_the_other_way_round(write, tmp_path):
    write_image(tmp_path / "grey.png", torch.rand(1, 8, 8), range=(0, 1))
    write_image(tmp_path / "colour.png", torch.rand(3, 8, 8), range=(0, 1))
    grey = (
        "grey.png is grey, the prior models colours: .* parts: .*grey.*; "
        "for grey scenes take a prior of grey"
    )
    colour = "colour.png has colours, the prior models grey images: store it as grey"
    for given in ("file", "image"):
        for prior in (gaussian(3, 8, 8), "photos"):
            with pytest.raises(ValueError, match=grey):
                built(write, prior=prior, measurement={given: "grey.png"})
        with pytest.raises(ValueError, match=colour):
            built(write, measurement={given: "colour.png"})
    # What the hint says is what works: colours are inferred, and the shape of the image is known
    # from prior and measurement.
    operator = {
        "name": "compose",
        "parts": [{"name": "blur", "std": 1, "boundary": "reflect"}, "grey"],
    }
    task = built(write, prior="photos", operator=operator, measurement={"file": "grey.png"})
    assert task.posterior.shape == (3, 8, 8)
    np.save(tmp_path / "last.npy", np.random.default_rng(0).random((8, 6, 3), dtype=np.float32))
    assert built(write, prior="photos", measurement={"file": "last.npy"}).posterior.shape == (
        3,
        8,
        6,
    )


def test_a_folder_of_another_kind_is_named(write, tmp_path):
    for part, name in (
        ("a", "scheduler_config.json"),
        ("b", "checkpoint.pt"),
        ("c", "run.json"),
        ("d/inner", "card.json"),
    ):
        (tmp_path / part).mkdir(parents=True)
        (tmp_path / part / name).write_text("{}")
    said = {
        "b": "--export PRIOR` makes a prior of it",
        "c": "the folder of a run",
        "d": "name one of inner",
    }
    for part, message in said.items():
        with pytest.raises(FileNotFoundError, match="card.json is missing. ") as caught:
            built(write, prior={"path": part})
        assert message in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no config.json in .*a; a diffusers folder has"):
        built(write, prior={"path": "a"})
    with pytest.raises(
        ValueError, match="a folder of one series, is expected. It is a folder of the diffusers"
    ):
        built(write, measurement={"file": "a"})


def test_a_gaussian_belief_has_the_stated_mean_and_standard_deviation():
    from posteriori.problem_file.prior import PriorSection

    belief = PriorSection.model_validate(
        {"gaussian": {"mean": 0.4, "std": 0.2, "shape": [1, 2, 3]}}
    ).build("float32")
    assert tuple(belief.shape) == (1, 2, 3)
    torch.testing.assert_close(belief.mean, torch.full((1, 2, 3), 0.4))
    torch.testing.assert_close(belief.covariance, 0.04 * torch.eye(6))


def test_the_settings_of_a_run_are_those_of_the_file(write):
    chosen = {"n": 3, "steps": 7, "seed": 11, "grid": "log", "batch": 2}
    settings = problem_file.load(write(**chosen)).build().settings
    assert {name: settings[name] for name in chosen} == chosen
