"""The network of EDM2, which preserves magnitudes.

    F(x, c, y) : (B, C, H, W), (B,), (B,) -> (B, C, H, W)

Weights have unit norm for every output, so that a layer keeps the variance of its input; sums,
concatenations and silu are divided by what they would add to it:

    sum(a, b; t)  = ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)
    silu(x)       = x sigmoid(x) / 0.596
    block         = sum(x, conv(silu(conv(silu(x)) (1 + g(e)))); 0.3), then an attention likewise

Going down a block normalises the channels of each pixel first. There are no biases: a channel of
ones stands beside the image.

Reference: Karras, Aittala, Lehtinen, Hellsten, Aila, Laine, Analyzing and improving the training
dynamics of diffusion models, 2024, section 2 and appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD = 64  # channels of a head
BALANCE = 0.3  # of a block's branch, and of its attention
CLIP = 256.0  # activations end here


def unit(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x with a root mean square of 1 over ``dim``."""
    size = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / (1e-4 + size * math.sqrt(size.numel() / x.numel()))


def blend(a: Tensor, b: Tensor, t: float) -> Tensor:
    return a.lerp(b, t) / math.hypot(1 - t, t)


def joined(a: Tensor, b: Tensor, t: float = 0.5) -> Tensor:
    """Channels of both, each weighted so that neither drowns the other."""
    m, n = a.shape[1], b.shape[1]
    total = math.sqrt((m + n) / ((1 - t) ** 2 + t**2))
    return torch.cat([a * (total / math.sqrt(m) * (1 - t)), b * (total / math.sqrt(n) * t)], 1)


def silu(x: Tensor) -> Tensor:
    return F.silu(x) / 0.596


class Unit(nn.Module):
    """A dense layer (side 0) or a convolution whose weights are of unit norm."""

    def __init__(self, channels: int, out: int, side: int = 0) -> None:
        super().__init__()
        kernel = (side, side) if side else ()
        self.weight = nn.Parameter(torch.zeros(out, channels, *kernel))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        dims = tuple(range(1, self.weight.ndim))
        weight = unit(self.weight, dims) * (gain / math.sqrt(self.weight[0].numel()))
        if weight.ndim == 2:
            return x @ weight.T
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class _Waves(nn.Module):
    """cos(c f + p) for frequencies and phases of the file."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(width))
        self.register_buffer("phases", torch.zeros(width))

    def forward(self, c: Tensor) -> Tensor:
        return (c[:, None] * self.freqs.to(c) + self.phases.to(c)).cos() * math.sqrt(2)


class EDM2Block(nn.Module):
    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        going: Literal["down", "up"],
        attend: bool = False,
        resample: bool = False,
    ) -> None:
        super().__init__()
        self.going, self.resample = going, resample
        self.heads = out // _HEAD if attend else 0
        if attend and (self.heads < 1 or out % _HEAD):
            raise ValueError(f"EDM2: {out} channels do not divide into heads of {_HEAD}")
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = Unit(out if going == "down" else channels, out, 3)
        self.emb_linear = Unit(embedding, out)
        self.conv_res1 = Unit(out, out, 3)
        self.conv_skip = Unit(channels, out, 1) if channels != out else None
        if attend:
            self.attn_qkv = Unit(out, 3 * out, 1)
            self.attn_proj = Unit(out, out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        if self.resample and self.going == "down":
            x = F.avg_pool2d(x, 2)
        elif self.resample:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        if self.going == "down":
            x = x if self.conv_skip is None else self.conv_skip(x)
            x = unit(x, 1)
        h = self.conv_res0(silu(x))
        scale = self.emb_linear(e, gain=self.emb_gain) + 1
        h = self.conv_res1(silu(h * scale[:, :, None, None]))
        if self.going == "up" and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = blend(x, h, BALANCE)
        if self.heads:
            x = blend(x, self.attend(x), BALANCE)
        return x.clip(-CLIP, CLIP)

    def attend(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.attn_qkv(x).reshape(b, self.heads, _HEAD, 3, height * width)
        q, k, v = unit(qkv, 2).unbind(3)
        weight = (q.mT @ (k / math.sqrt(c // self.heads))).softmax(-1)
        return self.attn_proj((v @ weight.mT).reshape(b, c, height, width))


class EDM2Net(nn.Module):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    side: of the images that it was trained on; it names the blocks.
    channels: of an image.
    widths: channels of each level, finest first.
    blocks: of a level going down; going up there is one more.
    attention: sides at which there is attention, beside that of the middle.
    features, embedding: widths of the features of c and of their embedding.
    classes: number of classes; None without.
    """

    def __init__(
        self,
        side: int,
        channels: int,
        widths: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        features: int,
        embedding: int,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, object] = {
            "side": side,
            "channels": channels,
            "widths": tuple(widths),
            "blocks": blocks,
            "attention": tuple(attention),
            "features": features,
            "embedding": embedding,
            "classes": classes,
        }
        self.classes = classes
        self.multiple = 2 ** (len(widths) - 1)
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier = _Waves(features)
        self.emb_noise = Unit(features, embedding)
        if classes is not None:
            self.emb_label = Unit(classes, embedding)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        c = widths[0]
        self.enc[f"{side}x{side}_conv"] = Unit(channels + 1, c, 3)
        made = [c]
        for level, out in enumerate(widths):
            at, attend = f"{side >> level}x{side >> level}", side >> level in attention
            if level:
                self.enc[f"{at}_down"] = EDM2Block(c, c, embedding, "down", resample=True)
                made.append(c)
            for k in range(blocks):
                self.enc[f"{at}_block{k}"] = EDM2Block(c, out, embedding, "down", attend)
                c = out
                made.append(c)
        for level, out in reversed(list(enumerate(widths))):
            at, attend = f"{side >> level}x{side >> level}", side >> level in attention
            if level == len(widths) - 1:
                self.dec[f"{at}_in0"] = EDM2Block(c, c, embedding, "up", attend=True)
                self.dec[f"{at}_in1"] = EDM2Block(c, c, embedding, "up")
            else:
                self.dec[f"{at}_up"] = EDM2Block(c, c, embedding, "up", resample=True)
            for k in range(blocks + 1):
                self.dec[f"{at}_block{k}"] = EDM2Block(c + made.pop(), out, embedding, "up", attend)
                c = out
        self.out_conv = Unit(c, channels, 3)

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {} if self.classes is None else {"y": ()}

    def embed(self, c: Tensor, y: Tensor | None) -> Tensor:
        e = self.emb_noise(self.emb_fourier(c))
        if self.classes is not None:
            told = torch.zeros(len(c), self.classes, dtype=e.dtype, device=e.device)
            if y is not None:
                told[torch.arange(len(c), device=e.device), y] = math.sqrt(self.classes)
            e = blend(e, self.emb_label(told), 0.5)
        return silu(e)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        e = self.embed(c.to(self.out_gain.dtype), y)
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        made = []
        for layer in self.enc.values():
            x = layer(x, e) if isinstance(layer, EDM2Block) else layer(x)
            made.append(x)
        for name, layer in self.dec.items():
            x = layer(joined(x, made.pop()) if "block" in name else x, e)
        return self.out_conv(x, gain=self.out_gain)
