"""X-ray tomography in a problem file: sinograms of line integrals, and photon counts.

    operator: {name: radon, angles: 180, pixel_mm: 0.7}
    operator: {name: fan-beam, angles: 360, pixel_mm: 0.7, source_mm: 500, detector_at_mm: 400}
    operator: {name: transmission, angles: 180, pixel_mm: 0.7, photons: blank.npy, unit: HU,
    mu_water: 0.019}

Images are attenuations in 1 / mm, or Hounsfield units h with the attenuation
mu_water (1 + h / 1000); so are the samples of a run. A sinogram in a file is (angles, detectors).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import read_array, read_image
from posteriori.measurements.arrays import ARRAY_SUFFIXES as ARRAYS
from posteriori.noise import Counts, Gaussian, NoiseLaw
from posteriori.operators.base import Operator
from posteriori.priors import Prior
from posteriori.problem_file import noise as noises
from posteriori.problem_file.section import Baseline, Instrument, Ready, Shape
from posteriori.problem_file.types import Count, File, Number, Part, Positive

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Measurement, Reading

# Attenuations in 1 / mm are below 1 for all that is X-rayed; Hounsfield units span hundreds.
_LARGEST = 10.0
_USUAL = "Filtered back-projection"


class Geometry(Part):
    """Parallel rays. angles: how many, evenly over 180 degrees, or a list of degrees. pixel_mm:
    side of a pixel of the image.

    detectors: by default those of the measured sinogram, else enough for the diagonal of the image.
    detector_mm: their spacing, by default pixel_mm. unit: of the image. mu_water: the attenuation
    of water in 1 / mm at the energy of the rays, for Hounsfield units.
    """

    angles: Count | tuple[Number, ...]
    pixel_mm: Positive
    detectors: Count | None = None
    detector_mm: Positive | None = None
    unit: Literal["1/mm", "HU"] = "1/mm"
    mu_water: Positive | None = None

    @model_validator(mode="after")
    def water(self) -> Geometry:
        if (self.unit == "HU") != (self.mu_water is not None):
            raise ValueError(
                "unit: HU needs mu_water, the attenuation of water in 1 / mm "
                "(about 0.0193 at 70 keV), and nothing else takes one"
            )
        return self

    @property
    def affine(self) -> tuple[float, float]:
        """a, b: the attenuation a x + b of an image x."""
        return (1.0, 0.0) if self.mu_water is None else (self.mu_water / 1000, self.mu_water)

    def degrees(self, arc: float) -> Sequence[float]:
        """Each angle; a number of them lies evenly over an arc in degrees."""
        if isinstance(self.angles, int):
            return [arc * k / self.angles for k in range(self.angles)]
        return self.angles

    def rays(self, shape: Shape) -> ops.Sparse:
        """The line integrals of an attenuation."""
        return ops.Radon(shape, self.degrees(180), self.pixel_mm, self.detectors, self.detector_mm)

    def check_range(self, low: float, high: float) -> None:
        """Raise ``ValueError`` when a range of images looks like the other unit."""
        wide = max(abs(low), abs(high)) > _LARGEST
        if wide and self.unit != "HU":
            raise ValueError(
                f"noise.range [{low:g}, {high:g}] is no attenuation in 1 / mm; "
                "Hounsfield units need unit: HU and mu_water"
            )
        if not wide and self.unit == "HU":
            raise ValueError(
                f"noise.range [{low:g}, {high:g}] is in 1 / mm, the unit is HU: "
                "state for example range: [-1000, 1500]"
            )

    def ordered(self, y: Tensor, path: str) -> Tensor:
        """y itself. Raises ``ValueError`` for one whose axes are not (..., angles, detectors)."""
        count = self.angles if isinstance(self.angles, int) else len(self.angles)
        if y.ndim < 2 or y.shape[-2] != count:
            turned = y.ndim >= 2 and y.shape[-1] == count
            cure = (
                "its axes are (detectors, angles): store it transposed"
                if turned
                else "a sinogram here is (angles, detectors)"
            )
            raise ValueError(
                f"{path} has shape {tuple(y.shape)}, and there are {count} angles; {cure}"
            )
        return y

    def sides(self, y: Tensor) -> Shape:
        """The shape of an image as wide as the detector of a sinogram y."""
        width = y.shape[-1] * (self.detector_mm or self.pixel_mm) / self.pixel_mm
        return (y.shape[0] if y.ndim > 2 else 1, max(1, round(width)), max(1, round(width)))


class LineIntegrals(Geometry):
    """Line integrals, as they come from the logarithm of the counts."""

    def build(self, shape: Shape) -> Operator:
        rays, (a, _) = self.rays(shape), self.affine
        return rays if self.unit == "1/mm" else ops.Scaled(rays, a)

    def arrange(self, y: Tensor, path: str) -> Tensor:
        return self.ordered(y, path)

    def like(self, y: Tensor) -> Shape | None:
        return self.sides(y)

    def linear_part(self, A: Operator, y: Tensor) -> Tensor:
        """Without the line integrals of water, which an image of 0 HU has."""
        return y - _integrals(A, self.affine[1]).to(y)


class RadonEntry(LineIntegrals, Instrument):
    """Tomography: line integrals, as they come from the logarithm of the counts."""

    name: Literal["radon"]

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        self.check_range(*noise.stated())
        return super().ready(source, noise, prior)

    def matched(self, y: Tensor) -> Instrument:
        return self if self.detectors else self.model_copy(update={"detectors": y.shape[-1]})

    def baseline(self, A: Operator) -> Baseline:
        a, b = self.affine
        return Baseline(
            "Filtered back-projection",
            lambda y: (
                (ops.back_projection(_radon(A), (y + _integrals(A, b).to(y))[None])[0] - b) / a
            ),
        )


class FanBeamEntry(LineIntegrals, Instrument):
    """Tomography by rays from a point to a flat detector: line integrals. The source is at
    source_mm (sin a, -cos a) from the middle of the image, X to the right and Y upwards, the middle
    of the detector opposite at detector_at_mm."""

    name: Literal["fan-beam"]
    source_mm: Positive
    detector_at_mm: Annotated[Number, Field(ge=0)]

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        self.check_range(*noise.stated())
        return super().ready(source, noise, prior)

    def matched(self, y: Tensor) -> Instrument:
        return self if self.detectors else self.model_copy(update={"detectors": y.shape[-1]})

    def rays(self, shape: Shape) -> ops.Sparse:
        return ops.FanBeam(
            shape,
            self.degrees(360),
            self.pixel_mm,
            self.source_mm,
            self.detector_at_mm,
            self.detectors,
            self.detector_mm,
        )

    def sides(self, y: Tensor) -> Shape:
        """The shape of an image as wide as what a detector sees of the middle."""
        enlarged = 1 + self.detector_at_mm / self.source_mm
        step = self.pixel_mm if self.detector_mm is None else self.detector_mm / enlarged
        side = max(1, round(y.shape[-1] * step / self.pixel_mm))
        return (y.shape[0] if y.ndim > 2 else 1, side, side)


class TransmissionEntry(Geometry, Instrument):
    """X-ray tomography by photons: exp(-line integrals).

    photons: those that each detector counts where nothing is in the way, a number or a file of
    (detectors,) or (angles, detectors). The measurement is then the counts themselves, and poisson
    noise has no peak. Without photons the measurement is the share that passes, and the peak of
    poisson noise is the number of photons.
    linear: the counts are taken for line integrals log(photons / y) with Gaussian noise of variance
    1 / y, each in units of its own noise level: the Poisson law to second order, good for tens of
    photons or more, with which methods for linear operators work.
    Source: Sauer and Bouman, A local update strategy for iterative reconstruction from projections,
    1993.
    """

    positive = True
    name: Literal["transmission"]
    photons: Positive | File | None = Field(None, union_mode="left_to_right")
    linear: Annotated[bool, Field(strict=True)] = False
    _counts: Tensor | None = PrivateAttr(None)

    @model_validator(mode="after")
    def counted(self) -> TransmissionEntry:
        if self.linear and self.photons is None:
            raise ValueError("linear takes the counts for line integrals, so that it needs photons")
        return self

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        low, high = noise.stated()
        self.check_range(low, high)
        if not self.calibrates:
            return super().ready(source, noise, prior)
        if not isinstance(noise, noises.PoissonEntry) or noise.peak is not None:
            raise ValueError(
                "noise: with photons the counts themselves are measured: "
                "state {law: poisson, range: ...}, and no peak"
            )
        if self.linear and source.file is None:
            raise ValueError(
                "linear takes the noise level of each ray from measured counts: "
                "measurement: {file: ...}"
            )
        law: NoiseLaw = Gaussian(1.0) if self.linear else Counts()
        said = f"{_span(self._photons())} photons at a detector without an object"
        how = (
            "the counts are taken for line integrals with Gaussian noise, "
            "each in units of its noise level"
        )
        notes = (said, how) if self.linear else (said,)
        return Ready(self, law, (low, high), prior, notes)

    def build(self, shape: Shape) -> Operator:
        photons, (a, b) = self._photons(), self.affine
        if self._counts is not None:
            return ops.Weighted(
                ops.Scaled(self.rays(shape), a),
                self._counts.sqrt().reshape(-1, *self._counts.shape[-2:]),
            )
        A = ops.Transmission(self.rays(shape), 1.0 if photons is None else photons)
        return A if self.unit == "1/mm" else ops.Affine(A, a, b)

    def reading(self, how: Reading) -> Reading:
        return (
            how.model_copy(update={"scale": 1.0})
            if self.calibrates and how.scale is None and how.white is None
            else how
        )

    def arrange(self, y: Tensor, path: str) -> Tensor:
        if bool((y < 0).any()):
            raise ValueError(
                f"{path} has values down to {float(y.min()):.4g}, photons are no fewer than 0. "
                "Line integrals: operator radon"
            )
        return self.ordered(y, path)

    def matched(self, y: Tensor) -> Instrument:
        known = self.model_copy(update={"detectors": self.detectors or y.shape[-1]})
        known._counts = y.clamp(min=1) if self.linear else None
        return known

    def like(self, y: Tensor) -> Shape | None:
        return self.sides(y)

    def linear_part(self, A: Operator, y: Tensor) -> Tensor:
        """Of counts taken for line integrals: these, without those of water for Hounsfield units,
        over their noise levels."""
        if not isinstance(A, ops.Weighted):
            return y
        photons, counts = self._photons(), y.clamp(min=1)
        assert photons is not None  # linear needs them
        return A.weights * (torch.log(photons / counts) - _integrals(A, self.affine[1]).to(y))

    def baseline(self, A: Operator) -> Baseline:
        """Of the line integrals log(I0 / y), at least half a photon
        (one, where they are taken for linear)."""
        a, b = self.affine
        if isinstance(A, ops.Weighted):
            weights = A.weights

            def of_integrals(y: Tensor) -> Tensor:
                integrals = y / weights + _integrals(A, b).to(y)
                return (ops.back_projection(_radon(A), integrals[None])[0] - b) / a

            return Baseline(_USUAL, of_integrals)
        inner = A.A if isinstance(A, ops.Affine) else A
        assert isinstance(inner, ops.Transmission)
        least = 0.5 if self.calibrates else 1e-6

        def image(y: Tensor) -> Tensor:
            integrals = torch.log(inner.photons.to(y) / y.clamp(min=least))
            return (ops.back_projection(_radon(inner), integrals[None])[0] - b) / a

        return Baseline(_USUAL, image)

    @property
    def calibrates(self) -> bool:  # type: ignore[override]
        return self.photons is not None

    def _photons(self) -> Tensor | None:
        if self.photons is None or isinstance(self.photons, float):
            return None if self.photons is None else torch.tensor(self.photons)
        path = Path(self.photons)
        numbers = (
            read_array(path)
            if path.suffix in ARRAYS
            else read_image(path, channels=1, scale=1.0)[0][0]
        )
        if numbers.is_complex() or numbers.ndim > 2:
            raise ValueError(
                f"{path} has shape {tuple(numbers.shape)}, "
                "photons are (detectors,) or (angles, detectors) real numbers"
            )
        return numbers.float()


def _radon(A: Operator) -> ops.Radon:
    """The parallel projector within an operator of this module."""
    rays = _projector(A)
    assert isinstance(rays, ops.Radon)  # who calls has made it
    return rays


def _projector(A: Operator) -> ops.Sparse:
    """The projector within an operator of this module."""
    while not isinstance(A, ops.Sparse):
        A = A.A  # type: ignore[assignment]
    return A


def _integrals(A: Operator, value: float) -> Tensor:
    """The line integrals of an image that is ``value`` everywhere."""
    rays = _projector(A)
    return rays(torch.full((1, *rays.in_shape), value))[0]


def _span(photons: Tensor | None) -> str:
    assert photons is not None  # who calls has asked
    low, high = float(photons.min()), float(photons.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
