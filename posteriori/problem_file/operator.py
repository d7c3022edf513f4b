"""The ``operator`` of a problem file. Each section knows how to build its operator for images of a
given shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    InstanceOf,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from torch import Tensor

from posteriori import operators as ops
from posteriori.operators.base import Operator
from posteriori.operators.blur import Boundary
from posteriori.operators.downsample import Kind
from posteriori.operators.jpeg import Subsampling
from posteriori.problem_file import own, patterns
from posteriori.problem_file.along_axis import (
    KeptFramesEntry,
    TemporalBlurEntry,
    ThickSlicesEntry,
)
from posteriori.problem_file.aperture import ApertureEntry
from posteriori.problem_file.cameras import (
    MosaicEntry,
    PtychographyEntry,
    QuantizeEntry,
    SinglePixelEntry,
    VaryingBlurEntry,
)
from posteriori.problem_file.cone_beam import ConeBeamEntry
from posteriori.problem_file.ct import FanBeamEntry, Geometry, RadonEntry, TransmissionEntry
from posteriori.problem_file.mri import MRI
from posteriori.problem_file.noncartesian import NonCartesianEntry
from posteriori.problem_file.section import Axis, Instrument, Margins, Notes, OpenShare, Shape
from posteriori.problem_file.types import Count, File, Number, Positive, Seed, Whole
from posteriori.settings import Setting

# How an operator of the user's own calls the shape of images.
SHAPES = ("shape", "in_shape")


class IdentityEntry(Instrument):
    """Denoising: the image itself is measured."""

    pictures = True
    name: Literal["identity"]

    def build(self, shape: Shape) -> Operator:
        return ops.Identity(shape)


class NothingEntry(Instrument):
    """Nothing is measured: samples of the prior."""

    name: Literal["nothing"]

    def build(self, shape: Shape) -> Operator:
        return ops.Null(shape)


class BlurEntry(Instrument):
    """A Gaussian of ``std`` pixels, or the ``kernel`` in a file, (kh, kw) numbers of sum 1;
    ``normalize`` divides by their sum.

    boundary: what lies beyond the border of the image. Where it is not stated, "circular" for a
    measurement that is simulated, and for a measured file "valid": nothing is assumed, images are
    larger than y by the kernel, and results are shown cut to y's frame. A measured file whose image
    is stated, or known to the prior, to be no larger than y has "reflect".
    """

    pictures = True
    name: Literal["blur"]
    std: Positive | None = None
    size: Count | None = None
    kernel: File | None = None
    normalize: Annotated[bool, Field(strict=True)] = False
    boundary: Boundary | Literal["symmetric"] | None = None

    @model_validator(mode="after")
    def one(self) -> BlurEntry:
        if (self.std is None) == (self.kernel is None) or (self.kernel and self.size):
            raise ValueError("give either std (with size, if wanted) or kernel")
        if self.normalize and self.kernel is None:
            raise ValueError(
                "normalize belongs to a kernel from a file; a Gaussian of std has sum 1"
            )
        return self

    def build(self, shape: Shape) -> Operator:
        return ops.Blur(self._taps(), shape, self.boundary or "circular")

    def assuming(self, boundary: Boundary) -> Instrument:
        return self if self.boundary else self.model_copy(update={"boundary": boundary})

    def margins(self) -> Margins:
        if self.boundary != "valid":
            return (0, 0), (0, 0)
        rows, columns = ((k - 1 - k // 2, k // 2) for k in self._taps().shape)
        return rows, columns

    def _taps(self) -> Tensor:
        return (
            patterns.kernel(self.kernel, self.normalize)[0]
            if self.kernel
            else ops.gaussian_kernel(self.std or 1.0, self.size)
        )

    def notes(self) -> Notes:
        return patterns.kernel(self.kernel, self.normalize)[1] if self.kernel else ()


class MaskEntry(Instrument):
    """Inpainting. ``box``: a square of that side is hidden, in the ``centre`` or from the pixel
    [row, column] on. ``keep``: that share of the pixels is observed, drawn with ``seed``. ``file``:
    a picture or array of two values, the bright one where observed; one of more values needs a
    ``threshold``, a share of the way from dark to bright."""

    pictures = True
    name: Literal["mask"]
    box: Count | None = None
    where: Literal["centre"] | tuple[Whole, Whole] = "centre"
    keep: Annotated[Number, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    file: File | None = None
    threshold: OpenShare | None = None

    @model_validator(mode="after")
    def one(self) -> MaskEntry:
        if sum(part is not None for part in (self.box, self.keep, self.file)) != 1:
            raise ValueError("give exactly one of box, keep and file")
        if (self.keep is None) != (self.seed is None):
            raise ValueError("keep needs a seed, and nothing else takes one")
        if self.file is None and self.threshold is not None:
            raise ValueError("a threshold belongs to a mask from a file")
        return self

    def build(self, shape: Shape) -> Operator:
        if self.keep is not None:
            return ops.Mask(ops.random_mask(shape[-2:], self.keep, self.seed or 0), shape)
        if self.box is not None:
            return ops.Mask(ops.box_mask(shape[-2:], self.box, self.where), shape)
        assert self.file is not None  # one of the three is given
        return ops.Mask(patterns.mask(self.file, self.threshold)[0], shape)

    def notes(self) -> Notes:
        return patterns.mask(self.file, self.threshold)[1] if self.file else ()

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        return A(y[None])[0] if tuple(y.shape) == A.in_shape else None


class DownsampleEntry(Instrument):
    """Super-resolution; ``kind`` has to be said because the four differ by more than 10 dB."""

    pictures = True
    name: Literal["downsample"]
    factor: Count
    kind: Kind

    def build(self, shape: Shape) -> Operator:
        return ops.Downsample(shape, self.factor, self.kind)

    def axes(self) -> tuple[Axis, Axis, Axis] | None:
        finer = Axis(1 / self.factor) if self.kind == "stride" else Axis.of_means(self.factor)
        return Axis(), finer, finer


class GreyEntry(Instrument):
    """Colourisation."""

    pictures = True
    name: Literal["grey"]

    def build(self, shape: Shape) -> Operator:
        return ops.Grey(shape)


class PhaseRetrievalEntry(Instrument):
    """The modulus of the oversampled Fourier transform."""

    name: Literal["phase-retrieval"]
    oversampling: Annotated[Number, Field(ge=1)] = 2.0

    def build(self, shape: Shape) -> Operator:
        return ops.PhaseRetrieval(shape, self.oversampling)


class ClipEntry(Instrument):
    """An over-exposed picture: ``gain`` times the image, cut off at ``low`` and ``high``."""

    pictures = True
    name: Literal["clip"]
    gain: Positive = 2.0
    low: Number = 0.0
    high: Number = 1.0

    def build(self, shape: Shape) -> Operator:
        return ops.Clip(shape, self.gain, self.low, self.high)


class GammaEntry(Instrument):
    """A tone curve: each pixel of a picture in linear light to the power ``exponent``, with the
    tangent of the curve below a hundredth."""

    pictures = True
    name: Literal["gamma"]
    exponent: Positive

    def build(self, shape: Shape) -> Operator:
        return ops.Gamma(shape, self.exponent)


class JPEGEntry(Instrument):
    """The integers of a JPEG file. A picture in the place of the measurement is coded first."""

    pictures = True
    name: Literal["jpeg"]
    quality: Annotated[Count, Field(le=100)]
    subsampling: Subsampling = "4:2:0"

    def build(self, shape: Shape) -> Operator:
        return ops.JPEG(shape, self.quality, self.subsampling)

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        return A(y[None])[0] if tuple(y.shape) == A.in_shape else None


class MaskedFourierEntry(Instrument):
    """k-space of a complex image that a prior of two real channels models. ``file``: the sampling
    pattern, bright where sampled, with a ``threshold`` as for a mask."""

    name: Literal["masked-fourier"]
    file: File
    threshold: OpenShare | None = None
    centred: bool = True

    def build(self, shape: Shape) -> Operator:
        return ops.Compose(self._sampled(shape), ops.ComplexChannels(shape))

    def pick(self, A: Operator, y: Tensor) -> Tensor | None:
        return (
            self._sampled(A.in_shape).select(y)
            if y.is_complex() and tuple(y.shape) == A.in_shape[1:]
            else None
        )

    def notes(self) -> Notes:
        return patterns.mask(self.file, self.threshold)[1]

    def _sampled(self, shape: Shape) -> ops.MaskedFourier:
        return ops.MaskedFourier(
            patterns.mask(self.file, self.threshold)[0], shape[1:], self.centred
        )


class ComposeEntry(Instrument):
    """Several operators, in the order in which light meets them."""

    name: Literal["compose"]
    parts: Annotated[tuple[OperatorSection, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def plain(self) -> ComposeEntry:
        for part in self.parts:
            if isinstance(part, MRI) or (
                isinstance(part, Geometry) and (part.unit == "HU" or part.calibrates)
            ):
                raise ValueError(
                    f"{part.name} takes units or settings from the measurement, "
                    "so that it stands alone, not within compose"
                )
        return self

    def build(self, shape: Shape) -> Operator:
        A = self.parts[0].build(shape)
        for part in self.parts[1:]:
            A = part.build(A.out_shape) @ A
        return A

    def assuming(self, boundary: Boundary) -> Instrument:
        parts = tuple(part.assuming(boundary) for part in self.parts)
        return (
            self
            if all(a is b for a, b in zip(parts, self.parts, strict=True))
            else self.model_copy(update={"parts": parts})
        )

    def margins(self) -> Margins:
        known = [part.margins() for part in self.parts]
        (top, bottom), (left, right) = (
            (sum(m[axis][side] for m in known) for side in (0, 1)) for axis in (0, 1)
        )
        return (top, bottom), (left, right)

    def notes(self) -> Notes:
        return tuple(note for part in self.parts for note in part.notes())

    def axes(self) -> tuple[Axis, Axis, Axis] | None:
        whole = Axis(), Axis(), Axis()
        for part in self.parts:
            own = part.axes()
            if own is None:
                return None
            slices, rows, columns = (a.after(b) for a, b in zip(own, whole, strict=True))
            whole = slices, rows, columns
        return whole

    @property
    def pictorial(self) -> bool:
        return all(part.pictorial for part in self.parts)


class OwnOperator(Instrument):
    """An operator of the user's own, see ``posteriori.problem_file.own``. An argument called shape
    or in_shape is that of the images. With ``pictures: true`` it makes pictures, and whole numbers
    in a file are grey levels."""

    name: str
    maker: InstanceOf[own.Own]
    makes_pictures: bool = False

    def build(self, shape: Shape) -> Operator:
        return self.maker.make(**{name: shape for name in SHAPES if name in self.maker.arguments})

    @property
    def pictorial(self) -> bool:
        return self.makes_pictures


def _named(raw: Any) -> Any:
    return {"name": raw} if isinstance(raw, str) else raw


def _own(raw: Any, inner: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """A name with a colon is an import path; every other one is chosen from the list."""
    if not isinstance(raw, dict) or not own.is_path(raw.get("name")):
        return inner(raw)
    maker = own.find(raw, own.OPERATOR, info.context, given=SHAPES, free=("pictures",))
    return OwnOperator(
        name=maker.path,
        maker=maker,
        makes_pictures=Setting(bool).valid(raw.get("pictures", False), "pictures"),
    )


OperatorSection = Annotated[
    IdentityEntry
    | NothingEntry
    | BlurEntry
    | VaryingBlurEntry
    | MaskEntry
    | MosaicEntry
    | SinglePixelEntry
    | DownsampleEntry
    | GreyEntry
    | RadonEntry
    | FanBeamEntry
    | ConeBeamEntry
    | TransmissionEntry
    | PhaseRetrievalEntry
    | PtychographyEntry
    | ClipEntry
    | GammaEntry
    | QuantizeEntry
    | JPEGEntry
    | MaskedFourierEntry
    | MRI
    | NonCartesianEntry
    | ApertureEntry
    | ThickSlicesEntry
    | TemporalBlurEntry
    | KeptFramesEntry
    | ComposeEntry,
    Field(discriminator="name"),
    WrapValidator(_own),
    BeforeValidator(_named),
]
ComposeEntry.model_rebuild()
