"""Errors with heavier tails than a Gaussian's."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import Positive, Whole

# Degrees of freedom of a law that has a variance.
Freedom = Annotated[Whole, Field(ge=3)]


class _Heavy(NoiseLaw):
    """Independent real errors of a density with heavier tails than a Gaussian's, symmetric around
    0."""

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, type(self).__name__)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, False, type(self).__name__)
        return self._log_density(y - clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        return self._log_density(y - clean)

    @abstractmethod
    def _log_density(self, error: Tensor) -> Tensor:
        """log p of each error."""


@dataclass(frozen=True)
class Laplace(_Heavy):
    """y = A x + e, p(e) = exp(-|e| / scale) / (2 scale): the misfit is the sum of |y - A x|.

    scale: in the units of y; the standard deviation is sqrt(2) times it.
    """

    scale: Positive

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        """e = scale (z1 z2 + z3 z4): the characteristic function of a product of two standard
        normal numbers is (1 + t^2)^(-1/2), that of e / scale its square."""
        check_numbers(clean, False, "Laplace")
        a, b, c, d = (rng.normal(clean) for _ in range(4))
        return clean + self.scale * (a * b + c * d)

    def _log_density(self, error: Tensor) -> Tensor:
        return -error.abs() / self.scale - math.log(2 * self.scale)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """sign(y - clean) / scale, 0 where they agree."""
        return (y - clean).sign() / self.scale

    def variance(self, y: Tensor) -> Tensor:
        return torch.as_tensor(2 * self.scale**2, dtype=y.dtype, device=y.device)

    def scaled(self, factor: float) -> Laplace:
        return Laplace(self.scale * abs(factor))


@dataclass(frozen=True)
class StudentT(_Heavy):
    """y = A x + scale t, t of Student's law: near a Gaussian of level ``scale`` for small errors,
    with tails of |e|^-(freedom + 1), in which an outlier pulls the less the further it is out.

    scale: in the units of y. freedom: a whole number >= 3, so that there is a variance,
    scale^2 freedom / (freedom - 2).
    """

    scale: Positive
    freedom: Freedom = 4

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        """A normal number over the root mean square of ``freedom`` others."""
        check_numbers(clean, False, "StudentT")
        square = torch.zeros_like(clean)
        for _ in range(self.freedom):
            square = square + rng.normal(clean).square()
        return clean + self.scale * rng.normal(clean) / (square / self.freedom).sqrt()

    def _log_density(self, error: Tensor) -> Tensor:
        n = self.freedom
        constant = math.lgamma((n + 1) / 2) - math.lgamma(n / 2) - 0.5 * math.log(n * math.pi)
        tail = torch.log1p((error / self.scale).square() / n)
        return constant - math.log(self.scale) - 0.5 * (n + 1) * tail

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """(freedom + 1) e / (freedom scale^2 + e^2), e = y - clean."""
        error, n = y - clean, self.freedom
        return (n + 1) * error / (n * self.scale**2 + error.square())

    def variance(self, y: Tensor) -> Tensor:
        found = self.scale**2 * self.freedom / (self.freedom - 2)
        return torch.as_tensor(found, dtype=y.dtype, device=y.device)

    def scaled(self, factor: float) -> StudentT:
        return StudentT(self.scale * abs(factor), self.freedom)
