"""A single-pixel camera: one detector counts the light behind patterns of a mirror array."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Spectrum
from posteriori.rng import Streams
from posteriori.settings import Count

Order = Literal["sequency", "natural", "random"]


class SinglePixel(LinearOperator):
    """y_i = <h_i, x> for some rows h_i of the Walsh-Hadamard matrix: (C, H, W) -> (C, m), each
    channel alike.

    The matrix has H W rows of entries +- 1 / (H W)^(1/2) and is orthonormal and symmetric; H and W
    are powers of two. Row i of Sylvester's (natural) order, for pixels counted row by row, is the
    product of pattern i // W along the columns and i % W along the rows of the picture. All
    singular values are 1. A mirror array shows patterns of 0 and 1: the difference of the counts
    behind a pattern and behind its complement, over (H W)^(1/2), is y_i.

    count: m, the first of the order that are shown. order: "sequency", by the changes of sign along
    the rows plus those along the columns of the picture, coarse patterns first, the fewer changes
    down the columns first among equal ones; "natural", Sylvester's; "random", the constant pattern,
    then the others as drawn with ``seed``, which nothing else takes.

    Raises ``ValueError`` for other sides, for more patterns than pixels, and a seed out of place.
    """

    order: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        count: Count,
        order: Order = "sequency",
        seed: int | None = None,
    ) -> None:
        super().__init__(shape)
        if len(self.in_shape) != 3 or any(n & (n - 1) for n in self.in_shape[1:]):
            raise ValueError(
                "SinglePixel takes images (C, H, W) with H and W powers of two, "
                f"got {self.in_shape}; pad the image, for example by a Mask of the padded one"
            )
        C, H, W = self.in_shape
        if count > H * W:
            raise ValueError(f"SinglePixel: {count} patterns, but {H}x{W} images have {H * W}")
        if (order == "random") != (seed is not None):
            raise ValueError(
                f"SinglePixel: order={order!r} with seed={seed}; a random order needs a seed, "
                "the others take none"
            )
        self.count = int(count)
        rows = _order(H, W, order, seed or 0)
        first = torch.arange(C)[:, None] * (H * W)
        shown, hidden = first + rows[: self.count], first + rows[self.count :]
        self.register_buffer("order", torch.cat([shown.flatten(), hidden.flatten()]))

    @property
    def inverse(self) -> Tensor:
        """The permutation that undoes ``order``."""
        return kept(self, "inverse", lambda: torch.argsort(self.order), self.order)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        shown = self.order[: self.in_shape[0] * self.count]
        return self._transform(x).flatten(1)[:, shown].unflatten(1, (-1, self.count))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        hidden = self.order.numel() - self.in_shape[0] * self.count
        return self._image(torch.nn.functional.pad(y.flatten(1), (0, hidden)))

    def spectrum(self) -> Spectrum:
        k = self.in_shape[0] * self.count
        return Spectrum(
            torch.ones(k, device=self.order.device),
            V=self._image,
            Vh=lambda x: self._transform(x).flatten(1)[:, self.order],
            U=lambda c: c.unflatten(1, (-1, self.count)),
            Uh=lambda y: y.flatten(1),
        )

    def _image(self, c: Tensor) -> Tensor:
        return self._transform(c[:, self.inverse].reshape(-1, *self.in_shape))

    def _transform(self, x: Tensor) -> Tensor:
        return walsh_hadamard(x.flatten(-2)).view(x.shape)


def walsh_hadamard(x: Tensor) -> Tensor:
    """H x over the last axis of length n = 2^k, in n k additions. H is orthonormal, symmetric and
    in Sylvester's order."""
    n = x.shape[-1]
    half = 1
    while half < n:
        a, b = x.unflatten(-1, (n // (2 * half), 2, half)).unbind(-2)
        x = torch.stack([a + b, a - b], -2).flatten(-3)
        half *= 2
    return x / math.sqrt(n)


def _changes(n: int) -> Tensor:
    """The changes of sign along each row of the matrix of n rows, in Sylvester's order."""
    signs = walsh_hadamard(torch.eye(n, dtype=torch.float64)).sign()
    return (signs.diff(dim=1) != 0).sum(1)


def _order(H: int, W: int, order: Order, seed: int) -> Tensor:
    """All H W natural indices in the order in which they are shown."""
    if order == "natural":
        return torch.arange(H * W)
    if order == "random":
        others = Streams(seed, [0]).uniform(H * W)[0][1:].argsort() + 1
        return torch.cat([torch.zeros(1, dtype=torch.long), others])
    down, across = _changes(H)[:, None], _changes(W)[None, :]
    return ((down + across) * max(H, W) + down).flatten().argsort(stable=True)
