"""MRC files of electron microscopy. Steps are in angstrom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from posteriori.extras import require_extra
from posteriori.measurements.files import checked
from posteriori.measurements.measured import Measured, as_array, as_tensor
from posteriori.storage import written_whole

MRC = (".mrc", ".mrcs", ".map", ".rec", ".st")
_KINDS = ("int8", "int16", "uint16", "float16", "float32", "complex64")


def read_mrc(path: str | Path) -> Measured:
    """A picture YX, a volume ZYX, or a stack of pictures TYX, in the numbers and dtype of the file.

    The header says which axis of space each axis of the data is (MAPC, MAPR, MAPS); data come out
    as Z, Y, X. Raises ``ImportError`` naming the extra, ``ValueError`` naming the file.
    """
    path = checked(path)
    require_extra("files", f"reading {path.name}", "mrcfile")
    import mrcfile

    try:
        with mrcfile.open(path, mode="r") as file:
            array = np.array(file.data)
            head, voxel = file.header, file.voxel_size
            order = [int(head[name]) for name in ("maps", "mapr", "mapc")]
            steps = {"Z": float(voxel.z), "Y": float(voxel.y), "X": float(voxel.x)}
            pictures = bool(file.is_image_stack())
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as MRC: {str(error).splitlines()[0]}") from None
    notes: list[str] = []
    if array.ndim == 3 and sorted(order) == [1, 2, 3] and order != [3, 2, 1]:
        array = array.transpose([order.index(axis) for axis in (3, 2, 1)])
        notes.append(f"{path.name}: its axes are stored as {order} and were put in order z, y, x")
    elif array.ndim not in (2, 3):
        raise ValueError(f"{path} has shape {array.shape}; pictures and volumes are read here")
    axes = "YX" if array.ndim == 2 else "TYX" if pictures else "ZYX"
    spacing: Any = tuple(steps.get(axis) for axis in axes)
    if not all(step is None or step > 0 for step in spacing):
        spacing = None
    return Measured(
        as_tensor(array, path), axes, "", spacing, notes=tuple(notes), spacing_unit="angstrom"
    )


def write_mrc(path: str | Path, m: Measured) -> tuple[str, ...]:
    """YX, ZYX or TYX as MRC. float64 is rounded to float32 and complex128 to complex64, which is
    said; the cell belongs to these data.

    Raises ``ImportError`` naming the extra, ``ValueError`` for other axes, for whole numbers that
    the format has no kind for, and for steps that are no lengths.
    """
    path, said = Path(path), []
    require_extra("files", f"writing {path.name}", "mrcfile")
    import mrcfile

    if m.axes not in ("YX", "ZYX", "TYX"):
        raise ValueError(f"{path}: MRC holds axes YX, ZYX or TYX, got {m.axes}")
    array = as_array(m.data)
    narrower = {"float64": "float32", "complex128": "complex64", "uint8": "uint16"}.get(
        array.dtype.name
    )
    if narrower:
        said += [f"{path.name}: {array.dtype.name} is stored as {narrower}"] * (narrower[0] != "u")
        array = array.astype(narrower)
    if array.dtype.name not in _KINDS:
        raise ValueError(
            f"{path}: MRC has no kind for {array.dtype.name}; convert to one of {', '.join(_KINDS)}"
        )
    with (
        written_whole(path, array.nbytes) as beside,
        mrcfile.new(beside, overwrite=True) as file,
    ):
        file.set_data(array)
        if m.axes == "TYX":
            file.set_image_stack()
        elif m.axes == "ZYX":
            file.set_volume()
        if m.spacing is not None:
            file.voxel_size = tuple(m.step(axis, "angstrom") or 1.0 for axis in "XYZ")
        file.update_header_stats()
    return (*said, *(["MRC has no place for a unit of the numbers"] if m.unit else []))
