"""The networks of EDM: DDPM++ and NCSN++ as ``SongUNet``, ADM as ``DhariwalUNet``.

    F(x, c, y) : (B, C, H, W), (B,), (B,) -> (B, C, H, W)

Both have one list of blocks down and one up, named by the side that they work at, and a block as
ADM's (``posteriori.priors.architectures.adm``). Those of Song et al. add the embedding of c before
the second norm, scale every sum by sqrt(1/2), resample by a filter of their own, and have one head;
with ``encoder="residual"`` the image is shrunk beside the network and added at each level (NCSN++),
with ``decoder="skip"`` each level adds an image of its own. Those of Dhariwal and Nichol scale as
well as shift by the embedding, and have 64 channels a head.

Reference: Karras, Aittala, Aila, Laine, Elucidating the design space of diffusion-based generative
models, 2022, appendix F.2; Song et al., Score-based generative modeling through stochastic
differential equations, 2021, appendix H.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEAD = 64  # channels of a head of DhariwalUNet


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Groups of at least 4 channels, at most 32 groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


class Conv(nn.Module):
    """A convolution after growing or shrinking by a filter; without a kernel only that.

    together: the filter follows the convolution when shrinking, which saves padding twice.
    """

    weight: Tensor | None
    resample_filter: Tensor | None

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        resample: Literal["up", "down"] | None = None,
        taps: Sequence[float] = (1, 1),
        together: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels, self.resample, self.together = out, resample, together
        if kernel:
            self.weight = nn.Parameter(torch.zeros(out, channels, kernel, kernel))
            self.bias = nn.Parameter(torch.zeros(out))
        else:
            self.weight = None
        line = torch.tensor(taps, dtype=torch.float32)
        square = line[:, None] * line / line.sum() ** 2
        self.register_buffer("resample_filter", square[None, None] if resample else None)

    def forward(self, x: Tensor) -> Tensor:
        pad = 0 if self.weight is None else self.weight.shape[-1] // 2
        after = self.together and self.resample == "down"
        if self.resample_filter is not None and not after:
            x = self._filtered(x)
        if self.weight is not None:
            beyond = 0 if not after else self._overlap
            x = F.conv2d(x, self.weight, self.bias, padding=pad + beyond)
        return self._filtered(x, inside=True) if after else x

    @property
    def _overlap(self) -> int:
        assert self.resample_filter is not None
        return (self.resample_filter.shape[-1] - 1) // 2

    def _filtered(self, x: Tensor, *, inside: bool = False) -> Tensor:
        """x at half or twice its side. inside: x has its border already."""
        assert self.resample_filter is not None
        c, pad = x.shape[1], 0 if inside else self._overlap
        taps = self.resample_filter.to(x.dtype).expand(c, 1, -1, -1)
        if self.resample == "up":
            return F.conv_transpose2d(x, 4 * taps, groups=c, stride=2, padding=pad)
        return F.conv2d(x, taps, groups=c, stride=2, padding=pad)


class EDMBlock(nn.Module):
    """A residual block, then an attention of ``heads`` heads where there are some."""

    def __init__(
        self,
        channels: int,
        out: int,
        embedding: int,
        song: bool,
        heads: int = 0,
        resample: Literal["up", "down"] | None = None,
        taps: Sequence[float] = (1, 1),
    ) -> None:
        super().__init__()
        eps = 1e-6 if song else 1e-5
        self.in_channels, self.out_channels = channels, out
        self.song, self.heads = song, heads
        self.norm0 = group_norm(channels, eps)
        self.conv0 = Conv(channels, out, 3, resample, taps)
        self.affine = nn.Linear(embedding, out if song else 2 * out)
        self.norm1 = group_norm(out, eps)
        self.conv1 = Conv(out, out, 3)
        self.skip = None
        if out != channels or resample:
            kernel = 1 if song or out != channels else 0
            self.skip = Conv(channels, out, kernel, resample, taps)
        if heads:
            self.norm2 = group_norm(out, eps)
            self.qkv = Conv(out, 3 * out, 1)
            self.proj = Conv(out, out, 1)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        shift = self.affine(e)[:, :, None, None]
        if self.song:
            h = self.norm1(h + shift)
        else:
            scale, shift = shift.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        x = self.conv1(F.silu(h)) + (x if self.skip is None else self.skip(x))
        share = math.sqrt(0.5) if self.song else 1.0
        x = x * share
        return (self.attend(x) + x) * share if self.heads else x

    def attend(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm2(x)).reshape(b, self.heads, c // self.heads, 3, height * width)
        q, k, v = qkv.unbind(3)
        weight = q.mT @ (k / math.sqrt(k.shape[2]))
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32)).softmax(-1).to(v)
        return self.proj((v @ weight.mT).reshape(x.shape))


class Features(nn.Module):
    """cos and sin of the label at ``width`` / 2 frequencies: from 1 down to 1 / 10000, reached by
    the last one or one behind it, or those that a file brings (``random``)."""

    freqs: Tensor

    def __init__(self, width: int, last: bool, random: bool = False) -> None:
        super().__init__()
        half = width // 2
        powers = torch.arange(half) / (half - last)
        self.random = random
        self.register_buffer(
            "freqs", torch.zeros(half) if random else 1e-4**powers, persistent=random
        )

    def forward(self, c: Tensor) -> Tensor:
        # Read anew for the precision of c: a network in double precision has them in double.
        freqs = self.freqs.to(c.dtype) * (2 * math.pi if self.random else 1)
        phase = c[:, None] * freqs
        return torch.cat([phase.cos(), phase.sin()], 1)


class EDMNet(nn.Module):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    kind: "song" or "dhariwal".
    side: of the images that it was trained on; it names the blocks.
    channels: of an image; out_channels where it returns more.
    width: channels of the first convolution; ``multipliers`` times that at each level.
    blocks: residual blocks of a level going down; going up there is one more.
    attention: sides at which there is attention.
    embedding: width of the embedding.
    features: width of the features of c, of a "song" network.
    random_features: they are of random frequencies.
    encoder, decoder: of a "song" network, see the module.
    taps: the filter of its resampling.
    classes: number of classes; None without.
    ve: it is told ln(sigma) and takes ln(sigma / 2), and returns minus what its output says, as
        networks trained in VE coordinates do.
    augmentations: numbers that told the network in training how an image was changed: 0 here.
    """

    def __init__(
        self,
        kind: Literal["song", "dhariwal"],
        side: int,
        channels: int,
        out_channels: int,
        width: int,
        multipliers: Sequence[float],
        blocks: int,
        attention: Sequence[int],
        embedding: int,
        features: int,
        random_features: bool = False,
        encoder: Literal["standard", "skip", "residual"] = "standard",
        decoder: Literal["standard", "skip"] = "standard",
        taps: Sequence[float] = (1, 1),
        classes: int | None = None,
        augmentations: int = 0,
        ve: bool = False,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, object] = {
            "kind": kind,
            "side": side,
            "channels": channels,
            "out_channels": out_channels,
            "width": width,
            "multipliers": tuple(multipliers),
            "blocks": blocks,
            "attention": tuple(attention),
            "embedding": embedding,
            "features": features,
            "random_features": random_features,
            "encoder": encoder,
            "decoder": decoder,
            "taps": tuple(taps),
            "classes": classes,
            "augmentations": augmentations,
            "ve": ve,
        }
        self.song, self.classes, self.ve = kind == "song", classes, ve
        self.multiple = 2 ** (len(multipliers) - 1)
        self.map_noise = Features(features, last=self.song, random=random_features)
        self.map_layer0 = nn.Linear(features, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        if classes is not None:
            self.map_label = nn.Linear(classes, features if self.song else embedding, self.song)
        if augmentations:
            self.map_augment = nn.Linear(augmentations, features, bias=False)

        self._inside = embedding, self.song, tuple(taps)
        widths = [int(m * width) for m in multipliers]
        first = width if self.song else widths[0]
        sides = [side >> level for level in range(len(widths))]
        attend = [s in attention for s in sides]
        self.enc = nn.ModuleDict({f"{side}x{side}_conv": Conv(channels, first, 3)})
        made = self._way_down(first, widths, sides, attend, blocks, encoder, channels)
        self.dec = nn.ModuleDict()
        self._way_up(widths, sides, attend, blocks, decoder, out_channels, made)
        if not self.song:
            self.out_norm = group_norm(widths[0], 1e-5)
            self.out_conv = Conv(widths[0], out_channels, 3)

    def _block(
        self, c: int, out: int, attend: bool = False, resample: Literal["up", "down"] | None = None
    ) -> EDMBlock:
        embedding, song, taps = self._inside
        heads = (1 if song else max(1, out // _HEAD)) if attend else 0
        return EDMBlock(c, out, embedding, song, heads, resample, taps)

    def _way_down(
        self,
        c: int,
        widths: Sequence[int],
        sides: Sequence[int],
        attend: Sequence[bool],
        blocks: int,
        encoder: str,
        channels: int,
    ) -> list[int]:
        """Fill ``enc``, from c channels on; the channels of what each of its blocks makes."""
        made, aux, taps = [c], channels, self._inside[2]
        for level, (out, side) in enumerate(zip(widths, sides, strict=True)):
            at = f"{side}x{side}"
            if level:
                self.enc[f"{at}_down"] = self._block(c, c, resample="down")
                made.append(c)
                if encoder == "skip":
                    self.enc[f"{at}_aux_down"] = Conv(aux, aux, 0, "down", taps)
                    self.enc[f"{at}_aux_skip"] = Conv(aux, c, 1)
                elif encoder == "residual":
                    self.enc[f"{at}_aux_residual"] = Conv(aux, c, 3, "down", taps, together=True)
                    aux = c
            for k in range(blocks):
                self.enc[f"{at}_block{k}"] = self._block(c, out, attend[level])
                c = out
                made.append(c)
        return made

    def _way_up(
        self,
        widths: Sequence[int],
        sides: Sequence[int],
        attend: Sequence[bool],
        blocks: int,
        decoder: str,
        out_channels: int,
        made: list[int],
    ) -> None:
        """Fill ``dec``; ``made`` is used up."""
        c, last = made[-1], len(widths) - 1
        for level in reversed(range(len(widths))):
            at, out = f"{sides[level]}x{sides[level]}", widths[level]
            if level == last:
                self.dec[f"{at}_in0"] = self._block(c, c, attend=True)
                self.dec[f"{at}_in1"] = self._block(c, c)
            else:
                self.dec[f"{at}_up"] = self._block(c, c, resample="up")
            for k in range(blocks + 1):
                looks = attend[level] and (k == blocks or not self.song)
                self.dec[f"{at}_block{k}"] = self._block(c + made.pop(), out, looks)
                c = out
            if self.song and (decoder == "skip" or level == 0):
                if decoder == "skip" and level < last:
                    self.dec[f"{at}_aux_up"] = Conv(
                        out_channels, out_channels, 0, "up", self._inside[2]
                    )
                self.dec[f"{at}_aux_norm"] = group_norm(c, 1e-6)
                self.dec[f"{at}_aux_conv"] = Conv(c, out_channels, 3)

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {} if self.classes is None else {"y": ()}

    def embed(self, c: Tensor, y: Tensor | None) -> Tensor:
        e = self.map_noise(c)
        told = None
        if self.classes is not None and y is not None:  # no class is a row of zeros
            told = self.map_label.weight.T[y]
        if self.song:
            e = torch.cat(list(reversed(e.chunk(2, dim=1))), 1)
            if self.classes is not None:
                e = e + self.map_label.bias
            if told is not None:
                e = e + told * math.sqrt(self.classes or 0)
            return F.silu(self.map_layer1(F.silu(self.map_layer0(e))))
        e = self.map_layer1(F.silu(self.map_layer0(e)))
        return F.silu(e if told is None else e + told)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        c = c.to(next(self.parameters()).dtype)
        e = self.embed(c - math.log(2) if self.ve else c, y)
        made: list[Tensor] = []
        beside = x
        for name, layer in self.enc.items():
            if "aux_down" in name:
                beside = layer(beside)
            elif "aux_skip" in name:
                x = made[-1] = x + layer(beside)
            elif "aux_residual" in name:
                x = made[-1] = beside = (x + layer(beside)) / math.sqrt(2)
            else:
                x = layer(x, e) if isinstance(layer, EDMBlock) else layer(x)
                made.append(x)
        image: Tensor | None = None
        last = x
        for name, layer in self.dec.items():
            if "aux_up" in name:
                image = layer(image)
            elif "aux_norm" in name:
                last = F.silu(layer(x))
            elif "aux_conv" in name:
                image = layer(last) if image is None else layer(last) + image
            else:
                assert isinstance(layer, EDMBlock)
                if x.shape[1] != layer.in_channels:
                    x = torch.cat([x, made.pop()], 1)
                x = layer(x, e)
        if image is None:
            image = self.out_conv(F.silu(self.out_norm(x)))
        return -image if self.ve else image
