"""One picture in a TIFF file, with what the file itself says about its numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import tifffile
from PIL import Image

Mode = Literal["L", "LA", "RGB", "RGBA"]
MODES: tuple[Mode, ...] = get_args(Mode)
NODATA = 42113  # the tag in which GDAL keeps the number that means "no data"
PLANES = {"S": "samples", "C": "channels", "Q": "pages", "I": "pages"}


class Stored(NamedTuple):
    """What a file holds.

    planes: (C, H, W) in the file's own dtype. mode: what the file says its planes are, in Pillow's
    letters (A: transparency); None where it does not say, and then ``doubt`` says in words what was
    found. white, nodata: the stored numbers of white and of pixels without data, where the file
    states them.
    """

    planes: np.ndarray
    mode: Mode | None
    doubt: str = ""
    white: int | None = None
    nodata: float | None = None


def read(path: Path, notes: list[str]) -> Stored:
    """Raises ``ValueError`` naming the file: several pictures, slices or times, colours that are no
    RGB, white stored as 0, damage."""
    try:
        with tifffile.TiffFile(path) as file:
            series, page = file.series[0], file.series[0].keyframe
            names, shape = _axes(path, file)
            check_size(path, series.shape)
            array = series.asarray().reshape(shape)
            found = _meaning(path, page, names, shape)
            bits = page.bitspersample
            nodata = page.tags.valueof(NODATA)
            turned = page.tags.valueof("Orientation", 1)
    except Image.DecompressionBombError:
        raise
    except RefusedError as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        # A damaged TIFF meets errors of every class on its way through the decoder
        packed = (
            "; install it, or save the picture without compression"
            if "imagecodecs" in str(error)
            else ""
        )
        raise ValueError(f"{path} cannot be read as one TIFF picture: {error}{packed}") from error
    if turned not in (1, None):
        notes.append(
            f"{path.name} asks to be turned (orientation {int(turned)}), which is not done: "
            "its rows are taken as stored"
        )
    planes = array[None] if len(names) == 2 else np.moveaxis(array, _plane_axis(names), 0)
    narrow = array.dtype.kind == "u" and isinstance(bits, int) and bits < 8 * array.dtype.itemsize
    return Stored(planes, *found, 2**bits - 1 if narrow else None, _number(nodata))


class RefusedError(Exception):
    """A file that is sound and no single picture."""


def _axes(path: Path, file: tifffile.TiffFile) -> tuple[list[str], list[int]]:
    """The axes that are no mere 1, and their lengths: rows and columns, and at most one of
    planes."""
    series = file.series[0]
    kept = [
        (name, n)
        for name, n in zip(series.axes, series.shape, strict=True)
        if name in "YX" or n > 1
    ]
    names, shape = [name for name, _ in kept], [n for _, n in kept]
    others = [name for name in names if name not in "YX"]
    pages = math.prod(n for name, n in kept if name not in "YXSC")
    if len(file.series) != 1 or len(others) > 1 or (others and others[0] not in PLANES):
        raise RefusedError(
            f"{path} cannot be read as one TIFF picture: it holds "
            f"{max(pages, len(file.series))} pages (axes {series.axes} of lengths {series.shape}); "
            "save the one you mean in a file of its own"
        )
    if [name for name in names if name in "YX"] != ["Y", "X"]:
        raise RefusedError(
            f"{path} has axes {series.axes} of lengths {series.shape}; "
            "a picture has (Y, X) and colour"
        )
    return names, shape


def _plane_axis(names: list[str]) -> int:
    return next(k for k, name in enumerate(names) if name not in "YX")


def check_size(path: Path, shape: tuple[int, ...]) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit and math.prod(shape) > 2 * 4 * limit:
        raise Image.DecompressionBombError(
            f"{path} holds {math.prod(shape)} values, beyond twice Pillow's limit of {limit} pixels"
        )


def _meaning(path: Path, page: Any, names: list[str], shape: list[int]) -> tuple[Mode | None, str]:
    """What the planes are by photometric interpretation, extra samples and layout; otherwise None
    and what was found."""
    photometric, kinds = page.photometric, tifffile.PHOTOMETRIC
    if photometric == kinds.MINISWHITE:
        raise RefusedError(f"{path} stores white as 0; save it with black as 0")
    if photometric not in (kinds.MINISBLACK, kinds.RGB) and not (
        photometric == kinds.YCBCR and page.compression == 7
    ):
        raise RefusedError(
            f"{path} stores colours as {getattr(photometric, 'name', photometric)}; "
            "save it as grey or RGB"
        )
    if len(names) == 2:
        return "L", ""
    axis = _plane_axis(names)
    count, what = shape[axis], PLANES[names[axis]]
    extra = tuple(int(kind) for kind in page.extrasamples)
    found = f"{count} {what}"
    if names[axis] != "S":
        return None, found
    if axis == 0:
        return None, f"{found} one after another, as a stack of slices is stored too"
    colours = 1 if photometric == kinds.MINISBLACK else 3
    if count == colours:
        return ("L" if colours == 1 else "RGB"), ""
    if count == colours + 1 and extra in ((1,), (2,)):
        return ("LA" if colours == 1 else "RGBA"), ""
    return (
        None,
        f"{found} for {'grey' if colours == 1 else 'RGB'}, "
        f"{count - colours} of unspecified meaning",
    )


def _number(text: object) -> float | None:
    try:
        return None if text is None else float(str(text).strip("\0 "))
    except ValueError:
        return None
