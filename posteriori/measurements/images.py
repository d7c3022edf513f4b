"""Pictures in, pictures out: PNG, JPEG, TIFF and .npy, 8 bits, 16 bits or floating point.

    stored integer v  ->  v / (2^bits - 1), so that black is 0 and white is 1
    stored float      ->  itself; its minimum and maximum are reported, for only the user knows the unit

Nothing is resized, turned grey or stretched. Pillow alone is not trusted with 16 bits: its conversion of a 16-bit grey picture to 8 bits
clips everything above 255, and it drops the low byte of 16-bit colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from posteriori.measurements import png
from posteriori.measurements.arrays import read_array
from posteriori.measurements.files import checked, write_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
WHITE = {"uint8": 255, "uint16": 65535, "bool": 1}


@dataclass(frozen=True)
class ImageInfo:
    """What was found in a file.

    stored: the dtype on disk. white: the stored number that became 1; None for floating point numbers, which are taken as they are.
    minimum, maximum: of the returned tensor. notes: sentences about what was done to the picture, to be shown to the user.
    """

    path: Path
    stored: str
    white: int | None
    minimum: float
    maximum: float
    notes: tuple[str, ...]


def read_image(path: str | Path, channels: int | None = None) -> tuple[Tensor, ImageInfo]:
    """A picture as (C, H, W) float32, contiguous, C = 1 or 3; integers are scaled to [0, 1].

    channels: the number wanted; None accepts both.

    The orientation that a camera recorded is applied, and an alpha channel that hides nothing is left out; both are said in ``notes``.
    Raises ``FileNotFoundError``, and ``ValueError`` naming the file: other formats, transparent pixels, CMYK, several pages, values that
    are not finite, another number of channels. A picture beyond Pillow's limit of pixels raises ``PIL.Image.DecompressionBombError``.
    """
    path = checked(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: pictures are read from {', '.join(SUFFIXES)}, not from {suffix or 'a file without suffix'!r}")
    notes: list[str] = []
    if suffix == ".npy":
        array = _planes(read_array(path).numpy(), path, notes)
    else:
        array = _tiff(path) if suffix in (".tif", ".tiff") else _pillow(path, notes)
        array = _without_alpha(array, path, notes)
    if array.dtype.name not in WHITE and array.dtype.kind != "f":
        raise ValueError(f"{path} holds {array.dtype} values, whose white is unknown; convert to uint8, uint16, or float in your own unit")
    white = WHITE.get(array.dtype.name)
    # Axes were moved by views: a C-ordered copy is what every later ``view`` may count on.
    image = torch.from_numpy(np.ascontiguousarray(array.astype(np.float64) / (white or 1), dtype=np.float32))
    if not bool(image.isfinite().all()):
        raise ValueError(f"{path} holds {int((~image.isfinite()).sum())} values that are not finite; mask them out with an operator")
    if len(image) not in (1, 3) or channels not in (None, len(image)):
        raise ValueError(f"{path} has {len(image)} channels, {channels or '1 or 3'} expected")
    info = ImageInfo(path, array.dtype.name, white, float(image.min()), float(image.max()), tuple(notes))
    return image, info


def write_image(path: str | Path, image: Tensor, *, range: tuple[float, float], bits: int = 8) -> int:
    """Write (H, W), (1, H, W) or (3, H, W) as .png or .tif with 8 or 16 bits; ``range`` gives the values of black and white.

    Returns how many values lay outside ``range`` by more than rounding: they are clipped in the file, nowhere else.
    Raises ``ValueError`` for complex or non-finite values, other shapes, suffixes, bits, or an empty range.
    """
    path, (low, high) = Path(path), range
    if bits not in (8, 16) or not math.isfinite(high - low) or not high > low:
        raise ValueError(f"an image has 8 or 16 bits and a range (black, white) with black < white, got bits={bits} and range={range}")
    planes = image[None] if image.ndim == 2 else image
    if planes.ndim != 3 or len(planes) not in (1, 3) or planes.is_complex():
        raise ValueError(
            f"an image is real, (H, W), (1, H, W) or (3, H, W), got {image.dtype} {tuple(image.shape)}; take .abs() of a complex one"
        )
    if not bool(planes.isfinite().all()):
        raise ValueError(f"{path}: {int((~planes.isfinite()).sum())} values are not finite, so there is no picture to write")
    white = 2**bits - 1
    levels = (planes.detach().cpu().double() - low) / (high - low) * white
    outside = int(((levels < -0.5) | (levels > white + 0.5)).sum())
    pixels = levels.round().clamp(0, white).permute(1, 2, 0).numpy().astype(f"uint{bits}")
    if path.suffix.lower() == ".png":
        write_bytes(path, png.encode(pixels))
    elif path.suffix.lower() in (".tif", ".tiff"):
        content = BytesIO()
        tifffile.imwrite(content, pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        write_bytes(path, content.getvalue())
    else:
        raise ValueError(f"{path}: pictures are written as .png or .tif, not as {path.suffix or 'a file without suffix'!r}")
    return outside


def _pillow(path: Path, notes: list[str]) -> np.ndarray:
    """(C, H, W), with alpha as the last channel, in the depth of the file."""
    try:
        with Image.open(path) as picture:
            deep = png.deep_colour(path, picture)
            if deep is not None:
                return deep
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1)
            upright = ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that Pillow knows, whatever its name says") from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if turned != 1:
        notes.append(f"{path.name} was turned upright as its camera recorded (orientation {turned})")
    if upright.mode == "P" or "transparency" in upright.info:
        upright = upright.convert("RGBA")
    if upright.mode == "1":
        upright = upright.convert("L")
    if upright.mode.startswith("I"):
        return np.asarray(upright)[None].astype(np.uint16)  # Pillow's modes for 16-bit grey
    if upright.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ValueError(f"{path} is a {upright.mode} picture; save it as grey or RGB")
    array = np.asarray(upright)
    return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)


def _tiff(path: Path) -> np.ndarray:
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, shape = series.axes, series.shape
            pages = math.prod(n for axis, n in zip(axes, shape, strict=True) if axis not in "YXSC")
            if pages != 1 or len(file.series) != 1:
                raise ValueError(f"it holds {max(pages, len(file.series))} pages; save the one you mean in a file of its own")
            limit = Image.MAX_IMAGE_PIXELS
            if limit and math.prod(shape) > 2 * 4 * limit:
                raise Image.DecompressionBombError(f"{path} holds {math.prod(shape)} values, beyond twice Pillow's limit of {limit} pixels")
            array = series.asarray()
            inverted = getattr(series.pages[0], "photometric", None) == tifffile.PHOTOMETRIC.MINISWHITE
    except Image.DecompressionBombError:
        raise
    except Exception as error:  # a damaged TIFF meets errors of every class on its way through the decoder
        raise ValueError(f"{path} cannot be read as one TIFF picture: {error}") from error
    if inverted:
        raise ValueError(f"{path} stores white as 0; save it with black as 0")
    names = [axis for axis in axes if axis in "YXSC"]
    array = array.reshape([n for axis, n in zip(axes, shape, strict=True) if axis in "YXSC"])
    if names in (["S", "Y", "X"], ["C", "Y", "X"]) or names == ["Y", "X"]:
        return array[None] if len(names) == 2 else array
    if names == ["Y", "X", "S"]:
        return np.moveaxis(array, 2, 0)
    raise ValueError(f"{path} has axes {axes} of lengths {shape}; a picture has (Y, X) and colour")


def _planes(array: np.ndarray, path: Path, notes: list[str]) -> np.ndarray:
    """(H, W), (C, H, W) or (H, W, C) -> (C, H, W)."""
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3 and array.shape[0] in (1, 3):
        return array
    if array.ndim == 3 and array.shape[2] in (1, 3):
        notes.append(f"{path.name} of shape {array.shape} was read as (height, width, colour)")
        return np.moveaxis(array, 2, 0)
    raise ValueError(f"{path} has shape {array.shape}; a picture is (H, W), (C, H, W) or (H, W, C) with C = 1 or 3")


def _without_alpha(array: np.ndarray, path: Path, notes: list[str]) -> np.ndarray:
    if len(array) not in (2, 4):
        return array
    if int((array[-1] != WHITE.get(array.dtype.name, 1)).sum()):
        hidden = float((array[-1] != WHITE.get(array.dtype.name, 1)).mean())
        raise ValueError(f"{path} has transparent pixels ({hidden:.1%}); flatten it on a background first")
    notes.append(f"{path.name} has an alpha channel that is opaque everywhere; it was left out")
    return array[:-1]
