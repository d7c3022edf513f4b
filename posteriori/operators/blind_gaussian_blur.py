"""Blur by a Gaussian of unknown width."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.blind_convolution import convolved, on_ring
from posteriori.operators.blur import Blur, Boundary
from posteriori.operators.parametric import Parametric

# |log width| is held to this: beyond it every kernel is one point, or the same everywhere.
WIDEST_LOG = 30.0


class BlindGaussianBlur(Parametric):
    """y = k_w * image, k_w(t) ~ exp(-|t|^2 / (2 w^2)) on ``size`` x ``size`` pixels, of sum 1.

    shape: (C, H, W) of the image. size: odd. boundary: as of ``Blur``. The parts are "image" and
    "log_width" (1,), the natural logarithm of the standard deviation w in pixels: any number is a
    width, and a Gaussian prior of it a log-normal one of w. y is linear in the image;
    ``at(log_width)`` is a ``Blur``. Raises ``ValueError`` for an even size, and as ``Blur`` does.
    """

    def __init__(self, shape: tuple[int, ...], size: int, boundary: Boundary = "circular") -> None:
        if size < 1 or size % 2 == 0:
            raise ValueError(f"BlindGaussianBlur: size must be odd and positive, got {size}")
        # ``Blur`` refuses what does not fit.
        Blur(torch.full((size, size), 1 / size**2), shape, boundary)
        super().__init__(shape, "log_width", (1,))
        self.size, self.boundary = size, boundary

    @property
    def reach(self) -> tuple[int, int]:
        return (0, 0) if self.boundary == "valid" else (self.size // 2, self.size // 2)

    def kernel(self, phi: Tensor) -> Tensor:
        """Of log widths (..., 1): (..., size, size)."""
        t = torch.arange(self.size, dtype=phi.dtype, device=phi.device) - self.size // 2
        precision = torch.exp(-2 * phi.clamp(-WIDEST_LOG, WIDEST_LOG))
        g = torch.softmax(-0.5 * precision * t**2, -1)
        return g[..., :, None] * g[..., None, :]

    def apply(self, x: Tensor, phi: Tensor) -> Tensor:  # type: ignore[override]
        return convolved(x, self.kernel(phi), self.boundary)

    def transfer(self, phi: Tensor) -> Tensor | None:
        if self.boundary != "circular":
            return None
        return torch.fft.fft2(on_ring(self.kernel(phi), *self.image_shape[1:]))

    def read(self, phi: Tensor) -> dict[str, Tensor]:
        return {"width (pixels)": phi.exp()}

    def at(self, phi: Tensor) -> Blur:
        return Blur(self.kernel(phi.detach()), self.image_shape, self.boundary)
