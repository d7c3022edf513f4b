"""Computed tomography with rays from a point: cone beam, and fan beam, its middle plane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from posteriori.operators.radon import check_angles
from posteriori.operators.ray_matrix import check_matrix_size, ray_matrix
from posteriori.operators.sparse import Sparse
from posteriori.settings import Count, Positive


class FanBeam(Sparse):
    """y(angle, detector) = the line integral of x along the ray from the source to a detector, in
    units of x times mm: (C, H, W) -> (C, angles, detectors), or without C.

    At angle a the source is at R (sin a, -cos a) and the middle of the flat detector at
    D (-sin a, cos a), X to the right and Y upwards from the image's middle (N - 1) / 2, in mm.
    Detector j sits at t = (j - (detectors - 1) / 2) detector_mm along (cos a, sin a) from there. A
    source far away makes ``Radon`` of the same angles. The whole line counts, on both sides of the
    detector; D = 0 is a virtual detector at the origin.

    angles: in degrees, any order; a full turn, as opposite rays differ. pixel_mm: the side of a
    pixel. source_mm: R, from the source to the origin. detector_at_mm: D, from the origin to the
    detector.
    detectors: by default enough for the circle around the image. detector_mm: their spacing on the
    detector, by default that which is a pixel at the origin, pixel_mm (R + D) / R.

    Joseph's method, a sparse matrix and its exact transpose, as ``Radon``.
    Raises ``ValueError`` for a source within the circle around the image, and other numbers.
    Source: Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.4.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        angles: Sequence[float] | Tensor,
        pixel_mm: Positive,
        source_mm: Positive,
        detector_at_mm: float,
        detectors: Count | None = None,
        detector_mm: Positive | None = None,
    ) -> None:
        if len(shape) not in (2, 3):
            raise ValueError(
                f"FanBeam takes images of shape (H, W) or (C, H, W), got {tuple(shape)}"
            )
        H, W = shape[-2:]
        rays = _Beam("FanBeam", (1, H, W), angles, pixel_mm, pixel_mm, source_mm, detector_at_mm)
        spacing = rays.spacing if detector_mm is None else float(detector_mm)
        count = rays.columns(spacing) if detectors is None else int(detectors)
        super().__init__(rays.matrix((1, count), spacing), shape, (rays.count, count), axes=2)
        self.angles, self.pixel_mm = rays.degrees.tolist(), float(pixel_mm)
        self.source_mm, self.detector_at_mm = float(source_mm), float(detector_at_mm)
        self.detectors, self.detector_mm = count, spacing


class ConeBeam(Sparse):
    """y(angle, row, detector) = the line integral of a volume x along the ray from the source to a
    pixel of a flat detector, in units of x times mm: (D, H, W) -> (angles, rows, detectors).

    The source turns about the axis of the slices in their middle plane, as that of ``FanBeam``
    does. Row i of the detector sits at z = (i - (rows - 1) / 2) detector_mm, slice d at (d -
    (D - 1) / 2) slice_mm, both in the same direction: the middle row of an odd number is
    ``FanBeam`` of the middle slice.

    slice_mm: the distance of slices, by default pixel_mm. detectors: rows and columns, by default
    enough for the cylinder around the volume. The others are those of ``FanBeam``.

    The matrix holds up to 4 numbers of 16 bytes for each ray and voxel of the longest side: 1 GB
    for 30 views of a volume of 64^3. For larger ones wrap a projector that computes its rays at
    each use; ASTRA's three-dimensional ones need a GPU, without which they end the process.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        angles: Sequence[float] | Tensor,
        pixel_mm: Positive,
        source_mm: Positive,
        detector_at_mm: float,
        detectors: tuple[int, int] | None = None,
        detector_mm: Positive | None = None,
        slice_mm: Positive | None = None,
    ) -> None:
        if len(shape) != 3:
            raise ValueError(f"ConeBeam takes volumes of shape (D, H, W), got {tuple(shape)}")
        D, H, W = shape
        thick = pixel_mm if slice_mm is None else slice_mm
        rays = _Beam("ConeBeam", (D, H, W), angles, pixel_mm, thick, source_mm, detector_at_mm)
        spacing = rays.spacing if detector_mm is None else float(detector_mm)
        if detectors is None:
            detectors = rays.rows(spacing), rays.columns(spacing)
        if min(detectors) < 1:
            raise ValueError(f"ConeBeam: detectors are rows and columns >= 1, got {detectors}")
        out = (rays.count, *detectors)
        super().__init__(rays.matrix(detectors, spacing), shape, out, axes=3)
        self.angles, self.pixel_mm = rays.degrees.tolist(), float(pixel_mm)
        self.source_mm, self.detector_at_mm = float(source_mm), float(detector_at_mm)
        self.slice_mm, self.detector_mm = float(thick), spacing


class _Beam:
    """Rays from a source that turns about the middle of a volume."""

    def __init__(
        self,
        name: str,
        sides: tuple[int, int, int],
        angles: Sequence[float] | Tensor,
        pixel: float,
        thick: float,
        source: float,
        behind: float,
    ) -> None:
        self.name, self.sides, self.pixel, self.thick = name, sides, pixel, thick
        self.source, self.behind = source, behind
        self.degrees = check_angles(name, angles)
        self.count = len(self.degrees)
        self.radius = math.hypot(*sides[1:]) * pixel / 2
        if not source > self.radius:
            raise ValueError(
                f"{name}: the source, {source:g} mm from the origin, must lie outside the circle "
                f"around the image, whose radius is {self.radius:.4g} mm; distances are in mm, as "
                "pixel_mm is"
            )
        if not 0 <= behind < math.inf:
            raise ValueError(
                f"{name}: detector_at_mm is the distance from the origin to the detector in mm, a "
                f"finite number >= 0, got {behind}"
            )

    @property
    def spacing(self) -> float:
        """Of detectors, that which is a pixel at the origin."""
        return self.pixel * (self.source + self.behind) / self.source

    def columns(self, spacing: float) -> int:
        """Detectors for the circle around the image."""
        tangent = self.radius / math.sqrt(self.source**2 - self.radius**2)
        return max(1, math.ceil(2 * (self.source + self.behind) * tangent / spacing - 1e-9))

    def rows(self, spacing: float) -> int:
        """Detectors for the volume where it is nearest to the source."""
        height = self.sides[0] * self.thick
        scale = (self.source + self.behind) / (self.source - self.radius)
        return max(1, math.ceil(height * scale / spacing - 1e-9))

    def matrix(self, detectors: tuple[int, int], spacing: float) -> Any:
        """The sparse matrix of the rays to (rows, columns) of detectors."""
        rays = detectors[0] * detectors[1]
        check_matrix_size(self.name, self.count * rays, self.sides)
        a = np.deg2rad(self.degrees)[:, None, None, None]
        v, t = ((np.arange(n) - (n - 1) / 2) * spacing for n in detectors)
        t, v = t[None, None, :, None], v[None, :, None, None]
        # (X, Y, Z) in mm as the last axis.
        outwards = np.concatenate([np.sin(a), -np.cos(a), np.zeros_like(a)], -1)
        across = np.concatenate([np.cos(a), np.sin(a), np.zeros_like(a)], -1)
        up = np.array([0.0, 0.0, 1.0])
        along = -(self.source + self.behind) * outwards + t * across + v * up
        along = along / np.linalg.norm(along, axis=-1, keepdims=True)
        origin = np.broadcast_to(self.source * outwards, along.shape)
        D, H, W = self.sides
        voxel = np.array([1 / self.thick, -1 / self.pixel, 1 / self.pixel])
        middle = np.array([(D - 1) / 2, (H - 1) / 2, (W - 1) / 2])
        lines = [line[..., ::-1].reshape(self.count, rays, 3) * voxel for line in (origin, along)]
        return ray_matrix(lines[0] + middle, lines[1], self.sides)
