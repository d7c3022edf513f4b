"""Arrays of the BART toolbox: NAME.hdr holds the sides as text, NAME.cfl the complex numbers, the
first side running fastest."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from posteriori.measurements.files import checked
from posteriori.storage import write_bytes

SUFFIX = ".cfl"
# Sides 0 to 2 are those of the image, 3 is the coils; the other twelve (maps, time, contrast, ...)
# have to be 1 in a single k-space.
COILS = 3
DIMENSIONS = 16


def read_cfl(path: str | Path) -> Tensor:
    """The complex64 array in NAME.cfl, with the sides of NAME.hdr in their order and those of 1 at
    the end left out.

    Raises ``FileNotFoundError`` when one of the two files is missing, ``ValueError`` naming the
    file when they do not belong together.
    """
    path = checked(path)
    header = checked(path.with_suffix(".hdr"))
    lines = [line.strip() for line in header.read_text(errors="replace").splitlines()]
    try:
        sides = [int(word) for word in lines[lines.index("# Dimensions") + 1].split()]
    except (ValueError, IndexError):
        raise ValueError(
            f"{header} has no line of whole numbers after '# Dimensions', "
            "so that it is no header of BART"
        ) from None
    wanted, held = 8 * math.prod(sides), path.stat().st_size
    if not sides or min(sides) < 1 or held != wanted:
        raise ValueError(
            f"{path} has {held} bytes, an array of the sides {' x '.join(map(str, sides))} "
            f"in {header.name} has {wanted}"
        )
    while len(sides) > 1 and sides[-1] == 1:
        sides.pop()
    numbers = np.fromfile(path, dtype="<c8").reshape(sides, order="F")
    return torch.from_numpy(np.ascontiguousarray(numbers.astype(np.complex64)))


def coils_first(array: Tensor, path: str | Path) -> Tensor:
    """(coils, rows, columns) of an array in BART's order. Raises ``ValueError`` for one of three
    image sides, or with other long sides."""
    sides = [*array.shape, *[1] * (COILS + 1 - array.ndim)]
    image = [k for k in range(COILS) if sides[k] > 1]
    if len(image) != 2 or any(n > 1 for n in sides[COILS + 1 :]):
        raise ValueError(
            f"{path} has the sides {' x '.join(map(str, array.shape))}: a k-space here has two "
            "image sides among the first three, and no other long side than the fourth, the coils. "
            "Cut one slice out, for example with bart slice"
        )
    whole = array.reshape(sides[: COILS + 1])
    return (
        whole.permute(COILS, 0, 1, 2).reshape(sides[COILS], *(sides[k] for k in image)).contiguous()
    )


def write_cfl(path: str | Path, x: Tensor) -> None:
    """NAME.cfl and NAME.hdr of the numbers as complex64, with the sides of x in their order. Each
    is written whole or not at all, the header last."""
    path = Path(path)
    sides = [*x.shape, *[1] * (DIMENSIONS - x.ndim)]
    if x.ndim > DIMENSIONS:
        raise ValueError(f"{path}: an array of BART has {DIMENSIONS} sides, got {x.ndim}")
    numbers = x.detach().resolve_conj().cpu().numpy().astype("<c8")
    write_bytes(path, numbers.tobytes(order="F"))
    header = f"# Dimensions\n{' '.join(map(str, sides))}\n"
    write_bytes(path.with_suffix(".hdr"), header.encode())
