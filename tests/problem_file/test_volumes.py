"""Volumes in a problem file: what is read, which operator is built, where the answer lies, and how
far the volume falls apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from reference import draw
from scans import SECRETS, STORED, series

import posteriori as po
from posteriori import problem_file
from posteriori.measurements import VolumeInfo, write_volume
from posteriori.operators import Radon, Slicewise
from posteriori.problem_file.along_axis import AlongAxisEntry
from posteriori.slabs import Slab, draw_slab, slabs_of, whole_volume, why_whole

RANGE = [-1000, 1500]
AFFINE = torch.tensor(
    [[-0.6, 0.1, 0, 10], [0, 0.7, 0.2, -20], [0, 0, 2.5, 5], [0, 0, 0, 1]], dtype=torch.float64
)


def gaussian(*shape, mean=0.0, std=300.0, range=RANGE):
    inner = {"mean": mean, "std": std, "shape": list(shape), "range": range}
    return {"slices": {"gaussian": inner}}


@pytest.fixture
def build(tmp_path):
    """The task of a problem file with some of its sections; others are those of denoising."""

    def made(load=False, **changes):
        record = {
            "prior": gaussian(1, 4, 6),
            "operator": "identity",
            "noise": {"law": "gaussian", "sigma": 20, "range": RANGE},
            "measurement": {"file": "y.npy"},
            "method": "MMPS",
            "n": 2,
            "steps": 4,
        } | changes
        place = tmp_path / "problem.yaml"
        place.write_text(yaml.safe_dump({k: v for k, v in record.items() if v is not None}))
        given = problem_file.load(place)
        return given if load else given.build()

    return made


def volume(*shape):
    return (300 * draw(*shape, seed=3)).float()


def measured(task, block):
    return po.operators.matrix(block.A), block.y


def test_each_section_is_on_slices_or_along_them(build, tmp_path):
    """The operator of a volume is that of its slices, or the one that is asked for by name."""
    x = volume(6, 4, 6)
    write_volume(tmp_path / "x.npy", x)
    ops, shape = po.operators, (6, 1, 4, 6)
    blur = ops.Blur(ops.gaussian_kernel(1.0), (1, 4, 6))
    cases = [
        ({"name": "blur", "std": 1}, Slicewise(blur, 6), False),
        ({"name": "thick-slices", "factor": 3}, ops.thick_slices(shape, 3), True),
        ({"name": "temporal-blur", "frames": 3}, ops.temporal_blur(shape, 3), None),
        (
            {"name": "temporal-blur", "kernel": [0.5, 0.5], "boundary": "valid"},
            ops.temporal_blur(shape, [0.5, 0.5], "valid"),
            None,
        ),
        ({"name": "kept-frames", "frames": [0, 4], "of": 6}, ops.kept_frames(shape, [0, 4]), None),
        (
            {
                "name": "compose",
                "parts": [{"name": "blur", "std": 1}, {"name": "thick-slices", "factor": 2}],
            },
            ops.thick_slices(shape, 2) @ Slicewise(blur, 6),
            True,
        ),
    ]
    assert {section["name"] for section, _, _ in cases} >= {
        entry.model_fields["name"].annotation.__args__[0]
        for entry in AlongAxisEntry.__subclasses__()
    }
    for section, whole, several in cases:
        task = build(operator=section, measurement={"image": "x.npy"})
        A = task.posterior.given.A
        probe = draw(2, 6, 1, 4, 6, seed=8).float()
        torch.testing.assert_close(A(probe), whole.float()(probe))
        assert torch.equal(task.reference[:, 0], x)
        parts = task.volume.parts
        assert (None if parts is None else parts.several) == several
        if parts is not None:
            # The blocks together measure what the whole operator measures.
            each = parts.A(
                probe[0] if not several else probe[0].unflatten(0, (-1, parts.A.in_shape[0]))
            )
            torch.testing.assert_close(each.reshape(A.out_shape), A(probe)[0])
            y = torch.stack(
                [parts.likelihood(task.posterior.given, j).y for j in range(len(A(probe)[0]))]
            )
            assert torch.equal(y.reshape(A.out_shape), task.posterior.given.y)


@pytest.mark.parametrize("name", ["y.npy", "y.nii", "y.nii.gz", "scan"])
def test_a_measured_volume_is_read_in_its_own_unit(build, tmp_path, name):
    if name == "scan":
        pytest.importorskip("pydicom")
        series(tmp_path / name, np.resize(STORED, (5, 4, 6)), order=[3, 1, 0, 2, 4])
        x = 2.0 * torch.from_numpy(np.resize(STORED, (5, 4, 6))).float() - 1024
    else:
        if name != "y.npy":
            pytest.importorskip("nibabel")
        x = volume(5, 4, 6)
        write_volume(tmp_path / name, x, VolumeInfo(AFFINE))
    task = build(measurement={"file": name})
    assert torch.equal(task.posterior.given.y, x[:, None])
    assert task.posterior.given.A.in_shape == (5, 1, 4, 6)
    assert task.volume.kind == {"y.npy": "npy", "scan": "dicom"}.get(name, "nifti")
    assert task.volume.info.unit == ("HU" if name == "scan" else "")
    assert (task.volume.info.affine is None) == (name == "y.npy")


@pytest.mark.parametrize(
    ("section", "shape", "place"),
    [
        ("identity", (6, 4, 6), lambda c, r, s: (c, r, s)),
        ({"name": "thick-slices", "factor": 2}, (3, 4, 6), lambda c, r, s: (c, r, (s - 0.5) / 2)),
        (
            {"name": "downsample", "factor": 2, "kind": "box"},
            (6, 2, 3),
            lambda c, r, s: ((c - 0.5) / 2, (r - 0.5) / 2, s),
        ),
        (
            {"name": "downsample", "factor": 2, "kind": "stride"},
            (6, 2, 3),
            lambda c, r, s: (c / 2, r / 2, s),
        ),
        (
            {
                "name": "compose",
                "parts": [
                    {"name": "downsample", "factor": 2, "kind": "stride"},
                    {"name": "thick-slices", "factor": 3},
                ],
            },
            (2, 2, 3),
            lambda c, r, s: (c / 2, r / 2, (s - 1) / 3),
        ),
        (
            {"name": "temporal-blur", "kernel": [0.2, 0.3, 0.5], "boundary": "valid"},
            (4, 4, 6),
            lambda c, r, s: (c, r, s - 1),
        ),
    ],
)
def test_the_answer_lies_where_the_measurement_did(build, tmp_path, section, shape, place):
    """Pixel (c, r, s) of the image is at ``place`` of y, whose affine the file has."""
    pytest.importorskip("nibabel")
    write_volume(tmp_path / "y.nii", volume(*shape), VolumeInfo(AFFINE))
    task = build(operator=section, measurement={"file": "y.nii"}, image_shape=[6, 1, 4, 6])
    for point in ((0.0, 0.0, 0.0), (3.0, 2.0, 5.0)):
        there = task.volume.info.affine @ torch.tensor([*point, 1.0], dtype=torch.float64)
        at_y = AFFINE @ torch.tensor([*place(*point), 1.0], dtype=torch.float64)
        torch.testing.assert_close(there, at_y, rtol=1e-5, atol=1e-5)


def test_sinograms_of_slices_are_in_hounsfield_units(build, tmp_path):
    """A phantom of water at 0 HU: what is measured of it is what is left of no deviation."""
    rays = Radon((1, 16, 16), [0, 60, 120], 1.0, detectors=16)
    h = torch.zeros(4, 1, 16, 16)
    h[1, 0, 5:9, 4:12] = 800.0
    np.save(tmp_path / "y.npy", rays(0.02 * (1 + h / 1000))[:, 0].numpy())
    task = build(
        prior=gaussian(1, 16, 16),
        operator={"name": "radon", "angles": 3, "pixel_mm": 1, "unit": "HU", "mu_water": 0.02},
        noise={"law": "gaussian", "sigma": 0.01, "range": RANGE},
    )
    given = task.posterior.given
    torch.testing.assert_close(given.y, given.A(h[None])[0], rtol=1e-4, atol=1e-4)
    assert task.baseline.name == "Filtered back-projection"
    assert task.baseline.image.shape == h.shape
    assert float((task.baseline.image[1, 0, 6:8, 6:10]).mean()) > 300
    assert task.volume.kind == "npy"


def test_a_volume_with_holes_gives_its_observed_numbers(build, tmp_path):
    x = volume(3, 4, 6)
    write_volume(tmp_path / "y.npy", x)
    task = build(operator={"name": "mask", "box": 2})
    given = task.posterior.given
    assert torch.equal(given.y, given.A(x[None, :, None])[0])


def test_slices_and_images_larger_than_a_prior_are_tiled(build, tmp_path):
    inner = gaussian(1, 4, 6)["slices"]["gaussian"] | {"shape": [1, 4, 4]}
    np.save(tmp_path / "y.npy", volume(3, 7, 10).numpy())
    tiles = {"prior": {"gaussian": inner}, "size": 4}
    task = build(prior={"slices": {"tiles": tiles}})
    assert task.posterior.shape == (3, 1, 7, 10)
    np.save(tmp_path / "y.npy", volume(7, 10).numpy())
    for more, overlap in (({}, 1), ({"overlap": 3}, 3), ({"overlap": 0}, 0)):
        prior = build(prior={"tiles": tiles | more}).posterior.prior
        assert isinstance(prior, po.priors.Tiles)
        assert (prior.size, prior.overlap) == (4, overlap)
    with pytest.raises(ValueError, match="overlap must be from 0 to 3, got 4"):
        build(prior={"tiles": tiles | {"overlap": 4}})
    with pytest.raises(ValueError, match="unknown setting 'sides'"):
        build(prior={"tiles": tiles | {"sides": 4}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"write": "dicom"}, "states where slices lie"),
        ({"prior": gaussian(3, 4, 6), "write": "nifti"}, "volumes of one channel, these have 3"),
        (
            {
                "prior": gaussian(1, 4, 6)["slices"],
                "operator": {"name": "thick-slices", "factor": 2},
            },
            "works along the slices",
        ),
        ({"prior": {"slices": gaussian(1, 4, 6)}}, "not volumes again"),
        ({"noise": {"law": "gaussian", "sigma": "estimate", "range": RANGE}}, "not estimated"),
        ({"operator": "mri"}, "takes settings from the measurement of one image"),
        ({"operator": {"name": "clip"}}, "is not linear"),
        ({"operator": {"name": "temporal-blur"}}, "give either frames"),
        (
            {"operator": {"name": "kept-frames", "frames": [1], "of": 9}},
            r"of volumes \(9, 1, 4, 6\)",
        ),
        ({"measurement": {"file": "y.png"}}, "volumes are read from"),
        ({"measurement": {"image": "y.npy", "white": 5, "scale": 2}}, "give either white"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(build, tmp_path, changes, words):
    colours = changes.get("prior") == gaussian(3, 4, 6)
    np.save(tmp_path / "y.npy", volume(*((5, 3, 4, 6) if colours else (5, 4, 6))).numpy())
    (tmp_path / "y.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=words):
        build(**changes)


def test_shares_of_white_are_no_hounsfield_units(build, tmp_path):
    pytest.importorskip("pydicom")
    series(tmp_path / "scan", np.resize(STORED, (5, 4, 6)))
    noise = {"law": "gaussian", "sigma": 0.1, "range": [0, 1]}
    with pytest.raises(ValueError, match="in Hounsfield units"):
        build(measurement={"file": "scan"}, noise=noise)
    with pytest.raises(ValueError, match="white is for pictures"):
        build(measurement={"file": "scan", "white": 255})


def test_the_name_of_a_folder_of_slices_is_not_kept(build, tmp_path):
    pytest.importorskip("pydicom")
    series(tmp_path / SECRETS["PatientName"], np.resize(STORED, (5, 4, 6)))
    for key in ("file", "image"):
        given = build(load=True, measurement={key: SECRETS["PatientName"]})
        assert SECRETS["PatientName"] not in str(given.record)
        assert SECRETS["PatientName"] in str(given.raw)
    np.save(tmp_path / "y.npy", volume(5, 4, 6).numpy())
    given = build(load=True, reference=SECRETS["PatientName"])
    assert SECRETS["PatientName"] not in str(given.record)
    assert given.record["measurement"] == {"file": "y.npy"}


# SLABS
# --------------------------------------------------------------------------------------------------


def test_slices_of_a_volume_are_their_own_runs_bit_by_bit(build, tmp_path):
    """Slice j of sample k is that of ``sample_each`` with the seed of j, in whatever order slabs
    are drawn; a slab that is there is not drawn again."""
    np.save(tmp_path / "y.npy", volume(5, 4, 6).numpy())
    task = build(operator={"name": "blur", "std": 0.5, "size": 3}, batch=4, seed=7, n=2)
    slabs = slabs_of(task)
    assert slabs == [Slab(0, 2), Slab(2, 2), Slab(4, 1)]
    for slab in reversed(slabs):
        draw_slab(task, slab, tmp_path / "run")
    run = whole_volume(task, tmp_path / "run")
    assert run.samples.shape == (2, 5, 1, 4, 6)
    parts, given = task.volume.parts, task.posterior.given
    for j in range(5):
        alone = po.sample(
            po.Posterior(parts.prior, parts.likelihood(given, j)),
            task.method,
            n=2,
            steps=4,
            seed=7 + j,
        )
        torch.testing.assert_close(run.samples[:, j], alone.samples, rtol=1e-5, atol=1e-3)
    other = whole_volume(task, tmp_path / "other")
    assert torch.equal(run.samples, other.samples)
    assert run.counts["denoiser"] == 5 * alone.counts["denoiser"]
    again = whole_volume(task, tmp_path / "run")
    assert again.seconds == run.seconds


def test_slices_have_the_exact_posterior_and_share_no_noise(build, tmp_path):
    """Denoising of Gaussian slices, where the steps of MMPS keep the spread to a few per cent."""
    x = volume(40, 4, 6)
    np.save(tmp_path / "y.npy", x.numpy())
    task = build(n=8, steps=40)
    run = whole_volume(task, tmp_path / "run")
    share = 300**2 / (300**2 + 20**2)
    z = (run.samples[:, :, 0] - share * x) / (20 * share**0.5)
    count = z.numel()
    assert abs(float(z.mean())) < 4 / count**0.5
    assert abs(float(z.std()) - 1) < 0.05
    # Neighbouring slices are drawn with numbers of their own.
    together = (z[:, 1:] * z[:, :-1]).mean()
    assert abs(float(together)) < 4 / count**0.5


def test_what_ties_slices_together_is_not_cut(build, tmp_path):
    np.save(tmp_path / "y.npy", volume(5, 4, 6).numpy())
    task = build(method="DDS3D")
    assert why_whole(task) == "DDS3D ties the slices together"
    with pytest.raises(ValueError, match="cannot be drawn slab by slab: DDS3D"):
        slabs_of(task)
    task = build(operator={"name": "temporal-blur", "frames": 3})
    assert why_whole(task) == "the operator ties the slices together"
    task = build(prior=gaussian(1, 4, 6)["slices"], measurement={"image": "x.npy"}, load=True)
    assert why_whole(build()) is None


def test_thick_slices_are_drawn_with_all_slices_of_each(build, tmp_path):
    """Every sample's means agree with y as the noise allows, and slices within one differ."""
    y = volume(4, 4, 6)
    np.save(tmp_path / "y.npy", y.numpy())
    task = build(operator={"name": "thick-slices", "factor": 3}, n=2, steps=40, batch=4)
    assert slabs_of(task) == [Slab(0, 2), Slab(2, 2)]
    run = whole_volume(task, tmp_path / "run")
    assert run.samples.shape == (2, 12, 1, 4, 6)
    means = run.samples[:, :, 0].unflatten(1, (4, 3)).mean(2)
    assert float((means - y).square().mean().sqrt()) < 40
    assert float(run.samples.diff(dim=1).abs().mean()) > 100


def test_a_sample_that_lost_a_slice_is_lost(build, tmp_path, monkeypatch):
    from posteriori import slabs as module
    from posteriori.run import Status

    np.save(tmp_path / "y.npy", volume(3, 4, 6).numpy())
    task = build(n=3)
    real = module.sample_each

    def one_lost(*given, **how):
        runs = real(*given, **how)
        lost, kept = runs[1], [0, 2]
        ends = (Status(), Status("diverged", 2, "why"), Status())
        changed = {"samples": lost.samples[kept], "log_w": lost.log_w[kept], "status": ends}
        return [runs[0], module.Run(**{**vars(lost), **changed}), runs[2]]

    whole = whole_volume(task, tmp_path / "run")
    monkeypatch.setattr(module, "sample_each", one_lost)
    run = whole_volume(task, tmp_path / "run")
    assert [status.ok for status in run.status] == [True, False, True]
    assert torch.equal(run.samples, whole.samples[[0, 2]])
