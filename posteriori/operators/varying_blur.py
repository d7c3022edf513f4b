"""A blur whose kernel changes over the picture, as lenses and telescopes make it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from posteriori.operators.base import LinearOperator
from posteriori.operators.blur import Blur, Boundary


class VaryingBlur(LinearOperator):
    """y = sum_a B_a (w_a x), every channel alike: images (C, H, W), with B_a the ``Blur`` by the
    kernel of anchor a.

    The point at pixel j becomes the kernel sum_a w_a(j) k_a, the bilinear interpolation of those of
    the anchors around j. The weights of a pixel are >= 0 and sum to 1: equal kernels give ``Blur``
    itself, and kernels of sum 1 keep the light of the picture (with the circular boundary, all of
    it).

    kernels: (R, S, kh, kw), those of R rows and S columns of anchors. boundary: as in ``Blur``.
    rows, columns: where these rows and columns of anchors lie, in pixels, ascending; by default at
    equal distances from the first pixel to the last (in the middle for a single one). Beyond the
    outermost anchor its kernel holds.

    Raises ``ValueError`` for kernels that are none, and for places that are not ascending.
    Source: Denis, Thiébaut, Soulez, Becker and Mourya, Fast approximations of shift-variant blur,
    2015, section 3.
    """

    weights: Tensor

    def __init__(
        self,
        kernels: Tensor,
        shape: tuple[int, ...],
        boundary: Boundary = "circular",
        rows: Sequence[float] | None = None,
        columns: Sequence[float] | None = None,
    ) -> None:
        super().__init__(shape)
        if kernels.ndim != 4 or 0 in kernels.shape:
            raise ValueError(
                "VaryingBlur takes kernels of shape (rows, columns, kh, kw), "
                f"got {tuple(kernels.shape)}"
            )
        if len(self.in_shape) != 3:
            raise ValueError(f"VaryingBlur takes images of shape (C, H, W), got {self.in_shape}")
        R, S = kernels.shape[:2]
        _, H, W = self.in_shape
        down, across = _weights("rows", R, H, rows), _weights("columns", S, W, columns)
        weights = down[:, None, :, None] * across[None, :, None, :]
        self.boundary = boundary
        self.blurs = nn.ModuleList(Blur(k, shape, boundary) for k in kernels.flatten(0, 1))
        self.register_buffer("weights", weights.flatten(0, 1).to(kernels))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return _total([A.forward(w * x) for A, w in self._parts(x)])

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return _total([w * A.adjoint(y) for A, w in self._parts(y)])

    @property
    def reach(self) -> tuple[int, int]:
        return cast(Blur, self.blurs[0]).reach

    def _parts(self, like: Tensor) -> list[tuple[Blur, Tensor]]:
        weights = self.weights.to(like.dtype)
        return [(cast(Blur, A), w) for A, w in zip(self.blurs, weights, strict=True)]


def _total(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _weights(name: str, count: int, side: int, places: Sequence[float] | None) -> Tensor:
    """The hat function of each anchor at each pixel, (count, side) float64, whose columns sum to
    1."""
    if places is None:
        at = torch.linspace(0, side - 1, count, dtype=torch.float64)
    else:
        at = torch.tensor([float(p) for p in places], dtype=torch.float64)
    ascends = bool((at.diff() > 0).all()) and math.isfinite(float(at.sum()))
    if at.numel() != count or not ascends:
        raise ValueError(
            f"VaryingBlur: {count} {name} of anchors need as many places in pixels, ascending, got "
            f"{at.tolist()}"
        )
    if count == 1:
        return torch.ones(1, side, dtype=torch.float64)
    pixel = torch.arange(side, dtype=torch.float64).clamp(float(at[0]), float(at[-1]))
    right = torch.searchsorted(at, pixel).clamp(1, count - 1)
    share = (pixel - at[right - 1]) / (at[right] - at[right - 1])
    hats = torch.zeros(count, side, dtype=torch.float64)
    return hats.scatter(0, torch.stack([right - 1, right]), torch.stack([1 - share, share]))
