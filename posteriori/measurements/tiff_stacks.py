"""TIFF files of any axes: pictures, OME and ImageJ stacks, with the numbers that they store.

``tiff`` reads one picture and says where a file is none; here a stack is a stack.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from posteriori.measurements.files import checked
from posteriori.measurements.measured import LENGTHS, UNKNOWN, Measured, as_array, as_tensor
from posteriori.measurements.tiff import check_size
from posteriori.storage import write_bytes

TIFF = (".tif", ".tiff")
_IMAGEJ = ("uint8", "uint16", "float32")
_ORDER = "TZCYX"
_MICRON = "µm"


def read_stack(path: str | Path) -> Measured:
    """All pages of a TIFF file in their own numbers. Axes are those of OME or ImageJ where the file
    has such a description; else Y, X, C for samples of colour and Q for pages.

    Raises ``ValueError`` naming the file: several series of pages, white stored as 0, damage.
    """
    path = checked(path)
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if len(file.series) > 1:
                raise _SeveralError(f"{path} holds {len(file.series)} series of pages; split them")
            if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                raise _SeveralError(f"{path} stores white as 0; save it with black as 0")
            check_size(path, series.shape)
            array, axes = series.asarray(), series.axes
            steps, unit = _steps(file)
            described = bool(file.is_ome or file.is_imagej)
    except (Image.DecompressionBombError, MemoryError):
        raise
    except _SeveralError as error:
        raise ValueError(str(error)) from None
    except Exception as error:  # a damaged TIFF meets errors of every class in the decoder
        raise ValueError(f"{path} cannot be read as TIFF: {error}") from error
    kept = [k for k, n in enumerate(array.shape) if n > 1 or axes[k] in "YX"]
    array, axes = array.reshape([array.shape[k] for k in kept]), "".join(axes[k] for k in kept)
    notes = _doubts(path, axes, array.shape, described)
    if axes.endswith("S"):
        array = np.moveaxis(array, -1, -3)
        axes = f"{axes[:-3]}S{axes[-3:-1]}"
    axes = _named(axes)
    spacing = tuple(steps.get(a) for a in axes) if any(a in steps for a in axes) else None
    return Measured(
        as_tensor(array, path),
        axes,
        "",
        spacing,
        notes=notes,
        spacing_unit=unit if spacing else "mm",
    )


def write_stack(path: str | Path, m: Measured) -> tuple[str, ...]:
    """A picture YX or CYX of 1 or 3 channels as plain TIFF; anything else, and what has steps, as
    an ImageJ stack, or as OME where ImageJ has no such numbers or the name ends in .ome.tif.

    Axes are written as they are, never left to be guessed from their lengths. Raises ``ValueError``
    for axes without a meaning.
    """
    path, array, axes = Path(path), as_array(m.data), m.axes
    if axes[-2:] != "YX" or not set(axes) <= set(_ORDER):
        raise ValueError(
            f"{path}: a TIFF stack has axes of {_ORDER}, rows and columns last, got {axes!r}; "
            "name them by dataclasses.replace(measured, axes=...)"
        )
    array = array.astype(np.uint8) if array.dtype == bool else array
    ome = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
    content = BytesIO()
    if not ome and m.spacing is None and (axes == "YX" or (axes == "CYX" and len(array) in (1, 3))):
        colour = axes == "CYX" and len(array) == 3
        planes = np.moveaxis(array, 0, -1) if colour else array.reshape(array.shape[-2:])
        tifffile.imwrite(content, planes, photometric="rgb" if colour else "minisblack")
    elif not ome and array.dtype.name in _IMAGEJ and list(axes) == sorted(axes, key=_ORDER.index):
        _imagej(content, array, m)
    else:
        described = {f"PhysicalSize{a}": m.step(a, m.spacing_unit) for a in "XYZ"}
        told: dict[str, Any] = {k: v for k, v in described.items() if v is not None}
        told |= {f"{k}Unit": _ome_unit(m.spacing_unit) for k in list(told)}
        tifffile.imwrite(
            content, array, ome=True, photometric="minisblack", metadata={"axes": axes, **told}
        )
    write_bytes(path, content.getvalue())
    lost = [word for word, there in (("unit", m.unit), ("affine", m.affine is not None)) if there]
    return (f"TIFF has no place for {' and '.join(lost)}",) if lost else ()


class _SeveralError(Exception):
    """A file that is sound and is not read here."""


def _steps(file: tifffile.TiffFile) -> tuple[dict[str, float], str]:
    """Steps along X, Y and Z, and their unit, of OME's or ImageJ's description."""
    if file.is_ome:
        found: Any = tifffile.xml2dict(file.ome_metadata or "")
        images = found.get("OME", {}).get("Image", {})
        pixels = (images[0] if isinstance(images, list) else images).get("Pixels", {})
        steps = {
            a: float(pixels[f"PhysicalSize{a}"]) for a in "XYZ" if f"PhysicalSize{a}" in pixels
        }
        units = {pixels.get(f"PhysicalSize{a}Unit", _MICRON) for a in steps}
        # Steps in different units are rare; all are put in that of the columns.
        if len(units) > 1:
            unit = pixels.get("PhysicalSizeXUnit", _MICRON)
            for a in steps:
                own = pixels.get(f"PhysicalSize{a}Unit", _MICRON)
                steps[a] *= LENGTHS[own] / LENGTHS[unit]
            return steps, unit
        return steps, units.pop() if units else "mm"
    if not file.is_imagej or not file.imagej_metadata:
        return {}, "mm"
    head, page = file.imagej_metadata, file.pages.first
    unit = str(head.get("unit", "")).replace("\\u00B5", "µ")
    if not unit or unit == "pixel":
        return {}, "mm"
    steps = {}
    for a in "XY":
        many, over = page.tags.valueof(f"{a}Resolution", (0, 1))
        if many:
            steps[a] = over / many
    if "spacing" in head:
        steps["Z"] = abs(float(head["spacing"]))
    return steps, unit


def _doubts(path: Path, axes: str, shape: tuple[int, ...], described: bool) -> tuple[str, ...]:
    said = f"{path.name}: axes {axes} of lengths {shape}"
    if axes in ("SYX", "YXS") and not described and axes == "SYX":
        return (f"{said}; planes stored as colours one after another may be slices of a stack",)
    if len(axes) == 3 and axes[0] == "C":
        return (f"{said}; a stack that was written without its axes says channels too",)
    if set(axes) & {"Q", "I"}:
        return (f"{said}; what its pages are the file does not say",)
    return ()


def _named(axes: str) -> str:
    """Letters of this package: samples are channels where there are no others, pages are
    unknown."""
    if "C" not in axes:
        axes = axes.replace("S", "C")
    return "".join(a if a in _ORDER else UNKNOWN for a in axes)


def _imagej(content: BytesIO, array: np.ndarray, m: Measured) -> None:
    told: dict[str, Any] = {"axes": m.axes}
    resolution = None
    if m.spacing is not None:
        x, y, z = (m.step(a, m.spacing_unit) for a in "XYZ")
        told["unit"] = "micron" if m.spacing_unit == _MICRON else m.spacing_unit
        if x and y:
            resolution = (1 / x, 1 / y)
        if z:
            told["spacing"] = z
    tifffile.imwrite(
        content,
        array,
        imagej=True,
        photometric="minisblack",
        metadata=told,
        resolution=resolution,
    )


def _ome_unit(unit: str) -> str:
    """The sign that OME has for a unit."""
    signs = {"um": _MICRON, "micron": _MICRON, "micrometer": _MICRON, "angstrom": "Å"}
    signs |= {"millimeter": "mm", "nanometer": "nm"}
    return signs.get(unit, unit)
