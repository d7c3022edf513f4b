"""The ``noise`` of a problem file. A level means nothing without the range it is relative to, so
``range`` is required."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from posteriori import noise as laws
from posteriori.problem_file.types import Number, Part, Positive, RisingPair

_Level = Annotated[Number, Field(ge=0)]
# Stands for a level that is to be estimated until y has been read: beside it nothing in y is a
# doubt.
_UNKNOWN = 1e30


class GaussianEntry(Part):
    """y = A x + sigma z, with sigma in the units of y when x lies in ``range``.

    sigma: "estimate" has it estimated from the measurement, see
    ``posteriori.problem_file.noise_level``.
    """

    law: Literal["gaussian"]
    sigma: _Level | Literal["estimate"]
    range: RisingPair

    @property
    def stated_level(self) -> bool:
        """Whether the file states a level."""
        return True

    @property
    def unknown(self) -> bool:
        """Whether the level is to be estimated."""
        return self.sigma == "estimate"

    def stated(self) -> tuple[float, float]:
        """The range that the file states."""
        return self.range

    def build(self) -> laws.NoiseLaw:
        return laws.Gaussian(_UNKNOWN if isinstance(self.sigma, str) else self.sigma)


class ComplexGaussianEntry(Part):
    """For complex measurements: the level of the real part (and of the imaginary part), or sqrt(2)
    times that, by name.

    Level and range may be left out where the operator takes them from the measurement, as ``mri``
    does.
    """

    law: Literal["complex-gaussian"]
    sigma_per_channel: _Level | None = None
    sigma_complex: _Level | None = None
    range: RisingPair | None = None

    @model_validator(mode="after")
    def one(self) -> ComplexGaussianEntry:
        if self.stated_level:
            self.build()
        return self

    @property
    def stated_level(self) -> bool:
        """Whether the file states a level."""
        return self.sigma_per_channel is not None or self.sigma_complex is not None

    def stated(self) -> tuple[float, float]:
        """The range that the file states. Raises ``ValueError`` without one."""
        if self.range is None:
            raise ValueError(
                "noise.range: state the range of images that the level refers to; "
                "only the operator mri takes it from y"
            )
        return self.range

    def build(self) -> laws.NoiseLaw:
        if not self.stated_level:
            raise ValueError(
                "noise: give exactly one of sigma_per_channel and sigma_complex "
                "(sqrt(2) times it); only the operator mri estimates it"
            )
        return laws.ComplexGaussian(self.sigma_per_channel, self.sigma_complex)


class PoissonEntry(Part):
    """``peak`` photons where the clean measurement is 1. None where the operator counts photons
    itself, as ``transmission`` may."""

    law: Literal["poisson"]
    peak: Positive | None = None
    range: RisingPair

    def stated(self) -> tuple[float, float]:
        """The range that the file states."""
        return self.range

    @property
    def stated_level(self) -> bool:
        """Whether the file states a level."""
        return self.peak is not None

    def build(self) -> laws.NoiseLaw:
        if self.peak is None:
            raise ValueError(
                "noise.peak: state the number of photons where the clean measurement is 1"
            )
        return laws.Poisson(self.peak)


class _StatedScale(Part):
    """A law of real numbers whose scale and range the file states."""

    scale: Positive
    range: RisingPair

    @property
    def stated_level(self) -> bool:
        """Whether the file states a level."""
        return True

    def stated(self) -> tuple[float, float]:
        """The range that the file states."""
        return self.range


class LaplaceEntry(_StatedScale):
    """Errors of density exp(-|e| / scale) / (2 scale), scale in the units of y."""

    law: Literal["laplace"]

    def build(self) -> laws.NoiseLaw:
        return laws.Laplace(self.scale)


class StudentTEntry(_StatedScale):
    """Errors of Student's law: Gaussian of level ``scale`` where they are small, with the tails of
    outliers, the heavier the smaller ``freedom`` is."""

    law: Literal["student-t"]
    freedom: laws.Freedom = 4

    def build(self) -> laws.NoiseLaw:
        return laws.StudentT(self.scale, self.freedom)


NoiseSection = Annotated[
    GaussianEntry | ComplexGaussianEntry | PoissonEntry | LaplaceEntry | StudentTEntry,
    Field(discriminator="law"),
]


def complete(noise: NoiseSection, positive: bool) -> None:
    """Raise ``ValueError`` for a level or range that is left out, and for photons of an operator
    whose measurements are not ``positive`` when images are negative."""
    low, _ = noise.stated()
    if not noise.stated_level:
        noise.build()
    if isinstance(noise, PoissonEntry) and low < 0 and not positive:
        raise ValueError(
            f"photons are counted from black = 0, so the range cannot start at {low:g}; "
            "use for example [0, 1]"
        )
