"""Gaussian noise that is not white: of many levels, or correlated.

Methods meet it white: ``Likelihood.whitened`` takes y, A and the noise to

    W y,   W A,   white noise of level g

with W = g C^(-1/2), C the covariance and g = det(C)^(1 / 2m), the geometric mean of its levels: of
white noise W is 1, and log p(y | x) stays as it is, since det W = 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from posteriori.covariances import (
    NoiseCovariance,
    PairWhitening,
    PixelNoise,
    RootWhitening,
    Whitening,
)
from posteriori.covariances.whitening import MOST
from posteriori.linalg import real_view
from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import Number


class LinearMap(Protocol):
    """A linear function of measurements, such as a filter."""

    def __call__(self, error: Tensor, /) -> Tensor: ...


class _Whitenable(NoiseLaw):
    """y = A x + e with e Gaussian of any covariance C."""

    complex_numbers: bool

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, self.complex_numbers, type(self).__name__)
        try:
            out = self.whitening(y).whiten(y[None])
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"{type(self).__name__}: this covariance is none of measurements of shape "
                f"{tuple(y.shape)} ({error})"
            ) from None
        if out.shape[1:] != y.shape:
            raise ValueError(
                f"{type(self).__name__}: this covariance makes {tuple(out.shape[1:])} of "
                f"measurements of shape {tuple(y.shape)}; state it for these"
            )

    @abstractmethod
    def whitening(self, y: Tensor) -> Whitening:
        """W."""

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, self.complex_numbers, type(self).__name__)
        return clean + self.whitening(clean[0]).colour(rng.normal(clean))

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, self.complex_numbers, type(self).__name__)
        W, error = self.whitening(clean[0]), y - clean
        real = real_view(W.whiten(error)).flatten(1)
        channels = 2 if clean.is_complex() else 1
        constant = channels * W.log_det(error) - 0.5 * real.shape[1] * math.log(2 * math.pi)
        return constant - 0.5 * real.square().sum(1)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        W, error = self.whitening(clean[0]), y - clean
        return W.adjoint(W.whiten(error))


@dataclass(frozen=True, eq=False)
class CorrelatedGaussian(_Whitenable):
    """y = A x + C^(1/2) z: the covariance C is a member of ``posteriori.covariances`` on
    measurements (B, *O), in the units of y squared.

        PixelNoise(sigma**2)                 a level for each measured number
        FourierNoise(power)                  stationary noise, by its power at each frequency
        MatrixNoise(C)                       any covariance of few numbers, (m, m)

    complex_numbers: of complex measurements, circular, C that of each part.
    """

    covariance: NoiseCovariance
    complex_numbers: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.covariance, NoiseCovariance):
            raise ValueError(
                f"CorrelatedGaussian.covariance: expected a member of posteriori.covariances, got "
                f"{type(self.covariance).__name__}; of a matrix, MatrixNoise(matrix)"
            )

    @classmethod
    def of_levels(cls, sigma: Tensor, complex_numbers: bool = False) -> CorrelatedGaussian:
        """Independent numbers, of the standard deviation ``sigma`` (*O) each, > 0 and finite.
        Raises ``ValueError`` for others."""
        bad = ~((sigma > 0) & sigma.isfinite())
        if bool(bad.any()):
            raise ValueError(
                f"levels must be finite numbers > 0, {int(bad.sum())} are not, the first at "
                f"{tuple(bad.nonzero()[0].tolist())}; leave out with a mask what was not measured"
            )
        return cls(PixelNoise(sigma.double().square()), complex_numbers)

    @property
    def levels(self) -> dict[str, Any]:
        return {"covariance": self.covariance.words}

    def whitening(self, y: Tensor) -> Whitening:
        return RootWhitening(self.covariance)

    def variance(self, y: Tensor) -> Tensor:
        return self.covariance.diagonal(y).to(y.real)


@dataclass(frozen=True, eq=False)
class FilteredGaussian(_Whitenable):
    """y = A x + e of which ``whiten`` makes white noise of level 1: the noise by a pair of
    functions.

    whiten: W, linear, (B, *O) -> (B, *O), differentiable by torch. colour: its inverse. volume:
    log |det W|, measured from the matrix of W where it is left out, for at most 4096 numbers.
    complex_numbers: of complex measurements, circular, of level 1 each part.

    ``check_kind``, which a ``Likelihood`` calls, raises ``ValueError`` for a pair that are not each
    other's inverse, or not linear.
    """

    whiten: LinearMap
    colour: LinearMap
    volume: Number | None = None
    complex_numbers: bool = False

    @property
    def levels(self) -> dict[str, Any]:
        return {"whitened by": getattr(self.whiten, "__name__", "a function")}

    def check_kind(self, y: Tensor) -> None:
        super().check_kind(y)
        W, g = self.whitening(y), torch.Generator().manual_seed(0)
        u, v = torch.randn(2, 1, *y.shape, dtype=y.dtype, generator=g).to(y.device)
        back, both = W.colour(W.whiten(u)), W.whiten(u) + 2 * W.whiten(v)
        rtol = 1e-6 if y.real.dtype == torch.float64 else 1e-3
        if not float((back - u).abs().max()) <= rtol * float(u.abs().max()):
            raise ValueError("FilteredGaussian: the two functions are not each other's inverse")
        if not float((W.whiten(u + 2 * v) - both).abs().max()) <= rtol * float(both.abs().max()):
            raise ValueError("FilteredGaussian: the whitening function is not linear")

    def whitening(self, y: Tensor) -> Whitening:
        return PairWhitening(self.whiten, self.colour, self.volume)

    def variance(self, y: Tensor) -> Tensor:
        """The squared rows of W^-1, of at most 4096 numbers; their mean over 64 draws beyond."""
        if y.numel() <= MOST:
            units = torch.eye(y.numel(), dtype=y.dtype, device=y.device).view(-1, *y.shape)
            return self.colour(units).abs().square().sum(0)
        g = torch.Generator().manual_seed(0)
        z = torch.randn(64, *y.shape, dtype=y.dtype, generator=g).to(y.device)
        return self.colour(z).abs().square().mean(0)
