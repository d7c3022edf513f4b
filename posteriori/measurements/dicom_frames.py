"""DICOM images in: a folder of single slices or one file of many frames, under the same rules.

Each frame has its own slope, intercept and place; frames are put in the order of their places along
their normal. Nothing is kept but numbers and geometry.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from posteriori import places as kinds
from posteriori.extras import require_extra
from posteriori.measurements.files import checked
from posteriori.measurements.measured import Measured

DICOM = (".dcm", ".ima")
# DICOM counts to the left and to the back, RAS+ to the right and to the front.
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Of the distances between slices: more than this share apart is said.
_EVEN = 0.01
# Farther than this share of a step from its place on an even grid, no slice is where it is taken to
# be; farther than this share of a pixel beside the normal, slices lean.
_MISPLACED, _TILTED = 0.15, 0.1


class DicomFrame(NamedTuple):
    """pixels: the numbers (rows, columns), scaled by the frame's own slope and intercept. place,
    turn: of its first pixel and of its rows and columns, in the directions of DICOM, None where
    they are not stated. pixel_mm: of rows and columns. deep: the thickness that it states."""

    pixels: np.ndarray
    place: np.ndarray | None
    turn: np.ndarray | None
    pixel_mm: np.ndarray | None
    deep: float | None


def read_series(folder: str | Path) -> Measured:
    """The volume ZYX of a folder of one series, in float32.

    Raises ``ImportError`` naming the extra; ``ValueError`` for a folder without DICOM images or of
    several series, and for frames that differ in size or direction, share a place, or lie unevenly
    or on no line. Of a tilted gantry the affine is sheared, which is said.
    """
    folder = Path(folder)
    require_extra("volumes", "reading a DICOM series", "pydicom")
    import pydicom

    found: list[Any] = []
    for file in sorted(p for p in folder.iterdir() if p.is_file()):
        try:
            head = pydicom.dcmread(file)
        except pydicom.errors.InvalidDicomError:
            continue
        if "PixelData" in head:
            found.append(head)
    if not found:
        raise ValueError(
            f"{folder} holds no DICOM image; a file, or a folder of one series, is expected"
            f"{kinds.place_description(folder)}"
        )
    series = {str(s.get("SeriesInstanceUID", "")) for s in found}
    if len(series) > 1:
        raise ValueError(
            f"{folder} holds {len(series)} DICOM series; put each into a folder of its own"
        )
    frames = [frame for s in found for frame in _frames(folder, s)]
    return _volume(folder, frames, _unit(found[0]), _said(found))


def read_dicom(path: str | Path) -> Measured:
    """One file: a volume ZYX of several frames, or a picture YX of one, in float32.

    A radiograph states its pixels at the detector, in the object, or both: the spacing is that of
    the object (PixelSpacing) where it is stated, and the notes name what there is. Raises as
    ``read_series``.
    """
    path = checked(path)
    require_extra("volumes", f"reading {path.name}", "pydicom")
    import pydicom

    try:
        s = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:
        raise ValueError(f"{path} cannot be read: it is no DICOM file") from None
    if "PixelData" not in s:
        raise ValueError(f"{path} holds no DICOM image")
    frames = _frames(path, s)
    if len(frames) > 1:
        return _volume(path, frames, _unit(s), _said([s]))
    one, notes = frames[0], _said([s])
    at_detector = _numbers(s, "ImagerPixelSpacing")
    steps = one.pixel_mm if one.pixel_mm is not None else at_detector
    if at_detector is not None:
        taken = "pixels at the detector" if one.pixel_mm is None else "PixelSpacing, of the object"
        notes += (
            f"the detector's pixels are {at_detector[0]:g} x {at_detector[1]:g} mm; "
            f"the spacing here is that of {taken}",
        )
    affine = None
    if one.place is not None and one.turn is not None and steps is not None and one.deep:
        affine = _affine(one, steps, np.cross(one.turn[:3], one.turn[3:]) * one.deep)
    spacing = None if steps is None else (float(steps[0]), float(steps[1]))
    data = torch.from_numpy(one.pixels.astype(np.float32))
    return Measured(data, "YX", _unit(s), spacing, affine, notes)


def _frames(path: Path, s: Any) -> list[DicomFrame]:
    stored = _stored(path, s)
    groups = s.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if stored.ndim != 2:
            raise ValueError(
                f"{path}: {len(stored)} frames without a place for each (or colours): "
                "grey slices and enhanced multi-frame images are read"
            )
        return [_frame(stored, lambda _, name: s.get(name))]
    shared = s.get("SharedFunctionalGroupsSequence") or [{}]
    planes = stored[None] if stored.ndim == 2 else stored
    if len(groups) != len(planes):
        raise ValueError(f"{path}: {len(planes)} frames, {len(groups)} of them described")

    def asked(group: Any, macro: str, name: str) -> Any:
        """Of the frame, else of all frames, else of the file."""
        for part in (group, shared[0]):
            held = part.get(macro)
            if held and held[0].get(name) is not None:
                return held[0].get(name)
        return s.get(name)

    return [
        _frame(plane, lambda macro, name, group=group: asked(group, macro, name))
        for plane, group in zip(planes, groups, strict=True)
    ]


def _frame(stored: np.ndarray, ask: Any) -> DicomFrame:
    """Numbers of DICOM count as strong doubles to numpy, so that they are made plain first."""
    slope = ask("PixelValueTransformationSequence", "RescaleSlope")
    intercept = ask("PixelValueTransformationSequence", "RescaleIntercept")
    scale = 1.0 if slope is None else float(slope)
    deep = ask("PixelMeasuresSequence", "SliceThickness")
    return DicomFrame(
        stored.astype(np.float64) * scale + (0.0 if intercept is None else float(intercept)),
        _array(ask("PlanePositionSequence", "ImagePositionPatient")),
        _array(ask("PlaneOrientationSequence", "ImageOrientationPatient")),
        _array(ask("PixelMeasuresSequence", "PixelSpacing")),
        float(deep) if deep else None,
    )


def _volume(
    path: Path, frames: Sequence[DicomFrame], unit: str, notes: tuple[str, ...]
) -> Measured:
    normal, places = _places(path, frames)
    order = np.argsort(places, kind="stable")
    ordered, places = [frames[k] for k in order], places[order]
    gaps = np.diff(places)
    if (gaps <= 1e-3).any():
        raise ValueError(f"{path}: {int((gaps <= 1e-3).sum())} slices lie at the place of another")
    step = float(gaps.mean()) if len(gaps) else ordered[0].deep
    if len(gaps):
        span = f"slices lie {gaps.min():.4g} to {gaps.max():.4g} mm apart"
        even = places[0] + float(gaps.mean()) * np.arange(len(places))
        if float(np.abs(places - even).max()) > _MISPLACED * float(gaps.mean()):
            raise ValueError(
                f"{path}: {span}: some are missing, or belong to another series; a volume has even "
                "steps"
            )
        if float(gaps.max() - gaps.min()) > _EVEN * float(gaps.mean()):
            notes += (f"{span}; they are taken for even",)
    pixel = ordered[0].pixel_mm
    assert pixel is not None  # _places has asked
    data = torch.from_numpy(np.stack([f.pixels for f in ordered]).astype(np.float32))
    if step is None:
        notes += ("a single slice that states no thickness: where it ends is not known",)
    lean = _lean(path, ordered, normal, float(pixel.min()))
    if lean.any():
        notes += (
            f"slices move {np.linalg.norm(lean):.3g} mm beside their normal at each step, as of a "
            "tilted gantry: the affine is sheared, and columns of voxels lean",
        )
    affine = None if step is None else _affine(ordered[0], pixel, normal * step + lean)
    return Measured(data, "ZYX", unit, (step, float(pixel[0]), float(pixel[1])), affine, notes)


def _places(path: Path, frames: Sequence[DicomFrame]) -> tuple[np.ndarray, np.ndarray]:
    """The normal of the slices, and how far along it each lies, in mm."""
    shapes = {f.pixels.shape for f in frames}
    if len(shapes) > 1:
        raise ValueError(f"{path}: slices have several sizes, {sorted(shapes)}")
    for word, values in (
        ("ImagePositionPatient", [f.place for f in frames]),
        ("ImageOrientationPatient", [f.turn for f in frames]),
        ("PixelSpacing", [f.pixel_mm for f in frames]),
    ):
        lacking = sum(v is None for v in values)
        if lacking:
            raise ValueError(f"{path}: {lacking} of {len(frames)} slices state no {word}")
    turns = np.array([f.turn for f in frames])
    pixels = np.array([f.pixel_mm for f in frames])
    if max(np.abs(turns - turns[0]).max(), np.abs(pixels - pixels[0]).max()) > 1e-3:
        raise ValueError(f"{path}: slices differ in direction or pixel size")
    normal = np.cross(turns[0, :3], turns[0, 3:])
    if not math.isclose(float(np.linalg.norm(normal)), 1.0, abs_tol=1e-2):
        raise ValueError(f"{path}: the directions of rows and columns are not at right angles")
    return normal, np.array([f.place for f in frames]) @ normal


def _lean(
    path: Path, ordered: Sequence[DicomFrame], normal: np.ndarray, pixel: float
) -> np.ndarray:
    """How far each slice moves beside the normal from the last, (3,) mm: none but for a tilted
    gantry. Raises ``ValueError`` where the slices lie on no line."""
    origins = np.array([f.place for f in ordered])
    beside = origins - origins[0]
    beside -= np.outer(beside @ normal, normal)
    step = beside[-1] / max(1, len(ordered) - 1)
    off = np.linalg.norm(beside - np.outer(np.arange(len(ordered)), step), axis=1).max()
    if off > _TILTED * pixel:
        raise ValueError(
            f"{path}: slices lie up to {off:.3g} mm beside one line; they are of several series"
        )
    tilted = np.linalg.norm(beside[-1]) > _TILTED * pixel
    return step if tilted else np.zeros(3)


def _stored(path: Path, s: Any) -> np.ndarray:
    try:
        return s.pixel_array
    except (RuntimeError, AttributeError, NotImplementedError, ValueError) as error:
        raise ValueError(
            f"{path}: the pixels of a slice cannot be decoded ({type(error).__name__}); convert "
            f"the series to uncompressed DICOM"
        ) from None


def _said(found: Sequence[Any]) -> tuple[str, ...]:
    """What a reader might do to the numbers and this one does not."""
    notes = []
    if any(s.get("PhotometricInterpretation") == "MONOCHROME1" for s in found):
        notes.append("MONOCHROME1: the largest numbers are shown dark; they are taken as they are")
    if any("RealWorldValueMappingSequence" in s for s in found):
        notes.append("a mapping to real-world values is stated and was not applied")
    return tuple(notes)


def _unit(s: Any) -> str:
    return "HU" if str(s.get("Modality", "")) == "CT" else ""


def _numbers(s: Any, name: str) -> np.ndarray | None:
    return _array(s.get(name))


def _array(values: Any) -> np.ndarray | None:
    return None if values is None else np.array([float(v) for v in values])


def _affine(first: DicomFrame, pixel: np.ndarray, step: np.ndarray) -> Tensor:
    """From (column, row, slice) to RAS+."""
    lps = np.eye(4)
    assert first.turn is not None  # who calls has asked
    lps[:3, 0] = first.turn[:3] * pixel[1]
    lps[:3, 1] = first.turn[3:] * pixel[0]
    lps[:3, 2] = step
    lps[:3, 3] = first.place
    return torch.from_numpy(RAS @ lps)
