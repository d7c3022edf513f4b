"""How a clean measurement A x becomes y: noise laws on measurements (B, *O).

Every law says how to ``sample`` it, the ``log_prob`` of a measurement and its ``score`` with
respect to the clean one, and the ``variance`` of each measured number as far as y itself tells.
``std`` is the standard deviation of a Gaussian law (per real number), None otherwise: the closed
forms ask for it. ``support`` is where a clean measurement may lie, ``gaussian`` and ``variance_at``
are what methods take that know the law by two moments.

Complex measurements: sigma is always given *by name*, per real channel or per complex number
(sqrt(2) times larger), because both conventions are in use and differ by 41 %.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from posteriori import identity
from posteriori.linalg import real_view
from posteriori.rng import Streams
from posteriori.settings import Checked, NonNegative, Positive, Whole

# Degrees of freedom of a law that has a variance.
Freedom = Annotated[Whole, Field(ge=3)]


class NoiseLaw(metaclass=Checked):
    """A noise law. All methods work row by row on (B, *O)."""

    @abstractmethod
    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        """Draw y given the clean measurement."""

    @abstractmethod
    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        """log p(y | clean) of each row, normalised over y: (B,). y broadcasts over rows."""

    @abstractmethod
    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        """d log p(y | clean) / d clean: (B, *O)."""

    @abstractmethod
    def variance(self, y: Tensor) -> Tensor:
        """Variance of each measured real number, estimated from y where the law needs it;
        broadcasts against y."""

    def check_kind(self, y: Tensor) -> None:
        """Raise ``TypeError`` naming both kinds of number when the law is not one of such
        measurements. Any y by default."""
        return

    @property
    def std(self) -> float | None:
        """Standard deviation of a Gaussian law, None for any other."""
        return None

    def record(self) -> dict[str, Any]:
        """What this law is by content, as JSON values; see ``posteriori.identity``. To be
        overridden where numbers live elsewhere."""
        return identity.content(self)

    @property
    def support(self) -> tuple[float, float]:
        """The lowest and the highest clean number that the law knows; outside, ``log_prob`` is
        -inf. By default all numbers."""
        return -math.inf, math.inf

    def variance_at(self, y: Tensor, clean: Tensor) -> Tensor:
        """Variance of each measured real number given the clean one, 0 outside the support. By
        default ``variance``."""
        return self.variance(y)

    def gaussian(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each clean number under a flat prior, given y alone. By default y
        and ``variance``."""
        return y, self.variance(y)

    def log_prob_each(self, y: Tensor, clean: Tensor) -> Tensor | None:
        """The terms that ``log_prob`` sums, (B, *O), for a law whose numbers are independent; None
        where it names none."""
        return None

    def scaled(self, factor: float) -> NoiseLaw:
        """The law of ``factor * y``. Raises ``ValueError`` for a law that is not closed under
        scaling."""
        raise ValueError(f"{type(self).__name__} noise cannot be rescaled")


def _check_complex(y: Tensor, wanted: bool, law: str) -> None:
    if y.is_complex() != wanted:
        kind, met = ("complex", "real") if wanted else ("real", "complex")
        other = "ComplexGaussian(sigma_per_channel=...)" if y.is_complex() else "Gaussian(sigma)"
        raise TypeError(
            f"{law} noise is of {kind} numbers and met {met} measurements ({y.dtype}); use {other}"
        )


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
        _check_complex(y, False, "Gaussian")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        _check_complex(clean, False, "Gaussian")
        return clean + self.sigma * rng.normal(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        _check_complex(clean, False, "Gaussian")
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
        _check_complex(y, True, "ComplexGaussian")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        _check_complex(clean, True, "ComplexGaussian")
        return clean + self.std * rng.normal(clean)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        _check_complex(clean, True, "ComplexGaussian")
        return _gaussian_log_prob(y - clean, self.std)

    def score(self, y: Tensor, clean: Tensor) -> Tensor:
        return (y - clean) / self.std**2

    def variance(self, y: Tensor) -> Tensor:
        return torch.as_tensor(self.std**2, dtype=y.real.dtype, device=y.device)

    def scaled(self, factor: float) -> ComplexGaussian:
        return ComplexGaussian(sigma_per_channel=self.std * abs(factor))


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
        _check_complex(y, False, "Poisson")

    def sample(self, clean: Tensor, rng: Streams) -> Tensor:
        _check_complex(clean, False, "Poisson")
        lowest, highest = float(clean.min()), float(clean.max())
        if lowest < -1e-6 * max(highest, 0.0):
            raise ValueError(
                f"Poisson noise needs a clean measurement >= 0, got a minimum of {lowest:.3g}; "
                "state the range of the image"
            )
        return rng.poisson(self.peak * clean.clamp(min=0)) / self.peak

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


class _Heavy(NoiseLaw):
    """Independent real errors of a density with heavier tails than a Gaussian's, symmetric around
    0."""

    def check_kind(self, y: Tensor) -> None:
        _check_complex(y, False, type(self).__name__)

    def log_prob(self, y: Tensor, clean: Tensor) -> Tensor:
        _check_complex(clean, False, type(self).__name__)
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
        _check_complex(clean, False, "Laplace")
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
        _check_complex(clean, False, "StudentT")
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
