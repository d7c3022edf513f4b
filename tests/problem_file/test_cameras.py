"""Raw pictures, single-pixel cameras, ptychography and fan beams from a problem file."""

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
