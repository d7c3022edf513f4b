"""A long exposure's blur and a tilt that differs from place to place: a picture taken through hot
air."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from posteriori.operators.base import LinearOperator
from posteriori.operators.blur import Blur, Boundary
from posteriori.operators.parametric import Parametric
from posteriori.operators.warp import Warp, warped
from posteriori.settings import Count


class BlindTurbulence(Parametric):
    """y = kernel * W_d x: every pixel looks beside its place (``Warp``), then a known blur.

    shape: (C, H, W). kernel: (kh, kw), see ``Blur``, as is ``boundary``. cells: (h, w), the grid on
    whose points the tilt is unknown, from corner to corner; between them it is interpolated
    linearly. The parts are "image" and "tilt" (2, h, w), in pixels downwards and to the right. y is
    linear in the image; ``at(tilt)`` is a ``Blur`` after a ``Warp``. A tilt common to all cells and
    a shift of the image cannot be told apart but at the border. Raises as ``Blur`` does.

    Source: Chan, Tilt-then-blur or blur-then-tilt? Clarifying the atmospheric turbulence model,
    IEEE Signal Processing Letters, 2022.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Tensor,
        cells: tuple[Count, Count],
        boundary: Boundary = "circular",
    ) -> None:
        super().__init__(shape, "tilt", (2, *cells))
        self.blur = Blur(kernel, shape, boundary)

    @property
    def reach(self) -> tuple[int, int]:
        return self.blur.reach

    def displacement(self, phi: Tensor) -> Tensor:
        """Of tilts (B, 2, h, w): (B, 2, H, W)."""
        return F.interpolate(phi, self.image_shape[1:], mode="bilinear", align_corners=True)

    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        phi = phi if phi.ndim == 4 else phi[None]
        return self.blur(warped(x, self.displacement(phi)))

    def at(self, phi: Tensor) -> LinearOperator:
        with torch.no_grad():
            bend = Warp(self.image_shape, self.displacement(phi.detach()[None])[0])
        return self.blur @ bend  # type: ignore[return-value]
