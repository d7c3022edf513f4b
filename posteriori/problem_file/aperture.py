"""Aperture synthesis in a problem file: the visibilities of a uvfits file, each with its own noise
level.

    operator: {name: aperture-synthesis, size: 64, field_uas: 160}
    noise: {law: complex-gaussian, range: [0, 0.001]}
    measurement: {file: m87.uvfits}

Images are in flux per pixel (Jy), north above and east on the left; so are the samples of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import PrivateAttr
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import Measured, VolumeInfo, read_measured
from posteriori.noise import ComplexGaussian
from posteriori.operators.base import Operator
from posteriori.priors import Prior
from posteriori.problem_file import noise as noises
from posteriori.problem_file.section import Instrument, Ready, Shape
from posteriori.problem_file.types import Count, Positive

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Measurement


class _Plane(NamedTuple):
    """Where the visibilities of a file lie, in wavelengths, and their noise."""

    u: Tensor
    v: Tensor
    sigma: Tensor


class ApertureEntry(Instrument):
    """Visibilities of total intensity, each over its own noise level as the file states it.

    size: of the square image, in pixels. field_uas: its side, in micro-arcseconds. pixel: the shape
    of a pixel.
    """

    calibrates = True
    name: Literal["aperture-synthesis"]
    size: Count
    field_uas: Positive
    pixel: Literal["point", "square", "triangle"] = "triangle"
    _plane: _Plane | None = PrivateAttr(None)

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
        known = self.model_copy()
        known._plane = _Plane(*(found.arrays[name] for name in _Plane._fields))
        spread = known._plane.sigma
        said = (
            f"noise: {float(spread.min()):.3g} to {float(spread.max()):.3g} Jy of each real part, "
            "as the file's weights say; y counts in these units",
            "the phases and gains of single stations are taken as calibrated",
        )
        return Ready(known, ComplexGaussian(sigma_per_channel=1.0), noise.range, prior, said)

    def build(self, shape: Shape) -> Operator:
        plane = self._plane
        assert plane is not None  # who calls has made it ready
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f"images of the sky here are (1, rows, columns), the prior's {shape}")
        sides = (1, shape[1], shape[2])
        sky = ops.ApertureSynthesis(plane.u, plane.v, sides, self.field_uas / self.size, self.pixel)
        return ops.Weighted(sky, 1 / plane.sigma)

    def like(self, y: Tensor) -> Shape:
        return (1, self.size, self.size)

    def linear_part(self, A: Operator, y: Tensor) -> Tensor:
        """Each visibility over its noise level."""
        assert isinstance(A, ops.Weighted)
        return A.weights.to(y.real.dtype) * y

    def kept(self, found: Measured, shape: Shape) -> VolumeInfo:
        step = self.field_uas / self.size / 3.6e9
        return VolumeInfo(None, f"{found.unit}/pixel", (), (None, step, step), "deg")
