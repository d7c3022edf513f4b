"""Volumes in files: a folder of DICOM slices, NIfTI, and arrays of every other kind. Numbers and
geometry are read, and nothing that says whose they are.

A volume is (D, H, W), slices first. ``affine`` takes (column, row, slice, 1), the indices of W, H
and D counted from 0, to millimetres to the right, front and top of the patient (RAS+), as NIfTI
has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.measurements.formats import read_measured
from posteriori.measurements.measured import Measured
from posteriori.measurements.nifti import NIFTI, write_nifti
from posteriori.measurements.zarr_arrays import ZARR
from posteriori.storage import write_bytes

# Of the distances between slices: more than this share apart is no rounding of the scanner's.
_EVEN = 0.01


@dataclass(frozen=True)
class VolumeInfo:
    """What was found beside the numbers.

    affine: (4, 4) float64, see the module; None where a file states none. spacing_mm: between
    slices, rows and columns. unit: "HU" for computed tomography, else "". notes: sentences about
    what was done, to be shown to the user.
    """

    affine: Tensor | None = None
    unit: str = ""
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        if self.affine is None:
            return None
        columns, rows, slices = self.affine[:3, :3].norm(dim=0).tolist()
        return slices, rows, columns


def read_volume(path: str | Path, key: str | None = None) -> tuple[Tensor, VolumeInfo]:
    """A volume (D, H, W) float32 from a file of any kind of ``read_measured``, or a folder of one
    DICOM series.

    key: which array of a file that holds several.
    Stored numbers are scaled as the file says: NIfTI's slope and intercept, DICOM's rescale slope
    and intercept, by which computed tomography is in Hounsfield units. DICOM slices are put in the
    order of their positions along the normal of the slices.
    Raises ``FileNotFoundError``; ``ImportError`` naming the extra; ``ValueError`` for a volume that
    is not one of three axes or not finite, for a folder of several series, and for slices that
    differ in size or direction or share a position.
    """
    path = Path(path)
    if path.is_dir() and path.suffix != ZARR:
        x, info = _dicom(path)
    else:
        found = read_measured(path, key)
        x, info = found.data.numpy(), VolumeInfo(found.affine, found.unit, found.notes)
    if x.ndim != 3 or np.iscomplexobj(x):
        raise ValueError(
            f"{path} holds {'complex numbers' if np.iscomplexobj(x) else 'numbers'} of shape "
            f"{x.shape}; a volume is real, of three axes: choose one of its frames or channels"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"{path}: {int((~np.isfinite(x)).sum())} of {x.size} values are not finite; fill them"
        )
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)), info


def write_volume(path: str | Path, x: Tensor, info: VolumeInfo | None = None) -> None:
    """A volume (D, H, W) as .nii, .nii.gz (float32, with the affine of ``info``) or .npy. Written
    whole or not at all. Raises ``ValueError`` for another shape or suffix."""
    path = Path(path)
    if x.ndim != 3 or x.is_complex():
        raise ValueError(f"a volume is real, of shape (D, H, W), got {x.dtype} {tuple(x.shape)}")
    array = x.detach().cpu().float().numpy()
    content = BytesIO()
    if path.suffix == ".npy":
        np.save(content, array)
    elif path.name.lower().endswith(NIFTI):
        write_nifti(
            path, Measured(x.detach().cpu(), "ZYX", affine=None if info is None else info.affine)
        )
        return
    else:
        raise ValueError(f"{path}: volumes are written as .nii, .nii.gz or .npy")
    write_bytes(path, content.getvalue())


def _dicom(folder: Path) -> tuple[np.ndarray, VolumeInfo]:
    require_extra("volumes", "reading a DICOM series", "pydicom")
    import pydicom

    slices: list[Any] = []
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            head = pydicom.dcmread(file)
        except pydicom.errors.InvalidDicomError:
            continue
        if "PixelData" in head:
            slices.append(head)
    if not slices:
        raise ValueError(f"{folder} holds no DICOM image; a folder of one series is expected")
    series = {str(s.get("SeriesInstanceUID", "")) for s in slices}
    if len(series) > 1:
        raise ValueError(
            f"{folder} holds {len(series)} DICOM series; put each into a folder of its own"
        )
    normal, places = _positions(folder, slices)
    order = np.argsort(places, kind="stable")
    gaps = np.diff(places[order])
    if (gaps <= 1e-3).any():
        raise ValueError(
            f"{folder}: {int((gaps <= 1e-3).sum())} slices lie at the place of another"
        )
    notes = []
    if len(gaps) and float(gaps.max() - gaps.min()) > _EVEN * float(gaps.mean()):
        notes.append(
            f"slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart: some may be missing"
        )
    ordered = [slices[k] for k in order]
    x = np.stack([_rescaled(folder, s) for s in ordered])
    step = float(gaps.mean()) if len(gaps) else float(ordered[0].get("SliceThickness", 1.0) or 1.0)
    unit = "HU" if str(ordered[0].get("Modality", "")) == "CT" else ""
    return x, VolumeInfo(_affine(ordered[0], normal, step), unit, tuple(notes))


def _positions(folder: Path, slices: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The normal of the slices, and how far along it each lies, in mm."""
    shapes = {(int(s.Rows), int(s.Columns)) for s in slices}
    if len(shapes) > 1:
        raise ValueError(f"{folder}: slices have several sizes, {sorted(shapes)}")
    for word in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        lacking = sum(word not in s for s in slices)
        if lacking:
            raise ValueError(f"{folder}: {lacking} of {len(slices)} slices state no {word}")
    turns = np.array([[float(v) for v in s.ImageOrientationPatient] for s in slices])
    pixels = np.array([[float(v) for v in s.PixelSpacing] for s in slices])
    if (
        float(np.abs(turns - turns[0]).max()) > 1e-3
        or float(np.abs(pixels - pixels[0]).max()) > 1e-3
    ):
        raise ValueError(f"{folder}: slices differ in direction or pixel size")
    normal = np.cross(turns[0, :3], turns[0, 3:])
    if not math.isclose(float(np.linalg.norm(normal)), 1.0, abs_tol=1e-2):
        raise ValueError(f"{folder}: the directions of rows and columns are not at right angles")
    origins = np.array([[float(v) for v in s.ImagePositionPatient] for s in slices])
    return normal, origins @ normal


def _rescaled(folder: Path, s: Any) -> np.ndarray:
    try:
        stored = s.pixel_array
    except (RuntimeError, AttributeError, NotImplementedError, ValueError) as error:
        raise ValueError(
            f"{folder}: the pixels of a slice cannot be decoded ({type(error).__name__}); convert "
            f"the series to uncompressed DICOM"
        ) from None
    if stored.ndim != 2:
        raise ValueError(f"{folder}: a slice of shape {stored.shape}; single grey slices are read")
    return stored.astype(np.float64) * float(s.get("RescaleSlope", 1) or 1) + float(
        s.get("RescaleIntercept", 0) or 0
    )


def _affine(first: Any, normal: np.ndarray, step: float) -> Tensor:
    """From (column, row, slice) to RAS+; DICOM counts to the left and to the back."""
    turn = np.array([float(v) for v in first.ImageOrientationPatient])
    rows_mm, columns_mm = (float(v) for v in first.PixelSpacing)
    lps = np.eye(4)
    lps[:3, 0] = turn[:3] * columns_mm
    lps[:3, 1] = turn[3:] * rows_mm
    lps[:3, 2] = normal * step
    lps[:3, 3] = [float(v) for v in first.ImagePositionPatient]
    return torch.from_numpy(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)
