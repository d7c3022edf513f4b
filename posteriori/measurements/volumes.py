"""Volumes in files: a folder of DICOM slices, NIfTI, and arrays of every other kind. Numbers and
geometry are read, and nothing that says whose they are.

A volume is (D, H, W), slices first. ``affine`` takes (column, row, slice, 1), the indices of W, H
and D counted from 0, to millimetres to the right, front and top of the patient (RAS+), as NIfTI
has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posteriori.measurements.formats import read_measured
from posteriori.measurements.measured import Measured
from posteriori.measurements.nifti import NIFTI, write_nifti
from posteriori.storage import write_bytes


@dataclass(frozen=True)
class VolumeInfo:
    """What was found beside the numbers.

    affine: (4, 4) float64, see the module; None where a file states none. spacing: between slices,
    rows and columns in ``spacing_unit``, where a file states no affine. spacing_mm: between
    slices, rows and columns. unit: "HU" for computed tomography, else "". notes: sentences about
    what was done, to be shown to the user.
    """

    affine: Tensor | None = None
    unit: str = ""
    notes: tuple[str, ...] = ()
    spacing: tuple[float | None, ...] | None = None
    spacing_unit: str = "mm"

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        if self.affine is None:
            return None
        columns, rows, slices = self.affine[:3, :3].norm(dim=0).tolist()
        return slices, rows, columns


def described(found: Measured) -> VolumeInfo:
    """What is known of a volume of three axes beside its numbers."""
    steps = found.spacing if found.affine is None and found.data.ndim == 3 else None
    return VolumeInfo(found.affine, found.unit, found.notes, steps, found.spacing_unit)


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
    found = read_measured(path, key)
    x, info = found.data.numpy(), described(found)
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
