"""Volumes and videos whose slices are independent images of one prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from posteriori.axis_kernels import AxisKernel, along_axis
from posteriori.covariances import NoiseCovariance, PixelNoise, RowsNoise, WhiteNoise
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.error_spectrum import Covariance
from posteriori.priors.knowledge import (
    Anisotropic,
    ClosedForm,
    CovarianceOf,
    Knowledge,
    Predicted,
)
from posteriori.priors.leaves import PriorAt, rows_of_leaves
from posteriori.rng import Rng

# Numbers of an image that are worked on together, where the user does not say how many slices are.
SLICE_NUMBERS_AT_ONCE = 2**20


class Slices(Prior):
    """x of shape (D, *E), each of its D slices an independent image of ``prior``; D slices are D
    rows to the network.

    Parameters
    ----------
    prior: of one slice, of shape E.
    depth: D; None for any.
    at_once: slices worked on together; by default as many as hold a million numbers. J^T u is
        computed anew from as many slices at a time, at one more denoiser call each that is not
        counted, so that memory does not grow with D. Samples do not depend on it.
    kernel: how the noise of slices is correlated where sampling starts, for transitions that are
        ``Correlated`` alike; white when None.

    What ties slices together is for the operator, or for a method with a term along the first axis.
    Raises ``ValueError`` for a depth or ``at_once`` below 1.
    """

    def __init__(
        self,
        prior: Prior,
        depth: int | None = None,
        *,
        at_once: int | None = None,
        kernel: AxisKernel | None = None,
    ) -> None:
        for name, value in (("depth", depth), ("at_once", at_once)):
            if value is not None and (
                not isinstance(value, int) or isinstance(value, bool) or value < 1
            ):
                raise ValueError(f"Slices: {name} must be an integer >= 1, got {value!r}")
        super().__init__(
            (depth, *prior.shape), range=prior.range, complex=prior.complex, **limits_of(prior)
        )
        self.prior, self.at_once, self.kernel = prior, at_once, kernel

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self._cut(lambda part: self.prior.denoise(part, sigma), x)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        if x.shape[0] * x.shape[1] <= self._rows(x):
            x0, pull = self.prior.linearize(x.flatten(0, 1), sigma)
            return x0.view(x.shape), lambda u: pull(u.flatten(0, 1)).view(x.shape)
        with torch.no_grad():
            x0 = self.denoise(x, sigma)
        return x0, lambda u: self._cut(
            lambda part, v: self.prior.linearize(part, sigma)[1](v), x, u
        )

    def _rows(self, x: Tensor) -> int:
        return self.at_once or max(1, SLICE_NUMBERS_AT_ONCE // x[0, 0].numel())

    def _cut(self, of: Callable[..., Tensor], *parts: Tensor) -> Tensor:
        """``of`` on a few slices at a time."""
        cuts = zip(*(part.flatten(0, 1).split(self._rows(part)) for part in parts), strict=True)
        return torch.cat([of(*cut) for cut in cuts]).view(parts[0].shape)

    def at(self, /, **leaves: Tensor) -> Prior:
        """Slices of the prior at these leaves; a leaf per row is that of all slices of a volume."""
        if any(rows_of_leaves(self, leaves).values()):
            return PriorAt(self, leaves)
        return Slices(
            self.prior.at(**leaves), self.shape[0], at_once=self.at_once, kernel=self.kernel
        )

    def know(self) -> Knowledge:
        """That of a slice: errors by frequency, *E, which broadcast against (D, *E), only where
        slices have two axes; the density, draws and samples of all slices in closed form."""
        known = self.prior.know()
        return replace(
            known,
            name=type(self).__name__,
            views=(),
            patch=None,
            spectrum=known.spectrum if len(self.prior.shape) > 1 else _one_axis(self.prior.shape),
            covariance=known.covariance and partial(_of_one_slice, known.covariance),
            predicted=known.predicted and partial(_predicted, known.predicted),
            anisotropic=_SlicesUnder(self, known.anisotropic),
            closed=known.closed and _SlicesClosed(self, known.closed),
        )

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        z = z if self.kernel is None else along_axis(self.kernel, z)
        return self.prior.start(z.flatten(0, 1), sigma).view(z.shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        super()._check_shape(shape)
        check_shape(self.prior, shape[1:])


def _one_axis(shape: tuple[int | None, ...]) -> Callable[[Tensor | float], Tensor]:
    def refuse(sigma: Tensor | float) -> Tensor:
        raise TypeError(
            f"the cosine transform is over two axes of an image, slices of shape {shape} have one"
        )

    return refuse


def _of_one_slice(
    of: CovarianceOf, sigma: Tensor | float, shape: tuple[int, ...]
) -> Covariance | None:
    return of(sigma, shape[1:])


def _predicted(of: Predicted, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    x0, variance = of(x.flatten(0, 1), sigma)
    return x0.view(x.shape), variance.view(x.shape)


@dataclass(frozen=True)
class _SlicesUnder:
    """The denoiser of volumes, from that of a slice, of as many as are worked on together: under
    white noise, and levels for pixels that are those of every slice or its own."""

    volumes: Slices
    slices: Anisotropic

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        if isinstance(covariance, PixelNoise | WhiteNoise):
            return self.slices.refuses(covariance)
        return (
            f"a Slices prior knows no denoiser under noise with {covariance.words}: it may tie "
            f"slices together"
        )

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        if isinstance(covariance, WhiteNoise):
            return self.volumes._cut(lambda part: self.slices.denoise(part, covariance), mu)
        assert isinstance(covariance, PixelNoise)
        variances, count = covariance.variances.expand(mu.shape[1:]), self.volumes._rows(mu)
        out = []
        for k, part in enumerate(mu.flatten(0, 1).split(count)):
            rows = range(len(part))
            own = tuple(PixelNoise(variances[(k * count + j) % len(variances)]) for j in rows)
            out.append(self.slices.denoise(part, RowsNoise(own, tuple(rows))))
        return torch.cat(out).view(mu.shape)


@dataclass(frozen=True)
class _SlicesClosed:
    """The closed form of volumes, from that of a slice."""

    volumes: Slices
    slices: ClosedForm

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self.slices.log_prob(x.flatten(0, 1), sigma).view(x.shape[:2]).sum(1)

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        return self.slices.draw_given(x.flatten(0, 1), sigma, _OfSlices(rng, x.shape[1])).view(
            x.shape
        )

    def condition(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[Prior, float]:
        raise TypeError("a Slices prior has no closed-form posterior")

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """Slice d of volume k is draw D k + d of the prior of a slice."""
        whole = self.volumes.shape if shape is None else shape
        if None in whole:
            raise ValueError(
                f"these volumes have the shape {whole}, None being any length: "
                "say which, for example shape=(8, 64, 64)"
            )
        check_shape(self.volumes, sides := tuple(side for side in whole if side is not None))
        slices = self.slices.sample(n * sides[0], seed, steps=steps, shape=sides[1:])
        return slices.view(n, *sides)


class _OfSlices:
    """The random numbers of volumes, for their slices as rows."""

    def __init__(self, rng: Rng, depth: int) -> None:
        self.rng, self.depth = rng, depth

    def normal(self, like: Tensor) -> Tensor:
        return self.rng.normal(like.view(-1, self.depth, *like.shape[1:])).flatten(0, 1)

    def uniform(self, count: int) -> Tensor:
        return self.rng.uniform(self.depth * count).view(-1, count)
