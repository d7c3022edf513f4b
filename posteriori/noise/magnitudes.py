"""Magnitudes of complex numbers, whose noise is never negative."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import Positive


@dataclass(frozen=True)
class Rician(NoiseLaw):
    """y = |A x + e|, e circular complex noise of level sigma in each part: magnitudes of MRI.

        p(y) = y / sigma^2 exp(-(y^2 + c^2) / (2 sigma^2)) I_0(y c / sigma^2),   c = A x, y >= 0

    The mean of y is above c, the more the nearer c is to 0: sigma sqrt(pi / 2) where c = 0.
    sigma: in the units of y.

    Source: Gudbjartsson, Patz, The Rician distribution of noisy MRI data, 1995.
    """

    sigma: Positive

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "Rician")
        if bool((y < 0).any()):
            raise ValueError(
                f"Rician: y are magnitudes >= 0, the smallest here is {float(y.min()):.3g}"
            )

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, False, "Rician")
        real, imaginary = (self.sigma * rng.normal(clean) for _ in range(2))
        return torch.hypot(clean + real, imaginary)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, False, "Rician")
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        a, b = y / self.sigma, clean.abs() / self.sigma
        # I_0 is e^(a b) times its scaled form: what is left of the square is (a - b)^2.
        terms = -0.5 * (a - b).square() + torch.special.i0e(a * b).log() + a.log()
        return terms - math.log(self.sigma)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """(y I_1 / I_0 - c) / sigma^2."""
        t = y * clean / self.sigma**2
        ratio = torch.special.i1e(t) / torch.special.i0e(t)
        return (y * ratio - clean) / self.sigma**2

    def mean(self, clean: Tensor) -> Tensor:
        """sigma sqrt(pi / 2) L_(1/2)(-c^2 / (2 sigma^2))."""
        t = clean.square() / (4 * self.sigma**2)
        bessel = (1 + 2 * t) * torch.special.i0e(t) + 2 * t * torch.special.i1e(t)
        return self.sigma * math.sqrt(math.pi / 2) * bessel

    def variance(self, y: Tensor) -> Tensor:
        return torch.as_tensor(self.sigma**2, dtype=y.dtype, device=y.device)

    def variance_at(self, y: Tensor, clean: Tensor) -> Tensor:
        return 2 * self.sigma**2 + clean.square() - self.mean(clean).square()

    def gaussian(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(y^2 - sigma^2), 0 below, and sigma^2."""
        return (y.square() - self.sigma**2).clamp(min=0).sqrt(), self.variance(y)

    def scaled(self, factor: float) -> Rician:
        return Rician(self.sigma * abs(factor))
