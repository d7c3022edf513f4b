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
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored)
    header = struct.pack(">IIBBBBB", 4, 5, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    x, info = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal((x.double() * 65_535).round().permute(1, 2, 0).numpy(), stored[..., :3])
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
    tifffile.imwrite(tmp_path / "x.tif", np.arange(90, dtype=np.uint16).reshape(3, 5, 6), photometric="rgb", planarconfig="separate")
    planes, _ = read_image(tmp_path / "x.tif")
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


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("LA", 1)])
def test_opaque_pictures_of_every_mode_are_read(tmp_path, mode, channels):
    Image.fromarray(np.full((3, 4, 3), 255, dtype=np.uint8)).convert(mode).save(tmp_path / "x.png")
    image, info = read_image(tmp_path / "x.png")
    assert image.shape == (channels, 3, 4)
    assert float(image.min()) == 1.0
    assert any("alpha" in note for note in info.notes) == (mode in ("RGBA", "LA", "P"))


def test_files_that_are_not_what_they_say_are_named(tmp_path):
    cases = {
        "empty.png": (b"", "is empty"),
        "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
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
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((2, 8, 8), dtype=np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", np.zeros((8, 8), dtype=np.uint8), photometric="miniswhite")
    cases = {
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
    np.save(tmp_path / "x.npy", np.array([Trap(str(tmp_path / "ran"))], dtype=object), allow_pickle=True)
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 40)
    for name, message in (("x.pt", "Python objects"), ("x.npy", "no plain .npy"), ("x.safetensors", "cannot be read")):
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
    write_image(tmp_path / "c16.png", torch.from_numpy(colour / 255).permute(2, 0, 1), range=(0, 1), bits=16)
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
