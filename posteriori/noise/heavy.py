"""Errors with heavier tails than a Gaussian's."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Rng, Streams
from posteriori.settings import Number, Positive, Whole, number

# Degrees of freedom of a law that has a variance.
Freedom = Annotated[Whole, Field(ge=3)]
# A share that is neither none nor all.
Open = Annotated[float, BeforeValidator(number), Field(gt=0, lt=1)]
# The precision of a number that is lost: the least that is worked with.
LOST = 1e-6


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

    @property
    def core(self) -> float:
        return self.scale

    def precision(self, error: Tensor, rng: Rng | None = None) -> Tensor:
        """Of an exponential law of variances; given an error it is inverse Gaussian, of the mean
        scale / |e| and the shape 1.

        Source of the draw: Michael, Schucany, Haas, Generating random variates using
        transformations with multiple roots, 1976.
        """
        mean = self.scale / error.abs().clamp(min=1e-8 * self.scale)
        if rng is None:
            return mean
        v = rng.normal(error).square()
        # The smaller root, written without the difference of large numbers.
        small = 2 * mean / (2 + mean * v + (4 * mean * v + (mean * v).square()).sqrt())
        other = torch.special.ndtr(rng.normal(error)) > mean / (mean + small)
        return torch.where(other, mean.square() / small, small)

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

    @property
    def core(self) -> float:
        return self.scale

    def precision(self, error: Tensor, rng: Rng | None = None) -> Tensor:
        """Of a chi-square law over its degrees of freedom; given an error, chi-square of one more
        over freedom + (e / scale)^2."""
        n = self.freedom
        count: Tensor | float = n + 1
        if rng is not None:
            count = torch.zeros_like(error)
            for _ in range(n + 1):
                count = count + rng.normal(error).square()
        return count / (n + (error / self.scale).square())

    def variance(self, y: Tensor) -> Tensor:
        found = self.scale**2 * self.freedom / (self.freedom - 2)
        return torch.as_tensor(found, dtype=y.dtype, device=y.device)

    def scaled(self, factor: float) -> StudentT:
        return StudentT(self.scale * abs(factor), self.freedom)


@dataclass(frozen=True)
class Huber(_Heavy):
    """y = A x + e, p(e) = exp(-rho(e / scale)) / (scale Z): a Gaussian of level ``scale`` for small
    errors, Laplace's tails beyond ``corner`` of these,

        rho(u) = u^2 / 2                    |u| <= corner
               = corner |u| - corner^2 / 2  beyond

    scale: in the units of y. corner: 1.345 by default, at which the mean of Gaussian numbers is
    still known to 95 % of what y says.

    Source: Huber, Robust estimation of a location parameter, 1964.
    """

    scale: Positive
    corner: Positive = 1.345

    @property
    def core(self) -> float:
        return self.scale

    @property
    def _shares(self) -> tuple[float, float]:
        """Z, and the share of errors within the corner."""
        k = self.corner
        inside = math.sqrt(2 * math.pi) * math.erf(k / math.sqrt(2))
        whole = inside + 2 / k * math.exp(-0.5 * k * k)
        return whole, inside / whole

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        """By the quantile of a uniform number, which is that of a normal one."""
        check_numbers(clean, False, "Huber")
        _, inside = self._shares
        k, u = self.corner, torch.special.ndtr(rng.normal(clean).double())
        core = torch.special.ndtri(0.5 + (u - 0.5) * math.erf(k / math.sqrt(2)) / inside)
        tail = (2 * torch.minimum(u, 1 - u) / (1 - inside)).clamp(1e-300, 1.0)
        far = (u - 0.5).sign() * (k - tail.log() / k)
        e = torch.where((u - 0.5).abs() <= inside / 2, core, far)
        return clean + self.scale * e.to(clean)

    def _log_density(self, error: Tensor) -> Tensor:
        u, k = error.abs() / self.scale, self.corner
        rho = torch.where(u <= k, 0.5 * u.square(), k * u - 0.5 * k * k)
        return -rho - math.log(self.scale * self._shares[0])

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The error over scale^2, at most corner / scale."""
        u = (y - clean) / self.scale
        return u.clamp(-self.corner, self.corner) / self.scale

    def precision(self, error: Tensor, rng: Rng | None = None) -> Tensor:
        """min(1, corner / |u|): the weight of the parabola that touches rho at u = e / scale and
        lies above it. The law is no mixture of Gaussians: nothing is drawn."""
        return (self.corner * self.scale / error.abs().clamp(min=1e-300)).clamp(max=1.0)

    def variance(self, y: Tensor) -> Tensor:
        k, Z = self.corner, self._shares[0]
        edge = math.exp(-0.5 * k * k)
        core = math.sqrt(2 * math.pi) * math.erf(k / math.sqrt(2)) - 2 * k * edge
        tails = 2 * edge * (k + 2 / k + 2 / k**3)
        found = self.scale**2 * (core + tails) / Z
        return torch.as_tensor(found, dtype=y.dtype, device=y.device)

    def scaled(self, factor: float) -> Huber:
        return Huber(self.scale * abs(factor), self.corner)


@dataclass(frozen=True)
class Outliers(NoiseLaw):
    """Gaussian noise of level sigma, and a share of numbers that are lost: these lie anywhere in
    [low, high], whatever the clean measurement.

        p(y) = (1 - share) N(y; A x, sigma^2) + share / (high - low)

    low, high: in the units of y, such as the ends of a detector's range; outside, every y is
    taken for the first kind. share: in (0, 1).
    """

    sigma: Positive
    share: Open
    low: Number
    high: Number

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Outliers: low {self.low:g} must be less than high {self.high:g}")

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "Outliers")

    @property
    def core(self) -> float:
        return self.sigma

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        check_numbers(clean, False, "Outliers")
        lost, where = (torch.special.ndtr(rng.normal(clean).double()) for _ in range(2))
        held = clean + self.sigma * rng.normal(clean)
        anywhere = (self.low + (self.high - self.low) * where).to(clean)
        return torch.where(lost < self.share, anywhere, held)

    def _parts(self, y: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """log of both terms."""
        u = (y - clean) / self.sigma
        held = (
            math.log1p(-self.share)
            - 0.5 * u.square()
            - math.log(self.sigma * math.sqrt(2 * math.pi))
        )
        flat = math.log(self.share / (self.high - self.low))
        within = (y >= self.low) & (y <= self.high)
        return held, torch.where(within, flat, -math.inf).to(held).expand_as(held)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        check_numbers(clean, False, "Outliers")
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        return torch.logaddexp(*self._parts(y, clean))

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """The Gaussian's, times the probability that y is not lost."""
        held, lost = self._parts(y, clean)
        return torch.sigmoid(held - lost) * (y - clean) / self.sigma**2

    def mean(self, clean: Tensor) -> Tensor:
        return (1 - self.share) * clean + self.share * (self.low + self.high) / 2

    def variance(self, y: Tensor) -> Tensor:
        return self.variance_at(y, y)

    def variance_at(self, y: Tensor, clean: Tensor) -> Tensor:
        middle, width = (self.low + self.high) / 2, self.high - self.low
        between = self.share * (1 - self.share) * (clean - middle).square()
        return between + (1 - self.share) * self.sigma**2 + self.share * width**2 / 12

    def precision(self, error: Tensor, rng: Rng | None = None) -> Tensor:
        """The probability that a number is not lost, or a draw of whether it is, at least 1e-6: of
        errors whose y lies in [low, high]."""
        held, lost = self._parts(torch.full_like(error, self.low), self.low - error)
        p = torch.sigmoid(held - lost)
        if rng is None:
            return p.clamp(min=LOST)
        return torch.where(torch.special.ndtr(rng.normal(error)) < p, 1.0, LOST)

    def scaled(self, factor: float) -> Outliers:
        low, high = sorted((self.low * factor, self.high * factor))
        return Outliers(self.sigma * abs(factor), self.share, low, high)
