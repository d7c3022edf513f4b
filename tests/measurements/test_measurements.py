"""Files in, files out: what is read is what was stored, and what cannot be read is said."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from posteriori.measurements import read_array, read_image, write_image
from posteriori.measurements.photos import COFFEE


def levels(channels, bits, height=9, width=7):
    stored = np.random.default_rng(0).integers(0, 2**bits, (channels, height, width))
    stored[:, 0, :2] = 0, 2**bits - 1
    return torch.from_numpy(stored).double() / (2**bits - 1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_again_to_the_level(tmp_path, suffix, bits, channels):
    x = levels(channels, bits)
    file = tmp_path / f"x.{suffix}"
    assert write_image(file, x, range=(0, 1), bits=bits) == 0
    back, info = read_image(file, channels)
    assert back.dtype == torch.float32
    torch.testing.assert_close(back.double(), x, rtol=0, atol=1e-7)
    assert info.white == 2**bits - 1
    assert (info.minimum, info.maximum) == (0.0, 1.0)
    assert info.notes == ()


def test_pillow_agrees_with_what_is_written(tmp_path):
    for bits, channels in ((8, 1), (8, 3), (16, 1)):
        x = levels(channels, bits)
        write_image(tmp_path / "x.png", x, range=(0, 1), bits=bits)
        stored = np.asarray(Image.open(tmp_path / "x.png")).reshape(9, 7, channels)
        np.testing.assert_array_equal(stored, (x * (2**bits - 1)).round().permute(1, 2, 0).numpy())


def test_sixteen_bit_grey_of_another_writer_is_not_cut_to_255(tmp_path):
    stored = np.array([[0, 255, 256, 40_000, 65_535]], dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / "x.png")
    x, info = read_image(tmp_path / "x.png")
    torch.testing.assert_close(x, torch.tensor([[[0, 255, 256, 40_000, 65_535]]]) / 65_535)
    assert info.stored == "uint16"


@pytest.mark.parametrize("kind", [2, 6])
def test_sixteen_bit_colour_keeps_both_bytes(tmp_path, kind):
    """A file put together here, with unfiltered rows, independently of the package's own writer."""
    channels = {2: 3, 6: 4}[kind]
    stored = np.random.default_rng(1).integers(0, 65_536, (5, 4, channels)).astype(np.uint16)
    stored[..., 3:] = 65_535

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored)
    header = struct.pack(">IIBBBBB", 4, 5, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    x, info = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(
        (x.double() * 65_535).round().permute(1, 2, 0).numpy(), stored[..., :3]
    )
    assert len(info.notes) == (kind == 6)


def test_floating_point_numbers_are_taken_as_they_are(tmp_path):
    x = np.linspace(-3, 40, 24, dtype=np.float32).reshape(4, 6)
    np.save(tmp_path / "x.npy", x)
    tifffile.imwrite(tmp_path / "x.tif", x)
    for name in ("x.npy", "x.tif"):
        image, info = read_image(tmp_path / name)
        np.testing.assert_array_equal(image[0].numpy(), x)
        assert (info.white, info.minimum, info.maximum) == (None, -3.0, 40.0)


def test_arrays_with_colour_last_are_turned_and_said(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 6, 3), dtype=np.uint8))
    image, info = read_image(tmp_path / "x.npy")
    assert image.shape == (3, 5, 6)
    assert "(height, width, colour)" in info.notes[0]
    tifffile.imwrite(
        tmp_path / "x.tif",
        np.arange(90, dtype=np.uint16).reshape(3, 5, 6),
        photometric="rgb",
        planarconfig="separate",
    )
    planes, _ = read_image(tmp_path / "x.tif", channels=3)
    assert planes.shape == (3, 5, 6)
    assert float(planes[1, 0, 1]) == pytest.approx(31 / 65_535)


def test_a_camera_s_orientation_is_applied(tmp_path):
    picture = Image.fromarray(np.zeros((4, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    picture.save(tmp_path / "x.jpg", exif=exif)
    image, info = read_image(tmp_path / "x.jpg")
    assert image.shape == (3, 8, 4)
    assert "turned upright" in info.notes[0]


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("LA", 1)]
)
def test_opaque_pictures_of_every_mode_are_read(tmp_path, mode, channels):
    Image.fromarray(np.full((3, 4, 3), 255, dtype=np.uint8)).convert(mode).save(tmp_path / "x.png")
    image, info = read_image(tmp_path / "x.png")
    assert image.shape == (channels, 3, 4)
    assert float(image.min()) == 1.0
    assert any("alpha" in note for note in info.notes) == (mode in ("RGBA", "LA", "P"))


def test_files_that_are_not_what_they_say_are_named(tmp_path):
    cases = {
        "empty.png": (b"", "is empty"),
        "lfs.png": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS pointer",
        ),
        "page.png": (b"\n<!DOCTYPE html><html>", "a web page"),
        "text.png": (b"hello there, this is text", "not a picture"),
        "half.png": (COFFEE.read_bytes()[:5000], "is damaged"),
        "x.bmp": (b"BM123", "pictures are read from"),
        "bad.npy": (b"\x93NUMPY\x01", "no plain .npy"),
        "bad.tif": (b"II*\0", "cannot be read as one TIFF"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.png \(in that folder: "):
        read_image(tmp_path / "none.png")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)


def test_pictures_that_mean_something_else_are_refused(tmp_path):
    clear = np.full((4, 4, 4), 255, dtype=np.uint8)
    clear[0, 0, 3] = 9
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(np.zeros((4, 4, 4), dtype=np.uint8), mode="CMYK").save(tmp_path / "cmyk.jpg")
    np.save(tmp_path / "int.npy", np.zeros((4, 4), dtype=np.int32))
    np.save(tmp_path / "nan.npy", np.array([[0.0, np.nan]]))
    np.save(tmp_path / "five.npy", np.zeros((5, 4, 4)))
    tifffile.imwrite(
        tmp_path / "pages.tif", np.zeros((2, 8, 8), dtype=np.uint16), photometric="minisblack"
    )
    tifffile.imwrite(
        tmp_path / "white.tif", np.zeros((8, 8), dtype=np.uint8), photometric="miniswhite"
    )
    np.save(tmp_path / "none.npy", np.zeros((0, 4), dtype=np.float32))
    frames = [Image.fromarray(np.full((4, 4), k, dtype=np.uint8)) for k in (1, 200)]
    frames[0].save(tmp_path / "frames.png", save_all=True, append_images=frames[1:])
    frames[0].convert("P").save(tmp_path / "palette.tif")
    cases = {
        "none.npy": "holds 0 values",
        "frames.png": "holds 2 pages",
        "palette.tif": "stores colours as PALETTE",
        "clear.png": "transparent pixels",
        "cmyk.jpg": "CMYK",
        "int.npy": "whose white is unknown",
        "nan.npy": "1 values that are not finite",
        "five.npy": "shape \\(5, 4, 4\\)",
        "pages.tif": "holds 2 pages",
        "white.tif": "white as 0",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            read_image(tmp_path / name)
    with pytest.raises(ValueError, match="has 3 channels, 1 expected"):
        read_image(COFFEE, channels=1)


def test_the_limit_of_pixels_stays(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((100, 100), dtype=np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for file in (COFFEE, tmp_path / "x.tif"):
        with pytest.raises(Image.DecompressionBombError):
            read_image(file)


def test_values_outside_the_range_are_counted_and_clipped_in_the_file_only(tmp_path):
    x = torch.tensor([[-1.0, -0.6, 0.0, 1.0, 1.0001, 1.5]])
    assert write_image(tmp_path / "x.png", x, range=(-0.6, 1.0)) == 2
    back, _ = read_image(tmp_path / "x.png")
    torch.testing.assert_close(back[0, 0] * 255, torch.tensor([0.0, 0, 96, 255, 255, 255]))
    assert float(x.max()) == 1.5


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.zeros(2, 2), {"range": (1, 0)}, "black < white"),
        (torch.zeros(2, 2), {"range": (0, 1), "bits": 12}, "8 or 16 bits"),
        (torch.zeros(2, 4, 4), {"range": (0, 1)}, "an image is real"),
        (torch.zeros(4, 4, dtype=torch.complex64), {"range": (0, 1)}, "take .abs"),
        (torch.full((2, 2), torch.nan), {"range": (0, 1)}, "4 values are not finite"),
    ],
)
def test_what_is_no_picture_is_not_written(tmp_path, image, options, message):
    with pytest.raises(ValueError, match=message):
        write_image(tmp_path / "x.png", image, **options)
    with pytest.raises(ValueError, match="written as .png or .tif"):
        write_image(tmp_path / "x.jpg", torch.zeros(2, 2), range=(0, 1))
    assert list(tmp_path.iterdir()) == []


def test_arrays_keep_numbers_dtype_and_order(tmp_path):
    x = np.arange(12, dtype=">f8").reshape(3, 4)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    back = read_array(tmp_path / "x.npy")
    assert back.dtype == torch.float64
    np.testing.assert_array_equal(back.numpy(), x)
    y = torch.randn(2, 3, dtype=torch.complex64)
    torch.save(y, tmp_path / "y.pt")
    assert torch.equal(read_array(tmp_path / "y.pt"), y)
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, str(tmp_path / "z.safetensors"))
    assert read_array(tmp_path / "z.safetensors", "b").shape == (3,)
    for key, message in ((None, "choose one by key"), ("c", "no tensor 'c'")):
        with pytest.raises(ValueError, match=f"holds a, b: .*{message}"):
            read_array(tmp_path / "z.safetensors", key)


class Trap:
    """Unpickled, it would leave a file behind."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (self.place, "w")


def test_no_file_is_ever_executed(tmp_path):
    torch.save({"x": Trap(str(tmp_path / "ran"))}, tmp_path / "x.pt")
    np.save(
        tmp_path / "x.npy", np.array([Trap(str(tmp_path / "ran"))], dtype=object), allow_pickle=True
    )
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 40)
    for name, message in (
        ("x.pt", "Python objects"),
        ("x.npy", "no plain .npy"),
        ("x.safetensors", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            read_array(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="arrays are read from"):
        read_array(COFFEE)


def test_every_reader_returns_contiguous_numbers(tmp_path):
    """Axes are moved while reading: by strides alone, a later ``view`` would fail."""
    colour = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    for name in ("c.png", "c.jpg"):
        Image.fromarray(colour).save(tmp_path / name)
    write_image(
        tmp_path / "c16.png", torch.from_numpy(colour / 255).permute(2, 0, 1), range=(0, 1), bits=16
    )
    tifffile.imwrite(tmp_path / "c.tif", colour, photometric="rgb")
    np.save(tmp_path / "c.npy", colour)
    np.save(tmp_path / "f.npy", np.asfortranarray(colour.astype(np.float32).transpose(2, 0, 1)))
    for name in ("c.png", "c.jpg", "c16.png", "c.tif", "c.npy", "f.npy"):
        image, _ = read_image(tmp_path / name)
        assert image.shape == (3, 5, 4)
        assert image.is_contiguous(), name
    x = torch.randn(3, 4, dtype=torch.complex64)
    torch.save(x.mT.conj().requires_grad_(), tmp_path / "x.pt")
    back = read_array(tmp_path / "x.pt")
    assert back.is_contiguous()
    assert not back.requires_grad
    np.testing.assert_array_equal(back.numpy(), x.numpy().T.conj())


def test_a_picture_of_fewer_bits_than_its_file_is_said_and_read_by_its_stated_white(tmp_path):
    """12 bits in a file of 16: mean 0.035 for 0.56 by the type's white, exact by the stated one."""
    stored = np.random.default_rng(0).integers(600, 3988, (16, 16)).astype(np.uint16)
    stored[0, 0] = 3987
    tifffile.imwrite(tmp_path / "x.tif", stored)
    Image.fromarray(stored).save(tmp_path / "x.png")
    for name in ("x.tif", "x.png"):
        dark, info = read_image(tmp_path / name)
        # Never rescaled by guess
        np.testing.assert_allclose(dark[0].numpy(), stored / 65_535, rtol=1e-6)
        (note,) = info.notes
        assert "3987 of 65535" in note
        assert "4095 for 12 bits, 16383 for 14 bits" in note
        right, info = read_image(tmp_path / name, white=4095)
        np.testing.assert_allclose(right[0].numpy(), stored / 4095, rtol=1e-6)
        assert info.white == 4095
        assert info.notes == (
            f"{name}: stored numbers from {stored.min()} to 3987; white is 4095 as stated",
        )
        with pytest.raises(
            ValueError, match="brightest value is 3987, above the stated white of 2000"
        ):
            read_image(tmp_path / name, white=2000)
    np.save(tmp_path / "f.npy", stored.astype(np.float32))
    np.testing.assert_allclose(
        read_image(tmp_path / "f.npy", white=4095)[0][0].numpy(), stored / 4095, rtol=1e-6
    )
    np.testing.assert_allclose(
        read_image(tmp_path / "x.png", scale=0.5)[0][0].numpy(), stored / 2, rtol=1e-6
    )
    for wrong in ({"white": 0}, {"white": -1}, {"scale": np.inf}, {"white": 9, "scale": 9}):
        with pytest.raises(ValueError, match="one of white and scale, a finite number > 0"):
            read_image(tmp_path / "x.png", **wrong)


@pytest.mark.parametrize(
    ("dtype", "top", "said"),
    [
        ("uint8", 255, None),
        ("uint8", 64, None),
        ("uint8", 63, "63 of 255"),
        ("uint8", 1, "state white, for example 1 for a picture of zeros and ones"),
        ("uint8", 0, "0 of 255"),
        ("uint16", 16_384, None),
        ("uint16", 16_383, "16383 for 14 bits"),
        ("uint16", 200, "255 for 8 bits, 1023 for 10 bits"),
    ],
)
def test_a_brightest_value_below_a_quarter_of_white_is_said(tmp_path, dtype, top, said):
    np.save(tmp_path / "x.npy", np.array([[0, top]], dtype=dtype))
    _, info = read_image(tmp_path / "x.npy")
    assert len(info.notes) == (said is not None)
    assert said is None or said in info.notes[0]


def planes(*shape, dtype=np.uint16):
    return np.linspace(100, 40_000, int(np.prod(shape))).reshape(shape).astype(dtype)


RGB, GREY = {"photometric": "rgb"}, {"photometric": "minisblack"}
LAYOUTS = [
    # what is stored, how, channels read without a word, what is said otherwise, what reads it
    (planes(5, 6, 3), RGB, 3, None, 3),
    (
        planes(5, 6, 3),
        GREY | {"planarconfig": "contig"},
        None,
        "holds 3 samples for grey, 2 of unspecified meaning",
        3,
    ),
    (
        planes(3, 5, 6),
        {},
        None,
        "3 samples one after another, as a stack of slices is stored too",
        3,
    ),
    (planes(3, 5, 6), {"imagej": True}, None, "holds 3 channels", 3),
    (planes(3, 5, 6), {"ome": True}, None, "holds 3 channels", 3),
    (planes(3, 5, 6), GREY, None, "holds 3 pages", 3),
    (
        planes(3, 5, 6),
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        None,
        "holds 3 pages .axes Z",
        None,
    ),
    (
        planes(4, 5, 6),
        {},
        None,
        "holds 4 samples one after another.* channels: 4 .* channels: "
        "3 if the last is transparency",
        4,
    ),
    (
        planes(5, 6, 4),
        RGB | {"extrasamples": ["unspecified"]},
        None,
        "holds 4 samples for RGB, 1 of unspecified meaning",
        4,
    ),
    (
        planes(5, 6, 4),
        GREY | {"planarconfig": "contig"},
        None,
        "holds 4 samples for grey, 3 of unspecified",
        4,
    ),
    (planes(5, 6, 4), RGB | {"extrasamples": ["unassalpha"]}, None, "has transparent pixels", 4),
    (
        planes(5, 6, 4, dtype=np.uint8),
        {"photometric": "separated"},
        None,
        "stores colours as SEPARATED",
        None,
    ),
]


@pytest.mark.filterwarnings("ignore:<tifffile")
@pytest.mark.parametrize(("array", "how", "read", "said", "stated"), LAYOUTS)
def test_planes_are_what_the_file_says_or_the_user_states(tmp_path, array, how, read, said, stated):
    tifffile.imwrite(tmp_path / "x.tif", array, **how)
    if read is not None:
        assert read_image(tmp_path / "x.tif")[0].shape[0] == read
    else:
        with pytest.raises(ValueError, match=said):
            read_image(tmp_path / "x.tif")
    if stated is not None:
        image, _ = read_image(tmp_path / "x.tif", channels=stated)
        want = array if array.shape[0] == stated else np.moveaxis(array, 2, 0)
        np.testing.assert_allclose(image.numpy(), want / 65_535, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:<tifffile")
def test_a_constant_fourth_slice_is_no_transparency(tmp_path):
    stack = planes(4, 5, 6)
    stack[3] = 65_535
    tifffile.imwrite(tmp_path / "stack.tif", stack)
    with pytest.raises(ValueError, match="does not say what they are"):
        read_image(tmp_path / "stack.tif")
    assert read_image(tmp_path / "stack.tif", channels=4)[0].shape == (4, 5, 6)
    image, info = read_image(tmp_path / "stack.tif", channels=3)
    assert image.shape == (3, 5, 6)
    assert "alpha channel that is opaque everywhere" in info.notes[0]
    np.save(tmp_path / "bands.npy", stack)
    with pytest.raises(ValueError, match=r"shape \(4, 5, 6\)"):
        read_image(tmp_path / "bands.npy")
    assert read_image(tmp_path / "bands.npy", channels=4)[0].shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (np.float32, -9999.0),
        (np.float32, np.nan),
        (np.uint16, 65_535),
        (np.float32, -3.4028234663852886e38),
    ],
)
def test_a_stated_number_for_no_data_is_no_pixel(tmp_path, dtype, number):
    """GDAL's tag: compared in the file's precision, refused or returned as NaN, and never part of
    minimum and maximum."""
    x = np.linspace(20_000, 60_000, 30).reshape(5, 6).astype(dtype)
    x[1, 2:4] = number
    tifffile.imwrite(tmp_path / "x.tif", x, extratags=[(42113, "s", 0, str(number), True)])
    with pytest.raises(ValueError, match="2 of 30 values are .* which means no data there"):
        read_image(tmp_path / "x.tif")
    image, info = read_image(tmp_path / "x.tif", keep_missing=True)
    assert info.missing == int(image.isnan().sum()) == 2
    assert info.maximum == pytest.approx(60_000 / (info.white or 1))
    assert any("2 of 30 values hold no data" in note for note in info.notes)
    if np.isfinite(number):
        assert bool(read_image(tmp_path / "x.tif", nodata="none")[0].isfinite().all())
        tifffile.imwrite(tmp_path / "y.tif", x)
        assert read_image(tmp_path / "y.tif", nodata=number, keep_missing=True)[1].missing == 2


def test_the_number_for_no_data_is_not_the_brightest_value(tmp_path):
    x = np.linspace(100, 4000, 30).reshape(5, 6).astype(np.uint16)
    x[0, 0] = 65_535
    np.save(tmp_path / "x.npy", x)
    _, info = read_image(tmp_path / "x.npy", nodata=65_535, keep_missing=True)
    assert "brightest value is 4000 of 65535" in info.notes[0]
    image, info = read_image(tmp_path / "x.npy", white=4095, nodata=65_535, keep_missing=True)
    assert info.maximum == pytest.approx(4000 / 4095)
    assert info.missing == int(image.isnan().sum()) == 1
