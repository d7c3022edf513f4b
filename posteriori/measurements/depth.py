"""How fine the numbers of a picture file are, so that a result can be written as finely and in the
same unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from PIL import Image

from posteriori.measurements.files import checked
from posteriori.measurements.png import SIGNATURE


@dataclass(frozen=True)
class Depth:
    """Whole numbers of 8 or 16 bits.

    white: the stored number of the upper end of the range; None for the largest one. unit: the
    value of one stored number, where the file is no picture from black to white; 0 is then stored
    as 0.
    """

    bits: Literal[8, 16] = 8
    white: float | None = None
    unit: float | None = None

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """The values that the smallest and the largest number of a file stand for, ``low`` and
        ``high`` being black and white."""
        largest = 2.0**self.bits - 1
        if self.unit is not None:
            return 0.0, self.unit * largest
        return low, low + (high - low) * largest / (self.white or largest)

    def said(self, low: float, high: float) -> str:
        """What stored numbers mean."""
        if self.unit is not None:
            return f"one stored unit is {self.unit:g}"
        return f"stored 0 is {low:g}, {self.white or 2**self.bits - 1:g} is {high:g}"


def depth(path: str | Path, *, white: float | None = None, unit: float | None = None) -> Depth:
    """The depth in which a picture is stored, from its header alone.

    16 bits for whole numbers of more than 8 and for floating point ones, 8 otherwise.
    white, unit: what the stored numbers mean, as in ``read_image`` (white, scale). Raises as
    ``checked``.
    """
    path = checked(path)
    kind = path.suffix.lower()
    own, found = None, np.dtype("uint8")
    if kind in (".tif", ".tiff"):
        with tifffile.TiffFile(path) as tiff:
            found, stored = tiff.pages.first.dtype or found, tiff.pages.first.bitspersample
        own = (
            2.0**stored - 1
            if isinstance(stored, int) and found.kind == "u" and stored < 8 * found.itemsize
            else None
        )
    elif kind == ".npy":
        found = np.load(path, mmap_mode="r", allow_pickle=False).dtype
    elif kind == ".png":
        with path.open("rb") as file:
            head = file.read(25)
        found = np.dtype("uint16" if head.startswith(SIGNATURE) and head[24] == 16 else "uint8")
    else:
        with Image.open(path) as picture:
            deep = "uint16" if picture.mode.startswith("I") else "uint8"
            found = np.dtype("float32" if picture.mode == "F" else deep)
    whole = found.kind in "ub"
    bits: Literal[8, 16] = 8 if whole and found.itemsize == 1 else 16
    return Depth(bits, (white or own) if whole else None, unit if whole else None)
