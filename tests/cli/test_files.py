"""``posteriori solve`` on files of every kind: each in by its suffix, the same kind out."""

from __future__ import annotations

import typing

import numpy as np
import pytest
import tifffile
import torch
from console import call
from reference import draw

from posteriori import problem_file
from posteriori.cli.lists import WrittenKind
from posteriori.measurements import FileKind, Measured, read_measured, write_measured
from posteriori.measurements.formats import FORMATS, RESULTS, format_of
from posteriori.run import Run

PROBLEM = """
prior: {gaussian: {mean: 0.4, std: 0.3, shape: [1, 8, 8], range: [0, 1]}}
operator: %s
noise: %s
measurement: %s
method: MMPS
n: 2
steps: 3
%s
"""
NOISE = "{law: gaussian, sigma: 0.1, range: [0, 1]}"


def problem(folder, measurement, operator="identity", noise=NOISE, more=""):
    place = folder / "problem.yaml"
    place.write_text(PROBLEM % (operator, noise, measurement, more))
    return place


def solved(monkeypatch, place, *words):
    out = place.parent / "run"
    call(monkeypatch, "solve", place, "--out", out, "--quiet", *words)
    return out


KINDS = {
    "y.npz": "unit spacing",
    "y.mat": "unit spacing",
    "y.h5": "unit spacing",
    "y.zarr": "unit spacing",
    "y.fits": "unit",
    "y.mrc": "spacing",
    "y.nii.gz": "",
}


@pytest.mark.parametrize("name", KINDS)
def test_a_measurement_of_any_kind_is_solved_and_given_back_as_that_kind(
    tmp_path, monkeypatch, name
):
    y = 0.5 + 0.1 * draw(8, 8, dtype=torch.float32)
    m = Measured(y, "YX", "Jy", (2.0, 0.5))
    write_measured(tmp_path / name, m)
    out = solved(monkeypatch, problem(tmp_path, f"{{file: {name}}}"))
    suffix = RESULTS[format_of(name).name]
    for word in ("sample-000", "sample-001", "mean", "std"):
        found = read_measured(out / f"{word}{suffix}")
        assert (found.axes, tuple(found.data.shape)) == ("YX", (8, 8))
        assert found.unit == ("Jy" if "unit" in KINDS[name] else "")
        if "spacing" in KINDS[name]:
            assert [found.step(a, "mm") for a in "YX"] == pytest.approx([2.0, 0.5], rel=1e-5)
    run = Run.load(out)
    for word, x in (("sample-001", run.samples[1]), ("mean", run.mean), ("std", run.std)):
        assert torch.equal(read_measured(out / f"{word}{suffix}").data, x[0].float())
    assert (out / "mean.png").exists()


def test_every_kind_that_is_given_back_is_an_option_and_is_written():
    assert list(typing.get_args(WrittenKind)) == list(typing.get_args(FileKind)) == list(RESULTS)
    for kind, suffix in RESULTS.items():
        assert kind == "dicom" or format_of(f"x{suffix}").write is not None
    assert {f.name for f in FORMATS if f.write is not None} == {*RESULTS, "png"} - {"dicom"}


def test_write_chooses_another_kind_and_refuses_what_it_cannot_hold(tmp_path, monkeypatch):
    write_measured(tmp_path / "y.npz", Measured(torch.full((8, 8), 0.5), "YX"))
    place = problem(tmp_path, "{file: y.npz}")
    out = solved(monkeypatch, place, "--write", "hdf5")
    assert (out / "mean.h5").exists()
    assert not (out / "mean.npz").exists()
    given = problem_file.load(problem(tmp_path, "{file: y.npz}", more="write: dicom"))
    with pytest.raises(ValueError, match=r"write: dicom holds no image of shape \(1, 8, 8\)"):
        given.build()


def test_a_page_of_a_stack_is_a_picture_with_its_white(tmp_path, monkeypatch):
    pages = np.random.default_rng(0).integers(0, 65535, (3, 8, 8)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", pages, imagej=True, metadata={"axes": "ZYX"})
    given = problem_file.load(problem(tmp_path, "{file: s.tif, slice: 2}"))
    task = given.build()
    np.testing.assert_allclose(task.posterior.given.y[0], pages[2] / 65535, rtol=1e-6)
    assert any("slice 2 of 3" in note for note in task.notes)
    with pytest.raises(ValueError, match="there is no slice 3"):
        problem_file.load(problem(tmp_path, "{file: s.tif, slice: 3}")).build()


def test_a_stack_is_solved_as_a_volume_and_given_back_with_its_steps(tmp_path, monkeypatch):
    pages = np.random.default_rng(0).integers(0, 65535, (3, 8, 8)).astype(np.uint16)
    told = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "s.tif", pages, imagej=True, resolution=(2.0, 4.0), metadata=told)
    place = problem(tmp_path, "{file: s.tif}")
    text = place.read_text().replace("prior: {gaussian", "prior: {slices: {gaussian")
    place.write_text(text.replace("range: [0, 1]}}\noperator", "range: [0, 1]}}}\noperator"))
    out = solved(monkeypatch, place)
    mean = read_measured(out / "mean.tif")
    assert (mean.axes, mean.data.dtype) == ("ZYX", torch.float32)
    assert [mean.step(a, "um") for a in "ZYX"] == pytest.approx([2.0, 0.25, 0.5])
    assert float((mean.data - torch.from_numpy(pages / 65535)).abs().mean()) < 0.15


def kspace():
    """A bump behind a constant phase, seen by two coils."""
    rows, columns = np.meshgrid(*2 * [np.linspace(-1, 1, 24)], indexing="ij")
    x = np.exp(-3 * (rows**2 + (columns - 0.2) ** 2))
    coils = x * np.stack([1 + 0.3 * rows, 1 - 0.3 * rows])
    axes = (-2, -1)
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils, axes), norm="ortho"), axes)
    noise = np.random.default_rng(0).normal(size=(2, *k.shape))
    return (k + 0.01 * (noise[0] + 1j * noise[1])).astype(np.complex64), x


def test_a_slice_of_fastmri_is_solved_and_given_back_with_its_pixels(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    k, x = kspace()
    header = (
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><encodedSpace><matrixSize>'
        "<x>24</x><y>24</y><z>1</z></matrixSize><fieldOfView_mm><x>48</x><y>12</y><z>5</z>"
        "</fieldOfView_mm></encodedSpace></encoding></ismrmrdHeader>"
    )
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"], file["ismrmrd_header"] = np.stack([0 * k + 1, k]), header
        file.attrs["patient_id"] = "SECRET-4711"
    noise = "{law: complex-gaussian}"
    place = problem(tmp_path, "{file: k.h5, slice: 1}", "mri", noise)
    place.write_text(place.read_text().replace("[1, 8, 8]", "[1, 24, 24]"))
    out = solved(monkeypatch, place)
    mean = read_measured(out / "mean.h5")
    assert mean.spacing == pytest.approx((2.0, 0.5))
    power = np.sqrt((np.abs(np.stack([1 + 0 * x, 1 + 0 * x])) ** 2).sum(0))
    found = mean.data.double().numpy()
    assert np.corrcoef(found.ravel(), (x * power).ravel())[0, 1] > 0.95
    assert b"SECRET" not in b"".join(f.read_bytes() for f in out.iterdir() if f.is_file())


def test_visibilities_are_solved_to_an_image_of_the_sky(tmp_path, monkeypatch):
    fits = pytest.importorskip("astropy.io.fits")
    from posteriori.operators import ApertureSynthesis

    n, hertz = 120, 2.3e11
    u, v = (np.float32(0.01 * w.numpy()) for w in (draw(n, seed=1), draw(n, seed=2)))
    x = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    x[0, 0, 1:3, 5:7] = 0.9
    told = [torch.from_numpy(w.astype(float)) * hertz for w in (u, v)]
    y = ApertureSynthesis(*told, (1, 8, 8), 10.0, "triangle")(x)[0].numpy()
    sigma = np.linspace(0.02, 0.05, n)
    noise = np.random.default_rng(0).normal(size=(2, n))
    y = y + sigma * (noise[0] + 1j * noise[1])
    hands = np.stack([y.real, y.imag, sigma**-2.0], -1).astype(np.float32)
    group = fits.GroupData(
        hands.reshape(n, 1, 1, 1, 1, 3), parnames=["UU", "VV"], pardata=[u, v], bitpix=-32
    )
    unit = fits.GroupsHDU(group)
    for k, (kind, value) in enumerate((("COMPLEX", 1), ("STOKES", 1), ("FREQ", hertz)), 2):
        unit.header.update(
            {f"CTYPE{k}": kind, f"CRVAL{k}": value, f"CDELT{k}": 1.0, f"CRPIX{k}": 1.0}
        )
    unit.writeto(tmp_path / "sky.uvfits")
    operator = "{name: aperture-synthesis, size: 8, field_uas: 80}"
    noise = "{law: complex-gaussian, range: [0, 1]}"
    place = problem(tmp_path, "{file: sky.uvfits}", operator, noise)
    task = problem_file.load(place).build()
    A, y = task.posterior.given.A, task.posterior.given.y
    misfit = (A(x.float())[0] - y).abs().square().mean() / 2
    # Whitened by the file's own levels: 2 n standard normal numbers, within 5 standard errors
    assert abs(float(misfit) - 1) < 5 / n**0.5
    out = solved(monkeypatch, place)
    mean = read_measured(out / "mean.fits")
    assert (mean.unit, mean.spacing_unit) == ("Jy/pixel", "deg")
    assert mean.spacing == pytest.approx((10 / 3.6e9, 10 / 3.6e9))
    assert float((mean.data - x[0, 0]).abs().max()) < 0.5
    # Upright in the library's own order, whose first row is the lowest
    assert np.unravel_index(np.argmax(fits.getdata(out / "mean.fits")), (8, 8))[0] in (5, 6)
    for text, said in (
        (("range: [0, 1]}\nmeas", "sigma_complex: 1}\nmeas"), "no level"),
        ((", range: [0, 1]}\nmeas", "}\nmeas"), "strongest visibility is"),
    ):
        place.write_text(place.read_text().replace(*text))
        with pytest.raises(ValueError, match=said):
            problem_file.load(place).build()
        place = problem(tmp_path, "{file: sky.uvfits}", operator, noise)
