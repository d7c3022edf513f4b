"""Parallel-beam computed tomography in physical units."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Preconditioner


class Radon(LinearOperator):
    """y(angle, detector) = the line integral of x along a ray, in units of x times mm:
    (C, H, W) -> (C, angles, detectors), or without C.

    A ray at angle a meets the points with X cos a + Y sin a = t, X to the right and Y upwards from
    the image's centre, in mm. At 0 degrees rays run along the columns. Detector j sits at t = (j -
    (detectors - 1) / 2) detector_mm. A disc of value 1 gives its chord lengths in mm; an
    attenuation map in 1/mm gives the usual dimensionless line integrals.

    Joseph's method: the ray is followed pixel by pixel along the axis closer to its direction, with
    linear interpolation across. The projector is a sparse matrix, and the adjoint its exact
    transpose (both differentiable any number of times), so the pair is matched.

    Parameters
    ----------
    angles: in degrees, any order. pixel_mm: the side of a pixel.
    detectors: by default enough to cover the image's diagonal. detector_mm: their spacing, by
        default ``pixel_mm``.

    Source: Joseph, An improved algorithm for reprojecting rays through pixel images, IEEE
        Transactions on Medical Imaging, 1982.
    """

    values: Tensor
    back_order: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        angles: Sequence[float] | Tensor,
        pixel_mm: float,
        detectors: int | None = None,
        detector_mm: float | None = None,
    ) -> None:
        super().__init__(shape)
        if len(self.in_shape) not in (2, 3):
            raise ValueError(
                f"Radon takes images of shape (H, W) or (C, H, W), got {self.in_shape}"
            )
        self.pixel_mm, self.detector_mm = pixel_mm, pixel_mm if detector_mm is None else detector_mm
        for name, length in (("pixel_mm", self.pixel_mm), ("detector_mm", self.detector_mm)):
            if not 0 < length < math.inf:
                raise ValueError(f"Radon: {name} must be a finite number of mm > 0, got {length}")
        degrees = _check_angles(angles)
        H, W = self.in_shape[-2:]
        needed = math.ceil(math.hypot(H, W) * self.pixel_mm / self.detector_mm)
        self.detectors = needed if detectors is None else detectors
        if self.detectors < 1:
            raise ValueError(f"Radon: detectors must be a number >= 1, got {detectors}")
        self.angles = degrees.tolist()
        forward = _joseph(
            (H, W), np.deg2rad(degrees), self.pixel_mm, self.detectors, self.detector_mm
        )
        # Plain index and value tensors, put together at each use: they convert, move and save like
        # any other buffer. The transpose has the same values in another order, by which it can
        # never differ from the projector.
        forward.sort_indices()
        back = forward.copy()
        back.data = np.arange(back.nnz, dtype=np.int32)
        back = back.T.tocsr()
        back.sort_indices()
        for name, matrix in (("forward", forward), ("back", back)):
            self.register_buffer(f"{name}_rows", torch.from_numpy(matrix.indptr.astype(np.int32)))
            self.register_buffer(
                f"{name}_columns", torch.from_numpy(matrix.indices.astype(np.int32))
            )
        self.register_buffer("values", torch.from_numpy(forward.data))
        self.register_buffer("back_order", torch.from_numpy(back.data))
        with warnings.catch_warnings():
            # torch says once that its sparse matrices are in beta; products are all that is used
            # here, and they are tested.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self._sparse("forward", torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        H, W = self.in_shape[-2:]
        y = self._sparse("forward", x.dtype) @ x.reshape(-1, H * W).T
        return y.T.reshape(*x.shape[:-2], len(self.angles), self.detectors)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        rays = len(self.angles) * self.detectors
        x = self._sparse("back", y.dtype) @ y.reshape(-1, rays).T
        return x.T.reshape(-1, *self.in_shape)

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

    def _sparse(self, name: str, dtype: torch.dtype) -> Tensor:
        sides = (len(self.angles) * self.detectors, math.prod(self.in_shape[-2:]))
        rows, columns = (self.get_buffer(f"{name}_{part}") for part in ("rows", "columns"))
        values, order, size = self.values, self.back_order, sides
        if name == "back":
            values = kept(self, "back", lambda: self.values[order], values, order)
            size = sides[::-1]
        return torch.sparse_csr_tensor(
            rows, columns, values.to(dtype), size=size, check_invariants=False
        )


def _check_angles(angles: Sequence[float] | Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    degrees = np.asarray(angles, dtype=np.float64)
    if degrees.ndim != 1 or degrees.size == 0 or not np.isfinite(degrees).all():
        raise ValueError(
            "Radon: angles must be a list of finite numbers in degrees, "
            f"got {degrees.size} of them in {degrees.ndim} axes"
        )
    if degrees.size >= 8 and np.ptp(degrees) <= 2 * math.pi:
        warnings.warn(
            f"Radon: {degrees.size} angles between {degrees.min():.3g} "
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
