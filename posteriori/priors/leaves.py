"""A prior at other parameters: a condition, the weights of an adapter, the means of a mixture, one
for all rows or one per row.

    prior.at(mean=m).denoise(x, sigma)                     D of the prior whose leaf ``mean`` is m
    x0, pull = linearize_at(prior, x, sigma, mean=m)       pull["mean"](u) = (dD/dm)^T u,
                                                           pull["x"](u) = (dD/dx)^T u

What may be given, and its shape, is ``prior.know().leaves()``. A leaf of that shape is that of
every row; one of shape (B, *shape) has a value for each row of a batch of B.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from posteriori.priors.anisotropic import WhiteOnly
from posteriori.priors.base import Prior, limits_of
from posteriori.priors.knowledge import Knowledge, Sides

if TYPE_CHECKING:
    from posteriori.priors.mixture import GaussianMixture

# Of more names than this only those near to a wrong one are listed.
LISTED = 12


def rows_of_leaves(prior: Prior, leaves: dict[str, Tensor]) -> dict[str, bool]:
    """Whether each leaf has a value per row. Raises ``ValueError`` for an unknown one, and for a
    shape that is neither."""
    known = prior.know().leaves()
    rows = {}
    for name, value in leaves.items():
        if name not in known:
            raise ValueError(
                f"{type(prior).__name__} has no leaf {name!r}; {_nearest(name, list(known))}"
            )
        if _fits(tuple(value.shape), known[name]):
            rows[name] = False
        elif value.ndim and _fits(tuple(value.shape[1:]), known[name]):
            rows[name] = True
        else:
            sides = ", ".join("any" if n is None else str(n) for n in known[name])
            raise ValueError(
                f"the leaf {name!r} of {type(prior).__name__} has the shape ({sides}), "
                f"or that with rows before it, got {tuple(value.shape)}"
            )
    counts = {name: len(leaves[name]) for name, own in rows.items() if own}
    if len(set(counts.values())) > 1:
        raise ValueError(f"leaves with a value per row are of one number of rows, got {counts}")
    return rows


def check_rows(what: str, held: int, x: Tensor) -> None:
    """Raise ``ValueError`` when a batch has not as many rows as a leaf has values."""
    if len(x) != held:
        raise ValueError(f"{what} holds leaves of {held} rows, the batch has {len(x)}")


class PriorAt(Prior):
    """``prior`` with other values of parameters and buffers; rows with values of their own are
    denoised one by one."""

    def __init__(self, prior: Prior, leaves: dict[str, Tensor]) -> None:
        super().__init__(prior.shape, range=prior.range, complex=prior.complex, **limits_of(prior))
        self.prior, self.own_precision = prior, prior.own_precision
        self.rows = rows_of_leaves(prior, leaves)
        for k, value in enumerate(leaves.values()):
            self.register_buffer(f"leaf{k}", value)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        given = self._leaves()
        if not any(self.rows.values()):
            return functional_call(self.prior, given, (x, sigma))
        held = next(len(given[name]) for name, own in self.rows.items() if own)
        check_rows(f"{type(self.prior).__name__}.at", held, x)
        return torch.cat([self._row(given, k).denoise(x[k : k + 1], sigma) for k in range(held)])

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.start(z, sigma)

    def know(self) -> Knowledge:
        """That of the prior at its own parameters, without a closed form; ``adjustable`` at these
        ones, without those of a value per row; its denoisers under white noise."""
        known = self.prior.know().without_closed_form()
        given = self._leaves()
        return replace(
            known,
            anisotropic=WhiteOnly(self),
            adjustable=lambda: {
                name: given.get(name, value).detach()
                for name, value in known.adjustable().items()
                if not self.rows.get(name, False)
            },
        )

    def at(self, /, **leaves: Tensor) -> Prior:
        return self.prior.at(**self._leaves() | leaves)

    def _leaves(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(f"leaf{k}") for k, name in enumerate(self.rows)}

    def _row(self, given: dict[str, Tensor], k: int) -> Prior:
        return self.prior.at(
            **{name: given[name][k] if own else given[name] for name, own in self.rows.items()}
        )


class MixtureAt(Prior):
    """A mixture at other weights (K,) or (B, K) and means (K, d) or (B, K, d), which may ask for
    gradients.

    Limits, errors and the covariance of ``start`` are those of the mixture itself.
    """

    weights: Tensor
    means: Tensor

    def __init__(self, mixture: GaussianMixture, weights: Tensor, means: Tensor) -> None:
        super().__init__(mixture.shape, range=mixture.range, complex=False, **limits_of(mixture))
        self.mixture = mixture
        self.register_buffer("weights", weights / weights.sum(-1, keepdim=True))
        self.register_buffer("means", means)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        for held in (
            self.weights if self.weights.ndim > 1 else None,
            self.means if self.means.ndim > 2 else None,
        ):
            if held is not None:
                check_rows("GaussianMixture.at", len(held), x)
        r, mu, _, _ = self.mixture._components(x.flatten(1), sigma, self.weights.log(), self.means)
        return torch.einsum("bk,bkd->bd", r, mu).view(x.shape)

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        moved = (self.weights[..., None] * self.means).sum(-2) - self.mixture.mean.flatten()
        return self.mixture.start(z, sigma) + moved.view(-1, *z.shape[1:])

    def know(self) -> Knowledge:
        free = {"means": self.means.detach()} if self.means.ndim == 2 else {}
        known = self.mixture.know().without_closed_form()
        return replace(known, anisotropic=WhiteOnly(self), adjustable=lambda: free)

    def at(self, /, **leaves: Tensor) -> Prior:
        return self.mixture.at(**{"weights": self.weights, "means": self.means} | leaves)


def linearize_at(
    prior: Prior, x: Tensor, sigma: Tensor, /, **leaves: Tensor
) -> tuple[Tensor, dict[str, Callable[[Tensor], Tensor]]]:
    """D(x, sigma) of ``prior.at(**leaves)``, and for "x" and each leaf the map u -> (dD / d leaf)^T
    u, which may be called again.

    x, u: (B, *E). The product has the shape of the leaf: one row for each value of a leaf per row,
    the sum over rows of one for all. A leaf of whole numbers, such as a class label, has no map.
    Raises ``ValueError`` as ``at`` does.
    """
    return prior._linearize_at(x, sigma, leaves)


def linearize_leaves(
    prior: Prior, x: Tensor, sigma: Tensor, /, **leaves: Tensor
) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
    """D(x, sigma) of ``prior.at(**leaves)``, and the map from u (B, *E) to (dD / d leaf)^T u of all
    leaves in one backward pass, each with the shape of its leaf.

    Leaves are floating point. Raises ``ValueError`` as ``at`` does.
    """
    return prior._linearize_leaves(x, sigma, leaves)


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "it has none"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    start = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = known if len(known) <= LISTED else [*known[:LISTED], f"{len(known) - LISTED} more"]
    return f"{start}Known: {', '.join(listed)}"


def _fits(shape: tuple[int, ...], sides: Sides) -> bool:
    return len(shape) == len(sides) and all(
        want in (None, got) for want, got in zip(sides, shape, strict=True)
    )
