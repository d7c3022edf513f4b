"""Aperture synthesis in a problem file: the visibilities of a uvfits file, each with its own noise
level.

    operator: {name: aperture-synthesis, size: 64, field_uas: 160}
    noise: {law: complex-gaussian, range: [0, 0.001]}
    measurement: {file: m87.uvfits}

With ``closures: true`` unknown phases and gains of the stations cancel.

Images are in flux per pixel (Jy), north above and east on the left; so are the samples of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import torch
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import Measured, VolumeInfo, read_measured
from posteriori.noise import ComplexGaussian, Gaussian
from posteriori.operators.base import Operator
from posteriori.priors import Prior
from posteriori.problem_file import noise as noises
from posteriori.problem_file.section import Instrument, Ready, Shape
from posteriori.problem_file.types import Count, Number, Positive

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Measurement


class _Plane(NamedTuple):
    """Where the visibilities of a file lie, in wavelengths, and their noise."""

    u: Tensor
    v: Tensor
    sigma: Tensor
    measured: Tensor
    stations: Tensor | None
    moment: Tensor | None


class ApertureEntry(Instrument):
    """Visibilities of total intensity, each over its own noise level as the file states it.

    size: of the square image, in pixels. field_uas: its side, in micro-arcseconds. pixel: the shape
    of a pixel. closures: measure by closure phases and closure amplitudes. flux: the total flux.
    least_ratio: of a visibility to its noise.
    """

    calibrates = True
    name: Literal["aperture-synthesis"]
    size: Count
    field_uas: Positive
    pixel: Literal["point", "square", "triangle"] = "triangle"
    closures: bool = False
    least_ratio: Positive = 3.0
    flux: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    _plane: _Plane | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _told(self) -> ApertureEntry:
        if self.flux is not None and not self.closures:
            raise ValueError("flux: visibilities tell it; it belongs to closures: true")
        return self

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        """Places and noise levels. Raises ``ValueError`` for a file without them, for a stated
        level, and without a range."""
        if source.file is None:
            raise ValueError(
                "the operator aperture-synthesis takes measured visibilities, "
                "measurement: {file: sky.uvfits}; it degrades no clean image"
            )
        found = read_measured(source.file, source.key)
        if not {"u", "v", "sigma"} <= set(found.arrays):
            raise ValueError(f"{source.file} holds no visibilities; a .uvfits file is expected")
        if not isinstance(noise, noises.ComplexGaussianEntry) or noise.stated_level:
            raise ValueError(
                "noise: visibilities bring their own levels: "
                "state {law: complex-gaussian, range: ...}, and no level"
            )
        flux = float(found.data.abs().max())
        if noise.range is None:
            raise ValueError(
                f"noise.range: state the smallest and largest flux per pixel, in Jy; the strongest "
                f"visibility is {flux:.4g} Jy, over all {self.size} x {self.size} pixels "
                f"{flux / self.size**2:.3g} each"
            )
        known, have = self.model_copy(), found.arrays
        known._plane = plane = _Plane(
            have["u"],
            have["v"],
            have["sigma"],
            found.data,
            have.get("stations"),
            have.get("moment"),
        )
        told = (
            f"noise: {float(plane.sigma.min()):.3g} to {float(plane.sigma.max()):.3g} Jy of each "
            "real part, as the file's weights say; y counts in these units"
        )
        if not self.closures:
            said = (told, "the phases and gains of single stations are taken as calibrated")
            return Ready(known, ComplexGaussian(sigma_per_channel=1.0), noise.range, prior, said)
        if plane.stations is None or plane.moment is None:
            raise ValueError(
                f"{source.file} does not say which stations measured at which time (BASELINE, "
                "DATE): closures need both"
            )
        A = known._closures((1, self.size, self.size))
        said = (
            told,
            f"{A.phases} closure phases and {A.amplitudes} closure amplitudes, independent, of "
            f"{A.used} visibilities of at least {self.least_ratio:g} times their noise; phases and "
            "gains of single stations cancel, and with them the place of the image"
            + ("" if self.flux else " and its total flux"),
        )
        return Ready(known, Gaussian(sigma=1.0), noise.range, prior, said)

    def build(self, shape: Shape) -> Operator:
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f"images of the sky here are (1, rows, columns), the prior's {shape}")
        sides = (1, shape[1], shape[2])
        if self.closures:
            return self._closures(sides)
        sky, plane = self._sky(sides)
        return ops.Weighted(sky, 1 / plane.sigma)

    def _sky(self, sides: tuple[int, int, int]) -> tuple[ops.ApertureSynthesis, _Plane]:
        plane = self._plane
        assert plane is not None  # who calls has made it ready
        step = self.field_uas / self.size
        return ops.ApertureSynthesis(plane.u, plane.v, sides, step, self.pixel), plane

    def _closures(self, sides: tuple[int, int, int]) -> ops.Closures:
        sky, plane = self._sky(sides)
        assert plane.stations is not None
        assert plane.moment is not None  # as ``ready`` has seen
        flux = None if self.flux is None else (self.flux[0], self.flux[1])
        told = (plane.measured, plane.sigma, plane.stations, plane.moment)
        return ops.Closures(sky, *told, least_ratio=self.least_ratio, flux=flux)

    def arrange(self, y: Tensor, path: str) -> Tensor:
        """With closures, what they were measured to be: no gap."""
        if not self.closures:
            return y
        return torch.zeros(self._closures((1, self.size, self.size)).out_shape)

    def like(self, y: Tensor) -> Shape:
        return (1, self.size, self.size)

    def linear_part(self, A: Operator, y: Tensor) -> Tensor:
        """Each visibility over its noise level."""
        if self.closures:
            return y
        assert isinstance(A, ops.Weighted)
        return A.weights.to(y.real.dtype) * y

    def kept(self, found: Measured, shape: Shape) -> VolumeInfo:
        step = self.field_uas / self.size / 3.6e9
        return VolumeInfo(None, f"{found.unit}/pixel", (), (None, step, step), "deg")
