"""Gaussian noise of a level that is not known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.linalg import per_row, real_view
from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Rng, Streams
from posteriori.settings import Count, Positive

# Chi-square numbers of more degrees of freedom are drawn as normal ones.
_MOST = 10_000


@dataclass(frozen=True)
class UnknownGaussian(NoiseLaw):
    """y = A x + s z with one level s for all of y, which is not known: of an inverse gamma law,

        s^-2 ~ Gamma(trust / 2, trust sigma^2 / 2),

    so that ``sigma`` counts as much as ``trust`` measured numbers. s is integrated over: of m real
    numbers y is of Student's law with ``trust`` degrees of freedom, all numbers together,

        log p(y | x) = -(trust + m) / 2 log(1 + ||y - A x||^2 / (trust sigma^2)) + constant.

    Jeffreys' prior p(s) ~ 1 / s is the limit of trust 0. It is none that can be taken in general:
    where A reaches every y, as a mask or block means do, ||y - A x||^-m has no integral over x.

    sigma: in the units of y, such as an estimate. trust: >= 1; 1 by default, a level known to a
    factor of several. complex_numbers: of complex measurements, circular, s that of each part.
    """

    sigma: Positive
    trust: Count = 1
    complex_numbers: bool = False

    @property
    def core(self) -> float:
        return self.sigma

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, self.complex_numbers, "UnknownGaussian")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, self.complex_numbers, "UnknownGaussian")
        one = clean.real.flatten(1)[:, :1]
        square = torch.zeros_like(one)
        for _ in range(min(self.trust, _MOST)):
            square = square + rng.normal(one).square()
        if self.trust > _MOST:  # a chi-square of many numbers is normal to 1 / sqrt(trust)
            square = self.trust + math.sqrt(2 * self.trust) * rng.normal(one)
        level = self.sigma * (self.trust / square).sqrt()[:, 0]
        return clean + per_row(level, clean) * rng.normal(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, self.complex_numbers, "UnknownGaussian")
        square, m = self._square(y - clean)
        t = self.trust
        constant = math.lgamma((t + m) / 2) - math.lgamma(t / 2)
        constant -= 0.5 * m * math.log(t * math.pi * self.sigma**2)
        return constant - 0.5 * (t + m) * torch.log1p(square / (t * self.sigma**2))

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The error over the variance that is expected given it."""
        error = y - clean
        return self.precision(error) * error / self.sigma**2

    def precision(self, error: Tensor, rng: Rng | None = None) -> Tensor:
        """sigma^2 / s^2 of each row, (B, 1, ..., 1): expected given the errors, or a draw."""
        square, m = self._square(error)
        count = self.trust + m
        drawn = torch.full_like(square, count)
        if rng is not None:
            rows = square[:, None].expand(-1, count)
            drawn = rng.normal(rows).square().sum(1)
        return per_row(drawn * self.sigma**2 / (self.trust * self.sigma**2 + square), error)

    def variance(self, y: Tensor) -> Tensor:
        return torch.as_tensor(self.sigma**2, dtype=y.real.dtype, device=y.device)

    def scaled(self, factor: float) -> UnknownGaussian:
        return UnknownGaussian(self.sigma * abs(factor), self.trust, self.complex_numbers)

    @staticmethod
    def _square(error: Tensor) -> tuple[Tensor, int]:
        real = real_view(error).flatten(1)
        return real.square().sum(1), real.shape[1]
