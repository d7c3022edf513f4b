"""The U-Net of k-diffusion, its model type ``image_v1``.

    F(x, c) : (B, C, H, W), (B,) -> (B, C, H, W),    c = ln(sigma) / 4

    e        = mapping(cos and sin of c at random frequencies)
    block    = skip(x) + conv(gelu(n(conv(gelu(n(x, e))), e))),   n a group norm of 32 channels a
               group, scaled and shifted by a linear layer of e
    attend   = x + out(softmax(q k^T / sqrt(d)) v),   q, k, v linear in n(x, e), heads of d = 64

An image is folded into patches, which are pixels of the first level. A level goes down after the
filter (1, 3, 3, 1) / 8 has halved the side, mirrored at its border, and up before it has doubled
it; on the way up a level is given what its opposite made. The first ``skipped`` levels are kept in
the file and not used: networks that were grown from one of smaller images have such.

Names are those of its files. Two things of the original are left out: where its dropout_rate is not
0 it drops attention weights at random also when it is not trained; and with has_variance it makes
one more channel, whose mean is the logarithm of its error, which is made and cut here.

Reference: Crowson, k-diffusion, 2022, k_diffusion/models/image_v1.py of 0.1.1.post1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 64  # channels of a head
_GROUP = 32  # channels of a group
_TAPS = (1.0, 3.0, 3.0, 1.0)


class RandomFeatures(nn.Module):
    """cos and sin of 2 pi W x: (B, inputs) -> (B, features), the frequencies W those of the
    file."""

    weight: Tensor

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(features // 2, inputs))

    def forward(self, x: Tensor) -> Tensor:
        phase = 2 * math.pi * x @ self.weight.to(x.dtype).T
        return torch.cat([phase.cos(), phase.sin()], -1)


class _Norm(nn.Module):
    """The group norm n(x, e) above; ``sized`` channels say how many groups there are."""

    def __init__(self, channels: int, features: int, sized: int | None = None) -> None:
        super().__init__()
        self.groups = max(1, (sized or channels) // _GROUP)
        self.mapper = nn.Linear(features, 2 * channels)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.mapper(e)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, F.group_norm(x, self.groups), 1 + scale)


class _Block(nn.Module):
    """The block above: its parts are numbered as in the file, 1, 3, 5 and 7 having no weights."""

    def __init__(self, channels: int, middle: int, out: int, features: int) -> None:
        super().__init__()
        self.main = nn.ModuleDict({
            "0": _Norm(channels, features),
            "2": nn.Conv2d(channels, middle, 3, padding=1),
            "4": _Norm(middle, features),
            "6": nn.Conv2d(middle, out, 3, padding=1),
        })  # fmt: skip
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1, bias=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.main["2"](F.gelu(self.main["0"](x, e)))
        return self.main["6"](F.gelu(self.main["4"](h, e))) + self.skip(x)


class _Attention(nn.Module):
    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm_in = _Norm(channels, features)
        self.qkv_proj = nn.Conv2d(channels, 3 * channels, 1)
        self.out_proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        qkv = self.qkv_proj(self.norm_in(x, e)).flatten(2)
        q, k, v = qkv.unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out_proj(seen.transpose(-1, -2).reshape(x.shape))


class _Filter(nn.Module):
    """Half the side, or ``up`` twice: by the filter of the file, each channel for itself."""

    kernel: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        line = torch.tensor(_TAPS) / sum(_TAPS) * (2 if up else 1)
        self.up = up
        self.register_buffer("kernel", line[:, None] * line)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        taps = self.kernel.to(x.dtype).expand(c, 1, 4, 4)
        x = F.pad(x, (1, 1, 1, 1), "reflect")
        if self.up:
            return F.conv_transpose2d(x, taps, groups=c, stride=2, padding=3)
        return F.conv2d(x, taps, groups=c, stride=2)


class _Level(nn.Sequential):
    """Blocks and attentions of one level, and a filter before or after them."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, e) if isinstance(layer, _Block | _Attention) else layer(x)
        return x


def _stack(
    depth: int, c: int, middle: int, out: int, features: int, attend: bool
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for k in range(depth):
        made = middle if k < depth - 1 else out
        layers.append(_Block(c if k == 0 else middle, middle, made, features))
        if attend:
            layers.append(_Attention(made, features))
    return layers


class _Ways(nn.Module):
    """The levels down, and those up."""

    def __init__(self, down: Sequence[_Level], up: Sequence[_Level]) -> None:
        super().__init__()
        self.d_blocks, self.u_blocks = nn.ModuleList(down), nn.ModuleList(up)


class KDiffusionUNet(nn.Module):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels: of an image.
    widths, depths, attention: channels, blocks and whether there is attention, of each level.
    features: width of the embedding.
    patch: side of a patch.
    skipped: levels at the start that are not used.
    variance: whether it makes one more channel, which is cut.
    augmentations: numbers that told the network in training how an image was changed: 0 here.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        attention: Sequence[bool],
        features: int,
        patch: int = 1,
        skipped: int = 0,
        variance: bool = False,
        augmentations: int = 0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, object] = {
            "channels": channels,
            "widths": tuple(widths),
            "depths": tuple(depths),
            "attention": tuple(attention),
            "features": features,
            "patch": patch,
            "skipped": skipped,
            "variance": variance,
            "augmentations": augmentations,
        }
        self.patch, self.skipped, self.variance = patch, skipped, variance
        self.multiple = patch * 2 ** (len(widths) - 1 - skipped)
        self.timestep_embed = RandomFeatures(1, features)
        if augmentations:
            self.mapping_cond = nn.Linear(augmentations, features, bias=False)
        layers = nn.Linear(features, features), nn.GELU(), nn.Linear(features, features), nn.GELU()
        self.mapping = nn.Sequential(*layers)
        folded, first = channels * patch**2, widths[max(0, skipped - 1)]
        self.proj_in = nn.Conv2d(folded, first, 1)
        self.proj_out = nn.Conv2d(first, folded + variance, 1)
        down, up, last = [], [], len(widths) - 1
        for k, (width, depth, attend) in enumerate(zip(widths, depths, attention, strict=True)):
            before = widths[max(0, k - 1)]
            beside = width if k == last else 2 * width
            changes = k > skipped
            down.append(_Level(
                _Filter(up=False) if changes else nn.Identity(),
                *_stack(depth, before, width, width, features, attend),
            ))  # fmt: skip
            up.append(_Level(
                *_stack(depth, beside, width, before, features, attend),
                _Filter(up=True) if changes else nn.Identity(),
            ))  # fmt: skip
        self.u_net = _Ways(down, up[::-1])

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {}

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Raises ``ValueError`` for an image whose sides on the last level are less than 2."""
        if min(x.shape[-2:]) < 2 * self.multiple:
            raise ValueError(
                f"the network takes images of at least {2 * self.multiple} pixels a side, "
                f"got {x.shape[-2]}x{x.shape[-1]}"
            )
        c = c.to(next(self.parameters()).dtype)
        e = self.mapping(self.timestep_embed(c[:, None]))
        h = self.proj_in(F.pixel_unshuffle(x, self.patch))
        made: list[Tensor] = []
        for level in self.u_net.d_blocks[self.skipped :]:
            h = level(h, e)
            made.append(h)
        for k, level in enumerate(self.u_net.u_blocks[: len(made)]):
            h = level(torch.cat([h, made[-1 - k]], 1) if k else h, e)
        out = self.proj_out(h)
        return F.pixel_shuffle(out[:, :-1] if self.variance else out, self.patch)
