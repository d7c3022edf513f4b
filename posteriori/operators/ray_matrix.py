"""Line integrals through a volume of pixels along any rays, as a sparse matrix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Numbers of a matrix whose places fit into 32 bits.
_LARGEST = 2**31 - 1


def check_matrix_size(name: str, rays: int, sides: tuple[int, int, int]) -> None:
    """Raise ``ValueError``, in the name of an operator, where the matrix of so many rays may have
    more numbers than 32 bits can count."""
    numbers = 4 * rays * max(sides)
    if numbers > _LARGEST:
        raise ValueError(
            f"{name}: {rays} rays through {sides} voxels are up to {numbers:.2g} numbers, of which "
            f"this one holds {_LARGEST:.2g}; take fewer, or wrap a projector that computes them at "
            "each use, such as ASTRA's on a GPU (operators.wrap)"
        )


def ray_matrix(origin: np.ndarray, along: np.ndarray, sides: tuple[int, int, int]) -> Any:
    """The matrix (angles * rays, D * H * W) in compressed rows, float32: integrals over whole lines
    through a volume, in mm times its unit.

    origin, along: (angles, rays, 3), a point of each line and the change along it, in voxels
    (slice, row, column; whole numbers are their centres) and in voxels per mm.

    Joseph's method: a line is followed voxel by voxel along the axis that it crosses fastest, with
    linear interpolation along the two others; beyond the volume there is nothing.
    """
    from scipy.sparse import csr_matrix, vstack

    parts = [_of_one_angle(o, g, sides) for o, g in zip(origin, along, strict=True)]
    return csr_matrix(vstack(parts))


def _of_one_angle(origin: np.ndarray, along: np.ndarray, sides: tuple[int, int, int]) -> Any:
    from scipy.sparse import coo_matrix

    strides = (sides[1] * sides[2], sides[2], 1)
    fastest = np.abs(along).argmax(1)
    rows, columns, values = [], [], []
    for main in range(3):
        rays = np.flatnonzero(fastest == main)
        first, second = (axis for axis in range(3) if axis != main)
        steps = np.arange(sides[main])
        o, g = origin[rays, :, None], along[rays, :, None]
        t = (steps - o[:, main]) / g[:, main]
        length = 1 / np.abs(g[:, main])
        for i, share in _neighbours(o[:, first] + t * g[:, first]):
            for j, other in _neighbours(o[:, second] + t * g[:, second]):
                weight = share * other * length
                inside = (i >= 0) & (i < sides[first]) & (j >= 0) & (j < sides[second])
                inside &= weight > 0
                place = i * strides[first] + j * strides[second] + steps * strides[main]
                rows.append(np.broadcast_to(rays[:, None], place.shape)[inside])
                columns.append(place[inside].astype(np.int32))
                values.append(weight[inside].astype(np.float32))
    where = np.concatenate(rows), np.concatenate(columns)
    shape = (len(origin), math.prod(sides))
    return coo_matrix((np.concatenate(values), where), shape=shape).tocsr()


def _neighbours(place: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two whole numbers around each place, with their shares."""
    low = np.floor(place).astype(np.int64)
    share = place - low
    return [(low, 1 - share), (low + 1, share)]
