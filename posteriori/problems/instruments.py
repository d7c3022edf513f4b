"""The ``operator`` of a problem file. Each section knows how to build its operator for images of a given shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from posteriori import operators as ops
from posteriori.measurements import read_array, read_image
from posteriori.operators.base import Operator
from posteriori.operators.blur import Boundary
from posteriori.operators.downsample import Kind
from posteriori.operators.jpeg import Subsampling
from posteriori.problems.fields import Count, File, Number, Part, Positive, Seed, Whole

Shape = tuple[int, ...]


class Instrument(Part):
    """A section of the file that describes an operator."""

    def build(self, shape: Shape) -> Operator:
        """The operator for images of a shape. Raises ``ValueError`` when it cannot take them."""
        raise NotImplementedError

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        """The observed numbers of a picture with holes (or a whole k-space) y; None when y is no such thing."""
        return None


class Identity(Instrument):
    """Denoising: the image itself is measured."""

    name: Literal["identity"]

    def build(self, shape: Shape) -> Operator:
        return ops.Identity(shape)


class Nothing(Instrument):
    """Nothing is measured: samples of the prior."""

    name: Literal["nothing"]

    def build(self, shape: Shape) -> Operator:
        return ops.Nothing(shape)


class Blur(Instrument):
    """A Gaussian of ``std`` pixels, or the kernel in a file of numbers (kh, kw)."""

    name: Literal["blur"]
    std: Positive | None = None
    size: Count | None = None
    kernel: File | None = None
    boundary: Boundary = "circular"

    @model_validator(mode="after")
    def one(self) -> Blur:
        if (self.std is None) == (self.kernel is None) or (self.kernel and self.size):
            raise ValueError("give either std (with size, if wanted) or kernel")
        return self

    def build(self, shape: Shape) -> Operator:
        kernel = read_array(self.kernel).float() if self.kernel else ops.gaussian_kernel(self.std or 1.0, self.size)
        return ops.Blur(kernel, shape, self.boundary)


class Mask(Instrument):
    """Inpainting. ``box``: a square of that side is hidden, in the ``centre`` or from the pixel [row, column] on. ``keep``: that share of
    the pixels is observed, drawn with ``seed``. ``file``: a picture or array, bright (above half) where observed."""

    name: Literal["mask"]
    box: Count | None = None
    where: Literal["centre"] | tuple[Whole, Whole] = "centre"
    keep: Annotated[Number, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    file: File | None = None

    @model_validator(mode="after")
    def one(self) -> Mask:
        if sum(part is not None for part in (self.box, self.keep, self.file)) != 1:
            raise ValueError("give exactly one of box, keep and file")
        if (self.keep is None) != (self.seed is None):
            raise ValueError("keep needs a seed, and nothing else takes one")
        return self

    def build(self, shape: Shape) -> Operator:
        if self.keep is not None:
            return ops.Mask(ops.random_mask(shape[-2:], self.keep, self.seed or 0), shape)
        if self.box is not None:
            return ops.Mask(ops.box_mask(shape[-2:], self.box, self.where), shape)
        assert self.file is not None  # one of the three is given
        return ops.Mask(_bright(read_image(self.file, channels=1)[0][0]), shape)

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        return A(y[None])[0] if tuple(y.shape) == A.in_shape else None


class Downsample(Instrument):
    """Super-resolution; ``kind`` has to be said because the four differ by more than 10 dB."""

    name: Literal["downsample"]
    factor: Count
    kind: Kind

    def build(self, shape: Shape) -> Operator:
        return ops.Downsample(shape, self.factor, self.kind)


class Grey(Instrument):
    """Colourisation."""

    name: Literal["grey"]

    def build(self, shape: Shape) -> Operator:
        return ops.Grey(shape)


class Radon(Instrument):
    """Tomography. ``angles``: how many, evenly over 180 degrees, or a list of degrees."""

    name: Literal["radon"]
    angles: Count | tuple[Number, ...]
    pixel_mm: Positive
    detectors: Count | None = None
    detector_mm: Positive | None = None

    def build(self, shape: Shape) -> Operator:
        angles = [180 * k / self.angles for k in range(self.angles)] if isinstance(self.angles, int) else self.angles
        return ops.Radon(shape, angles, self.pixel_mm, self.detectors, self.detector_mm)


class PhaseRetrieval(Instrument):
    """The modulus of the oversampled Fourier transform."""

    name: Literal["phase-retrieval"]
    oversampling: Annotated[Number, Field(ge=1)] = 2.0

    def build(self, shape: Shape) -> Operator:
        return ops.PhaseRetrieval(shape, self.oversampling)


class Clip(Instrument):
    """An over-exposed picture: ``gain`` times the image, cut off at ``low`` and ``high``."""

    name: Literal["clip"]
    gain: Positive = 2.0
    low: Number = 0.0
    high: Number = 1.0

    def build(self, shape: Shape) -> Operator:
        return ops.Clip(shape, self.gain, self.low, self.high)


class JPEG(Instrument):
    """The integers of a JPEG file. A picture in the place of the measurement is coded first."""

    name: Literal["jpeg"]
    quality: Annotated[Count, Field(le=100)]
    subsampling: Subsampling = "4:2:0"

    def build(self, shape: Shape) -> Operator:
        return ops.JPEG(shape, self.quality, self.subsampling)

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        return A(y[None])[0] if tuple(y.shape) == A.in_shape else None


class MaskedFourier(Instrument):
    """k-space of a complex image that a prior of two real channels models. ``file``: the sampling pattern, bright where sampled."""

    name: Literal["masked-fourier"]
    file: File
    centred: bool = True

    def build(self, shape: Shape) -> Operator:
        return ops.Compose(self._sampled(shape), ops.ComplexChannels(shape))

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        return self._sampled(A.in_shape).select(y) if y.is_complex() and tuple(y.shape) == A.in_shape[1:] else None

    def _sampled(self, shape: Shape) -> ops.MaskedFourier:
        return ops.MaskedFourier(_bright(read_image(self.file, channels=1)[0][0]), shape[1:], self.centred)


class Compose(Instrument):
    """Several operators, in the order in which light meets them."""

    name: Literal["compose"]
    parts: Annotated[tuple[Section, ...], Field(min_length=2)]

    def build(self, shape: Shape) -> Operator:
        A = self.parts[0].build(shape)
        for part in self.parts[1:]:
            A = part.build(A.out_shape) @ A
        return A


def _named(raw: Any) -> Any:
    return {"name": raw} if isinstance(raw, str) else raw


Section = Annotated[
    Identity | Nothing | Blur | Mask | Downsample | Grey | Radon | PhaseRetrieval | Clip | JPEG | MaskedFourier | Compose,
    Field(discriminator="name"),
    BeforeValidator(_named),
]
Compose.model_rebuild()


def _bright(picture: Tensor) -> Tensor:
    """True where a picture is above the middle of its values. Raises ``ValueError`` when it has one value only."""
    low, high = float(picture.min()), float(picture.max())
    if low == high:
        raise ValueError(f"a mask needs dark and bright pixels, all of this one are {low:g}")
    return picture > (low + high) / 2
