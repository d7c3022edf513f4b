"""Instruments that are not linear: over-exposure against its formula, JPEG against the encoder of
Pillow."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from reference import draw

from posteriori import operators as ops
from posteriori.measurements.photos import COFFEE
from posteriori.testing import check_operator


def photograph(mode="RGB"):
    return Image.open(COFFEE).convert(mode).crop((0, 0, 128, 96))


def as_batch(picture):
    array = np.array(picture, dtype=np.float64) / 255
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)[None]


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()))


def test_clip_is_its_formula_with_a_gradient_inside_the_limits_only():
    A = ops.Clip((5,), gain=2.0, low=-1.0, high=1.0)
    x = torch.tensor([[-0.7, -0.5, 0.2, 0.5, 3.0]], dtype=torch.float64)
    y, pull = A.linearize(x)
    assert y.tolist() == [[-1.0, -1.0, 0.4, 1.0, 1.0]]
    assert pull(torch.ones_like(y)).tolist() == [[0.0, 2.0, 2.0, 2.0, 0.0]]
    assert A.pseudo_inverse(y).tolist() == [[-0.5, -0.5, 0.2, 0.5, 0.5]]


@pytest.mark.parametrize("gain", [0.3, 2.0, 7.1])
def test_clip_measures_the_same_again_of_its_pseudo_inverse(gain):
    A = ops.Clip((3, 4, 5), gain)
    y = A(draw(2, 3, 4, 5))
    torch.testing.assert_close(A(A.pseudo_inverse(y)), y, rtol=1e-15, atol=0)


def test_an_affine_change_is_undone_after_the_operator():
    A = ops.Affine(ops.Clip((4,), gain=2.0, low=-9.0, high=9.0), 0.5, 0.25)
    x = draw(3, 4)
    torch.testing.assert_close(A(x), x + 0.5)
    torch.testing.assert_close(A.pseudo_inverse(A(x)), x)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gain": 0.0}, "gain.*0.0"),
        ({"gain": math.inf}, "gain.*inf"),
        ({"low": 1.0}, "low=1.0"),
        ({"high": math.nan}, "high.*nan"),
    ],
)
def test_clip_refuses_settings_that_measure_nothing(settings, words):
    with pytest.raises(ValueError, match=words):
        ops.Clip((3,), **settings)


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
@pytest.mark.parametrize(
    ("mode", "subsampling"), [("RGB", "4:4:4"), ("RGB", "4:2:0"), ("L", "4:2:0")]
)
def test_the_decoded_picture_is_the_one_of_pillow(quality, mode, subsampling):
    picture, file = photograph(mode), io.BytesIO()
    picture.save(
        file, "JPEG", quality=quality, **({"subsampling": subsampling} if mode == "RGB" else {})
    )
    x = as_batch(picture)
    A = ops.JPEG(tuple(x.shape[1:]), quality, subsampling)
    decoded = A.pseudo_inverse(A(x)).clamp(0, 1)
    reopened = Image.open(file)
    assert psnr(decoded, as_batch(reopened)) > 40
    # Compression itself does something, and less at a high quality.
    assert 25 < psnr(decoded, x) < (33 if quality <= 10 else 47)
    for table, plane in zip(
        (A.luminance, A.chrominance), range(len(reopened.quantization)), strict=False
    ):
        assert table.flatten().tolist() == reopened.quantization[plane]


@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 0, 255), (20, 200, 90)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_the_planes_of_a_file_are_brightness_then_blue_then_red(rgb, subsampling):
    """Both colour differences have one table, so that a picture decodes alike in either order; a
    file holds Cb before Cr (JFIF)."""
    A = ops.JPEG((3, 16, 16), 90, subsampling, rounding="none")
    planes = A.split(
        A(torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 16, 16) / 255)
    )
    # Of a plane of one value v the first coefficient of a block is 8 v, and all others are 0.
    steps = (A.luminance[0, 0], A.chrominance[0, 0], A.chrominance[0, 0])
    shown = [float(plane[0, 0, 0] * step) / 8 for plane, step in zip(planes, steps, strict=True)]
    pillow = Image.new("RGB", (1, 1), rgb).convert("YCbCr").getpixel((0, 0))
    # Pillow gives whole numbers, and cannot show 128 + 127.5.
    assert [v + 128 for v in shown] == pytest.approx(pillow, abs=1.01)
    red, green, blue = rgb
    cb = -0.168736 * red - 0.331264 * green + 0.5 * blue
    cr = 0.5 * red - 0.418688 * green - 0.081312 * blue
    assert shown[1:] == pytest.approx([cb, cr], abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("quality", [1, 30, 100])
@pytest.mark.parametrize(("channels", "subsampling"), [(3, "4:4:4"), (3, "4:2:0"), (1, "4:2:0")])
def test_a_decoded_picture_is_coded_by_the_same_integers(channels, subsampling, quality, dtype):
    A = ops.JPEG((channels, 16, 32), quality, subsampling)
    # Far outside [0, 1] too: nothing is clipped on the way.
    x = 0.5 + draw(4, channels, 16, 32, dtype=dtype)
    y = A(x)
    assert y.dtype == dtype
    assert torch.equal(y, y.round())
    assert torch.equal(A(A.pseudo_inverse(y)), y)
    assert torch.equal(A(A.pseudo_inverse(y + 0.4)), y)


def test_unrounded_coefficients_lose_nothing_but_halved_colours():
    x = draw(2, 3, 16, 16)
    whole = ops.JPEG((3, 16, 16), 20, "4:4:4", rounding="none")
    torch.testing.assert_close(whole.pseudo_inverse(whole(x)), x, rtol=0, atol=1e-12)
    halved = ops.JPEG((3, 16, 16), 20, rounding="none")
    assert [tuple(p.shape) for p in halved.split(halved(x))] == [(2, 16, 16), (2, 8, 8), (2, 8, 8)]
    smooth = torch.nn.functional.avg_pool2d(x, 2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(halved.pseudo_inverse(halved(smooth)), smooth, rtol=0, atol=1e-12)


def test_rounding_is_passed_straight_through():
    A = ops.JPEG((3, 16, 16), 30)
    smooth = A.surrogate()
    assert smooth.rounding == "none"
    assert smooth.surrogate() is None
    x = draw(1, 3, 16, 16)
    assert torch.equal(A(x), smooth(x).round())
    u = draw(1, *A.out_shape, seed=1)
    torch.testing.assert_close(A.linearize(x)[1](u), smooth.linearize(x)[1](u), rtol=0, atol=0)


def test_the_contract_finds_rounding_that_does_not_say_so():
    class Silent(ops.JPEG):
        def surrogate(self):
            return None

    with pytest.raises(AssertionError, match="finite differences"):
        check_operator(Silent((1, 8, 8), 50))


@pytest.mark.parametrize(
    ("shape", "settings", "words"),
    [
        ((3, 24, 16), {"quality": 50}, "24x16.*multiples of 16.*32x16"),
        ((1, 9, 16), {"quality": 50}, "9x16.*multiples of 8.*16x16"),
        ((2, 16, 16), {"quality": 50}, r"\(2, 16, 16\)"),
        ((1, 8, 8), {"quality": 0}, "quality.*0"),
        ((1, 8, 8), {"quality": 50.5}, "quality.*50.5"),
        ((1, 8, 8), {"quality": 50, "subsampling": "4:2:2"}, "4:2:2"),
        ((1, 8, 8), {"quality": 50, "rounding": "up"}, "up"),
    ],
)
def test_jpeg_refuses_what_it_cannot_code(shape, settings, words):
    with pytest.raises(ValueError, match=words):
        ops.JPEG(shape, **settings)
