"""An image seen through air or glass that bends the light: every pixel looks beside its place."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator


class Warp(LinearOperator):
    """y(i, j) = x(i + d_0(i, j), j + d_1(i, j)), d = ``displacement`` (2, H, W) in pixels.

    Between the pixels of x by Catmull and Rom's cubic, which passes through them and whose
    derivative to d is continuous; beyond the border the nearest pixel's value. shape: (C, H, W).
    Raises ``ValueError`` where the sides of the two differ.
    """

    displacement: Tensor

    def __init__(self, shape: tuple[int, ...], displacement: Tensor) -> None:
        super().__init__(shape)
        if len(shape) != 3 or tuple(displacement.shape) != (2, *shape[1:]):
            raise ValueError(
                f"Warp: images (C, H, W) need a displacement (2, H, W), got {tuple(shape)} and "
                f"{tuple(displacement.shape)}"
            )
        self.register_buffer("displacement", displacement)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return warped(x, self.displacement[None].to(x))


def warped(x: Tensor, displacement: Tensor) -> Tensor:
    """Images (B, C, H, W) as by ``Warp``, with one displacement (1, 2, H, W) or one for each row
    (B, 2, H, W); differentiable in both, forwards too."""
    B, C, H, W = x.shape
    down, right = displacement.expand(B, 2, H, W).unbind(1)
    rows, v = _taps(torch.arange(H).to(x)[:, None] + down, H)
    columns, w = _taps(torch.arange(W).to(x) + right, W)
    flat, y = x.flatten(2), torch.zeros_like(x)
    for i, vi in zip(rows, v, strict=True):
        for j, wj in zip(columns, w, strict=True):
            places = (i * W + j).flatten(1)[:, None].expand(B, C, H * W)
            y = y + (vi * wj)[:, None] * flat.gather(2, places).view(x.shape)
    return y


def _taps(place: Tensor, n: int) -> tuple[list[Tensor], list[Tensor]]:
    """Of places on an axis of n pixels: the four nearest pixels, and their weights."""
    place = place.clamp(0, n - 1)
    low = place.detach().floor()
    t = place - low
    near = [(low.long() + k).clamp(0, n - 1) for k in (-1, 0, 1, 2)]
    weights = [
        0.5 * t * (t * (2 - t) - 1),
        0.5 * (t * t * (3 * t - 5) + 2),
        0.5 * t * (t * (4 - 3 * t) + 1),
        0.5 * t * t * (t - 1),
    ]
    return near, weights
