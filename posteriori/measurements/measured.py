"""What every reader of files returns: the numbers, what their axes are, where they lie, and what
was done to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# In millimetres; angles and what is no length have no number.
LENGTHS = {
    "m": 1e3,
    "meter": 1e3,
    "cm": 10.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "um": 1e-3,
    "µm": 1e-3,
    "μm": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "angstrom": 1e-7,
    "Å": 1e-7,
    "inch": 25.4,
}
UNKNOWN = "Q"


@dataclass(frozen=True, eq=False)
class Measured:
    """The content of a file.

    data: its numbers, scaled as the file itself says where it says so, else as they are stored.
    axes: a letter for each axis of data. T time, Z slice, C channel, colour or coil, Y row,
        X column, V visibility, Q what the file does not say.
    unit: of the numbers, such as "HU" or "Jy"; "" where the file states none.
    spacing: the length of a step along each axis in ``spacing_unit``, None for an axis of no
        length; None alone where the file states none.
    affine: (4, 4) float64 from (column, row, slice, 1) to millimetres to the right, front and top
        of the patient (RAS+); None where the file states none.
    notes: sentences about what was done, to be shown to the user. No name, date or number of a
        patient is in them.
    arrays: what belongs to the numbers, by name: the mask of a k-space, u, v and sigma of
        visibilities.

    Raises ``ValueError`` where letters or steps do not fit the axes of data.
    """

    data: Tensor
    axes: str
    unit: str = ""
    spacing: tuple[float | None, ...] | None = None
    affine: Tensor | None = None
    notes: tuple[str, ...] = ()
    spacing_unit: str = "mm"
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.axes) != self.data.ndim:
            raise ValueError(
                f"axes {self.axes!r} name {len(self.axes)} axes, "
                f"data of shape {tuple(self.data.shape)} have {self.data.ndim}"
            )
        repeated = [a for a in self.axes if a != UNKNOWN and self.axes.count(a) > 1]
        if repeated:
            raise ValueError(f"axes {self.axes!r} name {repeated[0]} more than once")
        steps = [s for s in self.spacing or () if s is not None]
        if self.spacing is not None and len(self.spacing) != self.data.ndim:
            raise ValueError(
                f"spacing {self.spacing} has {len(self.spacing)} steps, "
                f"data of shape {tuple(self.data.shape)} have {self.data.ndim} axes"
            )
        if not all(math.isfinite(s) and s > 0 for s in steps):
            raise ValueError(f"spacing {self.spacing}: every step is finite and > 0, or None")
        if self.affine is not None and tuple(self.affine.shape) != (4, 4):
            raise ValueError(f"affine is (4, 4), got {tuple(self.affine.shape)}")

    def __repr__(self) -> str:
        where = "" if self.spacing is None else f", spacing={self.spacing} {self.spacing_unit}"
        unit = f", unit={self.unit!r}" if self.unit else ""
        return (
            f"Measured({tuple(self.data.shape)} {self.data.dtype}, axes={self.axes!r}{unit}{where})"
        )

    def taken(self, k: int) -> Measured:
        """Slice k of several, counted from 0, as an axis of length 1: along times, slices or what
        the file does not name. Raises ``ValueError`` where there is no such slice."""
        several = [i for i, a in enumerate(self.axes) if a in f"TZ{UNKNOWN}"]
        at = several[0] if several and self.data.ndim > 2 else None
        count = 0 if at is None else self.data.shape[at]
        if at is None or not 0 <= k < count:
            raise ValueError(
                f"there is no slice {k}: axes {self.axes} of lengths {tuple(self.data.shape)}"
            )
        said = f"slice {k} of {count}, counted from 0"
        return replace(self, data=self.data.narrow(at, k, 1), notes=(*self.notes, said))

    def step(self, axis: str, unit: str) -> float | None:
        """The step along an axis in another unit of length, None where it is not known. Raises
        ``ValueError`` where the two units are not both lengths."""
        at = self.axes.find(axis)
        known = None if self.spacing is None or at < 0 else self.spacing[at]
        if known is None or unit == self.spacing_unit:
            return known
        if self.spacing_unit not in LENGTHS or unit not in LENGTHS:
            raise ValueError(
                f"steps of {known:g} {self.spacing_unit or 'no stated unit'} "
                f"are no lengths in {unit}"
            )
        return known * LENGTHS[self.spacing_unit] / LENGTHS[unit]


def as_tensor(array: Any, path: str | Path) -> Tensor:
    """The numbers of an array, contiguous and in native byte order, with their own dtype.

    Complex numbers that are stored as pairs named (real, imag) or (r, i) become complex; casting
    such pairs would make zeros of them. Raises ``ValueError`` naming the file for what are no
    numbers, or none that torch knows.
    """
    array = np.asarray(array)
    names = array.dtype.names
    if names in (("real", "imag"), ("r", "i")):
        kinds = {array.dtype[name] for name in names}
        if len(kinds) == 1 and (kind := kinds.pop()).kind == "f":
            wide = np.complex128 if kind.itemsize > 4 else np.complex64
            pairs = array
            array = np.empty(pairs.shape, dtype=wide)
            array.real, array.imag = pairs[names[0]], pairs[names[1]]
    if array.dtype.kind not in "fcuib":
        raise ValueError(f"{path} holds {array.dtype} values, numbers are expected")
    if array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise ValueError(
            f"{path} holds {array.dtype} values, which torch does not know; convert to "
            f"{'complex128' if array.dtype.kind == 'c' else 'float64'}"
        )
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def as_array(x: Tensor) -> np.ndarray:
    """The numbers of a tensor for a library that does not know tensors."""
    return np.ascontiguousarray(x.detach().resolve_conj().resolve_neg().cpu().numpy())


def stated(m: Measured) -> dict[str, Any]:
    """Axes, unit, steps (NaN for an axis of no length) and affine as plain values, for formats that
    keep words and arrays beside an array."""
    out: dict[str, Any] = {"axes": m.axes, "unit": m.unit}
    if m.spacing is not None:
        out["spacing"] = [math.nan if s is None else s for s in m.spacing]
        out["spacing_unit"] = m.spacing_unit
    if m.affine is not None:
        out["affine"] = m.affine.double().tolist()
    return out


def with_stated(data: Tensor, beside: Mapping[str, Any]) -> Measured:
    """Data with what ``stated`` made of a measurement, where ``beside`` has it; axes of unknown
    meaning where it has none that fit."""

    def word(name: str, default: str) -> str:
        found = np.asarray(beside.get(name, default)).reshape(-1)
        return str(found[0]) if found.size else ""

    axes = word("axes", "")
    if len(axes) != data.ndim:
        return Measured(data, UNKNOWN * data.ndim)
    affine, spacing = beside.get("affine"), None
    if beside.get("spacing") is not None:
        # JSON says None, numpy NaN
        steps = np.asarray(beside["spacing"], dtype=np.float64).reshape(-1).tolist()
        spacing = tuple(None if math.isnan(s) else s for s in steps)
    return Measured(
        data,
        axes,
        word("unit", ""),
        spacing,
        None if affine is None else torch.from_numpy(np.asarray(affine, dtype=np.float64)),
        spacing_unit=word("spacing_unit", "mm"),
    )
