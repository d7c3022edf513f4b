"""MONAI's DiffusionModelUNet on pictures, without cross-attention.

    F(x, t, y) : (B, C, H, W), (B,), (B,) -> (B, C, H, W)

    e        = mlp(cos and sin features of t) + embedding of the class y, if there are classes
    block    = skip(x) + conv(silu(n(conv(silu(n(x))) + a(silu(e))))),   n a group norm
    attend   = x + out(softmax(q k^T / sqrt(d)) v),   q, k, v linear in n(x), several heads

Each level has its number of blocks on the way down and one more on the way up, each of which is
given what the block opposite made. Between levels a convolution of stride 2 halves the side and one
after nearest neighbours doubles it, or a residual block does both by means and nearest neighbours.

Names are those of its files. Groups and epsilon of the norms, and the channels of a head, are in no
file. Reference: Pinaya, Tudosiu, Dafflon, Da Costa, Fernandez, Nachev, Ourselin, Cardoso, Brain
imaging generation with latent diffusion models, 2022; MONAI 1.6.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.priors.architectures.adm import embedding_of

_EPS = 1e-6


def convolution(channels: int, out: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution under the name that files have it by."""
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(channels, out, side, stride, side // 2))
    return layers


class Pooled(nn.Module):
    """Half the side, by a convolution of stride 2 named ``op``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = convolution(channels, channels, stride=2)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.op(x)


class Doubled(nn.Module):
    """Twice the side: nearest neighbours, then a convolution named ``postconv``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.postconv = convolution(channels, channels)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return self.postconv(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResnetBlock(nn.Module):
    """The block above. scale: of the side, 1/2, 1 or 2, of both branches."""

    def __init__(
        self, channels: int, out: int, embedding: int, groups: int, scale: float = 1
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, _EPS)
        self.conv1 = convolution(channels, out)
        self.time_emb_proj = nn.Linear(embedding, out)
        self.norm2 = nn.GroupNorm(groups, out, _EPS)
        self.conv2 = convolution(out, out)
        self.skip_connection = nn.Identity() if channels == out else convolution(channels, out, 1)
        self.scale = scale

    def _scaled(self, x: Tensor) -> Tensor:
        if self.scale < 1:
            return F.avg_pool2d(x, 2)
        return x if self.scale == 1 else F.interpolate(x, scale_factor=2, mode="nearest")

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv1(self._scaled(F.silu(self.norm1(x))))
        h = self.norm2(h + self.time_emb_proj(F.silu(e))[:, :, None, None])
        return self.skip_connection(self._scaled(x)) + self.conv2(F.silu(h))


class Heads(nn.Module):
    """Every pixel (B, P, C) looks at every other. combined: one layer for q, k and v. out: whether
    a linear layer follows."""

    def __init__(self, channels: int, heads: int, combined: bool, out: bool) -> None:
        super().__init__()
        if combined:
            self.qkv = nn.Linear(channels, 3 * channels)
        else:
            self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.out_proj = nn.Linear(channels, channels) if out else nn.Identity()
        self.heads, self.combined = heads, combined

    def forward(self, x: Tensor) -> Tensor:
        three = (
            self.qkv(x).chunk(3, -1)
            if self.combined
            else (self.to_q(x), self.to_k(x), self.to_v(x))
        )
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in three)
        seen = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class _Attention(nn.Module):
    def __init__(self, channels: int, groups: int, heads: int, combined: bool, out: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, _EPS)
        self.attn = Heads(channels, heads, combined, out)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attn(flat).transpose(1, 2).reshape(x.shape)


class _Level(nn.Module):
    """Blocks of one level, attentions after them where there are any, and a resampling under its
    name in the file."""

    def __init__(self, blocks: Sequence[nn.Module], attentions: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(blocks)
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.attended = bool(attentions)
        self.resampled = ""

    def resampling(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.resampled = name

    def forward(self, h: Tensor, e: Tensor, beside: list[Tensor]) -> list[Tensor]:
        """What each part makes. beside: of blocks opposite, one more is taken from its end for each
        block; empty on the way down."""
        made = []
        for k, block in enumerate(self.resnets):
            h = block(torch.cat([h, beside.pop()], 1) if beside else h, e)
            h = self.attentions[k](h) if self.attended else h
            made.append(h)
        if self.resampled:
            made.append(self.get_submodule(self.resampled)(h, e))
        return made


class Middle(nn.Module):
    def __init__(self, first: nn.Module, attention: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.resnet_1, self.attention, self.resnet_2 = first, attention, second

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return self.resnet_2(self.attention(self.resnet_1(h, e)), e)


class MonaiUNet(nn.Module):
    """See the module. channels, out_channels: of images and of what is predicted. widths, blocks,
    attention: of each level. head_channels: of each attention head. groups: of the norms.
    residual_resampling: whether residual blocks resample. combined, projected: one layer makes q, k
    and v; a layer follows the attention. classes: None without. ``arguments`` is what this one was
    made with.

    Raises ``ValueError`` where groups or heads do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        attention: Sequence[bool],
        head_channels: int,
        groups: int = 32,
        residual_resampling: bool = False,
        combined: bool = False,
        projected: bool = True,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        attending = [w for w, a in zip(widths, attention, strict=True) if a] + [widths[-1]]
        _check(widths, attending, head_channels, groups)
        self.arguments: dict[str, object] = {
            "channels": channels,
            "out_channels": out_channels,
            "widths": tuple(widths),
            "blocks": tuple(blocks),
            "attention": tuple(attention),
            "head_channels": head_channels,
            "groups": groups,
            "residual_resampling": residual_resampling,
            "combined": combined,
            "projected": projected,
            "classes": classes,
        }
        self.channels, self.classes, self.width = channels, classes, widths[0]
        self.multiple = 2 ** (len(widths) - 1)
        e, last = 4 * widths[0], len(widths) - 1

        def resnet(c: int, out: int, scale: float = 1) -> ResnetBlock:
            return ResnetBlock(c, out, e, groups, scale)

        def attend(c: int) -> _Attention:
            return _Attention(c, groups, c // head_channels, combined, projected)

        self.conv_in = convolution(channels, widths[0])
        self.time_embed = nn.Sequential(nn.Linear(widths[0], e), nn.SiLU(), nn.Linear(e, e))
        if classes is not None:
            self.class_embedding = nn.Embedding(classes, e)
        self.down_blocks = nn.ModuleList()
        c, made = widths[0], [widths[0]]
        for k, out in enumerate(widths):
            into = [c, *[out] * (blocks[k] - 1)]
            level = _Level(
                [resnet(i, out) for i in into], [attend(out) for _ in into if attention[k]]
            )
            c, made = out, made + [out] * blocks[k]
            if k < last:
                level.resampling(
                    "downsampler", resnet(c, c, 0.5) if residual_resampling else Pooled(c)
                )
                made.append(c)
            self.down_blocks.append(level)
        self.middle_block = Middle(resnet(c, c), attend(c), resnet(c, c))
        self.up_blocks = nn.ModuleList()
        for k, out in reversed(list(enumerate(widths))):
            count = blocks[k] + 1
            into = [before + made.pop() for before in [c, *[out] * (count - 1)]]
            level = _Level(
                [resnet(i, out) for i in into], [attend(out) for _ in into if attention[k]]
            )
            c = out
            if k:
                level.resampling(
                    "upsampler", resnet(c, c, 2) if residual_resampling else Doubled(c)
                )
            self.up_blocks.append(level)
        final = nn.GroupNorm(groups, c, _EPS), nn.SiLU(), convolution(c, out_channels)
        self.out = nn.Sequential(*final)

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {} if self.classes is None else {"y": ()}

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        classes = None if self.classes is None else self.class_embedding
        e = embedding_of(t, self.width, self.time_embed, classes, y)
        made = [self.conv_in(x)]
        for level in self.down_blocks:
            made += level(made[-1], e, [])
        h = self.middle_block(made[-1], e)
        for level in self.up_blocks:
            h = level(h, e, made)[-1]
        return self.out(h)


def _check(widths: Sequence[int], attending: Sequence[int], head: int, groups: int) -> None:
    uneven = [w for w in widths if w % groups]
    if uneven:
        raise ValueError(
            f"a MONAI network of {', '.join(map(str, widths))} channels has norms of other than "
            f"{groups} groups, which its file does not tell: build it with MONAI and wrap it in "
            "Network(net, parametrization='eps', schedule=...)"
        )
    uneven = [w for w in attending if w % head]
    if uneven:
        raise ValueError(
            f"head_channels: {head} does not divide the {uneven[0]} channels of an attention"
        )
