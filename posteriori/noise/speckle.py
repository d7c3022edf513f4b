"""Noise that multiplies, as of coherent light, ultrasound and radar."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import Count


@dataclass(frozen=True)
class Speckle(NoiseLaw):
    """y = A x u, u the mean of ``looks`` exponential numbers of mean 1: intensities of speckle.

        p(y) = (L / c)^L y^(L - 1) exp(-L y / c) / Gamma(L),   c = A x > 0, y > 0

    Mean c, standard deviation c / sqrt(L). looks: L >= 1; 1 is fully developed speckle.

    Source: Goodman, Some fundamental properties of speckle, 1976.
    """

    looks: Count = 1

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "Speckle")
        if bool((y < 0).any()):
            raise ValueError(
                f"Speckle: y are intensities >= 0, the smallest here is {float(y.min()):.3g}"
            )

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        """The mean of the squares of 2 L normal numbers."""
        check_numbers(clean, False, "Speckle")
        if float(clean.min()) < 0:
            raise ValueError(
                f"Speckle multiplies intensities >= 0, got a minimum of {float(clean.min()):.3g}"
            )
        square = torch.zeros_like(clean)
        for _ in range(2 * self.looks):
            square = square + rng.normal(clean).square()
        return clean * square / (2 * self.looks)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        n, rate = self.looks, clean.clamp(min=torch.finfo(clean.dtype).tiny)
        terms = n * (math.log(n) - rate.log()) + torch.xlogy(torch.as_tensor(n - 1.0), y)
        log_p = terms - n * y / rate - math.lgamma(n)
        return torch.where(clean > 0, log_p, -math.inf)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """L (y / c - 1) / c, and NaN where c <= 0."""
        return torch.where(clean > 0, self.looks * (y / clean - 1) / clean, math.nan)

    def variance(self, y: Tensor) -> Tensor:
        """At the intensity that y itself tells, at least a thousandth of the largest."""
        return y.clamp(min=1e-3 * float(y.max())).square() / self.looks

    def variance_at(self, y: Tensor, clean: Tensor) -> Tensor:
        return clean.clamp(min=0).square() / self.looks

    def scaled(self, factor: float) -> Speckle:
        if factor <= 0:
            raise ValueError(f"Speckle is of intensities, which {factor:g} would turn negative")
        return self
