"""A contact sheet: labelled pictures in rows and columns, as one PNG file. Nothing is scaled but by
whole factors."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from posteriori.storage import write_bytes

LABEL, HEAD, FOOT, GAP = 110, 30, 14, 4
TILE, LETTER = 96, 6
INK, SOFT, PAPER, EMPTY = (27, 31, 39), (90, 99, 114), (255, 255, 255), (236, 238, 242)
SheetEntry = tuple[Tensor | None, str]


def contact_sheet(
    path: Path, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[SheetEntry]]], side: int
) -> tuple[int, int]:
    """Write the sheet as PNG; returns its width and height in pixels.

    heads: one label per column, of up to two lines. rows: a label, and for each column a picture
    (3, side, side) in [0, 1], or None, and a caption; where there is no picture the caption is
    written large, wrapped. Values outside [0, 1] are cut off for display only. Pictures under 96
    pixels are enlarged by a whole factor to at least that.
    Raises ``ValueError`` when a row has another number of entries than there are heads.
    """
    wrong = [name for name, entries in rows if len(entries) != len(heads)]
    if wrong:
        raise ValueError(
            f"the row {wrong[0]!r} of the sheet has another number of pictures "
            f"than the {len(heads)} columns"
        )
    tile = side * max(1, -(-TILE // side))
    width, height = LABEL + len(heads) * (tile + GAP), HEAD + len(rows) * (tile + FOOT + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for c, head in enumerate(heads):
        draw.multiline_text((LABEL + c * (tile + GAP), 2), head, fill=INK, spacing=2)
    for r, (name, entries) in enumerate(rows):
        top = HEAD + r * (tile + FOOT + GAP)
        draw.text((4, top + tile // 2 - 6), name, fill=INK)
        for c, (image, caption) in enumerate(entries):
            left = LABEL + c * (tile + GAP)
            if image is None:
                draw.rectangle((left, top, left + tile - 1, top + tile - 1), fill=EMPTY)
                lines = textwrap.wrap(caption, max(8, tile // LETTER - 1))[: tile // 12 - 1]
                draw.multiline_text((left + 3, top + 3), "\n".join(lines), fill=INK, spacing=1)
            else:
                sheet.paste(_tile(image, tile), (left, top))
                draw.text((left, top + tile + 1), caption[: tile // LETTER], fill=SOFT)
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())
    return width, height


def _tile(image: Tensor, tile: int) -> Image.Image:
    # A sample that went astray may hold what no byte can: it is shown as black.
    planes = image.detach().cpu().float().nan_to_num().clamp(0, 1)
    pixels = planes.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((tile, tile), Image.Resampling.NEAREST)
