"""The ``noise`` of a problem file. A level means nothing without the range it is relative to, so ``range`` is required."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from posteriori import noise as laws
from posteriori.problems.fields import Number, Part, Positive, Range

Level = Annotated[Number, Field(ge=0)]


class Gaussian(Part):
    """y = A x + sigma z, with sigma in the units of y when x lies in ``range``."""

    law: Literal["gaussian"]
    sigma: Level
    range: Range

    def build(self) -> laws.Noise:
        return laws.Gaussian(self.sigma)


class ComplexGaussian(Part):
    """For complex measurements: the level of the real part (and of the imaginary part), or sqrt(2) times that, by name."""

    law: Literal["complex-gaussian"]
    sigma_per_channel: Level | None = None
    sigma_complex: Level | None = None
    range: Range

    @model_validator(mode="after")
    def one(self) -> ComplexGaussian:
        self.build()
        return self

    def build(self) -> laws.Noise:
        return laws.ComplexGaussian(self.sigma_per_channel, self.sigma_complex)


class Poisson(Part):
    """``peak`` photons where the clean measurement is 1."""

    law: Literal["poisson"]
    peak: Positive
    range: Range

    @model_validator(mode="after")
    def light(self) -> Poisson:
        if self.range[0] < 0:
            raise ValueError(f"photons are counted from black = 0, so the range cannot start at {self.range[0]:g}; use for example [0, 1]")
        return self

    def build(self) -> laws.Noise:
        return laws.Poisson(self.peak)


Section = Annotated[Gaussian | ComplexGaussian | Poisson, Field(discriminator="law")]
