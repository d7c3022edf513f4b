"""Every kind of file: what its own library wrote is read with axes, unit and steps, and what is
written is read the same by that library. Then what the formats do against good guesses."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest
import tifffile
import torch
from reference import draw

from posteriori.measurements import Measured, read_measured, read_volume, write_measured
from posteriori.measurements.bart import read_cfl
from posteriori.measurements.formats import FORMATS, format_of
from posteriori.measurements.measured import as_tensor

VOLUME = np.random.default_rng(3).normal(size=(4, 5, 6)).astype(np.float32)
STEPS = (2.0, 0.7, 0.5)
AFFINE = torch.tensor(
    [[-0.5, 0, 0, 10], [0, 0.7, 0, -20], [0, 0, 2.0, 5], [0, 0, 0, 1]], dtype=torch.float64
)
MEASURED = Measured(torch.from_numpy(VOLUME), "ZYX", "HU", STEPS, AFFINE)
# What each kind keeps of a volume in float32.
KEPT = {
    "v.npy": "",
    "v.npz": "axes unit spacing affine",
    "v.mat": "axes unit spacing affine",
    "v.h5": "axes unit spacing affine",
    "v.zarr": "axes unit spacing affine",
    "v.nii": "axes spacing affine",
    "v.nii.gz": "axes spacing affine",
    "v.mrc": "axes spacing",
    "v.fits": "axes unit",
    "v.tif": "axes spacing",
    "v.ome.tif": "axes spacing",
    "v.cfl": "",
}


@pytest.mark.parametrize("name", KEPT)
def test_a_volume_comes_back_with_what_its_kind_can_hold(tmp_path, name):
    lost = write_measured(tmp_path / name, MEASURED)
    again, kept = read_measured(tmp_path / name), KEPT[name].split()
    data = again.data.permute(2, 1, 0).real if name == "v.cfl" else again.data
    np.testing.assert_array_equal(data.numpy(), VOLUME)
    assert again.unit == ("HU" if "unit" in kept else "")
    if "axes" in kept:
        assert again.axes == "ZYX"
    if "spacing" in kept:
        assert [again.step(a, "mm") for a in "ZYX"] == pytest.approx(STEPS, rel=1e-6)
    if "affine" in kept:
        torch.testing.assert_close(again.affine, AFFINE, rtol=1e-6, atol=1e-6)
    else:
        assert again.affine is None
    # What a kind cannot hold is said.
    assert bool(lost) == (len(kept) < 4)
    assert not list(tmp_path.glob("*.partial*"))


def test_every_kind_that_is_written_has_a_round_trip():
    tried = {format_of(name).name for name in KEPT} | {"png"}
    assert tried == {f.name for f in FORMATS if f.write is not None}


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(np.uint8, "p.png"), (np.uint16, "p.png")]
    + [(d, "p.tif") for d in (np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.float32)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_8_to_32_bits_keep_every_number(tmp_path, dtype, name, channels):
    top = 1000.0 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    x = (np.linspace(0, 1, channels * 20) * top).astype(dtype).reshape(channels, 4, 5)
    x = x[0] if channels == 1 else x
    m = Measured(torch.from_numpy(x), "YX" if channels == 1 else "CYX")
    assert write_measured(tmp_path / name, m) == ()
    again = read_measured(tmp_path / name)
    assert again.axes == m.axes
    assert again.data.dtype == m.data.dtype
    np.testing.assert_array_equal(again.data.numpy(), x)
    if name == "p.tif":
        other = tifffile.imread(tmp_path / name)
        np.testing.assert_array_equal(other if channels == 1 else other.transpose(2, 0, 1), x)


def test_a_png_of_floating_point_numbers_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="write_image turns a range into them"):
        write_measured(tmp_path / "p.png", Measured(torch.zeros(4, 5), "YX"))


# TIFF stacks


def test_stacks_of_ome_and_imagej_are_read_with_axes_and_steps(tmp_path):
    x = np.arange(3 * 2 * 4 * 5, dtype=np.uint16).reshape(3, 2, 4, 5)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        x,
        metadata={
            "axes": "ZCYX",
            "PhysicalSizeX": 0.1,
            "PhysicalSizeY": 0.2,
            "PhysicalSizeZ": 0.5,
            "PhysicalSizeZUnit": "µm",
        },
    )
    m = read_measured(tmp_path / "a.ome.tif")
    assert (m.axes, m.spacing, m.spacing_unit) == ("ZCYX", (0.5, None, 0.2, 0.1), "µm")
    np.testing.assert_array_equal(m.data.numpy(), x)
    assert m.step("Z", "mm") == pytest.approx(5e-4)
    tifffile.imwrite(
        tmp_path / "b.tif",
        x,
        imagej=True,
        resolution=(10.0, 5.0),
        metadata={"axes": "ZCYX", "spacing": 0.5, "unit": "um"},
    )
    m = read_measured(tmp_path / "b.tif")
    assert (m.axes, m.spacing_unit) == ("ZCYX", "um")
    assert [m.step(a, "um") for a in "ZYX"] == pytest.approx([0.5, 0.2, 0.1])
    np.testing.assert_array_equal(m.data.numpy(), x)


def test_a_stack_that_we_write_is_one_of_slices_to_the_library_too(tmp_path):
    """Without axes tifffile calls five slices channels, and stores three or four as colours."""
    for depth in (3, 4, 5):
        m = Measured(torch.rand(depth, 8, 9), "ZYX", spacing=STEPS)
        for name in ("s.tif", "s.ome.tif"):
            write_measured(tmp_path / name, m)
            with tifffile.TiffFile(tmp_path / name) as file:
                assert file.series[0].axes == "ZYX"
                assert file.pages.first.photometric == tifffile.PHOTOMETRIC.MINISBLACK


def test_a_stack_written_without_axes_is_said_to_be_one_of_channels(tmp_path):
    x = np.random.default_rng(0).integers(0, 99, (5, 8, 9)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", x, imagej=True)
    m = read_measured(tmp_path / "s.tif")
    np.testing.assert_array_equal(m.data.numpy(), x)
    assert m.axes == "CYX"
    assert "a stack that was written without its axes says channels too" in m.notes[0]
    tifffile.imwrite(tmp_path / "t.tif", x[:3], photometric="rgb", planarconfig="separate")
    m = read_measured(tmp_path / "t.tif")
    np.testing.assert_array_equal(m.data.numpy(), x[:3])
    assert "may be slices of a stack" in m.notes[0]


def test_axes_of_a_stack_are_named_or_refused(tmp_path):
    m = Measured(torch.zeros(4, 5, 6), "QQQ")
    with pytest.raises(ValueError, match=r"dataclasses.replace\(measured, axes="):
        write_measured(tmp_path / "s.tif", m)
    write_measured(tmp_path / "s.tif", dataclasses.replace(m, axes="TYX"))
    assert read_measured(tmp_path / "s.tif").axes == "TYX"


# HDF5 and MATLAB


@pytest.mark.parametrize("names", [("real", "imag"), ("r", "i")])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_complex_numbers_of_hdf5_are_not_zeros(tmp_path, names, kind):
    """Read "as complex", h5py gives zeros for the members real and imag."""
    h5py = pytest.importorskip("h5py")
    z = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(kind)
    pairs = np.zeros(z.shape, dtype=[(names[0], kind), (names[1], kind)])
    pairs[names[0]], pairs[names[1]] = z, 2 * z
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["deep/x"] = pairs
    with h5py.File(tmp_path / "k.h5") as file, np.errstate(all="ignore"):
        if names[0] == "real":
            assert not file["deep/x"].astype(np.complex128)[()].any()
    m = read_measured(tmp_path / "k.h5")
    np.testing.assert_array_equal(m.data.numpy(), z + 2j * z)


def test_pairs_of_other_names_are_no_complex_numbers():
    with pytest.raises(ValueError, match="numbers are expected"):
        as_tensor(np.zeros(3, dtype=[("x", "f4"), ("y", "f4")]), "f")


def test_matlab_of_both_versions_has_the_same_axes(tmp_path):
    """Version 7.3 is HDF5 with the axes reversed and complex numbers as (real, imag)."""
    h5py, scipy_io = pytest.importorskip("h5py"), pytest.importorskip("scipy.io")
    z = (VOLUME + 1j * VOLUME[::-1]).astype(np.complex128)
    scipy_io.savemat(tmp_path / "old.mat", {"k": z})
    pairs = np.zeros(z.T.shape, dtype=[("real", "f8"), ("imag", "f8")])
    pairs["real"], pairs["imag"] = z.T.real, z.T.imag
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["k"] = pairs
        file["k"].attrs["MATLAB_class"] = np.bytes_("double")
    with (tmp_path / "new.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    for name in ("old.mat", "new.mat"):
        m = read_measured(tmp_path / name)
        assert m.axes == "QQQ"
        np.testing.assert_array_equal(m.data.numpy(), z)


@pytest.mark.parametrize("name", ["two.npz", "two.mat", "two.h5", "two.zarr"])
def test_of_several_arrays_one_is_chosen_by_its_name(tmp_path, name):
    a, b = np.zeros((2, 3)), np.arange(6.0).reshape(2, 3)
    if name.endswith("npz"):
        np.savez(tmp_path / name, a=a, b=b)
    elif name.endswith("mat"):
        pytest.importorskip("scipy.io").savemat(tmp_path / name, {"a": a, "b": b})
    elif name.endswith("h5"):
        with pytest.importorskip("h5py").File(tmp_path / name, "w") as file:
            file["a"], file["b"] = a, b
    else:
        group = pytest.importorskip("zarr").create_group(str(tmp_path / name))
        group.create_array("a", data=a)
        group.create_array("b", data=b)
    np.testing.assert_array_equal(read_measured(tmp_path / name, "b").data.numpy(), b)
    with pytest.raises(ValueError, match=rf"{name} holds a, b: choose one by key"):
        read_measured(tmp_path / name)
    with pytest.raises(ValueError, match="there is no array 'c'"):
        read_measured(tmp_path / name, "c")


def test_pickled_objects_of_npz_are_refused(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="no plain numbers"):
        read_measured(tmp_path / "o.npz")


# NIfTI


def test_voxels_of_nifti_are_those_of_the_affine(tmp_path):
    """After set_sform alone nibabel's affine says 2, 3, 4 mm and its header 1, 1, 1."""
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(VOLUME.T, np.eye(4))
    image.set_qform(np.eye(4), 1)
    image.set_sform(np.diag([2.0, 3, 4, 1]), 2, update_affine=True)
    nibabel.save(image, tmp_path / "v.nii")
    assert nibabel.load(tmp_path / "v.nii").header.get_zooms() == (1, 1, 1)
    m = read_measured(tmp_path / "v.nii")
    assert m.spacing == pytest.approx((4, 3, 2))
    assert "two forms state different places" in m.notes[0]
    assert "voxels of 1 x 1 x 1" in m.notes[1]


def test_nifti_is_written_with_the_same_place_in_both_forms(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    write_measured(tmp_path / "v.nii", MEASURED)
    head = nibabel.load(tmp_path / "v.nii").header
    for form, code in (head.get_sform(coded=True), head.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, AFFINE.numpy(), atol=1e-5)
    assert head.get_zooms() == pytest.approx((0.5, 0.7, 2.0))
    assert head.get_data_dtype() == np.float32
    sheared = AFFINE.clone()
    sheared[1, 2] = 0.4
    write_measured(tmp_path / "s.nii", dataclasses.replace(MEASURED, affine=sheared))
    head = nibabel.load(tmp_path / "s.nii").header
    assert int(head["qform_code"]) == 0  # which knows no shear
    np.testing.assert_allclose(head.get_sform(), sheared.numpy(), atol=1e-5)


def test_nifti_in_metres_is_in_millimetres_here(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(VOLUME.T, np.diag([0.002, 0.003, 0.004, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "v.nii")
    assert read_measured(tmp_path / "v.nii").spacing == pytest.approx((4, 3, 2))


def test_complex_nifti_keeps_its_imaginary_part(tmp_path):
    z = draw(2, 3, 4, dtype=torch.complex64)
    write_measured(tmp_path / "z.nii.gz", Measured(z, "ZYX"))
    assert torch.equal(read_measured(tmp_path / "z.nii.gz").data, z)


# MRC


def test_mrc_is_written_with_the_cell_of_its_own_numbers(tmp_path):
    """A cell that stays after a crop of half the slices makes voxels twice as deep."""
    mrcfile = pytest.importorskip("mrcfile")
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(np.zeros((8, 5, 6), dtype=np.float32))
        file.voxel_size = 2.0
    m = read_measured(tmp_path / "v.mrc")
    assert (m.axes, m.spacing, m.spacing_unit) == ("ZYX", (2.0, 2.0, 2.0), "angstrom")
    write_measured(tmp_path / "half.mrc", dataclasses.replace(m, data=m.data[:4] + 3))
    with mrcfile.open(tmp_path / "half.mrc") as file:
        assert file.voxel_size.z == pytest.approx(2.0)
        assert file.header.dmean == pytest.approx(3.0)
        assert mrcfile.validate(tmp_path / "half.mrc")


def test_axes_of_mrc_are_in_the_order_that_its_header_says(tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    stored = VOLUME.transpose(2, 0, 1)  # sections along x, rows along z, columns along y
    with mrcfile.new(tmp_path / "v.mrc") as file:
        file.set_data(np.ascontiguousarray(stored))
        file.header.maps, file.header.mapr, file.header.mapc = 1, 3, 2
    m = read_measured(tmp_path / "v.mrc")
    np.testing.assert_array_equal(m.data.numpy(), VOLUME)
    assert "were put in order z, y, x" in m.notes[0]


def test_numbers_that_mrc_has_not_are_refused_or_said(tmp_path):
    said = write_measured(tmp_path / "v.mrc", Measured(draw(2, 3, 4), "ZYX"))
    assert "float64 is stored as float32" in said[0]
    with pytest.raises(ValueError, match="no kind for int32"):
        write_measured(tmp_path / "v.mrc", Measured(torch.zeros(2, 3, 4, dtype=torch.int32), "ZYX"))


# FITS


def test_fits_is_scaled_and_has_the_steps_of_the_sky(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    unit = fits.PrimaryHDU(np.arange(20, dtype=np.int16).reshape(1, 1, 4, 5))
    unit.header.update(
        CTYPE1="RA---SIN",
        CDELT1=-2e-9,
        CTYPE2="DEC--SIN",
        CDELT2=2e-9,
        CTYPE3="FREQ",
        CTYPE4="STOKES",
        BUNIT="JY/PIXEL",
        BSCALE=0.5,
        BZERO=3.0,
    )
    # astropy scales what it writes; the stored numbers are wanted here.
    content = unit.data.copy()
    unit.writeto(tmp_path / "i.fits")
    with fits.open(tmp_path / "i.fits", mode="update", do_not_scale_image_data=True) as file:
        file[0].data = content
        file[0].header["BSCALE"], file[0].header["BZERO"] = 0.5, 3.0
    m = read_measured(tmp_path / "i.fits")
    np.testing.assert_allclose(m.data.numpy(), 0.5 * np.arange(20).reshape(4, 5)[::-1] + 3)
    assert (m.axes, m.unit, m.spacing, m.spacing_unit) == ("YX", "JY/PIXEL", (2e-9, 2e-9), "deg")
    assert "row 0 is the top" in m.notes[0]
    write_measured(tmp_path / "j.fits", m)
    np.testing.assert_array_equal(fits.getdata(tmp_path / "j.fits")[::-1], m.data.numpy())
    again = read_measured(tmp_path / "j.fits")
    assert (again.unit, again.spacing, again.spacing_unit) == (m.unit, m.spacing, "deg")
    with pytest.raises(ValueError, match="FITS images are real"):
        write_measured(tmp_path / "z.fits", Measured(torch.zeros(2, 3) * 1j, "YX"))


# zarr


def test_zarr_keeps_numbers_that_fewer_bits_would_wrap_and_complex_ones(tmp_path):
    """float 40000 cast into an int16 store gives -25536 there."""
    pytest.importorskip("zarr")
    for x in (torch.tensor([[40000.0, -1.5]]), torch.tensor([[1 + 2j, 3 - 4j]])):
        write_measured(tmp_path / "a.zarr", Measured(x, "YX"))
        again = read_measured(tmp_path / "a.zarr")
        assert again.data.dtype == x.dtype
        assert torch.equal(again.data, x)
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "mine.txt").write_text("not to be lost")
    with pytest.raises(ValueError, match="it is not replaced"):
        write_measured(tmp_path / "b.zarr", Measured(x, "YX"))


def test_of_ome_zarr_the_finest_level_is_read_with_its_steps(tmp_path):
    zarr = pytest.importorskip("zarr")
    levels = []
    for k in (0, 1):
        scale = {"type": "scale", "scale": [1.0, *(2.0**k * s for s in STEPS)]}
        levels.append({"path": str(k), "coordinateTransformations": [scale]})
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scales = {"axes": axes, "datasets": levels}
    told = {"ome": {"multiscales": [scales]}}
    group = zarr.create_group(str(tmp_path / "p.zarr"), attributes=told)
    group.create_array("0", data=VOLUME[None])
    group.create_array("1", data=VOLUME[None, ::2, ::2, ::2])
    m = read_measured(tmp_path / "p.zarr")
    assert (m.axes, m.spacing, m.spacing_unit) == ("CZYX", (None, *STEPS), "micrometer")
    np.testing.assert_array_equal(m.data[0].numpy(), VOLUME)
    assert "finest of 2 levels" in m.notes[0]


# BART


def test_cfl_is_written_as_bart_has_it_and_sections_after_the_sides_are_ignored(tmp_path):
    z = draw(4, 5, 1, 3, dtype=torch.complex64)
    write_measured(tmp_path / "k.cfl", Measured(z, "QQQQ"))
    header = tmp_path / "k.hdr"
    assert header.read_text() == "# Dimensions\n4 5 1 3 1 1 1 1 1 1 1 1 1 1 1 1\n"
    numbers = np.fromfile(tmp_path / "k.cfl", dtype="<c8")
    assert complex(numbers[1]) == complex(z[1, 0, 0, 0])  # the first side runs fastest
    header.write_text(header.read_text() + "# Command\nfft -u 3 a b\n# Files\n >k\n")
    assert torch.equal(read_cfl(tmp_path / "k.cfl"), z)
    coils_first = Measured(z[:, :, 0].permute(2, 1, 0), "CYX")
    write_measured(tmp_path / "c.cfl", coils_first)
    assert torch.equal(read_cfl(tmp_path / "c.cfl"), z)


# All


@pytest.mark.parametrize("name", [f"x{f.suffixes[0]}" for f in FORMATS if f.extra])
def test_a_missing_library_is_named_with_its_extra_in_one_sentence(tmp_path, name, monkeypatch):
    place = tmp_path / name
    place.mkdir() if name.endswith("zarr") else place.write_bytes(b"something")
    find = importlib.util.find_spec
    heavy = ("h5py", "nibabel", "mrcfile", "astropy", "zarr", "pydicom")
    monkeypatch.setattr(
        "posteriori.extras.find_spec", lambda n: None if n.split(".")[0] in heavy else find(n)
    )
    acts = [lambda: read_measured(place), lambda: write_measured(place, MEASURED)]
    for act in acts[: 1 if format_of(place).write is None else 2]:
        with pytest.raises(ImportError, match=r"needs \w+: pip install 'posteriori\[\w+\]'"):
            act()


@pytest.mark.parametrize("name", ["x.h5", "x.mat", "x.npz", "x.nii", "x.mrc", "x.fits", "x.tif"])
def test_damaged_files_are_named(tmp_path, name):
    pytest.importorskip("h5py")
    (tmp_path / name).write_bytes(b"\x89HDF no such thing" * 40)
    with pytest.raises(ValueError, match=f"{name}.*cannot be read"):
        read_measured(tmp_path / name)


def test_axes_and_steps_have_to_fit_and_units_are_converted():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="name 3 axes"):
        Measured(x, "ZYX")
    with pytest.raises(ValueError, match="more than once"):
        Measured(x, "YY")
    with pytest.raises(ValueError, match="every step is finite and > 0"):
        Measured(x, "YX", spacing=(1.0, 0.0))
    m = Measured(x, "YX", spacing=(2.0, None), spacing_unit="angstrom")
    assert m.step("Y", "nm") == pytest.approx(0.2)
    assert m.step("X", "nm") is None
    with pytest.raises(ValueError, match="no lengths in mm"):
        Measured(x, "YX", spacing=(2.0, 2.0), spacing_unit="deg").step("Y", "mm")


def test_a_file_of_no_known_kind_and_none_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_measured(tmp_path / "x.xyz")
    (tmp_path / "x.xyz").write_bytes(b"0")
    with pytest.raises(ValueError, match="read by their suffix"):
        read_measured(tmp_path / "x.xyz")


def test_a_volume_of_any_kind_is_read_as_one(tmp_path):
    for name in ("v.mrc", "v.h5", "v.tif", "v.npz", "v.zarr"):
        write_measured(tmp_path / name, MEASURED)
        x, info = read_volume(tmp_path / name)
        np.testing.assert_array_equal(x.numpy(), VOLUME)
        assert (info.affine is not None) == ("affine" in KEPT[name])
