"""Aperture synthesis: what pairs of antennas measure of the sky, one Fourier component each, where
no grid is."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator
from posteriori.settings import Positive

MICRO_ARCSECOND = math.pi / 180 / 3600 / 1e6  # in radians


class ApertureSynthesis(LinearOperator):
    """y_k = P(u_k, v_k) sum_ij x_ij exp(2 pi i (u_k l_j + v_k m_i)): (1, H, W) -> (n,) complex.

    l_j = (j - (W - 1) / 2) (-d) to the east and m_i = (i - (H - 1) / 2) (-d) to the north, with d
    the side of a pixel: the first row is the northernmost, the first column the easternmost, and
    the origin lies in the middle of the image at even sizes too. The sum is taken as it stands,
    H W n products; no gridding error.

    u, v: (n,), in wavelengths. pixel_uas: d, in micro-arcseconds. pixel: "point", P = 1, or
    "square", P = sinc(u d) sinc(v d), or "triangle", its square: pixels of that shape.
    x is in flux per pixel, y in flux. Raises ``ValueError`` for u and v that are no finite numbers
    of one shape.
    Source: Thompson, Moran and Swenson, Interferometry and Synthesis in Radio Astronomy, 2017,
    section 2.
    """

    east: Tensor
    north: Tensor

    def __init__(
        self,
        u: Tensor,
        v: Tensor,
        shape: tuple[int, int, int],
        pixel_uas: Positive,
        pixel: Literal["point", "square", "triangle"] = "point",
    ) -> None:
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f"ApertureSynthesis takes images of shape (1, H, W), got {shape}")
        if u.ndim != 1 or u.shape != v.shape or not len(u) or u.is_complex() or v.is_complex():
            raise ValueError(
                "ApertureSynthesis takes real u and v of one shape (n,), "
                f"got {tuple(u.shape)} and {tuple(v.shape)}"
            )
        if not bool((u.isfinite() & v.isfinite()).all()):
            raise ValueError("ApertureSynthesis takes finite u and v, in wavelengths")
        super().__init__(shape, complex_out=True)
        self.pixel_uas, self.pixel = float(pixel_uas), pixel
        step = self.pixel_uas * MICRO_ARCSECOND
        power = {"point": 0, "square": 1, "triangle": 2}[pixel]
        for name, w, n in (("east", u, shape[2]), ("north", v, shape[1])):
            cycles = step * w.double()
            places = (n - 1) / 2 - torch.arange(n, dtype=torch.float64, device=w.device)
            weight = torch.sinc(cycles) ** power
            angles = 2 * math.pi * cycles[:, None] * places
            phases = torch.polar(torch.ones_like(angles), angles) * weight[:, None]
            self.register_buffer(name, phases)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        kind = x.dtype.to_complex()
        rows = x[:, 0].to(kind) @ self.east.to(kind).T  # (B, H, n)
        return (rows * self.north.to(kind).T).sum(1)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        rows = y[:, None] * self.north.to(y.dtype).conj().T  # (B, H, n)
        return (rows @ self.east.to(y.dtype).conj()).real[:, None]
