"""From the files that a problem names to x and y, and a word where one of them looks like the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.measurements import read_array, read_image
from posteriori.measurements.arrays import SUFFIXES as ARRAYS
from posteriori.noise import Noise
from posteriori.operators.base import LinearOperator, Operator
from posteriori.problems.instruments import Instrument, Shape
from posteriori.rng import Streams

if TYPE_CHECKING:
    from posteriori.problems.file import Measurement

Range = tuple[float, float]
Notes = tuple[str, ...]
# Sample k of a run uses stream k: the simulated noise has one that no sample reaches.
NOISE_STREAM = 2**32 - 1


def as_numbers(path: Path, range: Range, key: str | None = None) -> tuple[Tensor, float, Notes]:
    """What a file holds in ``range``, the step between two stored levels (0 for floating point), and sentences about the reading.

    Raises ``ValueError`` for an array of whole numbers: they have no unit.
    """
    if path.suffix in ARRAYS:
        array = read_array(path, key)
        if not (array.is_floating_point() or array.is_complex()):
            raise ValueError(
                f"{path} holds {str(array.dtype).removeprefix('torch.')} values; store physical units as float, or a picture as PNG"
            )
        kind = torch.complex64 if array.is_complex() else torch.float32
        shown = (
            f"its values, {_span(array)}, are taken as they are" if not array.is_complex() else "its complex values are taken as they are"
        )
        return array.to(kind), 0.0, (f"{path.name}: {shown}",)
    if key is not None:
        raise ValueError(f"{path}: `key` chooses a tensor of a .safetensors or .pt file, a picture has none")
    image, info = read_image(path)
    if info.white is None:
        return image, 0.0, (*info.notes, f"{path.name}: its values, {_span(image)}, are taken as they are")
    low, high = range
    return low + (high - low) * image, (high - low) / info.white, info.notes


def as_image(path: Path, range: Range) -> tuple[Tensor, Notes]:
    """A clean image (C, H, W) in ``range``."""
    image, _, notes = as_numbers(path, range)
    return (image[None] if image.ndim == 2 else image), notes


def degrade(section: Instrument, x: Tensor, law: Noise, source: Measurement, fixed: Shape | None) -> tuple[Operator, Tensor]:
    """The operator for the image x, and a simulated measurement of it."""
    if fixed is not None and tuple(x.shape) != fixed:
        if tuple(x.shape) == section.build(fixed).out_shape and source.image is not None:
            raise ValueError(
                f"{source.image} has the shape {tuple(x.shape)} of a measurement, not that of an image, {fixed}. "
                f"If it was measured, write measurement: {{file: {source.image.name}}}"
            )
        raise ValueError(f"{source.image} has shape {tuple(x.shape)}, images here have shape {fixed}")
    A = section.build(tuple(x.shape))
    return A, simulate(A, x, law, source.seed)


def simulate(A: Operator, x: Tensor, law: Noise, seed: int) -> Tensor:
    """A measurement of one image x (*E), with noise that depends on ``seed`` and is independent of every sample drawn with the same one."""
    with torch.no_grad():
        return law.sample(A(x[None]), Streams(seed, [NOISE_STREAM]))[0]


def measured(
    section: Instrument, path: Path, key: str | None, law: Noise, range: Range, fixed: Shape | None
) -> tuple[Operator, Tensor, Notes]:
    """The operator and the measurement in a file. Without a fixed image shape the image has that of the measurement."""
    y, level, notes = as_numbers(path, range, key)
    with torch.no_grad():
        A = section.build(fixed or _like(y))
        fitted = _fitted(section, A, y)
        if fitted is None:
            raise ValueError(_misplaced(path, A, y, fixed))
        return A, fitted, (*notes, *_doubts(path, A, fitted, law, level))


def _like(y: Tensor) -> Shape:
    return (1, *y.shape) if y.ndim == 2 else tuple(y.shape)


def _fitted(section: Instrument, A: Operator, y: Tensor) -> Tensor | None:
    """y in the shape that A makes; None when it has no such reading."""
    readings = [y, y[None], y[0] if y.ndim and len(y) == 1 else y, y.movedim(-1, 0).contiguous() if y.ndim == 3 else y]
    fitting = (reading for reading in readings if tuple(reading.shape) == A.out_shape)
    return next(fitting, next((picked for r in readings if (picked := section.pick(A, r)) is not None), None))


def _misplaced(path: Path, A: Operator, y: Tensor, fixed: Shape | None) -> str:
    shapes = f"{path} has shape {tuple(y.shape)}, but {type(A).__name__} makes measurements of shape {A.out_shape} of images {A.in_shape}"
    if fixed is None:
        return (
            f"{shapes}. If it is the measurement, state the shape of the image, image_shape: [channels, height, width]. "
            f"If it is the clean image, to be degraded first, write measurement: {{image: {path.name}}}"
        )
    if _like(y) == A.in_shape:
        return f"{shapes}. It looks like the clean image: to degrade it first, write measurement: {{image: {path.name}}}"
    return f"{shapes}. Check image_shape and the operator"


def _doubts(path: Path, A: Operator, y: Tensor, law: Noise, level: float) -> Notes:
    """Sentences where y is finer, or coarser, than operator and noise level allow."""
    std, notes = law.std, []
    if std is None:
        return ()
    rounding = level / 12**0.5
    if rounding > std:
        notes.append(
            f"warning: {path.name} is stored in steps of {level:.3g}; their rounding alone has a standard deviation of {rounding:.3g}, "
            f"more than the stated noise of {std:.3g}. Store y with 16 bits, or state more noise"
        )
    spectrum = A.spectrum() if isinstance(A, LinearOperator) and std > 0 else None
    if spectrum is not None:
        # Along directions that A does not reach, y holds noise alone.
        c = spectrum.Uh(y[None])[0]
        unreached = torch.ones(len(c), dtype=torch.bool)
        unreached[: len(spectrum.s)] = spectrum.s <= 1e-3 * spectrum.s.max()
        alone = c[unreached].abs().square()
        if len(alone) >= 30 and (ratio := float(alone.mean()) ** 0.5 / std) > 2:
            notes.append(
                f"warning: {path.name} holds detail that {type(A).__name__} cannot make, {ratio:.1f} times the stated noise. Is it the "
                f"clean image? Then write measurement: {{image: {path.name}}}. Otherwise check the operator and the noise level"
            )
    return tuple(notes)


def _span(array: Tensor) -> str:
    return f"from {float(array.min()):.4g} to {float(array.max()):.4g}"
