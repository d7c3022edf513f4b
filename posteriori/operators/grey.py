"""Colourisation: only the grey value of a colour image is measured."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.covariances import ColourNoise
from posteriori.operators.base import LinearOperator, Spectrum

REC601 = (0.299, 0.587, 0.114)


class Grey(LinearOperator):
    """y = sum_c weights(c) x(c): (3, H, W) -> (1, H, W).

    weights: of red, green and blue; Rec. 601 luma by default.
    """

    weights: Tensor

    def __init__(
        self, shape: tuple[int, ...], weights: tuple[float, float, float] = REC601
    ) -> None:
        super().__init__(shape)
        if len(self.in_shape) != 3 or self.in_shape[0] != 3:
            raise ValueError(f"Grey takes colour images of shape (3, H, W), got {self.in_shape}")
        w = torch.tensor(weights, dtype=torch.float64)
        if w.shape != (3,) or not bool(w.isfinite().all()) or not bool(w.any()):
            raise ValueError(f"Grey needs three finite weights that are not all 0, got {weights}")
        self.register_buffer("weights", w)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return torch.einsum("c,bchw->bhw", self.weights.to(x.dtype), x)[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self.weights.to(y.dtype).view(3, 1, 1) * y

    def posterior_covariance(self, r2: float, s2: float) -> ColourNoise:
        w = self.weights.double()
        axes = torch.linalg.svd(w[None], full_matrices=True)[2]
        precisions = torch.full_like(w, 1 / r2)
        precisions[0] += w @ w / s2
        return ColourNoise(axes, 1 / precisions)

    def spectrum(self) -> Spectrum:
        """The grey axis and two colour axes orthogonal to it, the same in every pixel."""
        sign, s, axes = torch.linalg.svd(self.weights[None], full_matrices=True)
        axes = torch.cat([sign * axes[:1], axes[1:]])
        H, W = self.in_shape[1:]

        def colour(c: Tensor) -> Tensor:
            return torch.einsum("kc,bkhw->bchw", axes.to(c.dtype), c.reshape(-1, 3, H, W))

        def rotated(x: Tensor) -> Tensor:
            return torch.einsum("kc,bchw->bkhw", axes.to(x.dtype), x).flatten(1)

        return Spectrum(
            s.expand(H * W),
            V=colour,
            Vh=rotated,
            U=lambda c: c.reshape(-1, 1, H, W),
            Uh=lambda y: y.flatten(1),
        )
