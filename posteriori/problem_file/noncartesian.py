"""Magnetic resonance along radial, spiral and other trajectories, in a problem file.

    operator: {name: non-cartesian, trajectory: spokes.npy, maps: maps.npy}

Images are complex, two channels, in the unit of the k-space under the unitary transform.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import read_measured
from posteriori.operators.base import Operator
from posteriori.problem_file.section import Instrument, Shape
from posteriori.problem_file.types import File


class NonCartesianEntry(Instrument):
    """k-space (coils, samples) of one slice along a ``trajectory``, a file of (samples, 2): along
    rows and along columns. Axes of spokes or shots before the samples are laid one after the other,
    in both files. maps: a file of complex (coils, rows, columns); by default one coil that sees all
    alike. engine: finufft is fast (extra ``mri``), sum exact and slow."""

    name: Literal["non-cartesian"]
    trajectory: File
    maps: File | None = None
    unit: Literal["cycles/pixel", "radians/pixel", "cycles/field"] = "cycles/pixel"
    engine: Literal["finufft", "sum"] = "finufft"

    def build(self, shape: Shape) -> Operator:
        if len(shape) == 3 and shape[0] != 2:
            raise ValueError(
                "k-space is of complex images, two channels (2, rows, columns), real and imaginary "
                f"part; images here are {shape}"
            )
        sides = (shape[-2], shape[-1])
        maps = self._maps(sides)
        A = ops.NonCartesianFourier(maps, self._places(sides), engine=self.engine)
        return A if len(shape) == 2 else ops.Compose(A, ops.ComplexChannels(shape))

    def arrange(self, y: Tensor, path: str) -> Tensor:
        coils = 1 if self.maps is None else len(_complex(self.maps))
        if not y.is_complex():
            raise ValueError(f"{path} holds real numbers, k-space is complex")
        rows = y if y.ndim > 1 and len(y) == coils else y[None]
        samples = math.prod(read_measured(self.trajectory).data.shape[:-1])
        if rows.shape[0] != coils or rows[0].numel() != samples:
            raise ValueError(
                f"{path} has shape {tuple(y.shape)}, there are {samples} samples, the maps have "
                f"{coils} coils; k-space here is (coils, samples)"
            )
        return rows.flatten(1)

    def like(self, y: Tensor) -> Shape | None:
        """As large as the maps."""
        return None if self.maps is None else (2, *_complex(self.maps).shape[1:])

    def _maps(self, sides: tuple[int, int]) -> Tensor:
        if self.maps is None:
            return torch.ones(1, *sides, dtype=torch.complex64)
        maps = _complex(self.maps)
        if maps.ndim != 3 or tuple(maps.shape[1:]) != sides:
            raise ValueError(
                f"{self.maps} has maps of shape {tuple(maps.shape)}, images here are "
                f"{sides[0]} x {sides[1]}: maps are (coils, rows, columns)"
            )
        return maps

    def _places(self, sides: tuple[int, int]) -> Tensor:
        """The trajectory (n, 2) in cycles per pixel."""
        k = read_measured(self.trajectory).data
        if k.ndim < 2 or k.shape[-1] != 2 or k.is_complex():
            raise ValueError(
                f"{self.trajectory} has shape {tuple(k.shape)}, a trajectory is real (samples, 2), "
                "along rows and along columns"
            )
        k = k.flatten(0, -2).double()
        scale = {
            "cycles/pixel": torch.ones(2),
            "radians/pixel": torch.full((2,), 2 * math.pi, dtype=torch.float64),
            "cycles/field": torch.tensor([float(side) for side in sides]),
        }
        return k / scale[self.unit].double()


def _complex(path: Path) -> Tensor:
    return read_measured(path).data.to(torch.complex64)
