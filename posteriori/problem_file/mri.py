"""Magnetic resonance in a problem file: a measured k-space of one slice, with all that it says of
itself.

    operator: mri                           coil maps, phase, sampling, scale and noise level from
                                            the k-space
    operator: {name: mri, maps: espirit}    maps of ESPIRiT, from the k-space as well
    operator: {name: mri, maps: maps.npy}   maps that were measured apart

Images are in the unit of the k-space under the unitary transform, and so are the samples of a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import Measured, VolumeInfo, read_measured
from posteriori.measurements import kspace as centre
from posteriori.noise import ComplexGaussian, NoiseLaw
from posteriori.operators.base import LinearOperator, Operator
from posteriori.priors import ComplexImages, Prior
from posteriori.problem_file import noise as noises
from posteriori.problem_file import patterns
from posteriori.problem_file.section import Baseline, Instrument, Notes, OpenShare, Ready, Shape
from posteriori.problem_file.types import Count, File

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Measurement

_WHITE = 0.999  # the quantile of the zero-filled magnitude that is white to the prior


@dataclass(frozen=True)
class Scan:
    """What was learnt from a k-space: maps S (coils, H, W), the sampled points (H, W), e^(i phase)
    (H, W) of a real image."""

    maps: Tensor
    mask: Tensor
    phase: Tensor | None


class MRI(Instrument):
    """k-space (coils, rows, columns), or (rows, columns) of one coil, as .npy, .pt, .safetensors,
    .mat, the .cfl of BART, or the .h5 of fastMRI and ISMRMRD (of several slices one, ``slice``).

    maps: "calibration", the low-resolution images over their root of the sum of squares;
    "espirit", those of ESPIRiT by sigpy (extra ``mri``); or a file of complex (coils, rows,
    columns).
    mask: a file, bright where sampled, with a ``threshold`` as for a mask; by default the points
    that are not 0.
    calibration: side of the central block that is fully sampled; by default what the mask allows,
    up to 24.
    phase: of the image, for a prior of one channel. "calibration": that of the fully sampled
    centre, which may reach further along one axis; "none": the image is real behind the maps. A
    prior of two channels models the complex image itself.
    coil_axis: where an array other than BART's has its coils. centred: whether the zero frequency
    lies in the middle of the array.
    """

    calibrates = True
    name: Literal["mri"]
    maps: Literal["calibration", "espirit"] | File = Field(
        "calibration", union_mode="left_to_right"
    )
    mask: File | None = None
    threshold: OpenShare | None = None
    calibration: Annotated[Count, Field(ge=2)] | None = None
    phase: Literal["calibration", "none"] = "calibration"
    coil_axis: Literal["first", "last"] = "first"
    centred: bool = True
    _scan: Scan | None = PrivateAttr(None)

    def ready(self, source: Measurement, noise: noises.NoiseSection, prior: Prior) -> Ready:
        """Maps, phase, sampled points; white and noise level where none is stated. Raises
        ``ValueError`` naming what lacks."""
        if source.file is None:
            raise ValueError(
                "the operator mri takes a measured k-space, measurement: {file: kspace.npy}; "
                "it degrades no clean image"
            )
        if not isinstance(noise, noises.ComplexGaussianEntry):
            raise ValueError(
                f"k-space is complex: the noise law is complex-gaussian, not {noise.law}"
            )
        kept = _complex_or_grey(prior)
        found = read_measured(source.file, source.key)
        found = found if source.slice is None else found.taken(source.slice)
        stored = self.arrange(found.data, str(source.file))
        k = (source.scale or 1.0) * stored.to(torch.complex64)
        centre.check_centre(k, self.centred)
        mask = self._mask(k)
        block = self._block(mask, tuple(k.shape[1:]))
        low = centre.low_resolution(k, block, self.centred)
        maps = self._maps(k, low, block)
        phase = centre.phase_factor(k, mask, maps, self.centred)
        if self.phase == "none":
            phase = torch.ones_like(phase)
        known = self.model_copy()
        known._scan = Scan(maps, mask, None if kept.complex else phase)
        full = ops.MultiCoilFourier(maps, mask, self.centred)
        white = float(full.adjoint(full.select(k)[None])[0].abs().double().quantile(_WHITE))
        law, said = _level(noise, k, mask, self.centred)
        range = noise.range or ((-white, white) if kept.complex else (0.0, white))
        share = (
            f"{100 * float(mask.float().mean()):.1f} % "
            f"of its points are sampled{'' if self.mask else ', those that are not 0'}"
        )
        given = isinstance(self.maps, Path)
        of_file = " the phase, the maps are those of the file" if given else ""
        notes = (
            f"{source.file.name}: k-space of {len(k)} coils, {k.shape[1]} x {k.shape[2]}; "
            f"{share}; the central {block[0]} x {block[1]} calibrate{of_file}. "
            f"Their image is taken for {'complex' if kept.complex else 'real behind its phase'}",
            f"range: {'white is' if noise.range is None else 'as stated; white would be'} "
            f"{white:.4g}, the {100 * _WHITE:g} % quantile of the zero-filled magnitude; "
            "samples are in the unit of the k-space",
            *said,
        )
        return Ready(known, law, range, kept, notes)

    def build(self, shape: Shape) -> Operator:
        scan, sides = self._scan, shape[-2:]
        assert scan is not None  # who calls has made it ready
        if tuple(sides) != tuple(scan.maps.shape[1:]):
            raise ValueError(
                f"the k-space has {scan.maps.shape[1]} x {scan.maps.shape[2]} points, "
                f"images here are {sides[0]} x {sides[1]}"
            )
        A = ops.MultiCoilFourier(scan.maps, scan.mask, self.centred)
        return A if scan.phase is None else A @ ops.PhaseMap(scan.phase)

    def arrange(self, y: Tensor, path: str) -> Tensor:
        return centre.arranged(y, path, self.coil_axis)

    def kept(self, found: Measured, shape: Shape) -> VolumeInfo:
        """The pixels of the image that a raw file states."""
        pixel = found.arrays.get("pixel_mm")
        return VolumeInfo(spacing=None if pixel is None else tuple(pixel.tolist()))

    def like(self, y: Tensor) -> Shape:
        """(H, W) of a complex image, (1, H, W) of a real one behind its phase."""
        return (
            tuple(y.shape[1:])
            if self._scan is None or self._scan.phase is None
            else (1, *y.shape[1:])
        )

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        coils = A.A if isinstance(A, ops.Compose) else A
        assert isinstance(coils, ops.MultiCoilFourier)
        return coils.select(y) if tuple(y.shape) == tuple(coils.sensitivities.shape) else None

    def baseline(self, A: Operator) -> Baseline:
        assert isinstance(A, LinearOperator)
        return Baseline("Zero-filled", lambda y: A.adjoint(y[None])[0])

    def notes(self) -> Notes:
        return patterns.mask(self.mask, self.threshold)[1] if self.mask else ()

    def _mask(self, k: Tensor) -> Tensor:
        """The sampled points (H, W)."""
        if self.mask is None:
            return centre.sampled(k)
        found = patterns.mask(self.mask, self.threshold)[0]
        if any(n not in (1, side) for n, side in zip(found.shape, k.shape[1:], strict=True)):
            raise ValueError(
                f"{self.mask} has shape {tuple(found.shape)}, "
                f"the k-space has {k.shape[1]} x {k.shape[2]} points"
            )
        return found.expand(k.shape[1:])

    def _block(self, mask: Tensor, sides: Shape) -> tuple[int, int]:
        if self.calibration is not None:
            side = self.calibration - self.calibration % 2
            block = centre.centre_block(mask, self.centred, side)
            if min(block) < min(side, *(n - n % 2 for n in sides)):
                raise ValueError(
                    f"calibration: {side} x {side} points are asked for, "
                    f"of the centre {block[0]} x {block[1]} are sampled"
                )
            return block
        block = centre.centre_block(mask, self.centred)
        if min(block) < 6:
            raise ValueError(
                f"only {block[0]} x {block[1]} points around the zero frequency are fully sampled, "
                "too few to calibrate phase and scale. Check centred and the mask"
            )
        return block

    def _maps(self, k: Tensor, low: Tensor, block: tuple[int, int]) -> Tensor:
        if self.maps == "espirit":
            return centre.espirit(k, block, self.centred)
        if not isinstance(self.maps, Path):
            return centre.sensitivities(low)
        maps = self.arrange(read_measured(self.maps).data, str(self.maps)).to(low.dtype)
        if maps.shape != low.shape:
            raise ValueError(
                f"{self.maps} has maps of shape {tuple(maps.shape)}, "
                f"the k-space has shape {tuple(low.shape)}"
            )
        return maps


def _complex_or_grey(prior: Prior) -> Prior:
    """The prior as one of complex (H, W) or real (1, H, W) images."""
    if prior.complex or (len(prior.shape) == 3 and prior.shape[0] == 1):
        return prior
    if len(prior.shape) == 3 and prior.shape[0] == 2:
        return ComplexImages(prior)
    wanted = (
        "images of magnetic resonance have one channel (a magnitude behind its phase) or two "
        "(real and imaginary part)"
    )
    raise ValueError(
        f"the prior models images of shape {prior.shape}; {wanted}. "
        "Of a prior of colours: prior: {grey: photos}"
    )


def _level(
    noise: noises.ComplexGaussianEntry, k: Tensor, mask: Tensor, centred: bool
) -> tuple[NoiseLaw, Notes]:
    """The law, and what is to be said of its level where it was estimated."""
    if noise.stated_level:
        return noise.build(), ()
    levels = centre.kspace_noise_level(k, mask, centred)
    level = float(levels.square().mean().sqrt())
    if not level > 0:
        raise ValueError(
            "the outermost sampled points are 0, so that they do not tell the noise level: "
            "state sigma_per_channel"
        )
    between = (
        f"; of single coils {float(levels.min()):.4g} to {float(levels.max()):.4g}"
        if len(levels) > 1
        else ""
    )
    return ComplexGaussian(sigma_per_channel=level), (
        f"noise: sigma_per_channel is {level:.4g}, "
        f"estimated from the outermost sampled points (the border) of the k-space{between}",
    )
