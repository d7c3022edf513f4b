"""The ADM network: the U-Net of guided-diffusion, and of improved-diffusion before it.

    F(x, t, y) : (B, C, H, W), (B,), (B,) -> (B, C or 2 C, H, W)

    e        = mlp(cos and sin features of t) + embedding of the class y, if there are classes
    block    = skip(x) + out(n(in(x)), e),   n a group norm of 32 groups
               scaled:    out = conv(silu((1 + a(e)) n(h) + b(e)))
               otherwise: out = conv(silu(n(h + a(e))))
    attend   = x + proj(softmax(q^T k / sqrt(d)) v),   q, k, v from n(x), several heads

Levels halve the side. On the way down each level has ``blocks`` blocks, on the way up one more,
and each of those is given what the block opposite made. Between levels a residual block resamples
(means of 2 x 2 going down, nearest neighbour going up), or a convolution does.

A file says nothing of the number of heads, nor in which order the convolution before an attention
has its channels: "legacy" has q, k, v of one head after another, the newer order q of all heads
first.

Reference: Dhariwal and Nichol, Diffusion models beat GANs on image synthesis, 2021, section 3;
Nichol and Dhariwal, Improved denoising diffusion probabilistic models, 2021, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 32


def timestep_features(t: Tensor, width: int) -> Tensor:
    """cos and sin of t at width / 2 frequencies from 1 to 1 / 10000: (B,) -> (B, width)."""
    half = width // 2
    count = torch.arange(half, dtype=t.dtype, device=t.device)
    phase = t[:, None] * torch.exp(-math.log(10_000) * count / half)
    return F.pad(torch.cat([phase.cos(), phase.sin()], 1), (0, width % 2))


def embedding_of(
    t: Tensor, width: int, time_embed: nn.Module, classes: nn.Embedding | None, y: Tensor | None
) -> Tensor:
    """What every block is told: the time t (B,), and the class y (B,) or () where there are
    classes. Raises ``ValueError`` where there are and y is None."""
    kind = next(time_embed.parameters()).dtype
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    e: Tensor = time_embed(timestep_features(t, width).to(kind))
    return e if classes is None else e + classes(class_given(y, classes.num_embeddings))


def class_given(y: Tensor | None, classes: int, name: str = "y") -> Tensor:
    """y. Raises ``ValueError`` where a network of ``classes`` is given none; ``name`` is y's in
    ``prior.at``."""
    if y is None:
        raise ValueError(
            f"this network is conditioned on one of {classes} classes: "
            f"give it by prior.at({name}=torch.tensor(CLASS))"
        )
    return y


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels)


def conv(channels: int, out: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, side, stride, side // 2)


class Shrink(nn.Module):
    """Half the side: by a convolution of stride 2, or by means."""

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        if learned:
            self.op = conv(channels, channels, stride=2)
        self.learned = learned

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x) if self.learned else F.avg_pool2d(x, 2)


class Grow(nn.Module):
    """Twice the side: nearest neighbour, then a convolution where it is learned."""

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        if learned:
            self.conv = conv(channels, channels)
        self.learned = learned

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        return self.conv(x) if self.learned else x


class Residual(nn.Module):
    """The block above. resample: Shrink or Grow, of both its branches."""

    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        scaled: bool,
        resample: Shrink | Grow | None = None,
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(norm(channels), nn.SiLU(), conv(channels, out))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out * (1 + scaled)))
        # The third layer drops features in training; it stands here for the names of the file.
        self.out_layers = nn.Sequential(norm(out), nn.SiLU(), nn.Identity(), conv(out, out))
        self.skip_connection = nn.Identity() if channels == out else conv(channels, out, 1)
        self.scaled = scaled
        self.resample = resample

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        normed, silu, convolve = self.in_layers
        h = silu(normed(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = convolve(h)
        shift = self.emb_layers(e)[:, :, None, None]
        if self.scaled:
            scale, shift = shift.chunk(2, dim=1)
            h = torch.addcmul(shift, self.out_layers[0](h), 1 + scale)
            h = self.out_layers[3](self.out_layers[1](h))
        else:
            h = self.out_layers(h + shift)
        return self.skip_connection(x) + h


class _Attention(nn.Module):
    """Every pixel looks at every other."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self.heads, self.new_order = heads, new_order

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        b, c, height, width = x.shape
        pixels = x.reshape(b, c, height * width)
        qkv = self.qkv(self.norm(pixels))
        if self.new_order:
            q, k, v = qkv.reshape(b, 3, self.heads, -1, height * width).unbind(1)
        else:
            q, k, v = qkv.reshape(b, self.heads, 3, -1, height * width).unbind(2)
        root = q.shape[2] ** -0.25  # half of the scale on each side, which half precision bears
        weight = (q * root).mT @ (k * root)
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32)).softmax(-1)
        out = (v @ weight.to(v).mT).reshape(b, c, height * width)
        return (pixels + self.proj_out(out)).reshape(x.shape)


class Stage(nn.Sequential):
    """Layers one after another; residual blocks and attentions are given the embedding."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, e) if isinstance(layer, Residual | _Attention) else layer(x)
        return x


class ADM(nn.Module):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels: image channels going in.
    out_channels: the same, or twice as many where the network predicts a variance.
    width: channels of the first level; ``multipliers`` times that at each level.
    blocks: residual blocks of a level.
    attention: the factors by which the side is divided at the levels with attention.
    heads: of each attention; or head_channels, channels of each head. One of the two.
    scaled: whether the embedding scales as well as shifts.
    residual_resampling: whether residual blocks change the side.
    learned_resampling: whether convolutions do otherwise.
    classes: number of classes that it is conditioned on; None without.
    new_order: the order of an attention's channels, see above.
    """

    def __init__(
        self,
        channels: int = 3,
        out_channels: int = 6,
        width: int = 128,
        multipliers: Sequence[float] = (1, 1, 2, 2, 4, 4),
        blocks: int = 1,
        attention: Sequence[int] = (16,),
        heads: int | None = None,
        head_channels: int | None = None,
        scaled: bool = True,
        residual_resampling: bool = True,
        learned_resampling: bool = True,
        classes: int | None = None,
        new_order: bool = False,
    ) -> None:
        super().__init__()
        if (heads is None) == (head_channels is None):
            raise ValueError(f"ADM: give one of heads and head_channels, got {heads=}, "
                             f"{head_channels=}")  # fmt: skip
        self.arguments: dict[str, object] = {
            "channels": channels,
            "out_channels": out_channels,
            "width": width,
            "multipliers": tuple(multipliers),
            "blocks": blocks,
            "attention": tuple(attention),
            "heads": heads,
            "head_channels": head_channels,
            "scaled": scaled,
            "residual_resampling": residual_resampling,
            "learned_resampling": learned_resampling,
            "classes": classes,
            "new_order": new_order,
        }
        self.multiple = 2 ** (len(multipliers) - 1)
        self.width, self.classes = width, classes
        e = 4 * width
        self.time_embed = nn.Sequential(nn.Linear(width, e), nn.SiLU(), nn.Linear(e, e))
        if classes is not None:
            self.label_emb = nn.Embedding(classes, e)

        def attend(c: int) -> _Attention:
            count = heads if head_channels is None else c // head_channels
            if not count or c % count or (head_channels and c % head_channels):
                raise ValueError(f"ADM: {c} channels do not divide into {heads=}, {head_channels=}")
            return _Attention(c, count, new_order)

        def stage(c: int, out: int, level: int) -> Stage:
            layers: list[nn.Module] = [Residual(c, out, e, scaled)]
            return Stage(*layers, *([attend(out)] if 2**level in attention else []))

        def resample(c: int, kind: type[Shrink] | type[Grow]) -> nn.Module:
            if residual_resampling:
                return Residual(c, c, e, scaled, kind(c, learned=False))
            return kind(c, learned_resampling)

        widths = [int(m * width) for m in multipliers]
        c, last = widths[0], len(widths) - 1
        self.input_blocks = nn.ModuleList([Stage(conv(channels, c))])
        made = [c]
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.input_blocks.append(stage(c, out, level))
                c = out
                made.append(c)
            if level < last:
                self.input_blocks.append(Stage(resample(c, Shrink)))
                made.append(c)
        self.middle_block = Stage(Residual(c, c, e, scaled), attend(c), Residual(c, c, e, scaled))
        self.output_blocks = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for k in range(blocks + 1):
                layers = stage(c + made.pop(), out, level)
                c = out
                if level and k == blocks:
                    layers.append(resample(c, Grow))
                self.output_blocks.append(layers)
        self.out = nn.Sequential(norm(c), nn.SiLU(), conv(c, out_channels))

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {} if self.classes is None else {"y": ()}

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        classes = None if self.classes is None else self.label_emb
        e = embedding_of(t, self.width, self.time_embed, classes, y)
        h, made = x, []
        for stage in self.input_blocks:
            h = stage(h, e)
            made.append(h)
        h = self.middle_block(h, e)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, made.pop()], 1), e)
        return self.out(h)
