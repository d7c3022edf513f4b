"""Pictures as whole numbers, small enough for a page.

A number x of a picture becomes the code round((x - low) / step), 0 to 65534; 65535 stands for NaN.
So low + step * code is within step / 2 of x. What is written of a picture are differences of its
codes modulo 65536: to those of another picture where one is named (samples to their mean), then,
where that is smaller, each to its left neighbour. They are folded to whole numbers from 0 (0, -1,
1, -2, ...), low bytes first, then high bytes, and all of a page is deflated.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

NOTHING, LARGEST = 65535, 65534
Codes = NDArray[np.uint16]


@dataclass(frozen=True)
class CodeScale:
    """The numbers low + step * code."""

    low: float
    step: float

    @classmethod
    def over(cls, pictures: Sequence[Tensor], bits: int) -> CodeScale:
        """Of 2^bits codes, or as many as there are, from the smallest number to the largest."""
        ends = [
            (float(seen.min()), float(seen.max()))
            for x in pictures
            if (seen := x[x.isfinite()]).numel()
        ]
        low, high = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0)
        return cls(low, (high - low) / min(2**bits - 1, LARGEST) or 1.0)

    @property
    def decimals(self) -> int:
        """Of a number that is printed: the last is worth a step at most."""
        return max(0, math.ceil(-math.log10(self.step)))

    @property
    def error(self) -> float:
        """What a printed number is away from the one that was drawn, at most."""
        return (self.step + 10.0**-self.decimals) / 2

    def codes(self, x: Tensor) -> Codes:
        """Of numbers within the scale. What is infinite counts as no number."""
        values = x.detach().cpu().double().numpy()
        finite = np.isfinite(values)
        shares = np.where(finite, (values - self.low) / self.step, 0.0)
        return np.where(finite, shares.round().clip(0, LARGEST), NOTHING).astype(np.uint16)


def folded(codes: Codes, beside: Codes | None) -> tuple[bytes, bool]:
    """The bytes of a picture (C, H, W), and whether they are differences of neighbours.

    beside: the codes of the picture that it is told by, of the same shape.
    """
    plain = codes if beside is None else codes - beside
    left = np.diff(plain, axis=-1, prepend=np.uint16(0)).astype(np.uint16)
    small, smaller = (_zigzag(d) for d in (plain, left))
    wins = float(np.log2(smaller + 1.0).mean()) < float(np.log2(small + 1.0).mean())
    chosen = smaller if wins else small
    return (chosen & 255).astype(np.uint8).tobytes() + (chosen >> 8).astype(
        np.uint8
    ).tobytes(), wins


def _zigzag(d: Codes) -> Codes:
    """Differences modulo 65536, so that those near 0 on both sides are small."""
    signed = d.view(np.int16)
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def packed(parts: Sequence[bytes]) -> str:
    """Bytes deflated (RFC 1950), in the 64 letters of base64."""
    press = zlib.compressobj(6, memLevel=9)
    pressed = b"".join([*map(press.compress, parts), press.flush()])
    return base64.b64encode(pressed).decode()
