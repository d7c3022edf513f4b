"""The transformer of k-diffusion without levels, its model type ``image_transformer_v1``.

    F(x, c, y) : (B, C, H, W), (B,), (B,) -> (B, C, H, W),    c = ln(sigma) / 4

    attend   = x + out(softmax(q k^T / sqrt(d)) v),   q, k, v linear in n(x, e), q and k scaled to
               an rms of exp(s / 2) d^(-1/4), s <= ln(100) learned for each head, and turned by the
               token's place at learned frequencies

Norms, hidden layers and what it is told are those of ``posteriori.priors.architectures.tokens``.
Names are those of its files. Reference: Crowson, k-diffusion, 2022,
k_diffusion/models/image_transformer_v1.py of 0.1.1.post1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.priors.architectures.tokens import (
    ConditionNorm,
    GainNorm,
    Hidden,
    TokenNetwork,
    rms_scaled,
    rotated,
    token_places,
)

_LARGEST = math.log(100)


class _Length(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((heads,), math.log(10)))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, heads, L, d) at its rms. The original lowers its parameter when it is run."""
        level = self.scale.clamp(max=_LARGEST) / 2 - math.log(x.shape[-1]) / 4
        return rms_scaled(x, level.exp()[:, None, None])


class _Frequencies(nn.Module):
    """The angles of tokens at their places (L, 2): (heads, L, 2 freqs). Files have logarithms."""

    def __init__(self, heads: int, count: int) -> None:
        super().__init__()
        line = torch.linspace(math.log(math.pi), math.log(5 * math.pi), count).repeat(heads, 1)
        self.freqs_h = nn.Parameter(line)
        self.freqs_w = nn.Parameter(line.clone())

    def forward(self, place: Tensor) -> Tensor:
        down = place[:, :1] * self.freqs_h.exp()[:, None]
        return torch.cat([down, place[:, 1:] * self.freqs_w.exp()[:, None]], -1)


class _Looking(nn.Module):
    """The attention above on tokens (B, L, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = ConditionNorm(width, width)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.qk_norm = _Length(heads)
        self.pos_emb = _Frequencies(heads, width // heads // 4)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, e: Tensor, place: Tensor) -> Tensor:
        qkv = self.qkv_proj(self.norm(x, e)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, L, d)
        angle = self.pos_emb(place)
        # Pairs are neighbours here; q and k may have their numbers in another order alike.
        q, k = (
            rotated(torch.cat([t[..., ::2], t[..., 1::2]], -1), angle)
            for t in (self.qk_norm(q), self.qk_norm(k))
        )
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out_proj(seen.transpose(1, 2).flatten(2))


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.self_attn = _Looking(width, heads)
        self.ff = Hidden(width, hidden, width)

    def forward(self, x: Tensor, e: Tensor, place: Tensor) -> Tensor:
        return self.ff(self.self_attn(x, e, place), e)


class ImageTransformer(TokenNetwork):
    """The network F above; ``arguments`` is what this one was made with.

    Parameters
    ----------
    channels: of an image.
    patch: side of a patch, which is a token.
    width, hidden: channels of a token and of a hidden layer.
    layers: how many.
    heads: of an attention.
    depth: layers of the mapping.
    classes, dropped: as for ``TokenNetwork``.
    """

    def __init__(
        self,
        channels: int,
        patch: int,
        width: int,
        hidden: int,
        layers: int,
        heads: int,
        depth: int = 2,
        classes: int | None = None,
        dropped: bool = True,
    ) -> None:
        super().__init__(width, hidden, depth, classes, dropped)
        self.arguments: dict[str, object] = {
            "channels": channels,
            "patch": patch,
            "width": width,
            "hidden": hidden,
            "layers": layers,
            "heads": heads,
            "depth": depth,
            "classes": classes,
            "dropped": dropped,
        }
        self.patch = self.multiple = patch
        self.in_proj = nn.Linear(channels * patch**2, width, bias=False)
        self.blocks = nn.ModuleList(_Block(width, hidden, heads) for _ in range(layers))
        self.out_norm = GainNorm(width)
        self.out_proj = nn.Linear(width, channels * patch**2, bias=False)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        e = self.embed(c, y)
        folded = F.pixel_unshuffle(x, self.patch)
        h = self.in_proj(folded.flatten(2).mT)
        place = token_places(folded.shape[2], folded.shape[3], h).flatten(0, 1)
        for block in self.blocks:
            h = block(h, e, place)
        out = self.out_proj(self.out_norm(h))
        return F.pixel_shuffle(out.mT.unflatten(2, folded.shape[2:]), self.patch)
