"""The hourglass transformer of k-diffusion, its model type ``image_transformer_v2``.

    F(x, c, y) : (B, C, H, W), (B,), (B,) -> (B, C, H, W),    c = ln(sigma) / 4

    e        = mapping(linear(cos and sin of c) + linear(those of no augmentation) + class y)
    n(x, e)  = x / rms(x) (1 + linear(e))                  rms over the channels of a token
    attend   = x + out(softmax(q k^T) v),                  q, k, v linear in n(x, e), q and k of
               length sqrt(s), s learned for each head, and turned by the token's place
    hidden   = x + down(a gelu(b)),                        a, b linear in n(x, e)

Patches are tokens of the first level; between levels 2 x 2 tokens are joined into one, and on the
way up split again and mixed with those of the way down by a learned weight. A token looks at

    global           all of its level
    neighborhood     the ``reach`` x ``reach`` around it, moved inside at the border
    shifted-window   those of its window of ``reach`` x ``reach``; windows of every second layer lie
                     half a window off, and what came round the border is not seen
    none             itself alone

Names are those of its files. Reference: Crowson, Baumann, Birch, Abraham, Kaplan, Shippole,
Scalable high-resolution pixel-space image synthesis with hourglass diffusion transformers, 2024;
Hassani, Walton, Li, Li, Shi, Neighborhood attention transformer, 2023.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.priors.architectures.tokens import (
    ConditionNorm,
    GainNorm,
    Hidden,
    TokenNetwork,
    rotated,
    token_places,
)

_EPS = 1e-6
Sight = Literal["global", "neighborhood", "shifted-window", "none"]


class LevelShape(TypedDict):
    """A level: layers of one way, channels of a token and of a hidden layer, heads, what a token
    looks at."""

    depth: int
    width: int
    hidden: int
    sight: Sight
    heads: int
    reach: NotRequired[int]


class Turns(nn.Module):
    """The angles of a token at its place: (H, W, 2) -> (heads, H, W, 2 freqs)."""

    freqs: Tensor

    def __init__(self, heads: int, count: int) -> None:
        super().__init__()
        ends = math.log(math.pi), math.log(10 * math.pi)
        line = torch.linspace(*ends, heads * count + 1)[:-1].exp()
        self.register_buffer("freqs", line.view(count, heads).T.contiguous())

    def forward(self, place: Tensor) -> Tensor:
        freqs = self.freqs.to(place.dtype)[:, None, None]
        return torch.cat([place[..., :1] * freqs, place[..., 1:] * freqs], -1)


def _seen(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T) v over the last but one axis; mask: True where a token is seen."""
    return F.scaled_dot_product_attention(q, k, v, mask, scale=1.0)


def all_seen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every token sees all: q, k, v and what is returned (B, heads, H, W, d)."""
    return _seen(q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3)).view(q.shape)


def neighbours_seen(q: Tensor, k: Tensor, v: Tensor, reach: int) -> Tensor:
    """Every token sees the square of ``reach`` tokens a side around it, or the nearest one within
    the image. One row of queries is taken against the ``reach`` rows that it sees, columns being
    masked: memory reach H W tokens and reach H W^2 weights."""
    height, width = q.shape[2:4]
    if min(height, width) < reach:
        raise ValueError(
            f"a token of this network sees {reach} x {reach} around it, and the image has only "
            f"{height} x {width} of them at that level: give a larger image"
        )

    def starts(count: int) -> Tensor:
        first = torch.arange(count, device=q.device) - reach // 2
        return first.clamp(0, count - reach)[:, None]

    rows = starts(height) + torch.arange(reach, device=q.device)
    distance = torch.arange(width, device=q.device) - starts(width)
    mask = ((distance >= 0) & (distance < reach)).repeat(1, reach)
    k, v = (t[:, :, rows].flatten(3, 4).flatten(0, 2) for t in (k, v))
    return _seen(q.flatten(0, 2), k, v, mask).view(q.shape)


def windows_seen(q: Tensor, k: Tensor, v: Tensor, reach: int, shift: int) -> Tensor:
    """Every token sees those of its window, windows lying ``shift`` to the upper left. Raises
    ``ValueError`` where windows do not cover the image."""
    b, heads, height, width, d = q.shape
    if height % reach or width % reach:
        raise ValueError(f"{height} x {width} tokens are no whole windows of {reach} x {reach}")

    def cut(t: Tensor) -> Tensor:
        """(B, heads, H, W, d) -> (B heads, windows, reach^2, d)."""
        t = t.unflatten(3, (-1, reach)).unflatten(2, (-1, reach)).transpose(3, 4)
        return t.flatten(4, 5).flatten(0, 1).flatten(1, 2)

    # What the roll brings from the far border is no neighbour of what it meets.
    far = [torch.arange(n, device=q.device) < shift for n in (height, width)]
    part = cut((2 * far[0][:, None] + far[1].long()).view(1, 1, height, width, 1)).squeeze(-1)
    mask = part[..., :, None] == part[..., None, :]
    q, k, v = (cut(t.roll((shift, shift), (2, 3))) for t in (q, k, v))
    out = _seen(q, k, v, mask)
    out = out.view(b, heads, height // reach, width // reach, reach, reach, d).transpose(3, 4)
    return out.reshape(b, heads, height, width, d).roll((-shift, -shift), (2, 3))


class _Looking(nn.Module):
    """The attention above. shift: of the windows of this layer."""

    def __init__(self, shape: LevelShape, features: int, shift: int) -> None:
        super().__init__()
        width, self.heads = shape["width"], shape["heads"]
        self.sight, self.reach, self.shift = shape["sight"], shape.get("reach", 0), shift
        self.norm = ConditionNorm(width, features)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.scale = nn.Parameter(torch.full((self.heads,), 10.0))
        self.pos_emb = Turns(self.heads, width // self.heads // 8)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, e: Tensor, place: Tensor) -> Tensor:
        qkv = self.qkv_proj(self.norm(x, e)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)  # each (B, heads, H, W, d)
        angle = self.pos_emb(place)
        q, k = (rotated(self._scaled(t), angle) for t in (q, k))
        if self.sight == "neighborhood":
            seen = neighbours_seen(q, k, v, self.reach)
        elif self.sight == "shifted-window":
            seen = windows_seen(q, k, v, self.reach, self.shift)
        else:
            seen = all_seen(q, k, v)
        return x + self.out_proj(seen.permute(0, 2, 3, 1, 4).flatten(3))

    def _scaled(self, x: Tensor) -> Tensor:
        """x of length sqrt(s)."""
        kind = torch.promote_types(x.dtype, torch.float32)
        length = x.to(kind).square().sum(-1, keepdim=True)
        root = self.scale.to(kind).sqrt()[:, None, None, None]
        return x * (root * (length + _EPS).rsqrt()).to(x.dtype)


class _Layer(nn.Module):
    def __init__(self, shape: LevelShape, features: int, number: int) -> None:
        super().__init__()
        if shape["sight"] != "none":
            shift = shape.get("reach", 0) // 2 if number % 2 else 0
            self.self_attn: _Looking | None = _Looking(shape, features, shift)
        else:
            self.self_attn = None
        self.ff = Hidden(shape["width"], shape["hidden"], features)

    def forward(self, x: Tensor, e: Tensor, place: Tensor) -> Tensor:
        x = x if self.self_attn is None else self.self_attn(x, e, place)
        return self.ff(x, e)


class _Joined(nn.Module):
    """side x side tokens as one: (B, H, W, width) -> (B, H / side, W / side, out)."""

    def __init__(self, width: int, out: int, side: int = 2) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Linear(width * side**2, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side))
        return self.proj(x.transpose(2, 3).flatten(3))


class _Split(nn.Module):
    """The other way; ``mixed`` with what the way down had there: (1 - fac) skip + fac x."""

    def __init__(self, width: int, out: int, side: int = 2, mixed: bool = True) -> None:
        super().__init__()
        self.side = side
        self.proj = nn.Linear(width, out * side**2, bias=False)
        self.fac = nn.Parameter(torch.full((1,), 0.5)) if mixed else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.proj(x).unflatten(-1, (self.side, self.side, -1)).transpose(2, 3)
        x = x.flatten(3, 4).flatten(1, 2)
        return x if self.fac is None or skip is None else skip.lerp(x, self.fac.to(x.dtype))


class HourglassTransformer(TokenNetwork):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels: of an image.
    patch: side of a patch.
    levels: each a ``LevelShape``; the last is passed once, the others on both ways.
    features, hidden, depth: width, hidden width and layers of the mapping.
    classes, dropped: as for ``TokenNetwork``.
    """

    def __init__(
        self,
        channels: int,
        patch: int,
        levels: Sequence[LevelShape],
        features: int,
        hidden: int,
        depth: int,
        classes: int | None = None,
        dropped: bool = True,
    ) -> None:
        super().__init__(features, hidden, depth, classes, dropped)
        self.arguments: dict[str, object] = {
            "channels": channels,
            "patch": patch,
            "levels": tuple(levels),
            "features": features,
            "hidden": hidden,
            "depth": depth,
            "classes": classes,
            "dropped": dropped,
        }
        self.multiple = patch * _sides(levels)

        def layers(shape: LevelShape, first: int = 0) -> nn.ModuleList:
            numbers = range(first, first + shape["depth"])
            return nn.ModuleList(_Layer(shape, features, k) for k in numbers)

        *outer, middle = levels
        widths = [shape["width"] for shape in levels]
        self.patch_in = _Joined(channels, widths[0], patch)
        self.down_levels = nn.ModuleList(layers(shape) for shape in outer)
        self.up_levels = nn.ModuleList(layers(shape, shape["depth"]) for shape in outer)
        self.mid_level = layers(middle)
        pairs = list(itertools.pairwise(widths))
        self.merges = nn.ModuleList(_Joined(a, b) for a, b in pairs)
        self.splits = nn.ModuleList(_Split(b, a) for a, b in pairs)
        self.out_norm = GainNorm(widths[0])
        self.patch_out = _Split(widths[0], channels, patch, mixed=False)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        e = self.embed(c, y)
        h = self.patch_in(x.movedim(1, -1))
        place = token_places(h.shape[1], h.shape[2], h)
        made: list[tuple[Tensor, Tensor]] = []
        for level, merge in zip(self.down_levels, self.merges, strict=True):
            h = _passed(level, h, e, place)
            made.append((h, place))
            h = merge(h)
            place = place.unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).mean((1, 3))
        h = _passed(self.mid_level, h, e, place)
        for level, split in reversed(list(zip(self.up_levels, self.splits, strict=True))):
            skip, place = made.pop()
            h = _passed(level, split(h, skip), e, place)
        return self.patch_out(self.out_norm(h)).movedim(-1, 1)


def _passed(level: nn.Module, h: Tensor, e: Tensor, place: Tensor) -> Tensor:
    for layer in level.children():
        h = layer(h, e, place)
    return h


def _sides(levels: Sequence[LevelShape]) -> int:
    """What the tokens of a side must be a multiple of: halved between levels, whole windows."""
    windows = [
        2**k * (shape["reach"] if shape["sight"] == "shifted-window" else 1)
        for k, shape in enumerate(levels)
    ]
    return math.lcm(*windows)
