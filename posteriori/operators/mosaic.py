"""Colour filter arrays: each pixel of the sensor sees one colour."""

from __future__ import annotations

import torch
from torch import Tensor


def bayer_mask(pattern: str, shape: tuple[int, int, int], colours: str = "RGB") -> Tensor:
    """True where a sensor behind a colour filter array sees a channel: boolean (C, H, W) with one
    True at each pixel.

    ``Mask(bayer_mask("RGGB", (3, H, W)))`` is demosaicing: H W numbers, those of the first channel
    row by row, then those of the next. ``raw.expand(3, H, W)[mask]`` are the same of a raw picture
    (1, H, W).

    pattern: the letters of the filters that repeat from the first pixel on, row by row, rows apart
    by "/": "RG/GB". Four letters without it are two rows of two: "RGGB", "BGGR", "GRBG", "GBRG".
    colours: the letter of each channel, in order.
    Raises ``ValueError`` for a letter that is no channel, a channel without a letter, rows of
    different lengths, and other shapes.
    """
    rows = pattern.split("/") if "/" in pattern else [pattern[:2], pattern[2:]]
    if not all(rows) or len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"bayer_mask: the rows of {pattern!r} must be of one length, as in 'RG/GB' or 'RGGB'"
        )
    if len(shape) != 3 or shape[0] != len(colours):
        raise ValueError(
            f"bayer_mask: {colours!r} needs images ({len(colours)}, H, W), got {shape}"
        )
    if set(pattern) - {"/"} != set(colours):
        raise ValueError(
            f"bayer_mask: the pattern {pattern!r} must hold each of the letters {colours!r} and no "
            "others"
        )
    tile = torch.tensor([[colours.index(letter) for letter in row] for row in rows])
    down, across = (torch.arange(n) % k for n, k in zip(shape[1:], tile.shape, strict=True))
    seen = tile[down[:, None], across[None, :]]
    return seen == torch.arange(len(colours))[:, None, None]
