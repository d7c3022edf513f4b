"""Gaussian noise of one level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.linalg import real_view
from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import NonNegative


def _gaussian_log_prob(difference: Tensor, sigma: float) -> Tensor:
    real = real_view(difference)
    count = real[0].numel()
    return -0.5 * real.flatten(1).square().sum(1) / sigma**2 - count * (
        math.log(sigma) + 0.5 * math.log(2 * math.pi)
    )


@dataclass(frozen=True)
class Gaussian(NoiseLaw):
    """y = A x + sigma z for real measurements; sigma in the units of y."""

    sigma: NonNegative

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "Gaussian")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, False, "Gaussian")
        return clean + self.sigma * rng.normal(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, False, "Gaussian")
        return _gaussian_log_prob(y - clean, self.sigma)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        return (y - clean) / self.sigma**2

    def variance(self, y: Tensor) -> Tensor:
        return torch.as_tensor(self.sigma**2, dtype=y.real.dtype, device=y.device)

    @property
    def std(self) -> float:
        return self.sigma

    def scaled(self, factor: float) -> Gaussian:
        return Gaussian(self.sigma * abs(factor))


@dataclass(frozen=True)
class ComplexGaussian(NoiseLaw):
    """y = A x + e for complex measurements, circular: give exactly one of the two named standard
    deviations.

    sigma_per_channel: of the real part, and of the imaginary part.
    sigma_complex: sqrt(E|e|^2) = sqrt(2) sigma_per_channel.
    """

    sigma_per_channel: NonNegative | None = None
    sigma_complex: NonNegative | None = None

    def __post_init__(self) -> None:
        if (self.sigma_per_channel is None) == (self.sigma_complex is None):
            raise ValueError(
                "ComplexGaussian: give exactly one of sigma_per_channel and sigma_complex "
                "(= sqrt(2) sigma_per_channel)"
            )
        if self.sigma_complex is not None:
            object.__setattr__(self, "sigma_per_channel", self.sigma_complex / math.sqrt(2))
            object.__setattr__(self, "sigma_complex", None)

    @property
    def std(self) -> float:
        assert self.sigma_per_channel is not None  # set by __post_init__
        return self.sigma_per_channel

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, True, "ComplexGaussian")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, True, "ComplexGaussian")
        return clean + self.std * rng.normal(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, True, "ComplexGaussian")
        return _gaussian_log_prob(y - clean, self.std)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        return (y - clean) / self.std**2

    def variance(self, y: Tensor) -> Tensor:
        return torch.as_tensor(self.std**2, dtype=y.real.dtype, device=y.device)

    def scaled(self, factor: float) -> ComplexGaussian:
        return ComplexGaussian(sigma_per_channel=self.std * abs(factor))
