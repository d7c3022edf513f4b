"""What a noise law is asked."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from torch import Tensor

from posteriori import identity
from posteriori.covariances import Whitening
from posteriori.rng import Rng, Streams
from posteriori.settings import Checked


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
        own = type(self).__module__.startswith("posteriori.noise.")
        public = {"class": f"posteriori.noise.{type(self).__qualname__}"} if own else {}
        return identity.content(self) | public

    @property
    def levels(self) -> dict[str, Any]:
        """The settings of this law, as a person reads them: numbers and words, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def mean(self, clean: Tensor) -> Tensor:
        """E[y] given the clean measurement. By default that."""
        return clean

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

    @property
    def core(self) -> float | None:
        """The level of the Gaussian noise that this law is of when each number has a precision of
        its own, which is not known: e ~ N(0, core^2 / w). None for a law that is not so."""
        return None

    def precision(self, error: Tensor, rng: Rng | None = None) -> Tensor:
        """w given the errors (B, *O), broadcasting against them: what is expected, with a source of
        random numbers a draw. ``score`` is w e / core^2 for the former."""
        raise TypeError(f"{type(self).__name__} noise is not Gaussian at given precisions")

    def whitening(self, y: Tensor) -> Whitening | None:
        """What makes Gaussian noise on measurements like y (*O) white; None where it is white, or
        is not Gaussian."""
        return None

    def scaled(self, factor: float) -> NoiseLaw:
        """The law of ``factor * y``. Raises ``ValueError`` for a law that is not closed under
        scaling."""
        raise ValueError(f"{type(self).__name__} noise cannot be rescaled")


def check_numbers(y: Tensor, wanted: bool, law: str) -> None:
    if y.is_complex() != wanted:
        kind, met = ("complex", "real") if wanted else ("real", "complex")
        other = "ComplexGaussian(sigma_per_channel=...)" if y.is_complex() else "Gaussian(sigma)"
        raise TypeError(
            f"{law} noise is of {kind} numbers and met {met} measurements ({y.dtype}); use {other}"
        )
