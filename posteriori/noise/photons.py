"""Photons: counts of them, and counts that an amplifier adds noise to."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.noise.base import NoiseLaw, check_numbers
from posteriori.rng import Streams
from posteriori.settings import Positive


@dataclass(frozen=True)
class Poisson(NoiseLaw):
    """y = Poisson(peak * A x) / peak: ``peak`` photons where the clean measurement is 1. Mean A x,
    variance A x / peak.

    Warns below 10 photons, where the picture is close to binary. A rate above -1e-6 times the
    largest is rounding of a non-negative image and counts as 0; a smaller one raises
    ``ValueError``.
    """

    peak: Positive

    def __post_init__(self) -> None:
        if self.peak < 10:
            warnings.warn(
                f"Poisson noise with a peak of {self.peak:g} photons leaves "
                "a nearly binary picture",
                stacklevel=4,
            )

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "Poisson")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        return _counted(clean, self.peak, rng)

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        counts = self.peak * y
        log_p = (
            torch.xlogy(counts, self.peak * clean) - self.peak * clean - torch.lgamma(counts + 1)
        )
        return torch.where(clean < 0, -math.inf, log_p)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """peak (y / clean - 1), and NaN at a negative rate, where no y is possible. At the rate 0,
        -peak without counts, +inf with any."""
        ratio = torch.where(y == 0, 0.0, y / clean.abs())
        return torch.where(clean < 0, math.nan, self.peak * (ratio - 1))

    def variance(self, y: Tensor) -> Tensor:
        """The rate estimated by y itself, at least one photon."""
        return y.clamp(min=1 / self.peak) / self.peak

    def variance_at(self, y: Tensor, clean: Tensor) -> Tensor:
        return clean.clamp(min=0) / self.peak

    def gaussian(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The moments of Gamma(peak y + 1, peak): y + 1 / peak, and that over peak."""
        mean = y + 1 / self.peak
        return mean, mean / self.peak


@dataclass(frozen=True)
class Counts(Poisson):
    """y ~ Poisson(A x): the photons themselves, of which A says how many are expected. ``Poisson``
    with a peak of 1, in whole photons."""

    peak: Positive = 1.0

    def __post_init__(self) -> None:
        if self.peak != 1:
            raise ValueError(
                "Counts are whole photons, y ~ Poisson(A x), and have no peak; "
                f"got {self.peak:g}: use Poisson(peak)"
            )


@dataclass(frozen=True)
class PoissonGaussian(NoiseLaw):
    """y = Poisson(peak A x) / peak + sigma z: photons, read out by an amplifier of level sigma.

        p(y) = sum_k Poisson(k; peak A x) N(y; k / peak, sigma^2)

    peak: photons where the clean measurement is 1. sigma: in the units of y; sigma peak is the read
    noise in photons, at most 40: beyond, the counts are no longer seen, and the noise is Gaussian
    of variance A x / peak + sigma^2. The sum is over the k within ten sigma of where they lie.

    Source: Foi, Trimeche, Katkovnik, Egiazarian, Practical Poissonian-Gaussian noise modeling and
    fitting for single-image raw-data, 2008.
    """

    peak: Positive
    sigma: Positive

    def __post_init__(self) -> None:
        if self.sigma * self.peak > 40:
            raise ValueError(
                f"PoissonGaussian: a read noise of sigma peak = {self.sigma * self.peak:.3g} "
                "photons hides the counts: use CorrelatedGaussian.of_levels with the levels "
                "sqrt(y / peak + sigma^2)"
            )

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def check_kind(self, y: Tensor) -> None:
        check_numbers(y, False, "PoissonGaussian")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        return _counted(clean, self.peak, rng) + self.sigma * rng.normal(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        return self.log_prob_each(y, clean).flatten(1).sum(1)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor:
        rate = self.peak * clean.clamp(min=0)
        total = self._log_sum(self.peak * y, rate) + math.log(self.peak)
        return torch.where(clean < 0, -math.inf, total)

    def _log_sum(self, z: Tensor, rate: Tensor) -> Tensor:
        """log sum_k Poisson(k; rate) N(z; k, read^2), in photons. Given z and the rate, k lies
        around where both agree, with less spread than either."""
        read = self.sigma * self.peak
        both = rate + read**2
        middle = ((rate * read**2 + z * rate) / both).round().clamp(min=0)
        reach = math.ceil(10 * read) + 2
        total = torch.full_like(middle + z, -math.inf)
        for j in range(-reach, reach + 1):
            k = middle + j
            term = (
                torch.xlogy(k, rate)
                - rate
                - torch.lgamma(k.clamp(min=0) + 1)
                - 0.5 * ((z - k) / read).square()
            )
            total = torch.logaddexp(total, torch.where(k < 0, -math.inf, term))
        return total - math.log(read * math.sqrt(2 * math.pi))

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """peak (p(y - 1 / peak) / p(y) - 1), and NaN at a negative rate."""
        rate, z = self.peak * clean.clamp(min=0), self.peak * y
        ratio = (self._log_sum(z - 1, rate) - self._log_sum(z, rate)).exp()
        return torch.where(clean < 0, math.nan, self.peak * (ratio - 1))

    def variance(self, y: Tensor) -> Tensor:
        """At the rate that y itself tells."""
        return y.clamp(min=0) / self.peak + self.sigma**2

    def variance_at(self, y: Tensor, clean: Tensor) -> Tensor:
        return clean.clamp(min=0) / self.peak + self.sigma**2


def _counted(clean: Tensor, peak: float, rng: Streams) -> Tensor:
    """Photons at ``peak`` times the clean measurement, over the peak. Raises ``ValueError`` for a
    measurement that is negative by more than rounding."""
    check_numbers(clean, False, "Poisson")
    lowest, highest = float(clean.min()), float(clean.max())
    if lowest < -1e-6 * max(highest, 0.0):
        raise ValueError(
            f"Poisson noise needs a clean measurement >= 0, got a minimum of {lowest:.3g}; "
            "state the range of the image"
        )
    return rng.poisson(peak * clean.clamp(min=0)) / peak
