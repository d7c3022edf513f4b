"""A DICOM series: slices read into a volume in the order of their positions, and a volume written
as a new series.

Of a series that is read nothing is kept but numbers and geometry. A series that is written holds
what a reader needs for these and no field about a person, a place or a date: fields that the
standard asks for and allows to be empty (as the patient's name) are not there at all. Its
identifiers are made from its own numbers, so that the same volume is the same file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori import identity
from posteriori.extras import require_extra
from posteriori.storage import write_bytes

# Of the distances between slices: more than this share apart is no rounding of the scanner's.
_EVEN = 0.01
# DICOM counts to the left and to the back, RAS+ to the right and to the front.
_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What a stored number of 16 bits may be; a margin is left for the rounding of the intercept.
_STORED = 65000
_CT, _OTHER = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"


def read_series(folder: Path) -> tuple[np.ndarray, Tensor, str, tuple[str, ...]]:
    """The numbers (D, H, W), the affine, the unit and notes of a folder of one series, as
    ``read_volume`` describes them."""
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
    return x, _affine(ordered[0], normal, step), unit, tuple(notes)


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
    return torch.from_numpy(_RAS @ lps)


def write_series(folder: Path, x: Tensor, affine: Tensor | None, unit: str) -> float:
    """Write a volume (D, H, W) as a new series, one file a slice, into a folder that is made if
    need be. Returns the value of one stored unit: numbers are rounded to 16 bits over their span.

    affine, unit: as of ``VolumeInfo``. With "HU" the slices are of computed tomography. Raises
    ``ImportError`` naming the extra, ``ValueError`` without an affine, or with one whose rows and
    columns are not at right angles.
    """
    require_extra("volumes", "writing a DICOM series", "pydicom")
    lps, spacing = _geometry(affine)
    slope, intercept, stored = _rounded(x.detach().cpu().double().numpy())
    names = [f"{k:04d}.dcm" for k in range(len(stored))]
    folder.mkdir(parents=True, exist_ok=True)
    whole = identity.digest(x.detach().cpu())
    for k, (name, pixels) in enumerate(zip(names, stored, strict=True)):
        place = lps @ np.array([0.0, 0.0, k, 1.0])
        scale = (slope, intercept, unit)
        write_bytes(folder / name, _slice(pixels, k, place[:3], lps, spacing, scale, whole))
    return float(slope)


def _geometry(affine: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """From (column, row, slice) to DICOM's own millimetres, and the lengths of the three steps."""
    if affine is None:
        raise ValueError(
            "a DICOM series states where its slices lie, which this volume does not know; "
            "write it as nifti or npy"
        )
    lps = _RAS @ affine.double().numpy()
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    columns, rows = lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]
    if abs(float(columns @ rows)) > 1e-3:
        raise ValueError(
            "the rows and columns of this volume are not at right angles, as a DICOM series needs; "
            "write it as nifti"
        )
    return lps, spacing


def _rounded(x: np.ndarray) -> tuple[str, str, np.ndarray]:
    """Slope and intercept as DICOM writes them, and the whole numbers that stand for x."""
    low, high = float(x.min()), float(x.max())
    slope = f"{max((high - low) / _STORED, 1e-6 * max(abs(low), abs(high)), 1e-30):.6e}"
    intercept = f"{low:.8e}"
    stored = np.rint((x - float(intercept)) / float(slope))
    return slope, intercept, stored.clip(0, 2**16 - 1).astype("<u2")


def _slice(
    pixels: np.ndarray,
    k: int,
    place: np.ndarray,
    lps: np.ndarray,
    spacing: np.ndarray,
    scale: tuple[str, str, str],
    whole: str,
) -> bytes:
    """One file, whose fields are all that are in it."""
    from io import BytesIO

    import pydicom

    slope, intercept, unit = scale
    s = pydicom.Dataset()
    s.SOPClassUID = _CT if unit == "HU" else _OTHER
    s.Modality = "CT" if unit == "HU" else "OT"
    for field, part in (
        ("SOPInstanceUID", f"slice {k}"),
        ("SeriesInstanceUID", "series"),
        ("StudyInstanceUID", "study"),
        ("FrameOfReferenceUID", "frame"),
    ):
        setattr(s, field, pydicom.uid.generate_uid(entropy_srcs=[whole, part]))
    s.ImageType = ["DERIVED", "SECONDARY"]
    s.InstanceNumber = k + 1
    s.Rows, s.Columns = pixels.shape
    s.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    s.SliceThickness = _decimal(spacing[2])
    s.ImagePositionPatient = [_decimal(v) for v in place]
    turns = [*(lps[:3, 0] / spacing[0]), *(lps[:3, 1] / spacing[1])]
    s.ImageOrientationPatient = [_decimal(v) for v in turns]
    s.SamplesPerPixel, s.PhotometricInterpretation = 1, "MONOCHROME2"
    s.BitsAllocated = s.BitsStored = 16
    s.HighBit, s.PixelRepresentation = 15, 0
    s.RescaleSlope, s.RescaleIntercept = slope, intercept
    s.RescaleType = unit or "US"
    s.PixelData = pixels.tobytes()
    s.file_meta = pydicom.dataset.FileMetaDataset()
    s.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    s.file_meta.MediaStorageSOPClassUID = s.SOPClassUID
    s.file_meta.MediaStorageSOPInstanceUID = s.SOPInstanceUID
    content = BytesIO()
    pydicom.dcmwrite(content, s, enforce_file_format=True)
    return content.getvalue()


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as the standard has it."""
    return f"{value:.8g}"
