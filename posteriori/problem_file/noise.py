"""The ``noise`` of a problem file. A level means nothing without the range it is relative to, so
``range`` is required."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from posteriori import noise as laws
from posteriori.covariances import FourierNoise, MatrixNoise
from posteriori.problem_file.types import Count, File, Number, Part, Positive, RisingPair

_Level = Annotated[Number, Field(ge=0)]
# Stands for a level that is to be estimated until y has been read: beside it nothing in y is a
# doubt.
_UNKNOWN = 1e30


class GaussianEntry(Part):
    """y = A x + sigma z, with sigma in the units of y when x lies in ``range``.

    sigma: "estimate" has it estimated from the measurement, see
    ``posteriori.problem_file.noise_level``. trust: the level is not known, sigma counts as much as
    so many measured numbers, and what that leaves open enters the intervals.
    """

    law: Literal["gaussian"]
    sigma: _Level | Literal["estimate"]
    trust: Count | None = None
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
        return self.at(_UNKNOWN if isinstance(self.sigma, str) else self.sigma)

    def at(self, level: float) -> laws.NoiseLaw:
        """The law at a level."""
        if self.trust is None:
            return laws.Gaussian(level)
        return laws.UnknownGaussian(level, self.trust)


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


class _Stated(Part):
    """A law whose level the file states, and its range."""

    if TYPE_CHECKING:
        range: RisingPair

    @property
    def stated_level(self) -> bool:
        """Whether the file states a level."""
        return True

    def stated(self) -> tuple[float, float]:
        """The range that the file states."""
        return self.range


class _StatedScale(_Stated):
    """A law of real numbers with a stated scale."""

    scale: Positive
    range: RisingPair


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


class HuberEntry(_StatedScale):
    """Errors that are Gaussian of level ``scale`` up to ``corner`` of these, with Laplace's tails
    beyond."""

    law: Literal["huber"]
    corner: Positive = 1.345

    def build(self) -> laws.NoiseLaw:
        return laws.Huber(self.scale, self.corner)


class _StatedSigma(_Stated):
    """A law with Gaussian noise of a stated level in it."""

    sigma: Positive
    range: RisingPair


class OutliersEntry(_StatedSigma):
    """Gaussian noise, and a share of numbers that are lost: these lie anywhere in [low, high]."""

    law: Literal["outliers"]
    share: laws.Open
    low: Number
    high: Number

    def build(self) -> laws.NoiseLaw:
        return laws.Outliers(self.sigma, self.share, self.low, self.high)


class RicianEntry(_StatedSigma):
    """Magnitudes of complex numbers with noise of level sigma in each part."""

    law: Literal["rician"]

    def build(self) -> laws.NoiseLaw:
        return laws.Rician(self.sigma)


class QuantisedEntry(_StatedSigma):
    """Numbers that were rounded to multiples of ``step`` after noise of level sigma came, within
    [low, high] where they are stated."""

    law: Literal["quantised"]
    step: Positive
    low: Number | None = None
    high: Number | None = None

    def build(self) -> laws.NoiseLaw:
        return laws.Quantised(self.sigma, self.step, self.low, self.high)


class PoissonGaussianEntry(_StatedSigma):
    """Photons, ``peak`` of them where the clean measurement is 1, read out with noise of level
    sigma."""

    law: Literal["poisson-gaussian"]
    peak: Positive

    def build(self) -> laws.NoiseLaw:
        return laws.PoissonGaussian(self.peak, self.sigma)


class SpeckleEntry(_Stated):
    """Intensities of coherent light, the mean of so many ``looks``."""

    law: Literal["speckle"]
    looks: Count = 1
    range: RisingPair

    def build(self) -> laws.NoiseLaw:
        return laws.Speckle(self.looks)


class CorrelatedEntry(Part):
    """Gaussian noise that is not white, by exactly one array in the units of y: ``levels``, the
    standard deviation of each measured number; ``power``, the variance of each
    coefficient of the orthonormal Fourier transform of stationary noise, the frequency 0 first;
    ``covariance``, the matrix."""

    law: Literal["correlated-gaussian"]
    levels: File | None = None
    power: File | None = None
    covariance: File | None = None
    range: RisingPair

    @model_validator(mode="after")
    def one(self) -> CorrelatedEntry:
        given = [v for v in (self.levels, self.power, self.covariance) if v is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of levels, power and covariance, a .npy file each")
        return self

    @property
    def stated_level(self) -> bool:
        """Whether the file states a level."""
        return True

    def stated(self) -> tuple[float, float]:
        """The range that the file states."""
        return self.range

    def build(self) -> laws.NoiseLaw:
        if self.levels is not None:
            return laws.CorrelatedGaussian.of_levels(_array(self.levels))
        if self.covariance is not None:
            return laws.CorrelatedGaussian(MatrixNoise(_array(self.covariance)))
        assert self.power is not None  # by ``one``
        power = _array(self.power)
        if power.ndim < 2 or not bool((power > 0).all()):
            raise ValueError(
                f"noise.power: {self.power.name} has shape {tuple(power.shape)} and the least "
                f"value {float(power.min()):.3g}; variances > 0 (H, W) are needed"
            )
        return laws.CorrelatedGaussian(FourierNoise(power))


def _array(path: Path) -> Tensor:
    """The numbers of a .npy file, float64. Raises ``ValueError`` for another file."""
    if path.suffix != ".npy":
        raise ValueError(f"noise: {path.name} is no .npy file")
    found = np.load(path, allow_pickle=False)
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise ValueError(f"noise: {path.name} holds numbers that are not real and finite")
    return torch.from_numpy(found.astype(np.float64))


NoiseSection = Annotated[
    GaussianEntry
    | ComplexGaussianEntry
    | CorrelatedEntry
    | PoissonEntry
    | PoissonGaussianEntry
    | LaplaceEntry
    | StudentTEntry
    | HuberEntry
    | OutliersEntry
    | RicianEntry
    | SpeckleEntry
    | QuantisedEntry,
    Field(discriminator="law"),
]


def complete(noise: NoiseSection, positive: bool) -> None:
    """Raise ``ValueError`` for a level or range that is left out, and for photons of an operator
    whose measurements are not ``positive`` when images are negative."""
    low, _ = noise.stated()
    if not noise.stated_level:
        noise.build()
    if isinstance(noise, PoissonEntry | PoissonGaussianEntry) and low < 0 and not positive:
        raise ValueError(
            f"photons are counted from black = 0, so the range cannot start at {low:g}; "
            "use for example [0, 1]"
        )
    if isinstance(noise, SpeckleEntry) and low < 0 and not positive:
        raise ValueError(
            f"speckle is of intensities >= 0, so the range cannot start at {low:g}; "
            "use for example [0, 1]"
        )
