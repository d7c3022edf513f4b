"""Cameras that measure light in other ways than pixel by pixel: in whole counts, behind a lens that
blurs its corners more, behind colour filters, behind the patterns of a mirror array, and in the far
field of a probe that moves.

    operator: {name: quantize, bits: 8}
    operator: {name: varying-blur, kernels: kernels.npy}
    operator: {name: mosaic, pattern: RGGB}
    operator: {name: single-pixel, count: 1024}
    operator: {name: ptychography, file: scan.npz, intensity: true}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import read_measured
from posteriori.operators.base import Operator
from posteriori.operators.blur import Boundary
from posteriori.operators.quantize import Bits
from posteriori.operators.single_pixel import Order
from posteriori.problem_file import patterns
from posteriori.problem_file.section import Instrument, Margins, Shape
from posteriori.problem_file.types import Count, File, Number, Positive, Seed

if TYPE_CHECKING:
    from posteriori.problem_file.reading import Reading


class QuantizeEntry(Instrument):
    """The counts of a sensor: gain times the image plus black, rounded to whole numbers and cut off
    at 0 and 2^bits - 1. The measurement and its noise are in counts."""

    positive = True
    name: Literal["quantize"]
    bits: Bits
    gain: Positive | None = None
    black: Annotated[Number, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def below_full(self) -> QuantizeEntry:
        if self.black >= 2**self.bits - 1:
            raise ValueError(
                f"black: {self.black:g} leaves no count of {self.bits} bits, whose largest is "
                f"{2**self.bits - 1}; give the count of a dark pixel"
            )
        return self

    def build(self, shape: Shape) -> Operator:
        return ops.Quantize(shape, self.bits, self.gain, self.black)

    def reading(self, how: Reading) -> Reading:
        """Whole numbers of a file are the counts."""
        open_ = how.scale is None and how.white is None
        return how.model_copy(update={"scale": 1.0}) if open_ else how

    def arrange(self, y: Tensor, path: str) -> Tensor:
        full = 2**self.bits - 1
        if float(y.min()) < 0 or float(y.max()) > full:
            raise ValueError(
                f"{path} has values from {float(y.min()):.6g} to {float(y.max()):.6g}, counts of "
                f"{self.bits} bits are 0 to {full}; state the bits of the sensor"
            )
        return y


class VaryingBlurEntry(Instrument):
    """A blur whose kernel changes over the picture: each pixel has the bilinear interpolation of
    the ``kernels`` around it, an array (rows, columns, kh, kw) of kernels of sum 1; ``normalize``
    divides each by its sum. at_rows, at_columns: the pixels where they hold, by default evenly from
    the first to the last. boundary: as for blur."""

    pictures = True
    name: Literal["varying-blur"]
    kernels: File
    normalize: Annotated[bool, Field(strict=True)] = False
    at_rows: tuple[Number, ...] | None = None
    at_columns: tuple[Number, ...] | None = None
    boundary: Boundary | None = None

    def build(self, shape: Shape) -> Operator:
        kernels = patterns.kernels(self.kernels, self.normalize)
        boundary = self.boundary or "circular"
        return ops.VaryingBlur(kernels, shape, boundary, self.at_rows, self.at_columns)

    def assuming(self, boundary: Boundary) -> Instrument:
        return self if self.boundary else self.model_copy(update={"boundary": boundary})

    def margins(self) -> Margins:
        if self.boundary != "valid":
            return (0, 0), (0, 0)
        sides = patterns.kernels(self.kernels, self.normalize).shape[-2:]
        rows, columns = ((k - 1 - k // 2, k // 2) for k in sides)
        return rows, columns


class MosaicEntry(Instrument):
    """Demosaicing: a raw picture, of which each pixel saw one colour. A raw file has one channel,
    as the sensor wrote it; of a picture of all colours those that the filters hide are left out."""

    pictures = True
    name: Literal["mosaic"]
    pattern: str = "RGGB"
    colours: str = "RGB"

    def build(self, shape: Shape) -> Operator:
        return ops.Mask(self._seen(shape))

    def like(self, y: Tensor) -> Shape | None:
        raw = y.ndim == 2 or (y.ndim == 3 and len(y) == 1)
        return (len(self.colours), *y.shape[-2:]) if raw else None

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        fits = y.ndim == 3 and len(y) in (1, A.in_shape[0]) and y.shape[1:] == A.in_shape[1:]
        return A(y.expand(A.in_shape)[None])[0] if fits else None

    def _seen(self, shape: Shape) -> Tensor:
        if len(shape) != 3:
            raise ValueError(f"a mosaic is of pictures (channels, rows, columns), not {shape}")
        return ops.bayer_mask(self.pattern, (shape[0], shape[1], shape[2]), self.colours)


class SinglePixelEntry(Instrument):
    """A single-pixel camera: for each Walsh-Hadamard pattern the light behind it less that behind
    its complement, over the root of the number of pixels, in the stated order."""

    name: Literal["single-pixel"]
    count: Count
    order: Order = "sequency"
    seed: Seed | None = None

    @model_validator(mode="after")
    def drawn(self) -> SinglePixelEntry:
        if (self.order == "random") != (self.seed is not None):
            raise ValueError("order: random needs a seed, and nothing else takes one")
        return self

    def build(self, shape: Shape) -> Operator:
        return ops.SinglePixel(shape, self.count, self.order, self.seed)


class PtychographyEntry(Instrument):
    """Far fields of a complex object, two channels, behind a probe at several positions. ``file``:
    an .npz, .mat or HDF5 file with the arrays ``probe``, complex (h, w), and ``positions``, whole
    pixels (K, 2), row and column of the window's first pixel. The measurement is (K, h, w), the
    zero frequency in the middle, moduli or with ``intensity`` their squares."""

    positive = True
    name: Literal["ptychography"]
    file: File
    intensity: Annotated[bool, Field(strict=True)] = False

    def build(self, shape: Shape) -> Operator:
        if len(shape) != 3 or shape[0] != 2:
            raise ValueError(
                "ptychography sees complex objects, two channels (2, rows, columns); images here "
                f"are {shape}"
            )
        probe, positions = self._scan()
        scan = ops.Ptychography(probe, positions, shape[1:])
        return ops.Modulus(ops.Compose(scan, ops.ComplexChannels(shape)), self.intensity)

    def like(self, y: Tensor) -> Shape:
        """As large as the scan."""
        probe, positions = self._scan()
        rows, columns = (positions + torch.tensor(probe.shape[-2:])).amax(0).tolist()
        return (2, rows, columns)

    def _scan(self) -> tuple[Tensor, Tensor]:
        probe, positions = (read_measured(self.file, name).data for name in ("probe", "positions"))
        whole = positions.round()
        if not bool((whole == positions).all()):
            raise ValueError(
                f"{self.file}: positions are whole pixels, row and column of the first pixel of "
                f"each window, these are not, such as {positions[0].tolist()}"
            )
        return probe.to(torch.complex64), whole.long()
