"""What the two transformers of k-diffusion are made of: norms, hidden layers, places of tokens, and
what the network is told.

    e        = mapping(linear(cos and sin of c) + linear(those of no augmentation) + class y)
    n(x, e)  = x / rms(x) (1 + linear(e))                  rms over the channels of a token
    hidden   = x + down(a gelu(b)),                        a, b linear in n(x, e)

Names are those of its files. Reference: Crowson, k-diffusion, 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posteriori.priors.architectures.adm import class_given
from posteriori.priors.architectures.kdiffusion import RandomFeatures

_EPS = 1e-6
AUGMENTATIONS = 9  # numbers that told the network in training how an image was changed: 0 here


def rms_scaled(x: Tensor, gain: Tensor) -> Tensor:
    """gain x / rms(x) over the last axis, in single precision at least."""
    kind = torch.promote_types(x.dtype, torch.float32)
    mean = x.to(kind).square().mean(-1, keepdim=True)
    return x * (gain.to(kind) * (mean + _EPS).rsqrt()).to(x.dtype)


class GainNorm(nn.Module):
    """x / rms(x) times a learned gain for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_scaled(x, self.scale)


class ConditionNorm(nn.Module):
    """n(x, e) above; x (B, ..., width), e (B, features)."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width, bias=False)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        gain = 1 + self.linear(e)
        return rms_scaled(x, gain.view(len(x), *[1] * (x.ndim - 2), -1))


class Hidden(nn.Module):
    """The hidden layer above; of the mapping, whose norm is told nothing, without ``features``."""

    def __init__(self, width: int, hidden: int, features: int | None = None) -> None:
        super().__init__()
        self.norm = GainNorm(width) if features is None else ConditionNorm(width, features)
        self.up_proj = nn.Linear(width, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, *e: Tensor) -> Tensor:
        a, b = self.up_proj(self.norm(x, *e)).chunk(2, -1)
        return x + self.down_proj(a * F.gelu(b))


class _Mapping(nn.Module):
    def __init__(self, features: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.in_norm = GainNorm(features)
        self.blocks = nn.ModuleList(Hidden(features, hidden) for _ in range(depth))
        self.out_norm = GainNorm(features)

    def forward(self, e: Tensor) -> Tensor:
        e = self.in_norm(e)
        for block in self.blocks:
            e = block(e)
        return self.out_norm(e)


class TokenNetwork(nn.Module):
    """What a transformer of k-diffusion is told, as its embedding e: noise level and class. A base
    for the two, whose files have these parts on their first level of names.

    classes: that it was trained on, None without; the one after the last is no class.
    dropped: whether it was trained without a class at times, so that it knows images of any.
    """

    classes: int | None
    dropped: bool

    def __init__(
        self, features: int, hidden: int, depth: int, classes: int | None, dropped: bool
    ) -> None:
        super().__init__()
        self.classes, self.dropped = classes, dropped
        self.time_emb = RandomFeatures(1, features)
        self.time_in_proj = nn.Linear(features, features, bias=False)
        self.aug_emb = RandomFeatures(AUGMENTATIONS, features)
        self.aug_in_proj = nn.Linear(features, features, bias=False)
        if classes is not None:
            self.class_emb = nn.Embedding(classes + 1, features)
        self.mapping = _Mapping(features, hidden, depth)

    @property
    def conditions(self) -> dict[str, tuple[int | None, ...]]:
        """What the network takes beside image and label, as ``priors.Network`` asks for it."""
        return {} if self.classes is None else {"y": ()}

    def embed(self, c: Tensor, y: Tensor | None) -> Tensor:
        """e (B, features). Raises ``ValueError`` where a class is needed and none is given."""
        c = c.to(self.time_in_proj.weight.dtype)
        e = self.time_in_proj(self.time_emb(c[:, None]))
        e = e + self.aug_in_proj(self.aug_emb(c.new_zeros(len(c), AUGMENTATIONS)))
        if self.classes is not None:
            if y is None and self.dropped:
                y = torch.full((len(c),), self.classes, device=c.device)
            e = e + self.class_emb(class_given(y, self.classes))
        return self.mapping(e)


def token_places(height: int, width: int, like: Tensor) -> Tensor:
    """Row and column of each token, (height, width, 2): centres, the longer side from -1 to 1."""
    kind = torch.promote_types(like.dtype, torch.float32)

    def centres(count: int, other: int) -> Tensor:
        end = min(1.0, count / other)
        edges = torch.linspace(-end, end, count + 1, dtype=kind, device=like.device)
        return (edges[:-1] + edges[1:]) / 2

    rows, columns = centres(height, width), centres(width, height)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """The first numbers of x as pairs (k, k + n) turned by the n angles; the others as they are."""
    n, kind = angle.shape[-1], torch.promote_types(x.dtype, torch.float32)
    a, b, rest = x[..., :n].to(kind), x[..., n : 2 * n].to(kind), x[..., 2 * n :]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([(a * cos - b * sin).to(x.dtype), (b * cos + a * sin).to(x.dtype), rest], -1)
