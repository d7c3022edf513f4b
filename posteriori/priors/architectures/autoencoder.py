"""A small convolutional autoencoder: residual blocks on a few scales, without attention.

    Enc : (B, C, H, W) -> (B, L, H / f, W / f),   Dec : back,   f = unshuffle 2^(scales - 1)

Deterministic both ways: the encoder gives one latent, no distribution. Pixels are unshuffled once,
then residual blocks run on scales of half the resolution each; the decoder is the same in the
opposite order. As in ``priors.unet`` no statistic is taken over the image: a number of a latent
depends on a bounded neighbourhood only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.priors.unet import PixelNorm


class ConvBlock(nn.Module):
    """h + conv2(silu(conv1(silu(n(h))))), the identity at the start of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Tensor:
        return h + self.conv2(F.silu(self.conv1(F.silu(self.norm(h)))))


class ConvAutoencoder(nn.Module):
    """``encode(x)`` and ``decode(z)``; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels, latent_channels: of images and of latents.
    widths: channels of each scale, finest first.
    blocks: residual blocks of each scale, in either direction; one number for all scales.
    unshuffle: side of the pixel blocks folded into channels at the entrance.

    ``factor`` is f above; height and width must be divisible by it, ``multiple``.
    """

    def __init__(
        self,
        channels: int,
        latent_channels: int,
        widths: Sequence[int] = (32, 64),
        blocks: int | Sequence[int] = 1,
        unshuffle: int = 1,
    ) -> None:
        super().__init__()
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        if len(widths) != len(counts) or not widths:
            raise ValueError(
                f"ConvAutoencoder: widths {tuple(widths)} and blocks {tuple(counts)} must have the "
                "same length, at least 1"
            )
        self.arguments: dict[str, object] = {
            "channels": channels,
            "latent_channels": latent_channels,
            "widths": list(widths),
            "blocks": counts,
            "unshuffle": unshuffle,
        }
        self.channels, self.latent_channels = channels, latent_channels
        self.unshuffle, self.factor = unshuffle, unshuffle * 2 ** (len(widths) - 1)
        inner = channels * unshuffle**2
        self.encoder = nn.Sequential(nn.Conv2d(inner, widths[0], 3, padding=1))
        for k, (width, count) in enumerate(zip(widths, counts, strict=True)):
            if k:
                self.encoder.append(nn.Conv2d(widths[k - 1], width, 2, stride=2))
            self.encoder.extend(ConvBlock(width) for _ in range(count))
        self.encoder.append(nn.Conv2d(widths[-1], latent_channels, 3, padding=1))
        self.decoder = nn.Sequential(nn.Conv2d(latent_channels, widths[-1], 3, padding=1))
        for k, (width, count) in reversed(list(enumerate(zip(widths, counts, strict=True)))):
            self.decoder.extend(ConvBlock(width) for _ in range(count))
            if k:
                self.decoder.append(nn.ConvTranspose2d(width, widths[k - 1], 2, stride=2))
        self.decoder.append(nn.Conv2d(widths[0], inner, 3, padding=1))

    @property
    def multiple(self) -> int:
        return self.factor

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(F.pixel_unshuffle(x, self.unshuffle))

    def decode(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(self.decoder(z), self.unshuffle)

    def forward(self, x: Tensor, noise: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """z = encode(x), and decode(z + noise)."""
        z = self.encode(x)
        return z, self.decode(z + noise)
