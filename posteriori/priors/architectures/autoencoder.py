"""A small convolutional autoencoder: residual blocks on a few scales, without attention.

    Enc : (B, C, H, W) -> (B, L, H / f, W / f),   Dec : back,   f = 2^(scales - 1)

    block(h) = h + conv2(silu(n(conv1(silu(n(h))))))

n standardises each pixel's channel vector, so that an image larger than those of the training keeps
its meaning. A scale is left by a convolution on 2 x 2 pixels made channels, and entered by its
transpose. Deterministic: the encoder gives one latent, no distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from posteriori.priors.unet import PixelNorm


class ConvBlock(nn.Module):
    """h + conv2(silu(n(conv1(silu(n(h))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            PixelNorm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            PixelNorm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.inner(h)


class ConvAutoencoder(nn.Module):
    """``encode(x)`` and ``decode(z)``; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels, latent_channels: of images and of latents.
    widths: channels of each scale, from the finest; the factor is 2^(their number - 1).
    blocks: residual blocks on each scale.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        widths: Sequence[int] = (32, 64),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.arguments = {
            "channels": channels,
            "latent_channels": latent_channels,
            "widths": list(widths),
            "blocks": blocks,
        }
        self.channels, self.latent_channels = channels, latent_channels
        self.factor = 2 ** (len(widths) - 1)
        self.encoder, self.decoder = nn.Sequential(), nn.Sequential()
        self.encoder.append(nn.Conv2d(channels, widths[0], 3, padding=1))
        self.decoder.append(nn.Conv2d(latent_channels, widths[-1], 3, padding=1))
        for k, width in enumerate(widths):
            here = [ConvBlock(width) for _ in range(blocks)]
            down = [nn.Conv2d(width, widths[k + 1], 2, stride=2)] if k + 1 < len(widths) else []
            self.encoder.append(nn.Sequential(*here, *down))
        for k in reversed(range(len(widths))):
            here = [ConvBlock(widths[k]) for _ in range(blocks)]
            up = [nn.ConvTranspose2d(widths[k], widths[k - 1], 2, stride=2)] if k else []
            self.decoder.append(nn.Sequential(*here, *up))
        self.encoder.append(nn.Conv2d(widths[-1], latent_channels, 3, padding=1))
        self.decoder.append(nn.Conv2d(widths[0], channels, 3, padding=1))

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
