"""Instruments of volumes and videos in a problem file: what happens along the slices or frames.

    operator: {name: thick-slices, factor: 4}
    operator: {name: compose, parts: [{name: blur, std: 1}, {name: temporal-blur, frames: 5}]}

They take a prior of volumes, ``prior: {slices: ...}``. Every other operator is one on each slice.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posteriori import operators as ops
from posteriori.operators.base import Operator
from posteriori.problem_file.section import Axis, Instrument, Shape
from posteriori.problem_file.types import Count, Number, Whole


class AlongAxisEntry(Instrument):
    """An instrument along the first axis of a volume."""

    pictures = True
    along: ClassVar[bool] = True

    def depth(self, measured: int) -> int:
        """How many slices an image has of which so many are measured."""
        return measured

    def together(self) -> int | None:
        """Slices that one measured slice is of, and no other one; None where they overlap."""
        return None


class ThickSlicesEntry(AlongAxisEntry):
    """Through-plane downsampling: each measured slice is the mean of ``factor`` slices."""

    name: Literal["thick-slices"]
    factor: Count

    def build(self, shape: Shape) -> Operator:
        return ops.thick_slices(shape, self.factor)

    def depth(self, measured: int) -> int:
        return measured * self.factor

    def together(self) -> int | None:
        return self.factor

    def axes(self) -> tuple[Axis, Axis, Axis] | None:
        return Axis.of_means(self.factor), Axis(), Axis()


class TemporalBlurEntry(AlongAxisEntry):
    """A shutter that is open for several frames: each measured frame is the mean of so many
    ``frames``, or their sum with the weights ``kernel``."""

    name: Literal["temporal-blur"]
    frames: Count | None = None
    kernel: Annotated[tuple[Number, ...], Field(min_length=1)] | None = None
    boundary: Literal["circular", "repeat", "valid"] = "repeat"

    @model_validator(mode="after")
    def one(self) -> TemporalBlurEntry:
        if (self.frames is None) == (self.kernel is None):
            raise ValueError("give either frames, how many a mean is over, or kernel")
        return self

    @property
    def length(self) -> int:
        return len(self.kernel) if self.kernel is not None else self.frames or 1

    def build(self, shape: Shape) -> Operator:
        kernel = list(self.kernel) if self.kernel is not None else self.length
        return ops.temporal_blur(shape, kernel, self.boundary)

    def depth(self, measured: int) -> int:
        return measured + (self.length - 1 if self.boundary == "valid" else 0)

    def axes(self) -> tuple[Axis, Axis, Axis] | None:
        lost = self.length - 1 - self.length // 2 if self.boundary == "valid" else 0
        return Axis(1.0, -float(lost)), Axis(), Axis()


class KeptFramesEntry(AlongAxisEntry):
    """Frames that were kept, of ``of`` frames, by their numbers from 0; the others were dropped."""

    name: Literal["kept-frames"]
    frames: Annotated[tuple[Whole, ...], Field(min_length=1)]
    of: Count

    def build(self, shape: Shape) -> Operator:
        if shape[0] != self.of:
            raise ValueError(f"kept-frames: of {self.of} frames, images here have {shape[0]}")
        return ops.kept_frames(shape, self.frames)

    def depth(self, measured: int) -> int:
        return self.of

    def axes(self) -> tuple[Axis, Axis, Axis] | None:
        return None
