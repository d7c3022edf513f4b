"""What makes Gaussian noise white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of

# Measurements of more numbers are not written as a matrix.
MOST = 4096


class Whitening(Protocol):
    """A linear W on measurements (B, *O) that makes the noise white: W C W^H = I, C its
    covariance."""

    def whiten(self, error: Tensor) -> Tensor:
        """W e."""

    def adjoint(self, u: Tensor) -> Tensor:
        """W^H u."""

    def colour(self, z: Tensor) -> Tensor:
        """W^-1 z: noise of covariance C from white noise z."""

    def log_det(self, like: Tensor) -> float:
        """log |det W| for measurements like one of (B, *O), of their numbers, real or complex."""

    def spectrum(self, like: Tensor) -> tuple[Tensor, Of, Of] | None:
        """Where W = Q diag(d) Q^H: d > 0 (m,), Q and Q^H as maps (B, m) <-> (B, *O); else None."""


@dataclass(frozen=True, eq=False)
class RootWhitening:
    """W = C^(-1/2) of a covariance of ``posteriori.covariances``, which is symmetric."""

    covariance: NoiseCovariance

    def whiten(self, error: Tensor) -> Tensor:
        return self.covariance.power(error, -0.5)

    adjoint = whiten

    def colour(self, z: Tensor) -> Tensor:
        return self.covariance.power(z, 0.5)

    def log_det(self, like: Tensor) -> float:
        return -0.5 * self.covariance.log_det(like)

    def spectrum(self, like: Tensor) -> tuple[Tensor, Of, Of] | None:
        found = self.covariance.axes_of(like)
        return None if found is None else (found[0] ** -0.5, *found[1:])


@dataclass(frozen=True, eq=False)
class PairWhitening:
    """W and W^-1 as functions."""

    whiten: Of
    colour: Of
    volume: float | None

    def adjoint(self, u: Tensor) -> Tensor:
        with torch.enable_grad():
            zero = torch.zeros_like(u).requires_grad_()
            return torch.autograd.grad(self.whiten(zero), zero, u)[0]

    def log_det(self, like: Tensor) -> float:
        if self.volume is not None:
            return self.volume
        one = like[0] if like.ndim > 1 else like
        if one.numel() > MOST:
            raise ValueError(
                f"FilteredGaussian: state volume, log |det W|, of {one.numel()} measured numbers; "
                f"it is measured of {MOST} at most"
            )
        kind = torch.complex128 if one.is_complex() else torch.float64
        units = torch.eye(one.numel(), dtype=kind, device=one.device).view(-1, *one.shape)
        return float(torch.linalg.slogdet(self.whiten(units).flatten(1))[1])

    def spectrum(self, like: Tensor) -> None:
        return None
