"""Descent of a loss of the denoised image with respect to a leaf of the prior, such as the
embedding of a text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.transitions import adam
from posteriori.priors.base import Prior
from posteriori.priors.leaves import linearize_leaves


def leaf_of_each_row(post: Posterior, name: str, x: Tensor) -> Tensor:
    """The value of a leaf that may be any real numbers, once for each row of x: (B, *leaf)."""
    value = post.prior.know().adjustable()[name].to(x.device)
    return value.expand(len(x), *value.shape).clone()


def without_leaf(post: Posterior, name: str, method: str) -> str | None:
    """Why ``method`` has no leaf of this name to tune, in one sentence; None where there is one."""
    known = list(post.prior.know().adjustable())
    if name in known:
        return None
    few = ", ".join(known[:4]) + (", ..." if len(known) > 4 else "")
    return (
        f"{method}: the prior has no leaf {name!r} to tune (it has {few or 'none'}); condition it, "
        "as by prior.conditioned(text=...), or name another leaf"
    )


def descend_leaf(
    prior: Prior,
    x: Tensor,
    sigma: Tensor,
    name: str,
    value: Tensor,
    slope: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
) -> Tensor:
    """``value`` (B, *leaf) after so many steps of Adam down the gradient of a loss of D(x, sigma).

    slope: D -> the gradient of the loss with respect to D, row by row.
    """
    first, second = torch.zeros_like(value), torch.zeros_like(value)
    for k in range(steps):
        x0, pull = linearize_leaves(prior, x, sigma, **{name: value})
        g = pull(slope(x0))[name]
        direction, first, second = adam(g, first, second, k + 1)
        value = value - rate * direction
    return value
