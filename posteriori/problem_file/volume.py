"""A problem whose images are volumes or videos: its files, the instrument on each slice, and how
far the volume falls apart into slices that are measured by themselves.

A volume is (D, *E), E the shape of a slice. Files of volumes are DICOM series (a folder), NIfTI and
arrays, (D, H, W) for slices of one channel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Range
from posteriori.measurements import FileKind, VolumeInfo, read_volume
from posteriori.measurements.formats import result_kind
from posteriori.measurements.nifti import NIFTI
from posteriori.measurements.volumes import described
from posteriori.measurements.zarr_arrays import ZARR
from posteriori.noise import NoiseLaw
from posteriori.operators import LinearOperator, Slicewise
from posteriori.operators.base import Operator
from posteriori.priors import Prior, Slices
from posteriori.problem_file.along_axis import AlongAxisEntry
from posteriori.problem_file.operator import ComposeEntry
from posteriori.problem_file.reading import (
    Measurement,
    Reading,
    Reference,
    numbers_of,
    opened_file,
    simulate,
)
from posteriori.problem_file.section import Instrument, Notes, Shape

# Kinds of file that hold volumes of several channels too.
CHANNELS = ("npy", "npz", "mat", "hdf5", "tiff", "zarr", "fits")
_Wanted = tuple[int | None, ...]
# Numbers of an image that an operator on slices is given at a time.
_NUMBERS_AT_ONCE = 2**20
# Hounsfield units span hundreds, shares of white do not.
LARGEST_SHARE = 10.0


class VolumeParts(NamedTuple):
    """A volume that falls apart into blocks measured by themselves: prior and operator of a block,
    which is one slice, or a volume of several."""

    prior: Prior
    A: Operator
    several: bool

    def likelihood(self, whole: Likelihood, j: int) -> Likelihood:
        """That of block j, of the one of all of them."""
        return replace(whole, y=whole.y[j : j + 1] if self.several else whole.y[j], A=self.A)


class Volume(NamedTuple):
    """What is known of the volumes of a problem beside their numbers.

    info: where the slices of an image lie, and in which unit. kind: in which they are written.
    parts: into which they fall apart; None where the instrument ties all slices together.
    """

    info: VolumeInfo
    kind: FileKind
    parts: VolumeParts | None


class Written(NamedTuple):
    """How images are written beside their pictures: the kind of file, and what is known of their
    unit and steps."""

    kind: FileKind
    info: VolumeInfo


class OpenedVolume(NamedTuple):
    """Operator, measurement, reference and sentences of a problem of volumes; ``usual``: what the
    field makes of y, with its name."""

    A: LinearOperator
    y: Tensor
    reference: Tensor | None
    volume: Volume
    notes: Notes
    usual: tuple[str, Tensor] | None = None


def opened(
    section: Instrument,
    prior: Slices,
    source: Measurement,
    truth: Reference | None,
    law: NoiseLaw,
    range: Range,
    wanted: _Wanted,
) -> OpenedVolume:
    """Read the files of a problem of volumes and put the operator together. wanted: (D, *E), None
    for a side of any length. Raises ``FileNotFoundError`` and ``ValueError`` naming the file."""
    if source.image is not None:
        x, info, kind, notes = as_volume(source.image, range, source)
        x = _with_channels(x, wanted)
        _check_sides(source.image, x, wanted)
        A = over_slices(section, tuple(x.shape))
        y, reference = simulate(A, x, law, source.seed), x
        notes += (f"{kind} volume taken as the clean one: y was simulated from it",)
    else:
        assert source.file is not None  # one of the two is given
        y, info, kind, notes = as_volume(source.file, range, source, section.pictorial)
        section, A, y, more = _matched(section, source.file, y, wanted)
        info, reference, notes = _placed(info, section), None, (*notes, *more)
        if truth is not None:
            x, _, _, more = as_volume(truth.file, range, truth)
            reference, notes = _with_channels(x, wanted), (*notes, *more)
            if tuple(reference.shape) != A.in_shape:
                raise ValueError(
                    f"the reference has shape {tuple(reference.shape)}, "
                    f"volumes here have shape {A.in_shape}"
                )
    y = section.linear_part(A, y)
    usual = section.baseline(A.inner) if isinstance(A, Slicewise) else None
    made = None
    if usual is not None:
        with torch.no_grad():
            made = usual.name, torch.stack([usual.image(one) for one in y])
    kind = kind if A.in_shape[1] == 1 or kind in CHANNELS else "npy"
    volume = Volume(info, kind, _parts(section, prior, A.in_shape[1:]))
    return OpenedVolume(A, y, reference, volume, notes, made)


def as_volume(
    path: Path, range: Range, how: Reading, pictorial: bool = True
) -> tuple[Tensor, VolumeInfo, FileKind, Notes]:
    """What a file holds in ``range``, its geometry, its kind, and sentences about it."""
    kind: FileKind = "dicom" if is_series(path) else "nifti"
    if is_series(path) or path.name.lower().endswith(NIFTI):
        stated = [name for name in Reading.model_fields if getattr(how, name) is not None]
        if stated:
            raise ValueError(
                f"{path}: {stated[0]} is for pictures and arrays; "
                "a volume's own file says how its numbers are scaled"
            )
        x, info = read_volume(path)
        if info.unit == "HU" and max(map(abs, range)) <= LARGEST_SHARE:
            raise ValueError(
                f"the series is in Hounsfield units, noise.range is [{range[0]:g}, {range[1]:g}]: "
                "state the range of images in them, for example [-1000, 1500]"
            )
        span = f"{float(x.min()):.4g} to {float(x.max()):.4g} {info.unit}".rstrip()
        return x, info, kind, (f"volume of {len(x)} slices, values {span}", *info.notes)
    kind = result_kind(path) or "npy"
    if path.suffix.lower() in (".png", ".jpg", ".jpeg"):
        raise ValueError(
            f"{path} is a picture; volumes are read from a folder of DICOM slices, and from files "
            "of arrays and stacks"
        )
    found = opened_file(path, how)
    x, _, notes = numbers_of(found, path, range, how, pictorial)
    lost = int((~x.isfinite()).sum())
    if lost:
        raise ValueError(f"{path}: {lost} of {x.numel()} values hold no data or are not finite")
    return x, replace(described(found), notes=()), kind, notes


def over_slices(section: Instrument, shape: Shape) -> LinearOperator:
    """The operator on volumes (D, *E): along their first axis, or the same on each slice."""
    if isinstance(section, ComposeEntry):
        A = over_slices(section.parts[0], shape)
        for part in section.parts[1:]:
            A = cast(LinearOperator, over_slices(part, A.out_shape) @ A)
        return A
    if section.along:
        return cast(LinearOperator, section.build(shape))
    one = section.build(shape[1:])
    if not isinstance(one, LinearOperator):
        raise ValueError(
            f"{one.label} is not linear: a volume is measured by linear operators, on each slice "
            "or along them"
        )
    return Slicewise(one, shape[0], at_once=max(1, _NUMBERS_AT_ONCE // math.prod(shape[1:])))


def works_along(section: Instrument) -> bool:
    """Whether an operator takes whole volumes."""
    return section.along or any(map(works_along, getattr(section, "parts", ())))


def _along(section: Instrument) -> list[AlongAxisEntry]:
    if isinstance(section, ComposeEntry):
        return [entry for part in section.parts for entry in _along(part)]
    return [section] if isinstance(section, AlongAxisEntry) else []


def _parts(section: Instrument, prior: Slices, slice_shape: Shape) -> VolumeParts | None:
    along = _along(section)
    if not along:
        return VolumeParts(prior.prior, section.build(slice_shape), False)
    together = [part.together() for part in along]
    if None in together:
        return None
    slices = math.prod(count or 1 for count in together)
    A = over_slices(section, (slices, *slice_shape))
    return VolumeParts(Slices(prior.prior, slices), A, True)


def _matched(
    section: Instrument, path: Path, y: Tensor, wanted: _Wanted
) -> tuple[Instrument, LinearOperator, Tensor, Notes]:
    """The section for measurements like y, its operator, y in the operator's own shape."""
    y = section.arrange(y, path.name)
    section = section.matched(y)
    notes: Notes = ()
    closed = section.assuming("reflect")
    if closed is not section:
        section = closed
        notes = (
            "what the blur brings in from beyond the border of slices is taken for their mirror "
            "image (boundary: reflect)",
        )
    depth = len(y)
    for part in reversed(_along(section)):
        depth = part.depth(depth)
    like = section.like(y[0]) or (1, *y.shape[-2:])
    open_ = (depth, *like)
    if len(wanted) != len(open_):
        raise ValueError(
            f"volumes are (slices, channels, height, width), the prior's or image_shape {wanted}"
        )
    shape = tuple(have if side is None else side for side, have in zip(wanted, open_, strict=True))
    A = over_slices(section, shape)
    for reading in (y, y[:, None]):
        if tuple(reading.shape) == A.out_shape:
            return section, A, reading, notes
        if isinstance(A, Slicewise) and tuple(reading.shape) == A.in_shape:
            picked = [section.pick(A.inner, one) for one in reading]
            if all(one is not None for one in picked):
                return section, A, torch.stack(cast(list[Tensor], picked)), notes
    raise ValueError(
        f"{_named(path)} has shape {tuple(y.shape)}, but the operator makes measurements of shape "
        f"{A.out_shape} of volumes {A.in_shape}; state image_shape: [slices, channels, height, "
        f"width], or measurement: {{image: ...}} where it is the clean volume"
    )


def is_series(path: Path) -> bool:
    return path.is_dir() and path.suffix != ZARR


def _named(path: Path) -> str:
    return "the series" if is_series(path) else str(path)


def _with_channels(x: Tensor, wanted: _Wanted) -> Tensor:
    """(D, H, W) as (D, 1, H, W)."""
    return x[:, None] if x.ndim == 3 and len(wanted) == 4 and wanted[1] in (1, None) else x


def _check_sides(path: Path, x: Tensor, wanted: _Wanted) -> None:
    if len(wanted) != x.ndim or any(
        side not in (None, have) for have, side in zip(x.shape, wanted, strict=True)
    ):
        asked = tuple("any" if side is None else side for side in wanted)
        raise ValueError(
            f"{_named(path)} has shape {tuple(x.shape)}, volumes here have shape {asked}"
        )


def _placed(info: VolumeInfo, section: Instrument) -> VolumeInfo:
    """Where the slices of an image lie of which those of ``info`` are measured."""
    axes = section.axes()
    if axes is None:
        return replace(info, affine=None, spacing=None)
    if info.spacing is not None:
        steps = zip(info.spacing, axes, strict=True)
        info = replace(info, spacing=tuple(s and s * axis.step for s, axis in steps))
    if info.affine is None:
        return info
    to_y = np.eye(4)
    for k, axis in enumerate(reversed(axes)):  # columns, rows, slices
        to_y[k, k], to_y[k, 3] = axis.step, axis.first
    return replace(info, affine=info.affine @ torch.from_numpy(to_y))


def check_kind(kind: FileKind, info: VolumeInfo, shape: Shape) -> None:
    """Raise ``ValueError`` where volumes of this shape and geometry cannot be written so."""
    if kind not in CHANNELS and shape[1] != 1:
        raise ValueError(
            f"write: {kind} holds volumes of one channel, these have {shape[1]}; write: npy"
        )
    if kind == "dicom" and info.affine is None:
        raise ValueError(
            "write: dicom states where slices lie, which the measurement does not tell; "
            "write: nifti or npy"
        )


def images_written(
    section: Instrument,
    stated: FileKind | None,
    source: Measurement,
    shape: Shape,
    complex: bool,
) -> Written | None:
    """How images of a shape are written beside their pictures: as stated, or in the kind of the
    measurement where it is neither a picture nor a plain array. Raises ``ValueError`` for a kind
    that cannot hold them."""
    path = source.file or source.image
    assert path is not None  # one of the two is given
    kind = stated or result_kind(path)
    if stated is None and kind in (None, "tiff", "npy", "dicom"):
        return None
    channels = shape[0] if len(shape) == 3 else 1
    if kind == "dicom" or (kind in ("nifti", "mrc", "cfl") and channels > 1):
        raise ValueError(
            f"write: {kind} holds no image of shape {shape}; write: one of {', '.join(CHANNELS)}"
        )
    assert kind is not None  # asked above
    if kind == "fits" and complex:
        raise ValueError("write: fits holds real images, these are complex; write: hdf5 or npy")
    return Written(kind, section.kept(opened_file(path, source), shape))


def nameless(raw: dict[str, Any], source: Measurement, truth: Reference | None) -> dict[str, Any]:
    """What a problem file says, without the names of folders of DICOM series, which often are those
    of patients."""
    out = dict(raw)
    for part, path in (
        ("measurement", source.file or source.image),
        ("reference", None if truth is None else truth.file),
    ):
        if path is not None and is_series(path):
            said = raw[part] if isinstance(raw[part], dict) else {"file": raw[part]}
            key = "image" if "image" in said else "file"
            out[part] = said | {key: "a DICOM series, whose name is not kept"}
    return out
