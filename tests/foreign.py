"""Networks of other people's files at formula-filled weights: what their own code returns for them
is kept in the tests, to a few digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def wave(shape, start: float) -> Tensor:
    """sin(0.37 k + start) at the k-th number."""
    count = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64)
    return torch.sin(0.37 * count + start).reshape(shape).float()


def fill(net: nn.Module) -> nn.Module:
    """Weights that depend on names and shapes alone: gains about 1, matrices about fan-in^-1/2."""
    for k, (name, p) in enumerate(sorted(net.named_parameters())):
        size = p[0].numel() if p.ndim > 1 else 1
        gain = p.ndim == 1 and name.endswith("weight")
        p.data = gain + wave(p.shape, k) * (0.2 if p.ndim < 2 else size**-0.5)
    return net.eval()


def fill_tokens(net: nn.Module) -> nn.Module:
    """``fill`` for networks of k-diffusion: gains about 1, squared lengths about 5, random
    frequencies by ``wave``."""
    fill(net)
    for name, p in net.named_parameters():
        if name.endswith("self_attn.scale"):
            p.data += 5
        elif name.endswith("scale"):
            p.data += 1
    for name, b in net.named_buffers():
        if name.endswith(("emb.weight", "embed.weight")):
            b.copy_(wave(b.shape, 0.3))
    return net
