"""Images larger than a prior, by windows of its size: averaged where they overlap, or each pixel
from one window of a partition.

    D(x) = sum_i W_i^T w_i D_prior(W_i x) / sum_i W_i^T w_i 1,     W_i cuts window i

which is the image nearest to all denoised windows, argmin_u sum_i ||w_i^(1/2) (W_i u - D_prior(W_i
x))||^2. Of a prior whose numbers are independent of one another it is the prior of the whole image.
A window knows nothing from beyond it: where images are correlated over more than a window the error
is larger than that of the whole image's denoiser, the less so the larger the window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from posteriori.priors.anisotropic import WhiteOnly
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.knowledge import Knowledge, Sides
from posteriori.priors.leaves import check_rows, rows_of_leaves

# Numbers of an image that are worked on together, where the user does not say how many windows are.
WINDOW_NUMBERS_AT_ONCE = 2**20
Place = tuple[int, int]


class _Cut:
    """Windows of one size at some places of an image (C, H, W), and their weights (windows, 1, P,
    P), which add up to 1 at each pixel."""

    def __init__(self, places: list[Place], weights: Tensor, sides: tuple[int, int]) -> None:
        self.places, self.size = places, weights.shape[-1]
        total = weights.new_zeros(1, *sides)
        for (top, left), w in zip(places, weights, strict=True):
            total[:, top : top + self.size, left : left + self.size] += w
        self.weights = torch.stack([w / total[self._at(place)] for place, w in self._each(weights)])

    def _each(self, parts: Tensor) -> zip[tuple[Place, Tensor]]:
        return zip(self.places, parts, strict=True)

    def _at(self, place: Place) -> tuple[Any, ...]:
        top, left = place
        return (..., slice(top, top + self.size), slice(left, left + self.size))

    def out_of(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (windows, B, C, P, P)."""
        return torch.stack([x[self._at(place)] for place in self.places])

    def together(self, parts: Tensor, like: Tensor) -> Tensor:
        """The sum of windows at their places: (windows, B, C, P, P) -> (B, C, H, W)."""
        out = torch.zeros_like(like)
        for place, part in self._each(parts):
            out[self._at(place)] += part
        return out

    def weighted(self, parts: Tensor) -> Tensor:
        return parts * self.weights.to(parts.real.dtype)[:, None]


class _OfWindows(Prior):
    """What priors of windows share: the prior of one window, its size, and a few at a time."""

    def __init__(self, prior: Prior, size: int, at_once: int | None, sides: Place | None) -> None:
        name = type(self).__name__
        for word, value in (("size", size), ("at_once", at_once)):
            if value is not None and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ValueError(f"{name}: {word} must be an integer >= 1, got {value!r}")
        if len(prior.shape) != 3:
            raise ValueError(
                f"{name} takes a prior of images (C, H, W), got one of shape {prior.shape}"
            )
        check_shape(prior, (prior.shape[0] or 1, size, size))
        super().__init__(
            (prior.shape[0], *(sides or (None, None))),
            range=prior.range,
            complex=prior.complex,
            **limits_of(prior),
        )
        self.prior, self.size, self.at_once, self.sides = prior, size, at_once, sides

    def _denoise_cut(self, cut: _Cut, x: Tensor, sigma: Tensor) -> Tensor:
        return self._through(cut, x, lambda part: self.prior.denoise(part, sigma))

    def _linearize_cut(self, cut: _Cut, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        """J^T u by windows, computed anew from a few at a time, so that memory does not grow with
        the image."""
        with torch.no_grad():
            x0 = self._denoise_cut(cut, x, sigma)

        def pull(u: Tensor) -> Tensor:
            windows, given = cut.out_of(x), cut.weighted(cut.out_of(u))
            pulled = self._few(
                lambda part, v: self.prior.linearize(part, sigma)[1](v), windows, given
            )
            return cut.together(pulled, x)

        return x0, pull

    def _through(self, cut: _Cut, x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
        return cut.together(cut.weighted(self._few(of, cut.out_of(x))), x)

    def _few(self, of: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        rows = self.at_once or max(1, WINDOW_NUMBERS_AT_ONCE // parts[0][0, 0].numel())
        flat = (part.flatten(0, 1).split(rows) for part in parts)
        return torch.cat([of(*some) for some in zip(*flat, strict=True)]).view(parts[0].shape)

    def know(self) -> Knowledge:
        """That of a window, without a closed form and what is told of single frequencies."""
        return replace(
            self.prior.know(),
            name=type(self).__name__,
            spectrum=None,
            predicted=None,
            anisotropic=WhiteOnly(self),
            closed=None,
            views=(),
            patch=None,
            leaves=self._leaves_known,
            adjustable=self._adjustable,
        )

    def _adjustable(self) -> dict[str, Tensor]:
        """The weights of the inner prior by the names that ``at`` takes here."""
        known = self._leaves_known()
        return {name: p.detach() for name, p in self.named_parameters() if name in known}

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        super()._check_shape(shape)
        if min(shape[-2:]) < self.size:
            raise ValueError(
                f"{type(self).__name__}: images of {shape[-2]}x{shape[-1]} are smaller than a "
                f"window of {self.size}x{self.size}"
            )


class Tiles(_OfWindows):
    """Averaged overlapping windows of ``size`` x ``size``, see the module.

    overlap: pixels that neighbours share, at least; towards the edge of a tile its weight falls
        linearly over them. Tiles are spread evenly, the first and the last lie at the border. With
        overlap 0 and sides that are multiples of the size, each tile is by itself.
    at_once: tiles worked on together; by default as many as hold a million numbers. Samples do not
        depend on it. sides: height and width of the images; any when None.

    Source: Bar-Tal, Yariv, Lipman, Dekel, MultiDiffusion: fusing diffusion paths for controlled
    image generation, 2023, equation 5. Raises ``ValueError`` for an overlap that is not below the
    size, and for images smaller than a tile.
    """

    def __init__(
        self,
        prior: Prior,
        size: int,
        overlap: int = 0,
        *,
        sides: tuple[int, int] | None = None,
        at_once: int | None = None,
    ) -> None:
        super().__init__(prior, size, at_once, sides)
        if not isinstance(overlap, int) or isinstance(overlap, bool) or not 0 <= overlap < size:
            raise ValueError(f"Tiles: overlap must be from 0 to {size - 1}, got {overlap!r}")
        self.overlap = overlap

    def cut(self, x: Tensor) -> _Cut:
        H, W = int(x.shape[-2]), int(x.shape[-1])
        edge = torch.arange(self.size, dtype=torch.float64, device=x.device) + 1
        taper = (torch.minimum(edge, edge.flip(0)) / (self.overlap + 1)).clamp(max=1.0)
        places = [(t, left) for t in self._starts(H) for left in self._starts(W)]
        weights = torch.outer(taper, taper).expand(len(places), 1, -1, -1)
        return _Cut(places, weights, (H, W))

    def _starts(self, side: int) -> list[int]:
        count = -(-(side - self.overlap) // (self.size - self.overlap))
        last = side - self.size
        return [round(k * last / max(1, count - 1)) for k in range(count)]

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._denoise_cut(self.cut(x), x, sigma)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        return self._linearize_cut(self.cut(x), x, sigma)


class Patches(_OfWindows):
    """Each pixel from one window: a partition of the image into patches of ``size`` x ``size``,
    whose corners lie at ``offset`` and multiples of the size from there.

    A patch that the border cuts is taken from the window within the image that lies nearest, of
    which only the patch is kept. So every pixel is covered once, every window is an image of the
    prior, and a size of the whole image gives the whole image's denoiser for every offset.

    offset: of rows and columns, 0 <= offset < size; the leaf ``at(offset=...)``, one (2,) for all
        rows or (B, 2). ``methods.PaDIS`` draws one for each step.
    at_once, sides: as for ``Tiles``.

    Source: Hu, Song, Xu, Shen, Fessler, Learning image priors through patch-based diffusion models
    for solving inverse problems, 2024, equation 5; there the image is padded with zeros, which
    asks for a prior that was trained on them.
    """

    offset: Tensor

    def __init__(
        self,
        prior: Prior,
        size: int,
        offset: Tensor | tuple[int, int] = (0, 0),
        *,
        sides: tuple[int, int] | None = None,
        at_once: int | None = None,
    ) -> None:
        super().__init__(prior, size, at_once, sides)
        given = torch.as_tensor(offset)
        if given.shape[-1:] != (2,) or given.ndim > 2:
            raise ValueError(f"Patches: offset is (rows, columns), got {offset!r}")
        if not bool(((given >= 0) & (given < size) & (given == given.floor())).all()):
            raise ValueError(
                f"Patches: offsets must be whole numbers from 0 to {size - 1}, got {given.tolist()}"
            )
        self.register_buffer("offset", given.long())

    def _leaves_known(self) -> dict[str, Sides]:
        return {"offset": (2,)}

    def know(self) -> Knowledge:
        return replace(super().know(), patch=self.size)

    def at(self, /, **leaves: Tensor) -> Prior:
        if not leaves:
            return self
        rows_of_leaves(self, leaves)
        return Patches(
            self.prior, self.size, leaves["offset"], sides=self.sides, at_once=self.at_once
        )

    def cut(self, x: Tensor, offset: Tensor) -> _Cut:
        sides = int(x.shape[-2]), int(x.shape[-1])
        spans = [_spans(side, self.size, int(k)) for side, k in zip(sides, offset, strict=True)]
        places, weights = [], []
        for top, rows in spans[0]:
            for left, columns in spans[1]:
                places.append((top, left))
                weights.append(torch.outer(rows, columns)[None])
        return _Cut(places, torch.stack(weights).to(x.device), sides)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        if self.offset.ndim == 1:
            return self._denoise_cut(self.cut(x, self.offset), x, sigma)
        return torch.cat([self._denoise_cut(c, row, sigma) for c, row in self._rows(x)])

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        if self.offset.ndim == 1:
            return self._linearize_cut(self.cut(x, self.offset), x, sigma)
        parts = [self._linearize_cut(c, row, sigma) for c, row in self._rows(x)]
        return torch.cat([x0 for x0, _ in parts]), lambda u: torch.cat(
            [pull(u[k : k + 1]) for k, (_, pull) in enumerate(parts)]
        )

    def _rows(self, x: Tensor) -> list[tuple[_Cut, Tensor]]:
        check_rows(type(self).__name__, len(self.offset), x)
        rows = x.split(1)
        return [(self.cut(row, k), row) for k, row in zip(self.offset, rows, strict=True)]


def _spans(side: int, size: int, offset: int) -> list[tuple[int, Tensor]]:
    """The windows along one axis, and which of their pixels belong to the patch: 1 or 0."""
    edges = [0, *range(offset if offset else size, side, size), side]
    found = []
    for first, end in pairwise(edges):
        start = min(first, side - size)
        kept = torch.zeros(size, dtype=torch.float64)
        kept[first - start : end - start] = 1.0
        found.append((start, kept))
    return found
