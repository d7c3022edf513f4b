"""Several tensors as one vector, and back: an image and a kernel as a row of d numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

# Name of a part -> its shape, in the order in which the parts lie in the vector.
Shapes = dict[str, tuple[int, ...]]


def packed_size(shapes: Shapes) -> int:
    """d, the numbers of all parts together."""
    return sum(math.prod(shape) for shape in shapes.values())


def pack(parts: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Parts (B, *shape) one behind the other: (B, d). A tensor is returned as it is."""
    if isinstance(parts, Tensor):
        return parts
    return in_a_row(parts.values())


def in_a_row(parts: Iterable[Tensor]) -> Tensor:
    """Tensors (B, ...) one behind the other: (B, d)."""
    return torch.cat([part.flatten(1) for part in parts], 1)


def unpack(x: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """What ``pack`` made of parts of these shapes: (B, d) -> name -> (B, *shape)."""
    cuts = x.split([math.prod(shape) for shape in shapes.values()], 1)
    return {
        name: cut.reshape(-1, *shape)
        for (name, shape), cut in zip(shapes.items(), cuts, strict=True)
    }
