"""Parallel-beam computed tomography in physical units."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.operators.base import Preconditioner
from posteriori.operators.sparse import Sparse


class Radon(Sparse):
    """y(angle, detector) = the line integral of x along a ray, in units of x times mm:
    (C, H, W) -> (C, angles, detectors), or without C.

    A ray at angle a meets the points with X cos a + Y sin a = t, X to the right and Y upwards from
    the image's centre, in mm. At 0 degrees rays run along the columns. Detector j sits at t = (j -
    (detectors - 1) / 2) detector_mm. A disc of value 1 gives its chord lengths in mm; an
    attenuation map in 1/mm gives the usual dimensionless line integrals.

    Joseph's method: the ray is followed pixel by pixel along the axis closer to its direction, with
    linear interpolation across. The projector is a ``Sparse`` matrix, and the adjoint its exact
    transpose, so the pair is matched.

    Parameters
    ----------
    angles: in degrees, any order. pixel_mm: the side of a pixel.
    detectors: by default enough to cover the image's diagonal. detector_mm: their spacing, by
        default ``pixel_mm``.

    Source: Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE
        Transactions on Medical Imaging, 1982.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        angles: Sequence[float] | Tensor,
        pixel_mm: float,
        detectors: int | None = None,
        detector_mm: float | None = None,
    ) -> None:
        if len(shape) not in (2, 3):
            raise ValueError(f"Radon takes images of shape (H, W) or (C, H, W), got {tuple(shape)}")
        spacing = pixel_mm if detector_mm is None else detector_mm
        for name, length in (("pixel_mm", pixel_mm), ("detector_mm", spacing)):
            if not 0 < length < math.inf:
                raise ValueError(f"Radon: {name} must be a finite number of mm > 0, got {length}")
        degrees = check_angles("Radon", angles)
        H, W = shape[-2:]
        needed = math.ceil(math.hypot(H, W) * pixel_mm / spacing)
        count = needed if detectors is None else detectors
        if count < 1:
            raise ValueError(f"Radon: detectors must be a number >= 1, got {detectors}")
        rays = _joseph((H, W), np.deg2rad(degrees), pixel_mm, count, spacing)
        super().__init__(rays, shape, (len(degrees), count), axes=2)
        self.pixel_mm, self.detector_mm, self.detectors = pixel_mm, spacing, count
        self.angles = degrees.tolist()

    def preconditioner(self, r2: float, s2: float) -> Preconditioner:
        """The ramp filter: A^H A is near a convolution, (angles / pi)
        (pixel_mm^3 / detector_mm) / |k| at k cycles a pixel."""
        H, W = self.in_shape[-2:]
        rows, columns = (
            torch.fft.fftfreq(n, dtype=torch.float64, device=self.values.device) for n in (H, W)
        )
        k = torch.hypot(rows[:, None], columns[: W // 2 + 1].abs())
        scale = len(self.angles) / math.pi * self.pixel_mm**3 / self.detector_mm
        power = scale / k.clamp(min=0.25 / max(H, W))
        share = 1 / (r2 * power + s2)
        return Preconditioner(
            lambda v: torch.fft.irfft2(torch.fft.rfft2(v) * share.to(v.dtype), s=(H, W)),
            images=True,
        )


def check_angles(
    name: str, angles: Sequence[float] | Tensor
) -> np.ndarray[Any, np.dtype[np.float64]]:
    degrees = np.asarray(angles, dtype=np.float64)
    if degrees.ndim != 1 or degrees.size == 0 or not np.isfinite(degrees).all():
        raise ValueError(
            f"{name}: angles must be a list of finite numbers in degrees, "
            f"got {degrees.size} of them in {degrees.ndim} axes"
        )
    if degrees.size >= 8 and np.ptp(degrees) <= 2 * math.pi:
        warnings.warn(
            f"{name}: {degrees.size} angles between {degrees.min():.3g} "
            f"and {degrees.max():.3g} degrees look like radians; convert them with numpy.rad2deg",
            stacklevel=4,  # past this, the constructor and its checks
        )
    return degrees


def _joseph(
    sides: tuple[int, int], angles: Any, pixel: float, detectors: int, spacing: float
) -> Any:
    """The matrix (angles * detectors, H * W) in compressed rows, float32."""
    from scipy.sparse import csr_matrix

    H, W = sides
    t = ((np.arange(detectors) - (detectors - 1) / 2) * spacing)[:, None]
    X = (np.arange(W) - (W - 1) / 2)[None, :] * pixel
    Y = ((H - 1) / 2 - np.arange(H))[None, :] * pixel
    columns, values, counts = [], [], []
    for c, s in zip(np.cos(angles), np.sin(angles), strict=True):
        if abs(c) >= abs(s):
            # One crossing per image row, between two columns.
            across = (t - Y * s) / (c * pixel) + (W - 1) / 2
            length = W
            start = np.arange(H) * W
            stride = 1
        else:
            across = (H - 1) / 2 - (t - X * c) / (s * pixel)
            length = H
            start = np.arange(W)
            stride = W
        low = np.floor(across).astype(np.int32)
        share = across - low
        pair = np.stack([low, low + 1], -1)
        weight = np.stack([1 - share, share], -1) * (pixel / max(abs(c), abs(s)))
        inside = (pair >= 0) & (pair < length) & (weight > 0)
        columns.append((start[None, :, None] + stride * pair)[inside].astype(np.int32))
        values.append(weight[inside].astype(np.float32))
        counts.append(inside.sum((1, 2)))
    rows = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return csr_matrix(
        (np.concatenate(values), np.concatenate(columns), rows),
        shape=(len(angles) * detectors, H * W),
    )
