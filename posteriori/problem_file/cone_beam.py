"""X-ray tomography of a volume by a cone of rays, in a problem file.

    operator: {name: cone-beam, angles: 120, pixel_mm: 1, source_mm: 500, detector_at_mm: 400}

The measurement is (angles, rows, detectors), images are volumes (slices, rows, columns) in the
units of ``ct``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor

from posteriori import operators as ops
from posteriori.priors import Prior
from posteriori.problem_file import noise as noises
from posteriori.problem_file.ct import LineIntegrals
from posteriori.problem_file.section import Instrument, Ready, Shape
from posteriori.problem_file.types import Count, Number, Positive

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Measurement


class ConeBeamEntry(LineIntegrals, Instrument):
    """Tomography of a volume by rays from a point to a flat detector: line integrals. The source is
    that of fan-beam, in the middle plane of the slices; the rows of the detector lie along them."""

    name: Literal["cone-beam"]
    source_mm: Positive
    detector_at_mm: Annotated[Number, Field(ge=0)]
    rows: Count | None = None
    slice_mm: Positive | None = None

    @model_validator(mode="after")
    def both(self) -> ConeBeamEntry:
        if (self.rows is None) != (self.detectors is None):
            raise ValueError("rows and detectors are the sides of one detector: give both or none")
        return self

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        self.check_range(*noise.stated())
        return super().ready(source, noise, prior)

    def ordered(self, y: Tensor, path: str) -> Tensor:
        count = self.angles if isinstance(self.angles, int) else len(self.angles)
        if y.ndim != 3 or len(y) != count:
            raise ValueError(
                f"{path} has shape {tuple(y.shape)}, and there are {count} angles; "
                "projections of a cone beam are (angles, rows, detectors)"
            )
        return y

    def matched(self, y: Tensor) -> Instrument:
        known = {"rows": y.shape[-2], "detectors": y.shape[-1]}
        return self if self.detectors else self.model_copy(update=known)

    def rays(self, shape: Shape) -> ops.Sparse:
        sides = None
        if self.rows is not None and self.detectors is not None:
            sides = self.rows, self.detectors
        return ops.ConeBeam(
            shape,
            self.degrees(360),
            self.pixel_mm,
            self.source_mm,
            self.detector_at_mm,
            sides,
            self.detector_mm,
            self.slice_mm,
        )

    def sides(self, y: Tensor) -> Shape:
        """The shape of a volume as high and wide as what the detector sees of the middle."""
        enlarged = 1 + self.detector_at_mm / self.source_mm
        step = self.pixel_mm if self.detector_mm is None else self.detector_mm / enlarged
        side = max(1, round(y.shape[-1] * step / self.pixel_mm))
        return (max(1, round(y.shape[-2] * step / (self.slice_mm or self.pixel_mm))), side, side)
