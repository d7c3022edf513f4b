"""A volume written as a new DICOM series; ``dicom_frames`` reads them.

A series that is written holds what a reader needs for numbers and geometry, and no field about a
person, a place or a date: fields that the standard asks for and allows to be empty (as the
patient's name) are not there at all. Its identifiers are made from its own numbers, so that the
same volume is the same file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from posteriori import identity
from posteriori.extras import require_extra
from posteriori.measurements.dicom_frames import RAS
from posteriori.storage import write_bytes

# What a stored number of 16 bits may be; a margin is left for the rounding of the intercept.
_STORED = 65000
_CT, _OTHER = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"


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
    lps = RAS @ affine.double().numpy()
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
