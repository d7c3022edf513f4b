"""Products of several vectors with a denoiser's transposed Jacobian, in one pass through its
graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.linalg import Map


@dataclass(frozen=True)
class Together:
    """A map u -> J^T u of ``Prior.linearize`` that also takes K of them at once.

    one: (B, *E) -> (B, *E). many: (K, B, *E) -> (K, B, *E).
    """

    one: Map
    many: Map

    def __call__(self, u: Tensor) -> Tensor:
        return self.one(u)


def pulled_together(pull: Map, u: Tensor) -> Tensor:
    """J^T u_k for each of u (K, B, *E): one pass where ``pull`` is ``Together``, else K."""
    if isinstance(pull, Together) and len(u) > 1:
        return pull.many(u)
    return torch.stack([pull(one) for one in u])


def through_graph(x0: Tensor, x: Tensor) -> Together:
    """u -> (dx0/dx)^T u by the graph that leads from x to x0, which it keeps."""

    def one(u: Tensor) -> Tensor:
        return torch.autograd.grad(x0, x, u, retain_graph=True)[0]

    def many(u: Tensor) -> Tensor:
        try:
            return torch.autograd.grad(x0, x, u, retain_graph=True, is_grads_batched=True)[0]
        except RuntimeError:  # a node of the graph that knows no batch of gradients
            return torch.stack([one(v) for v in u])

    return Together(one, many)
