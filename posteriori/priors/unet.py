"""A fully convolutional U-Net for denoising at any image size.

    F(x, c) : (B, C, H, W), (B,) or (B, H, W) -> (B, C, H, W)

with mask (B, 1, H, W) for a network that is told which pixels it sees, embedding (B, width) for one
that is told what it shows, colour (B, COLOURS) for one that is told the colour of the noise
(``covariances.told``), shrunk (B, C, H, W) for one that is shown a first estimate beside the image.

Pixels are unshuffled once (r x r pixels become channels), then residual blocks run on a few scales
joined by additive skips:

    block(h, e) = h + conv2( silu( (1 + a(e)) conv1(silu(n(h))) + b(e) ) )

a, b come from the noise embedding e, of an image or, where c is a map, of each pixel: at a coarser
scale that of the mean of c over the pixels below. n standardises each *pixel's* channel vector. No
statistic is taken over the image, so one pixel's output depends on a bounded neighbourhood only and
a network trained on crops keeps its meaning on a larger image. The last convolution of each block
starts at zero, so that the network starts as a short linear map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.covariances.told import COLOURS
from posteriori.priors import first_estimates, packed
from posteriori.priors.first_estimates import CONTRASTED, KINDS

STEPS = 256  # filled maps have a level for nearly every pixel: embedded in steps of 1.6 %


class NoiseEmbedding(nn.Module):
    """Sinusoidal features of a scalar noise label, then two dense layers: (B,) -> (B, width).

    coloured: two layers without offsets add what the colour of the noise (B, COLOURS) says to the
    first; the second of them starts at 0. White noise, of colour 0, is what it is without them.
    """

    freqs: Tensor

    def __init__(self, width: int, coloured: bool = False) -> None:
        super().__init__()
        self.register_buffer(
            "freqs", math.pi * torch.logspace(-3, 4, 16, base=2.0), persistent=False
        )
        self.mlp = nn.Sequential(
            nn.Linear(33, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        if coloured:
            self.colour = nn.Sequential(
                nn.Linear(COLOURS, width, bias=False),
                nn.SiLU(),
                nn.Linear(width, width, bias=False),
            )
            nn.init.zeros_(self.colour[2].weight)  # type: ignore[arg-type]

    def forward(self, c: Tensor, colour: Tensor | None = None) -> Tensor:
        phase = c[:, None] * self.freqs.to(c.dtype)
        # Half precision, if any, after cos and sin, which turn fast.
        kind = next(self.mlp.parameters()).dtype
        features = torch.cat([c[:, None], phase.cos(), phase.sin()], dim=1).to(kind)
        if colour is None:
            return self.mlp(features)
        first = self.mlp[0](features)
        # Logarithms of variances, divided as the label is: ln(sigma) / 4.
        return self.mlp[1:](first + self.colour((colour / 8).to(kind)).to(first.dtype))


class PixelNorm(nn.Module):
    """Standardise each pixel's channel vector (layer norm over channels), with one learned gain per
    channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, h: Tensor) -> Tensor:
        channels_last = h.permute(0, 2, 3, 1)
        return F.layer_norm(
            channels_last, (h.shape[1],), self.gain.to(h.dtype), eps=packed.TINY
        ).permute(0, 3, 1, 2)


class Embedded(NamedTuple):
    """Embeddings e (N, width): of N images, or of N levels of which ``place`` (B, h, w) says where
    they lie. A map mostly has few levels, and each is embedded once."""

    e: Tensor
    place: Tensor | None = None

    def through(self, film: nn.Linear) -> Tensor:
        """film(e) of every image (B, C, 1, 1), or of every pixel (B, C, h, w)."""
        out = film(self.e)
        if self.place is None:
            return out[:, :, None, None]
        each = out.index_select(0, self.place.flatten())  # a far faster derivative than [place]
        return each.view(*self.place.shape, -1).permute(0, 3, 1, 2)


class Block(nn.Module):
    """A residual block whose inner activation is scaled and shifted by the noise embedding."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for tensor in (self.film.weight, self.film.bias, self.conv2.weight, self.conv2.bias):
            nn.init.zeros_(tensor)  # type: ignore[arg-type]

    def forward(self, h: Tensor, e: Embedded) -> Tensor:
        scale, shift = e.through(self.film).to(h.dtype).chunk(2, dim=1)
        if packed.fits(self, h, scale):
            return packed.residual(self, h, 1 + scale, shift)
        u = self.conv1(F.silu(self.norm(h)))
        return h + self.conv2(F.silu(torch.addcmul(shift, u, 1 + scale)))


class UNet(nn.Module):
    """The network F above.

    Parameters
    ----------
    channels: image channels, in and out.
    widths: channels of each scale, finest first; each further scale halves the resolution.
    blocks: residual blocks of each scale (the coarsest once, the others once on the way down and
        once up).
    unshuffle: side of the pixel blocks folded into channels at the entrance.
    embedding: width of the noise embedding.
    masked: whether the network is given a mask (B, 1, H, W) beside the image, 1 where it shows
        something; without one it takes all pixels for seen.
    condition: width of an embedding of what is known of the image, such as a sentence; 0 for a
        network that takes none. It is added to the embedding of the noise by two layers without
        offsets, so that an embedding of 0, or none, is no knowledge.
    noise_maps: whether c may be a map, a level for each pixel. It adds no weights: a network that
        was trained without maps has the same, but has not seen such noise.
    estimates: None, or the d of ``priors.edm``. With it the network is shown the estimates of
        ``priors.first_estimates``, of which ``shrunk`` may be given, and each label less the mean
        of its block of r x r, which alone is embedded.
    filled: whether a map is that of ``first_estimates.filled``. Such a network is also shown the
        image times two functions of that difference, and its output is a sum of three, two of them
        times these functions.

    ``multiple`` is the number that height and width must be divisible by; ``arguments`` is what
    this network was made with.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (96, 160, 256),
        blocks: Sequence[int] = (3, 3, 2),
        unshuffle: int = 2,
        embedding: int = 256,
        masked: bool = False,
        noise_maps: bool = False,
        condition: int = 0,
        coloured: bool = False,
        estimates: float | None = None,
        filled: bool = False,
    ) -> None:
        super().__init__()
        if estimates is not None and not (noise_maps and 0 < estimates < math.inf):
            raise ValueError(
                f"UNet: estimates is a standard deviation > 0 for a network with noise_maps, got "
                f"{estimates} and noise_maps={noise_maps}"
            )
        if filled and estimates is None:
            raise ValueError("UNet: filled is for a network with estimates, got estimates=None")
        if len(widths) != len(blocks) or not widths:
            raise ValueError(
                f"UNet: widths {tuple(widths)} "
                f"and blocks {tuple(blocks)} must have the same length, at least 1"
            )
        self.arguments: dict[str, object] = {
            "channels": channels,
            "widths": tuple(widths),
            "blocks": tuple(blocks),
            "unshuffle": unshuffle,
            "embedding": embedding,
        }
        optional = {
            "masked": masked,
            "noise_maps": noise_maps,
            "condition": condition,
            "coloured": coloured,
            "estimates": estimates and float(estimates),
            "filled": filled,
        }
        self.arguments |= {name: value for name, value in optional.items() if value}
        # In ``arguments`` where true: the identity of other networks is what it was.
        self._masked, self._estimates = masked, estimates
        self.unshuffle = unshuffle
        self.multiple = unshuffle * 2 ** (len(widths) - 1)
        self._width = condition
        self.embed = NoiseEmbedding(embedding, coloured)
        beside, out = int(masked), channels
        if estimates is not None:
            beside += 1 + channels * (1 + KINDS)
        if filled:
            beside, out = beside + channels * CONTRASTED, out * (1 + CONTRASTED)
        self.enter = nn.Conv2d((channels + beside) * unshuffle**2, widths[0], 3, padding=1)
        self.leave = nn.Conv2d(widths[0], out * unshuffle**2, 3, padding=1)
        self.leave_norm = PixelNorm(widths[0])
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        self.grow = nn.ModuleList()
        self.up = nn.ModuleList()
        for fine, coarse, count in zip(widths[:-1], widths[1:], blocks[:-1], strict=True):
            self.down.append(nn.ModuleList(Block(fine, embedding) for _ in range(count)))
            self.shrink.append(nn.Conv2d(fine, coarse, 2, stride=2))
            self.grow.append(nn.ConvTranspose2d(coarse, fine, 2, stride=2))
            self.up.append(nn.ModuleList(Block(fine, embedding) for _ in range(count)))
        self.middle = nn.ModuleList(Block(widths[-1], embedding) for _ in range(blocks[-1]))
        if condition:
            self.known = nn.Sequential(
                nn.Linear(condition, embedding, bias=False),
                nn.SiLU(),
                nn.Linear(embedding, embedding, bias=False),
            )

    @property
    def noise_maps(self) -> bool:
        return bool(self.arguments.get("noise_maps", False))

    @property
    def coloured(self) -> bool:
        return bool(self.arguments.get("coloured", False))

    @property
    def shown(self) -> bool:
        """Whether ``forward`` takes ``shrunk``."""
        return self._estimates is not None

    @property
    def filled(self) -> bool:
        return bool(self.arguments.get("filled", False))

    def _embedded(
        self, c: Tensor, embedding: Tensor | None, colour: Tensor | None
    ) -> list[Embedded]:
        """The embeddings at each scale, finest first."""
        if c.ndim == 1:
            e = self.embed(c, colour)
            e = e if embedding is None else e + self.known(embedding).to(e.dtype)
            return [Embedded(e)] * (len(self.down) + 1)
        if not self.noise_maps:
            raise ValueError(
                f"this UNet was trained for one noise level an image, got a map of them "
                f"{tuple(c.shape)}; train it with objective: noise-maps"
            )
        scales, level = [], c[:, None]
        for k in range(len(self.down) + 1):
            level = told = F.avg_pool2d(level, 2 if k else self.unshuffle)
            if self.filled:
                told = (level * STEPS).round() / STEPS
            values, place = torch.unique(told[:, 0], return_inverse=True)
            scales.append(Embedded(self.embed(values), place))
        return scales

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        told: dict[str, tuple[int | None, ...]] = {}
        if self._masked:
            told["mask"] = (1, None, None)
        if self._width:
            told["embedding"] = (self._width,)
        return told

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        mask: Tensor | None = None,
        embedding: Tensor | None = None,
        colour: Tensor | None = None,
        shrunk: Tensor | None = None,
    ) -> Tensor:
        scales, picture = self._embedded(c, embedding, colour), x
        if self._masked:
            seen = torch.ones_like(x[:, :1]) if mask is None else mask.to(x.dtype)
            x = torch.cat([x, seen], 1)
        if self._estimates is not None:
            within = first_estimates.labels_within(picture, c, self.unshuffle)
            shown = first_estimates.beside(picture, c, self._estimates, shrunk)
            if self.filled:
                shown += [w * picture for w in first_estimates.contrasts(within)]
            x = torch.cat([x, within, *shown], 1)
        h = F.pixel_unshuffle(x, self.unshuffle).contiguous(memory_format=torch.channels_last)
        h = self.enter(h)
        skips = []
        for blocks, shrink, e in zip(self.down, self.shrink, scales[:-1], strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, e)
            skips.append(h)
            h = shrink(h)
        for block in self.middle:
            h = block(h, scales[-1])
        for blocks, grow, e in zip(
            reversed(self.up), reversed(self.grow), reversed(scales[:-1]), strict=True
        ):
            h = skips.pop() + grow(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, e)
        out = F.pixel_shuffle(self.leave(F.silu(self.leave_norm(h))), self.unshuffle)
        return (first_estimates.summed(out, within) if self.filled else out).contiguous()
