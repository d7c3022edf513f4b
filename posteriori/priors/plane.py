"""Images without a channel axis, such as blur kernels, from a prior of one channel."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.knowledge import Knowledge


class Plane(Prior):
    """Images x (H, W) by a prior of images (1, H, W): D(x, sigma) = D_1((x), sigma).

    channel: a prior of shape (1, H, W). shape: (H, W) where that takes any size; its own otherwise.
    Raises ``ValueError`` for a prior of other images, or a shape that is none of its.
    """

    def __init__(self, channel: Prior, shape: tuple[int, int] | None = None) -> None:
        if len(channel.shape) != 3 or channel.shape[0] != 1:
            raise ValueError(f"Plane needs a prior of images (1, H, W), got {channel.shape}")
        super().__init__(
            channel.shape[1:] if shape is None else shape,
            range=channel.range,
            complex=channel.complex,
            **limits_of(channel),
        )
        if shape is not None:
            check_shape(channel, (1, *shape))
        self.channel = channel

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.channel.denoise(x[:, None], sigma)[:, 0]

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        x0, pull = self.channel.linearize(x[:, None], sigma)
        return x0[:, 0], lambda u: pull(u[:, None])[:, 0]

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.channel.start(z[:, None], sigma)[:, 0]

    def at(self, /, **leaves: Tensor) -> Prior:
        sides = [n for n in self.shape if n is not None]
        shape = (sides[0], sides[1]) if len(sides) == 2 else None
        return Plane(self.channel.at(**leaves), shape)

    def know(self) -> Knowledge:
        """That of the channel, without a closed form and errors by frequency."""
        known = self.channel.know()
        return replace(
            super().know(),
            error=known.error,
            ladder=known.ladder,
            leaves=known.leaves,
            adjustable=known.adjustable,
        )
