"""Files of every kind in, the same kind out, by their suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch

from posteriori.measurements import (
    archives,
    bart,
    dicom_frames,
    fits,
    hdf5,
    images,
    mrc,
    nifti,
    png,
    tiff_stacks,
    uvfits,
    zarr_arrays,
)
from posteriori.measurements.arrays import read_array
from posteriori.measurements.files import checked
from posteriori.measurements.measured import UNKNOWN, Measured, as_array, as_tensor
from posteriori.storage import write_bytes

Lost = tuple[str, ...]


class Format(NamedTuple):
    """A kind of file.

    suffixes: the first is the one that is written. keyed: whether a file holds several arrays.
    extra: what installs the library that it needs, "" for none. write: None for what is only read.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, str | None], Measured]
    write: Callable[[Path, Measured], Lost] | None = None
    keyed: bool = False
    extra: str = ""


def read_measured(path: str | Path, key: str | None = None) -> Measured:
    """The content of a file of any kind in ``FORMATS``, by its suffix.

    key: which array of a file that holds several. Raises ``FileNotFoundError``; ``ImportError``
    naming the extra that installs a missing library; ``ValueError`` naming the file for another
    suffix, damage, several arrays without a key, or a key of a file that holds one.
    """
    path = Path(path)
    if not path.exists():
        checked(path)
    kind = format_of(path)
    if key is not None and not kind.keyed:
        raise ValueError(f"{path} holds one array without a name; leave the key {key!r} out")
    return kind.read(path, key)


def write_measured(path: str | Path, measured: Measured) -> tuple[str, ...]:
    """Write a file of the kind that its suffix names. Sentences about what the kind cannot hold.

    Written whole or not at all. Raises ``ImportError`` naming the extra, ``ValueError`` naming the
    file for a suffix that is not written, or numbers and axes that the kind does not have.
    """
    path = Path(path)
    kind = format_of(path)
    if kind.write is None:
        raise ValueError(f"{path}: {kind.name} files are read, not written")
    return kind.write(path, measured)


def format_of(path: str | Path) -> Format:
    """The kind of a file by its suffix; a folder, but for .zarr, is a DICOM series. Raises
    ``ValueError`` for a suffix that none has."""
    name = Path(path).name.lower()
    if Path(path).is_dir() and not name.endswith(zarr_arrays.ZARR):
        return SERIES
    fitting = [(len(s), f) for f in FORMATS for s in f.suffixes if name.endswith(s)]
    if not fitting:
        known = ", ".join(s for f in FORMATS for s in f.suffixes)
        raise ValueError(f"{path}: files are read by their suffix, one of {known}")
    return max(fitting, key=lambda found: found[0])[1]


def result_kind(path: Path) -> FileKind | None:
    """The kind of file in which what was measured in ``path`` is given back; None for pictures, and
    for kinds that are read alone and have no kin that is written."""
    name = format_of(path).name
    name = {"uvfits": "fits", "safetensors": "npy", "torch": "npy"}.get(name, name)
    return cast(FileKind, name) if name in RESULTS else None


def _picture(path: Path, _: str | None) -> Measured:
    planes, notes = images.stored_picture(path)
    single = len(planes) == 1
    return Measured(
        as_tensor(planes[0] if single else planes, path), "YX" if single else "CYX", notes=notes
    )


def _to_png(path: Path, m: Measured) -> Lost:
    """Whole numbers of 8 or 16 bits as they are."""
    planes = m.data[None] if m.axes == "YX" else m.data
    if m.axes not in ("YX", "CYX") or len(planes) not in (1, 3):
        raise ValueError(
            f"{path}: a PNG picture has axes YX, or CYX of 1 or 3 channels, got {m.axes}"
        )
    if planes.dtype not in (torch.uint8, torch.uint16):
        raise ValueError(
            f"{path}: PNG holds whole numbers of 8 or 16 bits, got {planes.dtype}; write_image "
            "turns a range into them, .tif keeps floating point numbers"
        )
    write_bytes(path, png.encode(as_array(planes.movedim(0, -1))))
    lost = [w for w, there in (("unit", m.unit), ("steps", m.spacing is not None)) if there]
    return (f"PNG has no place for {' and '.join(lost)}",) if lost else ()


def _plain(path: Path, key: str | None) -> Measured:
    data = read_array(path, key)
    return Measured(data, UNKNOWN * data.ndim)


def _to_npy(path: Path, m: Measured) -> Lost:
    import io

    import numpy as np

    content = io.BytesIO()
    np.save(content, as_array(m.data))
    write_bytes(path, content.getvalue())
    told = m.unit or m.spacing is not None or m.affine is not None or set(m.axes) - {UNKNOWN}
    return ("npy holds numbers alone: no axes, unit or steps",) if told else ()


def _cfl(path: Path, _: str | None) -> Measured:
    """The sides of BART: three of the image, the readout first, then coils."""
    data = bart.read_cfl(path)
    return Measured(data, ("XYZC" + UNKNOWN * data.ndim)[: data.ndim])


def _to_cfl(path: Path, m: Measured) -> Lost:
    """Axes that have a place among BART's are put there; unknown ones are as they are."""
    data, axes = m.data, m.axes
    if UNKNOWN not in axes:
        if set(axes) - set("XYZC"):
            raise ValueError(f"{path}: BART's axes are X, Y, Z and C, got {axes}")
        data = data.permute([axes.index(a) for a in "XYZC" if a in axes])
        for k, axis in enumerate("XYZC"):
            data = data if axis in axes else data.unsqueeze(k)
    bart.write_cfl(path, data)
    told = m.unit or m.spacing is not None or m.affine is not None
    return ("cfl holds numbers alone: no unit or steps",) if told else ()


def _uncounted(read: Callable[[Path], Measured]) -> Callable[[Path, str | None], Measured]:
    return lambda path, _: read(path)


FileKind = Literal[
    "nifti", "npy", "dicom", "npz", "mat", "hdf5", "mrc", "fits", "tiff", "zarr", "cfl"
]
# How the results of a run are called in each of them; a series is a folder.
RESULTS: dict[FileKind, str] = {
    "nifti": ".nii.gz",
    "npy": ".npy",
    "dicom": "",
    "npz": ".npz",
    "mat": ".mat",
    "hdf5": ".h5",
    "mrc": ".mrc",
    "fits": ".fits",
    "tiff": ".tif",
    "zarr": ".zarr",
    "cfl": ".cfl",
}
SERIES = Format("dicom", ("",), _uncounted(dicom_frames.read_series), None, False, "volumes")
FORMATS = (
    Format("png", (".png",), _picture, _to_png),
    Format("jpeg", (".jpg", ".jpeg"), _picture),
    Format("tiff", tiff_stacks.TIFF, _uncounted(tiff_stacks.read_stack), tiff_stacks.write_stack),
    Format("npy", (".npy",), _plain, _to_npy),
    Format("npz", (archives.NPZ,), archives.read_npz, archives.write_npz, True),
    Format("mat", (archives.MAT,), archives.read_mat, archives.write_mat, True),
    Format("safetensors", (".safetensors",), _plain, keyed=True),
    Format("torch", (".pt",), _plain, keyed=True),
    Format("cfl", (bart.SUFFIX,), _cfl, _to_cfl),
    Format("hdf5", hdf5.HDF5, hdf5.read_hdf5, hdf5.write_hdf5, True, "files"),
    Format("nifti", nifti.NIFTI, _uncounted(nifti.read_nifti), nifti.write_nifti, False, "volumes"),
    Format("dicom", dicom_frames.DICOM, _uncounted(dicom_frames.read_dicom), extra="volumes"),
    Format("mrc", mrc.MRC, _uncounted(mrc.read_mrc), mrc.write_mrc, False, "files"),
    Format("fits", fits.FITS, fits.read_fits, fits.write_fits, True, "files"),
    Format("uvfits", uvfits.UVFITS, _uncounted(uvfits.read_uvfits), extra="files"),
    Format(
        "zarr", (zarr_arrays.ZARR,), zarr_arrays.read_zarr, zarr_arrays.write_zarr, True, "files"
    ),
)
