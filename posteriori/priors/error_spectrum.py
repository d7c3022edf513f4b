"""How far a denoiser is off at each frequency, measured on images.

    C(sigma) = E (x0 - D)(x0 - D)^T  ~  Q^T F^T diag(v) F Q

F is ``linalg.cosine`` over the last two axes, Q an orthonormal change of colours. Of natural images
a denoiser knows the fine detail well and the mean brightness hardly: v spans orders of magnitude,
and its mean, ``Knowledge.error``, says little of either end.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posteriori.linalg import cosine
from posteriori.priors.base import Prior
from posteriori.rng import Streams

NumberTuple = tuple[float, ...]
# Numbers of a volume that are transformed together: memory beside the volume does not grow with it.
_NUMBERS_AT_ONCE = 2**17


@dataclass(frozen=True, eq=False)
class Covariance:
    """C = Q^T F^T diag(variances) F Q on images (B, *E). variances: E, > 0. colours: Q (C, C),
    orthonormal; None for the identity.

    periodic: F is the Fourier transform over the last two axes, whose variances are alike at k and
    -k, in the place of ``linalg.cosine``.
    """

    variances: Tensor
    colours: Tensor | None = None
    periodic: bool = False

    def wrapped(self) -> Covariance:
        """The same variances at the same frequencies for images that repeat beyond their border: a
        circulant C.

        The k-th of n Fourier frequencies, k / n cycles per pixel, is the cosine frequency 2 k.
        """
        places = [
            (2 * torch.minimum(k := torch.arange(n, device=self.variances.device), n - k)).clamp(
                max=n - 1
            )
            for n in self.variances.shape[-2:]
        ]
        return Covariance(
            self.variances[..., places[0][:, None], places[1]], self.colours, periodic=True
        )

    def resized(self, height: int, width: int) -> Covariance:
        """Nearly the same variances at the same frequencies for images of another size."""
        sides = zip(self.variances.shape[-2:], (height, width), strict=True)
        places = [
            (torch.arange(new, device=self.variances.device) * old / new)
            .round()
            .long()
            .clamp(max=old - 1)
            for old, new in sides
        ]
        return Covariance(
            self.variances[..., places[0][:, None], places[1]], self.colours, self.periodic
        )

    def __call__(self, u: Tensor) -> Tensor:
        """C u."""
        return self._scaled(u, self.variances)

    def root(self, u: Tensor) -> Tensor:
        """C^(1/2) u, the symmetric root."""
        return self._scaled(u, self.variances.sqrt())

    def _scaled(self, u: Tensor, factors: Tensor) -> Tensor:
        if u.ndim > 4:  # slices, a few of them at a time
            rows = u.flatten(0, -4)
            out = torch.empty_like(rows)
            few = max(1, _NUMBERS_AT_ONCE // rows[0].numel())
            for part, place in zip(rows.split(few), out.split(few), strict=True):
                place.copy_(self._scaled(part, factors))
            return out.view(u.shape)
        if self.colours is None:
            return self._filtered(u, factors)
        Q = self.colours.to(u)
        return torch.einsum(
            "ci,bc...->bi...", Q, self._filtered(torch.einsum("ci,bi...->bc...", Q, u), factors)
        )

    def _filtered(self, u: Tensor, factors: Tensor) -> Tensor:
        if not self.periodic:
            return cosine(factors.to(u) * cosine(u), inverse=True)
        half = u.shape[-1] // 2 + 1
        return torch.fft.irfft2(torch.fft.rfft2(u) * factors[..., :half].to(u), s=u.shape[-2:])


@dataclass(frozen=True)
class ErrorSpectrum:
    """A table of v. Raises ``ValueError`` for one that is no such table.

    colours: Q, one row per new colour. levels: noise levels, increasing. frequencies: in cycles per
    pixel, increasing.
    variances: > 0, [level][frequency][colour].
    """

    colours: tuple[NumberTuple, ...]
    levels: NumberTuple
    frequencies: NumberTuple
    variances: tuple[tuple[NumberTuple, ...], ...]

    def __post_init__(self) -> None:
        Q, n = torch.tensor(self.colours, dtype=torch.float64), len(self.colours)
        if (
            Q.shape != (n, n)
            or float((Q @ Q.T - torch.eye(n, dtype=torch.float64)).abs().max()) > 1e-4
        ):
            raise ValueError(
                f"colours must be the rows of an orthonormal matrix, got {self.colours}"
            )
        for name, axis in (("levels", self.levels), ("frequencies", self.frequencies)):
            if len(axis) < 2 or not axis[0] > 0 or any(a >= b for a, b in itertools.pairwise(axis)):
                raise ValueError(f"{name} must be at least two increasing numbers > 0, got {axis}")
        shape, wanted = np.shape(self.variances), (len(self.levels), len(self.frequencies), n)
        if shape != wanted or not bool((np.asarray(self.variances) > 0).all()):
            raise ValueError(
                f"variances must be numbers > 0 of shape {wanted} "
                f"(levels, frequencies, colours), got shape {shape}"
            )

    def at(self, sigma: Tensor | float, shape: tuple[int, ...]) -> Covariance:
        """C(sigma) for images of shape (C, H, W): interpolated in the logarithms, never above
        sigma^2, constant beyond the table."""
        if len(shape) != 3 or shape[0] != len(self.colours):
            raise ValueError(
                f"errors of {len(self.colours)} colours belong to images of shape "
                f"({len(self.colours)}, H, W), got {shape}"
            )
        table, x = np.log(np.asarray(self.variances)), math.log(float(sigma))
        place = float(np.interp(x, np.log(self.levels), np.arange(len(self.levels))))
        low = min(int(place), len(self.levels) - 2)
        curve = table[low] + (place - low) * (table[low + 1] - table[low])
        radii, axis = np.log(radius(shape[1], shape[2]).numpy()), np.log(self.frequencies)
        v = np.exp(np.stack([np.interp(radii, axis, curve[:, c]) for c in range(shape[0])]))
        return Covariance(
            torch.from_numpy(v).clamp(max=float(sigma) ** 2),
            torch.tensor(self.colours, dtype=torch.float64),
        )


def radius(height: int, width: int) -> Tensor:
    """The frequency of each coefficient of ``cosine`` in cycles per pixel, (H, W) float64; the mean
    counts as half the lowest."""
    a, b = (torch.arange(n, dtype=torch.float64) / (2 * n) for n in (height, width))
    out = (a[:, None].square() + b.square()).sqrt()
    out[0, 0] = 0.25 / max(height, width)
    return out


def measure(prior: Prior, images: Tensor, *, levels: int = 13, seed: int = 0) -> ErrorSpectrum:
    """The errors of a denoiser on images (B, C, H, W) in the prior's range: at ``levels`` noise
    levels even in log sigma, in half octaves.

    Colours are the principal axes of the error over its own mean, averaged over levels. Raises
    ``ValueError`` for images of another kind.
    """
    if images.ndim != 4 or min(images.shape[2:]) < 2 or levels < 2:
        raise ValueError(
            "errors are measured on images (B, C, H, W) of at least 2 x 2 at two levels or more, "
            f"got {tuple(images.shape)}"
        )
    radii = radius(*images.shape[2:])
    # Half octaves from the lowest: the bin of the mean is its own.
    bins = (2 * torch.log2(radii / radii.flatten().sort().values[1])).round().clamp(min=-1).long()
    bins = torch.unique(bins, return_inverse=True)[1].flatten()
    count = torch.bincount(bins).double()
    centres = (torch.zeros_like(count).index_add_(0, bins, radii.flatten().log()) / count).exp()
    sigmas = torch.logspace(
        math.log10(prior.sigma_min), math.log10(prior.sigma_max), levels, dtype=torch.float64
    )
    colours, tables = images.shape[1], []
    for k, sigma in enumerate(sigmas):
        blocks = torch.zeros(radii.numel(), colours, colours, dtype=torch.float64)
        for part, rows in zip(images.split(16), torch.arange(len(images)).split(16), strict=True):
            z = Streams(seed, (k * len(images) + rows).tolist()).normal(part)
            with torch.no_grad():
                gap = cosine(
                    (prior.denoise(part + float(sigma) * z, sigma) - part).double()
                ).flatten(2)
            blocks = blocks + torch.einsum("bin,bjn->nij", gap, gap) / len(images)
        tables.append(
            torch.zeros(len(count), colours, colours, dtype=torch.float64).index_add_(
                0, bins, blocks
            )
            / count[:, None, None]
        )
    M = torch.stack(tables)
    mean = (M / M.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]).mean((0, 1))
    Q = torch.linalg.eigh(mean).eigenvectors.T
    v = torch.einsum("ci,lkij,cj->lkc", Q, M, Q)
    if not bool((v > 0).all()):
        raise ValueError(
            "the denoiser makes no error at some frequency of some level: "
            "nothing can be measured on these images"
        )
    variances = tuple(
        tuple(tuple(float(f"{n:.4g}") for n in row) for row in level) for level in v.tolist()
    )
    return ErrorSpectrum(
        tuple(map(tuple, Q.tolist())), tuple(sigmas.tolist()), tuple(centres.tolist()), variances
    )
