"""From the files that a problem names to x and y, and a word where one of them looks like the
other."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor

from posteriori.likelihood import Frame, Range
from posteriori.linalg import cosine
from posteriori.measurements import Measured, read_image, read_measured
from posteriori.measurements.images import WHITE_LEVELS
from posteriori.noise import NoiseLaw
from posteriori.operators.base import LinearOperator, Operator
from posteriori.problem_file.section import Instrument, Notes, Shape
from posteriori.problem_file.types import Count, File, Natural, Number, Part, Positive, Seed
from posteriori.rng import Streams

Wanted = tuple[int | None, ...]
# Their numbers are grey levels, black being 0
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
# Sample k of a run uses stream k: the simulated noise has one that no sample reaches.
NOISE_STREAM = 2**32 - 1


class Reading(Part):
    """How the numbers in a file are meant, where the file does not say it.

    key: which array of a file that holds several. white: the stored number that stands for white,
    black being 0. channels: how many a picture has. nodata: the stored number that means no data;
    "none" where the file's own such number means itself. scale: the value of one stored unit,
    y = scale x stored, for what is no picture. slice: which of a file of several, from 0.
    """

    key: str | None = None
    white: Positive | None = None
    channels: Count | None = None
    nodata: Number | Literal["none"] | None = None
    scale: Positive | None = None
    slice: Natural | None = None

    @model_validator(mode="after")
    def unit(self) -> Self:
        if self.white is not None and self.scale is not None:
            raise ValueError("give either white (of a picture) or scale (of any other measurement)")
        return self


class Measurement(Reading):
    """``file``: what was measured. ``image``: a clean image to simulate a measurement from, with
    noise that depends on ``seed``."""

    file: File | None = None
    image: File | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def one(self) -> Self:
        if (self.file is None) == (self.image is None):
            raise ValueError(
                "give either `file` (a real measurement, used as it is) or `image` "
                "(a clean image, to be degraded first)"
            )
        if self.file is not None and "seed" in self.model_fields_set:
            raise ValueError(
                "a measured file has no seed: no noise is added to it. Did you mean `image`?"
            )
        return self


class Reference(Reading):
    """The true image, if it is known: a file alone, or with how it is to be read."""

    file: File


def as_numbers(
    path: Path, range: Range, how: Reading, pictorial: bool = True
) -> tuple[Tensor, float, Notes]:
    """What a file holds in ``range``, the step between two stored levels (0 for floating point),
    and sentences about the reading.

    pictorial: whether whole numbers are grey levels; otherwise they need a scale. Values without
    data are NaN.
    Raises ``ValueError`` for whole numbers without a unit.
    """
    if not pictorial and how.white is not None:
        raise ValueError(
            f"{path}: white belongs to a picture, and the operator makes none; "
            "state scale, the value of one stored unit"
        )
    if path.suffix.lower() not in PICTURES or how.slice is not None:
        return numbers_of(opened_file(path, how), path, range, how, pictorial)
    if how.key is not None:
        raise ValueError(f"{path}: `key` chooses an array of a file of several, a picture has none")
    x, info = read_image(
        path,
        how.channels,
        white=how.white,
        scale=how.scale,
        nodata=how.nodata,
        keep_missing=True,
    )
    white = None if how.scale else info.white
    whole = not info.stored.startswith("float")
    return _in_range(x, whole, white, path, range, how, pictorial, info.notes)


def opened_file(path: Path, how: Reading) -> Measured:
    """The content of a file, or the slice of it that ``how`` chooses."""
    found = read_measured(path, how.key)
    return found if how.slice is None else found.taken(how.slice)


def numbers_of(
    found: Measured, path: Path, range: Range, how: Reading, pictorial: bool = True
) -> tuple[Tensor, float, Notes]:
    """As ``as_numbers``, of what was read from ``path``; pages of a TIFF are grey levels as those
    of a picture are."""
    usual = WHITE_LEVELS.get(str(found.data.dtype).removeprefix("torch."))
    if path.suffix.lower() in PICTURES and pictorial and usual and not (how.white or how.scale):
        how = how.model_copy(update={"white": float(usual)})
    x, whole, notes = _array(found.data, path, how)
    return _in_range(x, whole, how.white, path, range, how, pictorial, (*found.notes, *notes))


def _in_range(
    x: Tensor,
    whole: bool,
    white: float | None,
    path: Path,
    range: Range,
    how: Reading,
    pictorial: bool,
    notes: Notes,
) -> tuple[Tensor, float, Notes]:
    if not pictorial and whole and how.scale is None:
        top = float(x.nan_to_num(0).max()) * (white or 1)
        raise ValueError(
            f"{path} stores whole numbers up to {top:.6g}, and the operator makes no picture: "
            "state scale, the value of one stored unit "
            "(y = scale x stored), or store y as floating point numbers in its own unit; "
            "an operator of your own that makes pictures says pictures: true"
        )
    if white is not None:
        low, high = range
        return low + (high - low) * x, (high - low) / white if whole else 0.0, notes
    times = f" {how.scale:g} times the stored ones," if how.scale else ""
    shown = "its complex values" if x.is_complex() else f"its values, {_span(x)},"
    return (
        x,
        (how.scale or 0.0) if whole else 0.0,
        (*notes, f"{path.name}: {shown}{times} are taken as they are"),
    )


def _array(array: Tensor, path: Path, how: Reading) -> tuple[Tensor, bool, Notes]:
    """The numbers of an array over white or times scale, and whether they are stored as whole
    numbers."""
    whole = not (array.is_floating_point() or array.is_complex())
    name = str(array.dtype).removeprefix("torch.")
    if how.channels is not None:
        raise ValueError(
            f"{path} is an array of shape {tuple(array.shape)}, "
            "whose axes are as they are: leave channels out"
        )
    if whole and how.white is None and how.scale is None:
        raise ValueError(
            f"{path} holds {name} values; "
            "store physical units as float, or a picture as PNG, or state white or scale"
        )
    # Some whole numbers of torch know no arithmetic
    x = array.to(torch.complex128 if array.is_complex() else torch.float64)
    if isinstance(how.nodata, float):
        x = torch.where(x == how.nodata, torch.nan, x)
    if how.white is None:
        return (
            (x * (how.scale or 1.0)).to(torch.complex64 if x.is_complex() else torch.float32),
            whole,
            (),
        )
    if x.is_complex() or bool((x > how.white).any()):
        raise ValueError(
            f"{path}: its {name} values, {'complex' if x.is_complex() else _span(x)}, "
            f"exceed the stated white of {how.white:g}"
        )
    return (
        (x / how.white).float(),
        whole,
        (f"{path.name}: stored numbers {_span(x)}; white is {how.white:g}",),
    )


def as_image(path: Path, range: Range, how: Reading) -> tuple[Tensor, Notes]:
    """A clean image (C, H, W) in ``range``. Raises ``ValueError`` where it has no data."""
    image, _, notes = as_numbers(path, range, how)
    lost = int((~image.isfinite()).sum())
    if lost:
        raise ValueError(
            f"{path}: {lost} of {image.numel()} values hold no data, "
            "so that it is no clean image; crop it"
        )
    return (image[None] if image.ndim == 2 else image), notes


def degrade(
    section: Instrument, x: Tensor, law: NoiseLaw, source: Measurement, wanted: Wanted
) -> tuple[Operator, Tensor]:
    """The operator for the image x, and a simulated measurement of it. wanted: the shape of images,
    None for a side of any length."""
    assert source.image is not None  # who calls has made x from it
    shape, fixed = tuple(x.shape), _known(wanted)
    if len(shape) != len(wanted) or any(
        side not in (None, have) for have, side in zip(shape, wanted, strict=True)
    ):
        if fixed is not None and shape == section.build(fixed).out_shape:
            raise ValueError(
                f"{source.image} has the shape {shape} of a measurement, not that of an image, "
                f"{fixed}. If it was measured, write measurement: {{file: {source.image.name}}}"
            )
        asked = (
            tuple("any" if side is None else side for side in wanted) if fixed is None else fixed
        )
        raise ValueError(
            f"{source.image} has shape {shape}, "
            f"images here have shape {asked}{_colours(source.image, shape, wanted)}"
        )
    A = section.build(shape)
    return A, simulate(A, x, law, source.seed)


def simulate(A: Operator, x: Tensor, law: NoiseLaw, seed: int) -> Tensor:
    """A measurement of one image x (*E), with noise that depends on ``seed`` and is independent of
    every sample drawn with the same one."""
    with torch.no_grad():
        return law.sample(A(x[None]), Streams(seed, [NOISE_STREAM]))[0]


class Observation(NamedTuple):
    """The operator, y (*O), the part of the image that lies under y where it is larger than y, and
    sentences about them."""

    A: Operator
    y: Tensor
    frame: Frame | None
    notes: Notes


def measured_file(
    section: Instrument, path: Path, how: Reading, law: NoiseLaw, range: Range, wanted: Wanted
) -> Observation:
    """What is in a file that was measured. wanted: the shape of images; a side of any length (None)
    follows from the measurement."""
    y, level, notes = as_numbers(path, range, section.reading(how), section.pictorial)
    y = section.arrange(y, str(path))
    with torch.no_grad():
        section, A, frame, more = _seen(section.matched(y), y, wanted, path.name)
        fitted = _fitted(section, A, y)
        if fitted is None:
            raise ValueError(_misplaced(path, A, y, wanted))
        lost = int((~fitted.isfinite()).sum())
        if lost:
            raise ValueError(
                f"{path}: {lost} of {fitted.numel()} values hold no data or are not finite. "
                "Hide them with a mask as the operator's last part, operator: "
                "{name: compose, parts: [..., {name: mask, file: ...}]}"
            )
        fitted = section.linear_part(A, fitted)
        return Observation(A, fitted, frame, (*notes, *more, *_doubts(path, A, fitted, law, level)))


def _seen(
    section: Instrument, y: Tensor, wanted: Wanted, name: str
) -> tuple[Instrument, Operator, Frame | None, Notes]:
    """The section with its border settled, its operator, the frame of y in the image, and what to
    say of it.

    A camera sees light from beyond the border of its picture: without a statement an image is
    larger than y by what a blur reaches. Where images can be no larger than y, they are mirrored.
    """
    fixed, open_border = _known(wanted), section.assuming("valid")
    if fixed is None:
        (top, bottom), (left, right) = open_border.margins()
        like = open_border.like(y) or _like(y, wanted)
        if len(like) != 3 or not top + bottom + left + right:
            return open_border, open_border.build(like), None, ()
        C, H, W = like
        shape = (C, top + H + bottom, left + W + right)
        said = (
            f"{name}: nothing is assumed of what lies beyond its border. "
            f"Images are {shape[1]} x {shape[2]}, larger by what the blur reaches; "
            f"results are shown cut to its {H} x {W}"
        )
        return open_border, open_border.build(shape), ((top, top + H), (left, left + W)), (said,)
    if open_border is not section:
        with suppress(ValueError):  # as for a kernel that is larger than the image
            A = open_border.build(fixed)
            if _fitted(open_border, A, y) is not None:
                return open_border, A, None, ()
        section = section.assuming("reflect")
        said = (
            f"{name}: images are no larger than it, so that what the blur brings in from beyond "
            "its border is taken for their mirror image (boundary: reflect). With an image_shape "
            "larger by the kernel, or without one where the prior takes any, nothing is assumed"
        )
        return section, section.build(fixed), None, (said,)
    return section, section.build(fixed), None, ()


def _known(wanted: Wanted) -> Shape | None:
    sides = tuple(side for side in wanted if side is not None)
    return sides if len(sides) == len(wanted) else None


def _like(y: Tensor, wanted: Wanted) -> Shape:
    """The shape of an image as high and wide as y, with the wanted channels."""
    shape = (1, *y.shape) if y.ndim == 2 else tuple(y.shape)
    if len(shape) != 3 or len(wanted) != 3 or wanted[0] is None:
        return shape
    last = shape[0] != wanted[0] and shape[2] == wanted[0]  # (height, width, colour)
    return (wanted[0], *(shape[:2] if last else shape[1:]))


def _fitted(section: Instrument, A: Operator, y: Tensor) -> Tensor | None:
    """y in the shape that A makes; None when it has no such reading."""
    readings = [
        y,
        y[None],
        y[0] if y.ndim and len(y) == 1 else y,
        y.movedim(-1, 0).contiguous() if y.ndim == 3 else y,
    ]
    fitting = (reading for reading in readings if tuple(reading.shape) == A.out_shape)
    return next(
        fitting,
        next((picked for r in readings if (picked := section.pick(A, r)) is not None), None),
    )


def _misplaced(path: Path, A: Operator, y: Tensor, wanted: Wanted) -> str:
    shapes = (
        f"{path} has shape {tuple(y.shape)}, "
        f"but {type(A).__name__} makes measurements of shape {A.out_shape} of images {A.in_shape}"
    )
    measured = (1, *y.shape) if y.ndim == 2 else tuple(y.shape)
    if len(measured) == len(A.out_shape) == 3 and measured[1:] == A.out_shape[1:]:
        colours = _colours(path, measured, A.out_shape)
        if colours:
            return f"{shapes}{colours}"
    if _known(wanted) is None:
        return (
            f"{shapes}. If it is the measurement, state the shape of the image, image_shape: "
            "[channels, height, width]. If it is the clean image, to be degraded first, "
            f"write measurement: {{image: {path.name}}}"
        )
    if measured == A.in_shape:
        return (
            f"{shapes}. It looks like the clean image: to degrade it first, write measurement: "
            f"{{image: {path.name}}}"
        )
    return f"{shapes}. Check image_shape and the operator"


def _colours(path: Path, shape: Shape, wanted: Wanted) -> str:
    """What to do where a grey picture meets a colour prior, or the other way round; empty where it
    is something else."""
    if len(shape) != 3 or len(wanted) != 3 or {shape[0], wanted[0]} != {1, 3}:
        return ""
    if shape[0] == 1:
        return (
            f". {path.name} is grey, the prior models colours: if it is a grey picture "
            "of a coloured scene, measure in grey, operator: {name: compose, parts: [..., grey]}; "
            "for grey scenes take a prior of grey images, such as prior: {grey: photos}"
        )
    return (
        f". {path.name} has colours, the prior models grey images: "
        "store it as grey, or take a prior of colours such as photos"
    )


def _doubts(path: Path, A: Operator, y: Tensor, law: NoiseLaw, level: float) -> Notes:
    """Sentences where y is finer, or coarser, than operator and noise level allow."""
    std, notes = law.std, []
    if std is None:
        return ()
    rounding = level / 12**0.5
    if rounding > std:
        notes.append(
            f"warning: {path.name} is stored in steps of {level:.3g}; "
            f"their rounding alone has a standard deviation of {rounding:.3g}, "
            f"more than the stated noise of {std:.3g}. Store y with 16 bits, or state more noise"
        )
    parts = _parts(A, y) if isinstance(A, LinearOperator) and std > 0 else None
    if parts is not None:
        # Along directions that A does not reach, y holds noise alone.
        c, s = parts
        alone = c[s <= 1e-3 * s.max()].abs().square()
        if len(alone) >= 30 and (ratio := float(alone.mean()) ** 0.5 / std) > 2:
            notes.append(
                f"warning: {path.name} holds detail that {type(A).__name__} cannot make, "
                f"{ratio:.1f} times the stated noise. Is it the clean image? "
                f"Then write measurement: {{image: {path.name}}}. "
                "Otherwise check the operator and the noise level"
            )
    return tuple(notes)


def _parts(A: LinearOperator, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """Coordinates of y and how well A reaches each of them: singular values or, nearly, what it
    passes of each frequency."""
    spectrum, passed = A.spectrum(), A.measured_power()
    if spectrum is not None:
        c = spectrum.Uh(y[None])[0]
        return c, torch.nn.functional.pad(spectrum.s, (0, len(c) - len(spectrum.s)))
    return (
        None
        if passed is None
        else (cosine(y[None])[0].flatten(), passed.sqrt().expand(y.shape).flatten())
    )


def _span(array: Tensor) -> str:
    finite = array[array.isfinite()]
    return (
        f"from {float(finite.min()):.4g} to {float(finite.max()):.4g}"
        if finite.numel()
        else "none of them finite"
    )
