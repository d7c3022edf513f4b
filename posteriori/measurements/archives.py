"""Several arrays in one file: .npz of numpy, and .mat of MATLAB before and since its version
7.3."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import scipy.io

from posteriori.measurements.files import checked
from posteriori.measurements.hdf5 import opened_hdf5
from posteriori.measurements.measured import (
    UNKNOWN,
    Measured,
    as_array,
    as_tensor,
    stated,
    with_stated,
)
from posteriori.storage import write_bytes

NPZ, MAT = ".npz", ".mat"
_HDF5_START = b"\x89HDF"
# Where MATLAB puts a block of text of its own before an HDF5 file.
_HDF5_AT = 512
BESIDE = ("axes", "unit", "spacing", "spacing_unit", "affine")


def read_npz(path: str | Path, key: str | None = None) -> Measured:
    """The one array of a .npz file, or the one named ``key``. Objects are not read: they would run
    code."""
    path = checked(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} cannot be read: it is no archive of numpy, or not a whole one")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            name = _name(path, [n for n in names if n not in BESIDE], key)
            array = file[name]
            beside = {n: file[n] for n in BESIDE if n in names}
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: its arrays are no plain numbers: {error}") from None
    except Exception as error:  # zipfile, zlib and numpy have no common class for a damaged file
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return with_stated(as_tensor(array, path), beside)


def write_npz(path: str | Path, m: Measured) -> tuple[str, ...]:
    """data, and axes, unit, spacing and affine beside it. Nothing is left out."""
    content = BytesIO()
    np.savez(content, data=as_array(m.data), **stated(m))
    write_bytes(Path(path), content.getvalue())
    return ()


def read_mat(path: str | Path, key: str | None = None) -> Measured:
    """The one array of a .mat file, or the one named ``key``, with its axes in MATLAB's order.

    Version 7.3 is HDF5: its axes are stored in reverse, its complex numbers as pairs. Raises
    ``ImportError`` naming the extra for that version, ``ValueError`` naming the file and its
    arrays.
    """
    path = checked(path)
    if _is_hdf5(path):
        with opened_hdf5(path) as file:
            found = {n: part for n, part in file.items() if hasattr(part, "shape")}
            name = _name(path, [n for n in found if n not in BESIDE], key)
            array = as_tensor(found[name][()], path)
            return Measured(
                array.permute(*reversed(range(array.ndim))).contiguous(), UNKNOWN * array.ndim
            )
    try:
        held = scipy.io.loadmat(path)
    except Exception as error:  # scipy has no common class for a damaged file
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    arrays = {n: a for n, a in held.items() if not n.startswith("__")}
    name = _name(path, [n for n in arrays if n not in BESIDE], key)
    return with_stated(as_tensor(arrays[name], path), {n: arrays[n] for n in BESIDE if n in arrays})


def write_mat(path: str | Path, m: Measured) -> tuple[str, ...]:
    """data, and axes, unit, spacing and affine beside it, as MATLAB 5 file. An array of one axis
    becomes a row, as MATLAB knows none."""
    content = BytesIO()
    scipy.io.savemat(content, {"data": as_array(m.data), **stated(m)})
    write_bytes(Path(path), content.getvalue())
    return ()


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HDF5_AT + 4)
    return head.startswith(_HDF5_START) or head[_HDF5_AT:].startswith(_HDF5_START)


def _name(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        asked = "choose one by key" if key is None else f"there is no array {key!r}"
        raise ValueError(f"{path} holds {', '.join(sorted(names)[:8]) or 'no array'}: {asked}")
    return key
