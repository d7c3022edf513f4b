"""Inpainting: some pixels are measured, the others are not."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from posteriori.covariances import PixelNoise
from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Spectrum
from posteriori.rng import Streams


class Mask(LinearOperator):
    """y = the observed pixels of x, row by row: (m,) numbers.

    The measurement is compressed, not a picture with holes: noise lives only where something was
    measured. The adjoint writes the numbers back into a picture that is exactly 0 elsewhere.

    mask: boolean, True where observed; broadcast to ``shape`` (by default its own).
    """

    order: Tensor

    def __init__(self, mask: Tensor, shape: tuple[int, ...] | None = None) -> None:
        super().__init__(tuple(mask.shape) if shape is None else shape)
        order, self.observed = observed_first("Mask", mask, self.in_shape)
        self.register_buffer("order", order)

    @property
    def inverse(self) -> Tensor:
        """The permutation that undoes ``order``."""
        return kept(self, "inverse", lambda: torch.argsort(self.order), self.order)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return x.flatten(1)[:, self.order[: self.observed]]

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return scatter(y, self.order[: self.observed], self.in_shape)

    def layout(self, y: Tensor) -> Tensor:
        return laid(y, self.order[: self.observed], self.in_shape)

    def posterior_covariance(self, r2: float, s2: float) -> PixelNoise:
        seen = torch.arange(self.order.numel(), device=self.order.device) < self.observed
        precisions = 1 / r2 + seen[self.inverse].double() / s2
        return PixelNoise((1 / precisions).view(self.in_shape))

    def spectrum(self) -> Spectrum:
        return Spectrum(
            torch.ones(self.observed, device=self.order.device),
            V=lambda c: c[:, self.inverse].reshape(-1, *self.in_shape),
            Vh=lambda x: x.flatten(1)[:, self.order],
            U=lambda c: c,
            Uh=lambda y: y,
        )


def laid(y: Tensor, places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Numbers (..., m) in their flat ``places`` of a picture (..., *shape) that is NaN
    elsewhere."""
    full = torch.full((*y.shape[:-1], math.prod(shape)), math.nan, dtype=y.dtype, device=y.device)
    full[..., places.to(y.device)] = y
    return full.view(*y.shape[:-1], *shape)


def observed_first(name: str, mask: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, int]:
    """Flat indices of an image with the observed ones first, and the number m of observed ones.

    Raises ``TypeError`` for a mask that is not boolean, ``ValueError`` for one that does not fit
    ``shape`` or observes nothing.
    """
    if mask.dtype != torch.bool:
        raise TypeError(
            f"{name} needs a boolean mask, True where observed, got {mask.dtype}; "
            "write for example mask > 0.5"
        )
    try:
        full = mask.expand(shape).flatten()
    except RuntimeError:
        raise ValueError(
            f"{name}: a mask of shape {tuple(mask.shape)} does not fit images of shape {shape}"
        ) from None
    observed = int(full.sum())
    if observed == 0:
        raise ValueError(
            f"{name}: the mask of shape {tuple(mask.shape)} is False everywhere; "
            "use Null(shape) to measure nothing"
        )
    return torch.argsort(~full, stable=True), observed


def scatter(y: Tensor, index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images (B, *shape) that hold y (B, m) at the flat ``index`` and 0 elsewhere."""
    return y.new_zeros(y.shape[0], math.prod(shape)).index_copy(1, index, y).reshape(-1, *shape)


def random_mask(shape: tuple[int, ...], keep: float, seed: int) -> Tensor:
    """A boolean mask of ``shape`` that observes exactly round(keep * numel) pixels, drawn
    uniformly.

    Ask for (H, W) and let ``Mask`` broadcast it to hide a pixel in every channel at once. Raises
    ``ValueError`` for keep outside (0, 1].
    """
    count = math.prod(shape)
    if not 0 < keep <= 1 or round(keep * count) == 0:
        raise ValueError(
            f"random_mask: keep={keep} must be a share in (0, 1] "
            f"that leaves at least one of {count} pixels"
        )
    ranks = Streams(seed, [0]).uniform(count)[0].argsort().argsort()
    return (ranks < round(keep * count)).view(shape)


def box_mask(
    shape: tuple[int, ...],
    side: int,
    where: Literal["centre", "random"] | tuple[int, int] = "centre",
    seed: int | None = None,
) -> Tensor:
    """A boolean mask of ``shape`` that hides a square of ``side`` pixels in its last two axes: True
    outside the square.

    where: "centre" (rows and columns (n - side) // 2 onwards), "random" (uniform over the positions
    that fit; needs ``seed``), or the row and column of the square's first pixel. Raises
    ``ValueError`` when the square does not fit or hides everything.
    """
    H, W = shape[-2:]
    if not 0 < side <= min(H, W) or side == max(H, W):
        raise ValueError(
            f"box_mask: a square of side {side} must fit into {H}x{W} pixels and leave some of them"
        )
    if (where == "random") != (seed is not None):
        raise ValueError(
            f"box_mask: where={where!r} with seed={seed}; "
            "a random place needs a seed, a given one takes none"
        )
    if where == "centre":
        top, left = (H - side) // 2, (W - side) // 2
    elif where == "random":
        u = Streams(seed or 0, [0]).uniform(2)[0].tolist()
        top, left = int(u[0] * (H - side + 1)), int(u[1] * (W - side + 1))
    elif isinstance(where, tuple):
        top, left = where
    else:
        raise ValueError(f"box_mask: where={where!r} must be 'centre', 'random' or (row, column)")
    if not (0 <= top <= H - side and 0 <= left <= W - side):
        raise ValueError(
            f"box_mask: a square of side {side} at row {top}, "
            f"column {left} leaves the {H}x{W} pixels"
        )
    mask = torch.ones(shape, dtype=torch.bool)
    mask[..., top : top + side, left : left + side] = False
    return mask
