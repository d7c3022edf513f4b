"""Grey images from a prior of colour images: what it says of pictures whose channels are equal."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.priors.base import Prior, Pull, check_shape
from posteriori.priors.error_spectrum import Covariance
from posteriori.priors.knowledge import Knowledge
from posteriori.rng import Streams

ROOT3 = math.sqrt(3)


class GreyImages(Prior):
    """Grey images x (1, H, W) by a colour prior D_3 of (3, H, W), held to the images (x, x, x).

        D(x, sigma) = mean over channels of D_3((x, x, x) + sqrt(3) sigma n, sqrt(3) sigma)

    n is white noise without its mean over channels. Of a colour image (x0, x0, x0) + s z the mean
    over channels is x0 + s / sqrt(3) noise, and the rest is noise that says nothing of x0: for a
    prior of grey images D is its exact denoiser, whatever n is, and for a network n makes the input
    look as in training. n is a fixed pattern for each size, so that D is one function of x and
    sigma.

    colours: a real prior of shape (3, H, W). ``variance`` is that of one of its numbers; ``error``
    is its error at sqrt(3) sigma.
    """

    def __init__(self, colours: Prior) -> None:
        if colours.complex or len(colours.shape) != 3 or colours.shape[0] != 3:
            kind = "complex" if colours.complex else "real"
            raise ValueError(
                "GreyImages needs a real prior of colour images (3, H, W), "
                f"got a {kind} one of shape {colours.shape}"
            )
        super().__init__(
            (1, *colours.shape[1:]),
            range=colours.range,
            variance=colours.variance,
            sigma_max=colours.sigma_max / ROOT3,
            sigma_min=colours.sigma_min / ROOT3,
            max_std=colours.max_std / ROOT3,
        )
        self.colours = colours

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.colours.denoise(self._coloured(x, sigma), ROOT3 * sigma).mean(1, keepdim=True)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        x0, pull = self.colours.linearize(self._coloured(x, sigma), ROOT3 * sigma)
        return x0.mean(1, keepdim=True), lambda u: pull(
            (u / 3).expand(-1, 3, -1, -1).contiguous()
        ).sum(1, keepdim=True)

    def at(self, /, **leaves: Tensor) -> Prior:
        return GreyImages(self.colours.at(**leaves))

    def know(self) -> Knowledge:
        """That of the colours at sqrt(3) sigma, without a closed form, errors by frequency and
        predicted variances."""
        known = self.colours.know()
        covariance = None if known.covariance is None else self._covariance
        return replace(
            super().know(),
            error=self._error,
            ladder=lambda: known.ladder() / ROOT3,
            covariance=covariance,
            leaves=known.leaves,
            adjustable=known.adjustable,
        )

    def _error(self, sigma: Tensor | float) -> float:
        return min(self.colours.know().error(ROOT3 * float(sigma)), float(sigma) ** 2)

    def _covariance(self, sigma: Tensor | float, shape: tuple[int, ...]) -> Covariance | None:
        """That of the mean over channels: (1, H, W) from the colours' (3, H, W)."""
        of_colours = self.colours.know().covariance
        known = None if of_colours is None else of_colours(ROOT3 * float(sigma), (3, *shape[1:]))
        if known is None:
            return None
        axes = (
            torch.eye(3, dtype=torch.float64) if known.colours is None else known.colours.double()
        )
        shares = (axes.sum(1) / 3).square()
        return Covariance(
            torch.einsum("c,chw->hw", shares, known.variances.double())[None].clamp(
                max=float(sigma) ** 2
            )
        )

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        super()._check_shape(shape)
        check_shape(self.colours, (3, *shape[1:]))

    def _coloured(self, x: Tensor, sigma: Tensor) -> Tensor:
        size, place = tuple(x.shape[2:]), (x.device, x.dtype)
        n = kept(
            self,
            ("pattern", size, place),
            lambda: _pattern(size).to(device=place[0], dtype=place[1]),
        )
        return x.expand(-1, 3, -1, -1) + ROOT3 * float(sigma) * n


def _pattern(size: tuple[int, ...]) -> Tensor:
    """White noise in three channels without its mean over them, (3, H, W): the same for a size,
    always."""
    n = Streams(0, [0]).normal(torch.zeros(1, 3, *size, dtype=torch.float64))[0]
    return n - n.mean(0)
