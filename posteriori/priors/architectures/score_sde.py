"""The network of score_sde: NCSN++ and DDPM++ of Song et al., with the names of their checkpoints.

    F(x, c) : (B, C, H, W), (B,) -> (B, C, H, W)

Blocks are as in ADM (``posteriori.priors.architectures.adm``), with the embedding of c added before
the second norm and sums scaled by sqrt(1/2). All layers stand in one list, in the order in which
they are used. NCSN++ resamples by the filter (1, 3, 3, 1); beside its way down the image is shrunk
and added at each level, through a 1 x 1 convolution ("skip") or as a stream of its own
("residual"); beside its way up ("skip") each level adds an image to the one that is grown.

With ``ve`` the network is one of VE coordinates: images from 0 to 1, which it centres itself, c is
sigma, it takes ln(sigma), and what it returns is divided by sigma.

Reference: Song, Sohl-Dickstein, Kingma, Kumar, Ermon, Poole, Score-based generative modeling
through stochastic differential equations, 2021, appendix H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-6
HALF = math.sqrt(0.5)
TAPS = (1.0, 3.0, 3.0, 1.0)


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, _EPS)


def taps(x: Tensor) -> Tensor:
    """The filter of sum 1 for every channel of x."""
    line = torch.tensor(TAPS, dtype=x.dtype, device=x.device) / sum(TAPS)
    return (line[:, None] * line).expand(x.shape[1], 1, 4, 4)


def grow(x: Tensor, filtered: bool) -> Tensor:
    """Twice the side, by the filter or by nearest neighbour."""
    if not filtered:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv_transpose2d(x, 4 * taps(x), groups=x.shape[1], stride=2, padding=1)


def _shrink(x: Tensor, filtered: bool) -> Tensor:
    """Half the side, by the filter or by means."""
    if not filtered:
        return F.avg_pool2d(x, 2)
    return F.conv2d(x, taps(x), groups=x.shape[1], stride=2, padding=1)


class Mix(nn.Module):
    """A dense layer on the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.W.T[:, :, None, None], self.b)


class ScoreResidual(nn.Module):
    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        filtered: bool,
        resample: Literal["up", "down"] | None = None,
    ) -> None:
        super().__init__()
        self.GroupNorm_0 = _group_norm(channels)
        self.Conv_0 = nn.Conv2d(channels, out, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, out)
        self.GroupNorm_1 = _group_norm(out)
        self.Conv_1 = nn.Conv2d(out, out, 3, padding=1)
        self.through = channels != out or resample is not None
        if self.through:
            self.Conv_2 = nn.Conv2d(channels, out, 1)
        self.filtered, self.resample = filtered, resample

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = F.silu(self.GroupNorm_0(x))
        if self.resample is not None:
            change = grow if self.resample == "up" else _shrink
            h, x = change(h, self.filtered), change(x, self.filtered)
        h = self.Conv_0(h) + self.Dense_0(F.silu(e))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return (h + (self.Conv_2(x) if self.through else x)) * HALF


class ScoreAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Mix(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.NIN_0, self.NIN_1, self.NIN_2))
        weight = (q.mT @ k * q.shape[1] ** -0.5).softmax(-1)
        return (x + self.NIN_3((v @ weight.mT).reshape(x.shape))) * HALF


class Join(nn.Module):
    """The shrunk image beside or upon the features."""

    def __init__(self, channels: int, out: int, beside: bool) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, out, 1)
        self.beside = beside

    def forward(self, image: Tensor, x: Tensor) -> Tensor:
        image = self.Conv_0(image)
        return torch.cat([image, x], 1) if self.beside else image + x


class Stream(nn.Module):
    """The filter, then a convolution of stride 2."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(channels, out, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv2d_0(F.conv2d(x, taps(x), groups=x.shape[1], padding=2))


class Frequencies(nn.Module):
    """sin and cos of ln(c) at the frequencies of the file."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, c: Tensor) -> Tensor:
        phase = c.log()[:, None] * self.W * 2 * math.pi
        return torch.cat([phase.sin(), phase.cos()], 1)


class NCSNpp(nn.Module):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels: of an image.
    width: channels of the first level; ``multipliers`` times that at each level.
    blocks: residual blocks of a level going down; going up there is one more.
    attention: the levels, from 0 for the finest, with attention beside that in the middle.
    ve: see the module. It has features of random frequencies, otherwise of fixed ones.
    down, up: what goes beside the way down and the way up.
    beside: whether "skip" puts the image beside the features rather than adding it.
    levels: length of the list of noise levels that the file keeps; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        ve: bool,
        down: Literal["skip", "residual"] | None = None,
        up: Literal["skip"] | None = None,
        beside: bool = False,
        levels: int = 0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, object] = {
            "channels": channels,
            "width": width,
            "multipliers": tuple(multipliers),
            "blocks": blocks,
            "attention": tuple(attention),
            "ve": ve,
            "down": down,
            "up": up,
            "beside": beside,
            "levels": levels,
        }
        self.width, self.ve = width, ve
        self.multiple = 2 ** (len(multipliers) - 1)
        self.filtered = down is not None
        if levels:
            self.register_buffer("sigmas", torch.zeros(levels))
        e = 4 * width
        layers: list[nn.Module] = [Frequencies(width)] if ve else []
        layers += [nn.Linear(2 * width if ve else width, e), nn.Linear(e, e)]
        layers.append(nn.Conv2d(channels, width, 3, padding=1))

        def block(c: int, out: int, resample: Literal["up", "down"] | None = None) -> ScoreResidual:
            return ScoreResidual(c, out, e, self.filtered, resample)

        made, c, beside_c = [width], width, channels
        for level, share in enumerate(multipliers):
            for _ in range(blocks):
                layers.append(block(c, share * width))
                c = share * width
                layers += [ScoreAttention(c)] if level in attention else []
                made.append(c)
            if level < len(multipliers) - 1:
                layers.append(block(c, c, "down"))
                if down == "skip":
                    layers.append(Join(channels, c, beside))
                    c *= 1 + beside
                elif down == "residual":
                    layers.append(Stream(beside_c, c))
                    beside_c = c
                made.append(c)
        layers += [block(c, c), ScoreAttention(c), block(c, c)]
        for level, share in reversed(list(enumerate(multipliers))):
            for _ in range(blocks + 1):
                layers.append(block(c + made.pop(), share * width))
                c = share * width
            layers += [ScoreAttention(c)] if level in attention else []
            if up or level == 0:
                layers += [_group_norm(c), nn.Conv2d(c, channels, 3, padding=1)]
            if level:
                layers.append(block(c, c, "up"))
        self.all_modules = nn.ModuleList(layers)

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """Nothing beside image and label."""
        return {}

    def embed(self, c: Tensor) -> Tensor:
        first = 1 if self.ve else 0
        if self.ve:
            e = self.all_modules[0](c)
        else:
            half = self.width // 2
            count = torch.arange(half, dtype=c.dtype, device=c.device)
            phase = c[:, None] * torch.exp(-math.log(10_000) * count / (half - 1))
            e = torch.cat([phase.sin(), phase.cos()], 1)
        return self.all_modules[first + 1](F.silu(self.all_modules[first](e)))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c = c.to(next(self.parameters()).dtype)
        e, layers = self.embed(c), self.all_modules[3 if self.ve else 2 :]
        x = 2 * x - 1 if self.ve else x
        beside, h = x, layers[0](x)
        made, image = [h], None
        normed: Tensor | None = None
        down = True  # until the block in the middle, which follows the last of the way down
        middle = self._middle
        for k, layer in enumerate(layers[1:], 1):
            down = k < middle
            if isinstance(layer, Join):
                beside = _shrink(beside, self.filtered)
                h = made[-1] = layer(beside, h)
            elif isinstance(layer, Stream):
                h = made[-1] = beside = (layer(beside) + h) * HALF
            elif isinstance(layer, ScoreAttention):
                h = layer(h)
                if down:
                    made[-1] = h
            elif isinstance(layer, nn.GroupNorm):
                normed = F.silu(layer(h))
            elif isinstance(layer, nn.Conv2d):
                new = layer(normed)
                image = new if image is None else grow(image, self.filtered) + new
            elif down:
                h = layer(h, e)
                made.append(h)
            else:
                joined = k > middle + 2 and layer.resample is None
                h = layer(torch.cat([h, made.pop()], 1) if joined else h, e)
        assert image is not None  # the last layer is such a convolution
        return image / c.view(-1, 1, 1, 1) if self.ve else image

    @property
    def _middle(self) -> int:
        """Place of the first block of the middle among the layers from the first convolution on."""
        a: dict[str, Any] = dict(self.arguments)
        blocks, levels, attention = a["blocks"], len(a["multipliers"]), len(a["attention"])
        between = (levels - 1) * (1 + (a["down"] is not None))
        return 1 + levels * blocks + attention * blocks + between
