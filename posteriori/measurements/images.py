"""Pictures in, pictures out: PNG, JPEG, TIFF and .npy, 8 bits, 16 bits or floating point.

    stored integer v  ->  v / white, so that black is 0 and white is 1; white is stated,
                          or 2^bits - 1
    stored float      ->  itself; its minimum and maximum are reported, for only the user knows
                          the unit

Nothing is resized, turned grey or stretched, and no white is guessed: a picture much darker than
its type allows is said to be.
Pillow alone is not trusted with 16 bits: its conversion of a 16-bit grey picture to 8 bits clips
everything above 255, and it drops the low byte of 16-bit colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from posteriori.measurements import png, tiff
from posteriori.measurements.arrays import read_array
from posteriori.measurements.files import checked
from posteriori.measurements.tiff import Stored
from posteriori.storage import write_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy")
WHITE_LEVELS = {"uint8": 255, "uint16": 65535, "bool": 1}
DEPTHS = (8, 10, 12, 14)  # bits per pixel of cameras and scanners, kept in files of 16


@dataclass(frozen=True)
class ImageInfo:
    """What was found in a file.

    stored: the dtype on disk. white: the stored number that became 1; None for floating point
    numbers taken as they are.
    minimum, maximum: of the returned tensor. missing: how many of its values hold no data.
    notes: sentences about what was done to the picture, to be shown to the user.
    """

    path: Path
    stored: str
    white: float | None
    minimum: float
    maximum: float
    notes: tuple[str, ...]
    missing: int = 0


def read_image(
    path: str | Path,
    channels: int | None = None,
    *,
    white: float | None = None,
    scale: float | None = None,
    nodata: float | Literal["none"] | None = None,
    keep_missing: bool = False,
) -> tuple[Tensor, ImageInfo]:
    """A picture as (C, H, W) float32, contiguous; integers are divided by ``white``.

    channels: how many the picture has; None for what the file itself says, grey or RGB.
    white: the stored number that stands for white, black being 0, such as 4095 for 12 bits in a
        file of 16; None for 2^bits - 1, and for floating point numbers as they are.
    scale: the value of one stored unit, in place of white, for numbers that are no picture:
        ``scale`` times the stored ones are returned.
    nodata: the stored number of pixels without data; None for what the file states (GDAL's tag),
        "none" for no such number.
    keep_missing: return NaN where there is no data or no finite number, instead of refusing the
        picture.

    The orientation that a camera recorded is applied, and an alpha channel that hides nothing is
    left out; both are said in ``notes``, and so is a brightest value below a quarter of white.
    Raises ``FileNotFoundError``, and ``ValueError`` naming the file: other formats, transparent
    pixels, CMYK, several pages, planes whose meaning the file does not say while ``channels`` is
    None, missing data, values that are not finite or above a stated white, another number of
    channels. A picture beyond Pillow's limit of pixels raises ``PIL.Image.DecompressionBombError``.
    """
    path, notes = checked(path), list[str]()
    given = [unit for unit in (white, scale) if unit is not None]
    if len(given) > 1 or not all(0 < unit < math.inf for unit in given):
        raise ValueError(
            f"give one of white and scale, a finite number > 0, got white={white}, scale={scale}"
        )
    found = _stored(path, channels, notes)
    planes = _channels(found, channels, path, notes)
    if planes.dtype.kind not in "uibf" or not planes.size:
        raise ValueError(
            f"{path} holds {planes.size} values of {planes.dtype}, a picture has real ones"
        )
    missing = _missing(
        planes, found.nodata if nodata is None else None if nodata == "none" else nodata
    )
    if missing.any() and not keep_missing:
        raise ValueError(
            f"{path}: {int(missing.sum())} of {missing.size} values are {planes[missing][0]:g}, "
            "which means no data there. Fill them and hide them from the operator by a mask, "
            'or state nodata "none" if the number means itself'
        )
    level = 1 / scale if scale else _white(planes[~missing], white, found.white, path, notes)
    image = np.ascontiguousarray(planes.astype(np.float64) / (level or 1), dtype=np.float32)
    image[missing] = np.nan
    lost = ~np.isfinite(image)
    if lost.any() and not keep_missing:
        raise ValueError(
            f"{path} holds {int(lost.sum())} values that are not finite; "
            "mask them out with an operator"
        )
    if lost.any():
        notes.append(
            f"{path.name}: {int(lost.sum())} of {lost.size} values hold no data; "
            "the operator has to hide them"
        )
        image[lost] = np.nan
    seen = image[~lost] if not lost.all() else image
    info = ImageInfo(
        path,
        planes.dtype.name,
        level,
        float(seen.min()),
        float(seen.max()),
        tuple(notes),
        int(lost.sum()),
    )
    return torch.from_numpy(image), info


def stored_picture(path: str | Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """A PNG or JPEG picture (C, H, W) in the numbers that it stores, upright and without an alpha
    channel that hides nothing, and what was done. Raises as ``read_image``."""
    path, notes = checked(path), list[str]()
    return _channels(_pillow(path, notes), None, path, notes), tuple(notes)


def _stored(path: Path, channels: int | None, notes: list[str]) -> Stored:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: pictures are read from {', '.join(SUFFIXES)}, "
            f"not from {suffix or 'a file without suffix'!r}"
        )
    if suffix == ".npy":
        return Stored(_planes(read_array(path).numpy(), path, channels, notes), None)
    return tiff.read(path, notes) if suffix in (".tif", ".tiff") else _pillow(path, notes)


def _channels(found: Stored, channels: int | None, path: Path, notes: list[str]) -> np.ndarray:
    """The planes of the picture itself: those that are stated, or those that the file says are no
    transparency."""
    count, mode = len(found.planes), found.mode
    if path.suffix.lower() == ".npy" or channels == count:
        return found.planes
    if mode is None and channels is None:
        clear = f", channels: {count - 1} if the last is transparency" if count in (2, 4) else ""
        raise ValueError(
            f"{path} holds {found.doubt}, and does not say what they are. "
            f"State channels: {count} if they are the channels of one picture{clear}; "
            "a slice of a stack belongs into a file of its own"
        )
    alpha = mode in ("LA", "RGBA") or (mode is None and channels == count - 1)
    kept = count - 1 if alpha else count
    if channels not in (None, kept):
        raise ValueError(f"{path} has {kept} channels, {channels} expected")
    return _opaque(found.planes, path, notes) if alpha else found.planes


def _opaque(planes: np.ndarray, path: Path, notes: list[str]) -> np.ndarray:
    """The planes without the last one, which says that nothing is transparent. Raises
    ``ValueError`` where something is."""
    clear = planes[-1] != WHITE_LEVELS.get(planes.dtype.name, 1)
    if clear.any():
        raise ValueError(
            f"{path} has transparent pixels ({float(clear.mean()):.1%}); "
            "flatten it on a background first"
        )
    notes.append(f"{path.name} has an alpha channel that is opaque everywhere; it was left out")
    return planes[:-1]


def _white(
    seen: np.ndarray, stated: float | None, own: int | None, path: Path, notes: list[str]
) -> float | None:
    """The stored number that becomes 1. Whole numbers much below it are said; nothing is guessed
    from them."""
    name, floating = seen.dtype.name, seen.dtype.kind == "f"
    low, top = (float(np.nanmin(seen)), float(np.nanmax(seen))) if seen.size else (0.0, 0.0)
    if stated is not None:
        if top > stated and not floating:
            raise ValueError(
                f"{path}: its brightest value is {top:g}, above the stated white of {stated:g}"
            )
        notes.append(
            f"{path.name}: stored numbers from {low:g} to {top:g}; white is {stated:g} as stated"
        )
        return stated
    white = own if own is not None else WHITE_LEVELS.get(name)
    if white is None and not floating:
        raise ValueError(
            f"{path} holds {name} values, whose white is unknown; "
            "state white, or convert to uint8, uint16 or float"
        )
    if white is not None and name != "bool" and 4 * (top + 1) <= white + 1:
        depths = [f"{2**bits - 1} for {bits} bits" for bits in DEPTHS if top < 2**bits < white]
        depths = ["1 for a picture of zeros and ones"] if top == 1 else depths
        choice = f", for example {', '.join(depths)}" if depths else ""
        notes.append(
            f"{path.name}: its brightest value is {top:g} of {white:g}, so that it reads as dark, "
            f"at most {top / white:.3g}. If another number stands for white, state white{choice}"
        )
    return white


def _missing(planes: np.ndarray, nodata: float | None) -> np.ndarray:
    """Where a value is the number that means no data, compared in the precision of the file."""
    if nodata is None:
        return np.zeros(planes.shape, dtype=bool)
    if math.isnan(nodata):
        return np.isnan(planes)
    return planes == (
        np.asarray(nodata).astype(planes.dtype) if planes.dtype.kind == "f" else nodata
    )


def write_image(
    path: str | Path, image: Tensor, *, range: tuple[float, float], bits: int = 8
) -> int:
    """Write (H, W), (1, H, W) or (3, H, W) as .png or .tif with 8 or 16 bits; ``range`` gives the
    values of black and white.

    Returns how many values lay outside ``range`` by more than rounding: they are clipped in the
    file, nowhere else.
    Raises ``ValueError`` for complex or non-finite values, other shapes, suffixes, bits, or an
    empty range.
    """
    path, (low, high) = Path(path), range
    if bits not in (8, 16) or not math.isfinite(high - low) or not high > low:
        raise ValueError(
            "an image has 8 or 16 bits and a range (black, white) with black < white, "
            f"got bits={bits} and range={range}"
        )
    planes = image[None] if image.ndim == 2 else image
    if planes.ndim != 3 or len(planes) not in (1, 3) or planes.is_complex():
        raise ValueError(
            "an image is real, (H, W), (1, H, W) or (3, H, W), "
            f"got {image.dtype} {tuple(image.shape)}; take .abs() of a complex one"
        )
    if not bool(planes.isfinite().all()):
        raise ValueError(
            f"{path}: {int((~planes.isfinite()).sum())} values are not finite, "
            "so there is no picture to write"
        )
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
        raise ValueError(
            f"{path}: pictures are written as .png or .tif, "
            f"not as {path.suffix or 'a file without suffix'!r}"
        )
    return outside


def _pillow(path: Path, notes: list[str]) -> Stored:
    """(C, H, W), with alpha as the last channel, in the depth of the file."""
    try:
        with Image.open(path) as picture:
            deep = png.deep_colour(path, picture)
            if deep is not None:
                return Stored(deep, "RGB" if len(deep) == 3 else "RGBA")
            pages = getattr(picture, "n_frames", 1)
            # A camera's JPEG may carry depth or a preview behind its photograph
            if pages > 1 and picture.format == "PNG":
                raise ValueError(
                    f"{path} holds {pages} pages (an animation); "
                    "save the one you mean in a file of its own"
                )
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1)
            upright = ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ValueError(
            f"{path} is not a picture that Pillow knows, whatever its name says"
        ) from None
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if turned != 1:
        notes.append(
            f"{path.name} was turned upright as its camera recorded (orientation {turned})"
        )
    if upright.mode == "P" or "transparency" in upright.info:
        upright = upright.convert("RGBA")
    if upright.mode == "1":
        upright = upright.convert("L")
    if upright.mode.startswith("I"):
        # Pillow's modes for 16-bit grey
        return Stored(np.asarray(upright)[None].astype(np.uint16), "L")
    mode = next((mode for mode in tiff.MODES if mode == upright.mode), None)
    if mode is None:
        raise ValueError(f"{path} is a {upright.mode} picture; save it as grey or RGB")
    array = np.asarray(upright)
    return Stored(array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0), mode)


def _planes(array: np.ndarray, path: Path, channels: int | None, notes: list[str]) -> np.ndarray:
    """(H, W), (C, H, W) or (H, W, C) -> (C, H, W)."""
    wanted = (1, 3) if channels is None else (channels,)
    if array.ndim == 2 and 1 in wanted:
        return array[None]
    first = array.ndim == 3 and array.shape[0] in wanted
    last = array.ndim == 3 and array.shape[-1] in wanted
    if first:
        if channels is None and array.shape[0] == 3:
            notes.append(f"{path.name} of shape {array.shape} was read as 3 colours of one picture")
        return array
    if last:
        notes.append(f"{path.name} of shape {array.shape} was read as (height, width, colour)")
        return np.moveaxis(array, 2, 0)
    if array.ndim in (2, 3) and channels is not None:
        raise ValueError(
            f"{path} has shape {array.shape}, a picture of {channels} channels expected"
        )
    raise ValueError(
        f"{path} has shape {array.shape}; "
        "a picture is (H, W), (C, H, W) or (H, W, C) with C = 1 or 3, or as stated by channels"
    )
