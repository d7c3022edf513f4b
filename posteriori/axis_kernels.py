"""Correlation along the first axis of images, of slices of a volume or frames of a video: matrices
R with a diagonal of ones.

    AR1(0.9)              R_kl = rho^|k - l|
    SquaredExponential(3) R_kl = exp(-(k - l)^2 / (2 length^2))
    OneForAll()           R_kl = 1: rank 1
    Slerp()               R_kl = cos(pi / 2 (k - l) / (n - 1)): rank 2, a negative control
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Protocol, cast

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from posteriori.settings import Checked, Positive, number

Correlation = Annotated[float, BeforeValidator(number), Field(ge=0, lt=1)]


class AxisKernel(Protocol):
    """n -> R, (n, n) float64, positive semi-definite with a diagonal of ones."""

    def __call__(self, n: int) -> Tensor: ...


def _distances(n: int) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    return k[:, None] - k


@dataclass(frozen=True)
class AR1(metaclass=Checked):
    """R_kl = rho^|k - l|, the process of first order; of full rank for 0 <= rho < 1."""

    rho: Correlation = 0.9

    def __call__(self, n: int) -> Tensor:
        return torch.as_tensor(self.rho, dtype=torch.float64) ** _distances(n).abs()


@dataclass(frozen=True)
class SquaredExponential(metaclass=Checked):
    """R_kl = exp(-(k - l)^2 / (2 length^2)) on slices, ``length`` in slices, mixed with ``white``
    of independent noise: (1 - white) R + white I. Full rank in exact numbers; ``white`` > 0 makes
    it so in double precision for lengths of many slices."""

    length: Positive = 2.0
    white: Correlation = 1e-3

    def __call__(self, n: int) -> Tensor:
        R = torch.exp(-_distances(n).square() / (2 * self.length**2))
        return (1 - self.white) * R + self.white * torch.eye(n, dtype=torch.float64)


@dataclass(frozen=True)
class OneForAll(metaclass=Checked):
    """R_kl = 1: one draw for all slices, of rank 1. Of Kwon and Ye, Solving video inverse problems
    using image diffusion models, 2025."""

    def __call__(self, n: int) -> Tensor:
        return torch.ones(n, n, dtype=torch.float64)


@dataclass(frozen=True)
class Slerp(metaclass=Checked):
    """R_kl = cos(pi / 2 (k - l) / (n - 1)): noise turned from that of the first slice to that of
    the last, z_k = cos(a_k) z + sin(a_k) z', of rank 2. A negative control: what the first and the
    last slice have fixed, no slice between them is free to leave. Of inter-slice consistent
    stochasticity, arXiv 2602.04162, for draws that are orthogonal, as draws of many numbers are."""

    def __call__(self, n: int) -> Tensor:
        return torch.cos(math.pi / 2 * _distances(n) / max(1, n - 1))


@lru_cache(maxsize=32)
def _root(kernel: Hashable, n: int) -> Tensor:
    """The symmetric square root of R, (n, n) float64."""
    values, vectors = torch.linalg.eigh(cast(AxisKernel, kernel)(n))
    # A rank that is not full shows as eigenvalues of either sign at rounding.
    values = torch.where(values > 1e-12 * values[-1], values, 0.0)
    return (vectors * values.sqrt()) @ vectors.T


def along_axis(kernel: AxisKernel, z: Tensor) -> Tensor:
    """R^(1/2) z along the first axis of images z (B, n, *E')."""
    root = (
        _root(cast(Hashable, kernel), z.shape[1])
        .to(device=z.device, dtype=z.real.dtype)
        .to(z.dtype)
    )
    return (root @ z.flatten(2)).view(z.shape) if z.ndim > 2 else z @ root
