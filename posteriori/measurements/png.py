"""The parts of PNG that Pillow does not offer: 16-bit colour in, and 16 bits of any kind out."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR = {1: 0, 3: 2}  # channels -> PNG colour type
DEEP = {2: "RGB", 4: "LA", 6: "RGBA"}  # colour types whose 16-bit form Pillow cuts to 8 bits


def deep_colour(path: Path, picture: Image.Image) -> np.ndarray | None:
    """(C, H, W) uint16 of a 16-bit PNG with colour or alpha; None for every other picture.

    Pillow unpacks such a file to its high bytes. Told that the samples are little-endian, it
    unpacks the low bytes: two passes give both.
    Raises ``ValueError`` for 16-bit grey with alpha, which has no little-endian unpacker.
    """
    with path.open("rb") as handle:
        head = handle.read(26)
    if head[:8] != SIGNATURE or head[24] != 16 or head[25] not in DEEP:
        return None
    mode = DEEP[head[25]]
    if mode == "LA":
        raise ValueError(f"{path} is 16-bit grey with an alpha channel; save it without alpha")
    high = np.asarray(picture).astype(np.uint16)
    with Image.open(path) as again:
        again.tile = [tile._replace(args=f"{mode};16L") for tile in again.tile]
        low = np.asarray(again)
    return np.moveaxis(high * 256 + low, 2, 0)


def encode(pixels: np.ndarray) -> bytes:
    """A PNG file of (H, W, C) uint8 or uint16, C = 1 or 3. Source: the PNG specification, third
    edition, W3C 2025.

    Rows are predicted by the row above (filter 2), which suits both photographs and smooth maps.
    """
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    rows = pixels.astype(f">u{depth // 8}").reshape(height, -1).view(np.uint8)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    filtered = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, depth, COLOUR[channels], 0, 0, 0)
    return SIGNATURE + b"".join(
        _chunk(*c)
        for c in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(filtered.tobytes(), 6)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
