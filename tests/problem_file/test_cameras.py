"""Raw pictures, counts, single-pixel cameras, ptychography, blurs that vary, fan and cone beams
from a problem file."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
import yaml
from reference import draw

import posteriori as po
from posteriori import problem_file


@pytest.fixture
def build(tmp_path):
    def made(operator, shape, file="y.npy", prior=None, **changes):
        gaussian = {"gaussian": {"mean": 0.5, "std": 0.3, "shape": list(shape), "range": [0, 1]}}
        record = {
            "prior": prior or gaussian,
            "operator": operator,
            "noise": {"law": "gaussian", "sigma": 0.01, "range": [0, 1]},
            "measurement": {"file": file},
            "method": "DPS",
            "n": 1,
            "steps": 3,
        } | changes
        (tmp_path / "problem.yaml").write_text(yaml.safe_dump(record))
        return problem_file.load(tmp_path / "problem.yaml").build()

    return made


def test_a_raw_picture_is_what_the_filters_let_through(build, tmp_path):
    """A raw file of 16 bits with one channel, and a picture of all colours, mean the same; the size
    of the image is that of the sensor."""
    x = np.random.default_rng(0).integers(0, 65536, (3, 6, 8), dtype=np.uint16)
    mask = po.operators.bayer_mask("GBRG", (3, 6, 8))
    raw = np.where(mask.numpy(), x, 0).sum(0).astype(np.uint16)
    tifffile.imwrite(tmp_path / "raw.tif", raw, photometric="minisblack")
    tifffile.imwrite(tmp_path / "rgb.tif", np.moveaxis(x, 0, -1), photometric="rgb")
    exact = torch.from_numpy(x.astype(np.float32) / 65535)
    for file, prior in (("raw.tif", None), ("rgb.tif", None), ("raw.tif", "photos")):
        task = build({"name": "mosaic", "pattern": "GBRG"}, (3, 6, 8), file, prior)
        given = task.posterior.given
        assert task.posterior.shape == (3, 6, 8)
        torch.testing.assert_close(given.y, exact[mask], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(given.A(exact[None])[0], given.y)


def test_the_numbers_of_a_single_pixel_camera_are_a_list(build, tmp_path):
    A = po.operators.SinglePixel((1, 4, 8), 11)
    x = draw(1, 1, 4, 8, dtype=torch.float32)
    np.save(tmp_path / "y.npy", A(x)[0, 0].numpy())
    given = build({"name": "single-pixel", "count": 11}, (1, 4, 8)).posterior.given
    assert given.y.shape == (1, 11)
    torch.testing.assert_close(given.A(x)[0], given.y)
    with pytest.raises(ValueError, match="random needs a seed"):
        build({"name": "single-pixel", "count": 11, "order": "random"}, (1, 4, 8))


@pytest.mark.parametrize("intensity", [False, True])
def test_far_fields_of_a_scan_are_those_of_its_file(build, tmp_path, intensity):
    """Probe and positions beside the far fields, and a run through them."""
    probe = draw(3, 4, dtype=torch.complex64, seed=1)
    positions = torch.tensor([[0, 0], [1, 2], [3, 1]])
    x = draw(1, 2, 6, 6, dtype=torch.float32)
    scan = po.operators.Ptychography(probe, positions, (6, 6))
    y = po.operators.Modulus(scan @ po.operators.ComplexChannels((2, 6, 6)), intensity)(x)[0]
    np.savez(tmp_path / "scan.npz", probe=probe.numpy(), positions=positions.numpy())
    np.save(tmp_path / "y.npy", y.numpy())
    operator = {"name": "ptychography", "file": "scan.npz", "intensity": intensity}
    task = build(operator, (2, 6, 6))
    given = task.posterior.given
    torch.testing.assert_close(given.y, y)
    torch.testing.assert_close(given.A(x)[0], y)
    run = po.sample(task.posterior, task.method, **task.settings)
    assert run.samples.shape == (1, 2, 6, 6)
    np.savez(tmp_path / "scan.npz", probe=probe.numpy(), positions=positions.numpy() + 0.5)
    with pytest.raises(ValueError, match=r"positions are whole pixels.*\[0.5, 0.5\]"):
        build(operator, (2, 6, 6))
    with pytest.raises(ValueError, match=r"two channels \(2, rows, columns\)"):
        build(operator, (1, 6, 6))


@pytest.mark.parametrize("unit", ["1/mm", "HU"])
def test_a_fan_sinogram_is_line_integrals_in_either_unit(build, tmp_path, unit):
    """With as many detectors as it has, and as many angles around the full turn."""
    water = {"unit": "HU", "mu_water": 0.02} if unit == "HU" else {}
    mu = 0.02 * draw(1, 1, 8, 8, dtype=torch.float32).abs()
    x = mu if unit == "1/mm" else 1000 * (mu / 0.02 - 1)
    rays = po.operators.FanBeam((1, 8, 8), [72.0 * k for k in range(5)], 2.0, 40.0, 20.0, 13)
    np.save(tmp_path / "y.npy", rays(mu)[0, 0].numpy())
    operator = {"name": "fan-beam", "angles": 5, "pixel_mm": 2.0, "source_mm": 40}
    operator |= {"detector_at_mm": 20} | water
    span = [0, 0.05] if unit == "1/mm" else [-1000, 1500]
    noise = {"law": "gaussian", "sigma": 0.01, "range": span}
    task = build(operator, (1, 8, 8), noise=noise)
    given = task.posterior.given
    torch.testing.assert_close(given.A(x)[0], given.y, rtol=1e-4, atol=1e-4)
    assert task.baseline is None
    anything = build(operator, (1, 8, 8), noise=noise, prior={"grey": "photos"})
    assert anything.posterior.shape == (1, 13, 13)


@pytest.mark.parametrize("unit", ["1/mm", "HU"])
def test_projections_of_a_cone_beam_are_line_integrals_of_a_volume(build, tmp_path, unit):
    """With the detector that they have; a volume of another order of axes is refused."""
    water = {"unit": "HU", "mu_water": 0.02} if unit == "HU" else {}
    mu = 0.02 * draw(1, 4, 6, 6, dtype=torch.float32).abs()
    x = mu if unit == "1/mm" else 1000 * (mu / 0.02 - 1)
    rays = po.operators.ConeBeam((4, 6, 6), [120.0 * k for k in range(3)], 2.0, 40.0, 20.0, (5, 9))
    y = rays(mu)[0]
    np.save(tmp_path / "y.npy", y.numpy())
    operator = {"name": "cone-beam", "angles": 3, "pixel_mm": 2.0, "source_mm": 40}
    operator |= {"detector_at_mm": 20} | water
    span = [0, 0.05] if unit == "1/mm" else [-1000, 1500]
    noise = {"law": "gaussian", "sigma": 0.01, "range": span}
    given = build(operator, (4, 6, 6), noise=noise).posterior.given
    assert given.y.shape == (3, 5, 9)
    torch.testing.assert_close(given.A(x)[0], given.y, rtol=1e-4, atol=1e-4)
    np.save(tmp_path / "y.npy", y.permute(1, 0, 2).numpy())
    with pytest.raises(
        ValueError, match=r"3 angles; projections of a cone beam are \(angles, rows"
    ):
        build(operator, (4, 6, 6), noise=noise)
    with pytest.raises(ValueError, match="rows and detectors are the sides of one detector"):
        build(operator | {"rows": 5}, (4, 6, 6), noise=noise)


def test_counts_of_a_sensor_are_read_as_they_are(build, tmp_path):
    """Whole numbers of a file are counts, not grey levels: those of the image behind them."""
    A = po.operators.Quantize((1, 4, 8), 12, 3000.0, 100.0)
    x = draw(1, 1, 4, 8, dtype=torch.float32).abs() / 4
    np.save(tmp_path / "y.npy", A(x)[0].numpy().astype(np.uint16))
    operator = {"name": "quantize", "bits": 12, "gain": 3000, "black": 100}
    noise = {"law": "gaussian", "sigma": 2.0, "range": [0, 1]}
    given = build(operator, (1, 4, 8), noise=noise).posterior.given
    assert torch.equal(given.y, A(x)[0])
    assert torch.equal(given.A(x), A(x))
    with pytest.raises(ValueError, match=r"counts of 6 bits are 0 to 63; state the bits"):
        build({"name": "quantize", "bits": 6}, (1, 4, 8), noise=noise)
    with pytest.raises(ValueError, match="black: 63 leaves no count of 6 bits"):
        build({"name": "quantize", "bits": 6, "black": 63}, (1, 4, 8), noise=noise)


def test_a_measured_blur_that_varies_assumes_nothing_beyond_the_border(build, tmp_path):
    """As for blur: images are larger than y by the kernels. A kernel that is none is named by its
    place."""
    kernels = torch.arange(1.0, 13).view(1, 2, 3, 2)
    np.save(tmp_path / "kernels.npy", kernels.numpy())
    np.save(tmp_path / "y.npy", np.full((1, 6, 7), 0.5, np.float32))
    operator = {"name": "varying-blur", "kernels": "kernels.npy", "normalize": True}
    given = build(operator, (1, 8, 8)).posterior.given
    ones = kernels / kernels.sum((-2, -1), keepdim=True)
    A = po.operators.VaryingBlur(ones, (1, 8, 8), "valid")
    x = draw(1, 1, 8, 8, dtype=torch.float32)
    torch.testing.assert_close(given.A(x), A(x))
    anything = build(operator, (1, 8, 8), prior={"grey": "photos"}).posterior
    assert (anything.shape, anything.given.frame) == ((1, 8, 8), ((1, 7), (0, 7)))
    with pytest.raises(
        ValueError, match="kernel in row 0 and column 0 has the sum 21, not 1; state"
    ):
        build(operator | {"normalize": False}, (1, 8, 8))
    np.save(tmp_path / "kernels.npy", np.stack([kernels[0, 0], -kernels[0, 1]])[None])
    with pytest.raises(ValueError, match="row 0 and column 1 has the sum -57, not one above 0"):
        build(operator, (1, 8, 8))
    np.save(tmp_path / "kernels.npy", kernels[0].numpy())
    with pytest.raises(ValueError, match=r"values of shape \(2, 3, 2\), kernels that vary are"):
        build(operator, (1, 8, 8))
