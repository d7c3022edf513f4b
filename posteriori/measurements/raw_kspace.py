"""Raw data of magnetic resonance in the format ISMRMRD: lines of k-space with their places, put
together into one grid.

Of the header only the geometry is read; what it says of the subject and the study is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast
from xml.etree import ElementTree

import numpy as np
import torch

from posteriori.measurements.measured import Measured

# Flags of lines that are no part of the image, by their numbers in the format: noise, calibration
# alone, navigation, phase correction, feedback, dummies, surface coils, references of phase.
_APART = (19, 20, 23, 24, 26, 27, 28, 29, 30, 31)
REVERSED = 22
# Counters of which one may run: the axis of time.
COUNTERS = ("repetition", "contrast", "phase", "set")


class EncodedSpace(NamedTuple):
    """Points and field of view along readout, first and second phase encoding; ``centres``: the
    counters of the two encodings at the zero frequency, None where the header states none."""

    matrix: tuple[int, int, int]
    fov_mm: tuple[float, float, float] | None
    centres: tuple[int | None, int | None]
    trajectory: str
    spaces: int


def encoded_space(xml: Any, path: Path) -> EncodedSpace:
    """The first encoding of a header. Raises ``ValueError`` naming the file for one that has
    none."""
    raw = xml.reshape(-1)[0] if isinstance(xml, np.ndarray) else xml
    try:
        root = ElementTree.fromstring(raw)
        for part in root.iter():
            part.tag = part.tag.rpartition("}")[2]
        encodings = root.findall("encoding")
        first = encodings[0]
        x, y, z = (int(first.findtext(f"encodedSpace/matrixSize/{a}", "")) for a in "xyz")
    except (ElementTree.ParseError, IndexError, ValueError, TypeError):
        raise ValueError(f"{path}: its header states no encoded matrix of k-space") from None
    sides = [first.findtext(f"encodedSpace/fieldOfView_mm/{a}") for a in "xyz"]
    centres = [first.findtext(f"encodingLimits/kspace_encoding_step_{k}/center") for k in (1, 2)]
    return EncodedSpace(
        (x, y, z),
        None if None in sides else cast(Any, tuple(float(s) for s in sides if s is not None)),
        tuple(None if c is None else int(c) for c in centres),  # type: ignore[arg-type]
        first.findtext("trajectory", "cartesian").strip().lower(),
        len(encodings),
    )


def read_ismrmrd(path: Path, group: Any) -> Measured:
    """The k-space of a group, centred, 0 where nothing was acquired.

    Axes: T where a counter runs, Z of slices (in the order of their places) or of the second
    encoding, C coils, Y phase encoding, X readout. Lines that were acquired several times are
    averaged; those that are no part of the image are left out and counted in the notes.
    Raises ``ValueError`` naming the file: trajectories that are no grid, lines outside of it, two
    counters that run, slices and a second encoding at once.
    """
    space = encoded_space(group["xml"][()], path)
    if space.trajectory != "cartesian":
        raise ValueError(
            f"{path} has a {space.trajectory} trajectory; only a grid (cartesian) is read"
        )
    rows = group["data"][()]
    head = rows["head"]
    kept = np.flatnonzero((head["flags"] & sum(1 << (bit - 1) for bit in _APART)) == 0)
    if not len(kept):
        raise ValueError(f"{path}: none of its {len(rows)} lines is part of an image")
    head, lines = head[kept], rows["data"][kept]
    if len(np.unique(head["encoding_space_ref"])) > 1:
        raise ValueError(f"{path}: its lines belong to several encodings; split them")
    frames, counted = _frames(path, head["idx"])
    slices = _slices(head)
    deep = space.matrix[2] > 1
    if deep and slices.max() > 0:
        raise ValueError(f"{path} has slabs of a second encoding; choose one of them")
    partitions = head["idx"]["kspace_encode_step_2"].astype(int)
    at = (
        _placed(path, partitions, space.centres[1], space.matrix[2], "second encoding")
        if deep
        else slices
    )
    phases = _placed(
        path,
        head["idx"]["kspace_encode_step_1"].astype(int),
        space.centres[0],
        space.matrix[1],
        "first encoding",
    )
    depth = space.matrix[2] if deep else int(slices.max()) + 1
    coils = int(head["active_channels"][0])
    shape = (int(frames.max()) + 1, depth, coils, space.matrix[1], space.matrix[0])
    grid = np.zeros(shape, dtype=np.complex64)
    times = np.zeros((shape[0], depth, 1, space.matrix[1], space.matrix[0]), dtype=np.float32)
    for k, line in enumerate(lines):
        place, numbers = _line(path, head[k], line, coils, space.matrix[0])
        index = (frames[k], at[k], slice(None), phases[k], place)
        grid[index] += numbers
        times[frames[k], at[k], :, phases[k], place] += 1
    grid /= np.maximum(times, 1)
    data = torch.from_numpy(grid if counted else grid[0])
    return Measured(
        data,
        "TZCYX" if counted else "ZCYX",
        notes=_notes(path, space, len(rows) - len(kept), float(times.max()), data),
        arrays=_pixels(space),
    )


def _frames(path: Path, index: Any) -> tuple[np.ndarray, bool]:
    """The frame of each line, and whether there are several."""
    running = [name for name in COUNTERS if len(np.unique(index[name])) > 1]
    if len(running) > 1:
        raise ValueError(f"{path}: {' and '.join(running)} run at once; choose one of each")
    if not running:
        return np.zeros(len(index), dtype=int), False
    return np.unique(index[running[0]], return_inverse=True)[1], True


def _slices(head: Any) -> np.ndarray:
    """The slice of each line, counted along the normal of the slices: acquired they are in any
    order."""
    numbers, of_line = np.unique(head["idx"]["slice"], return_inverse=True)
    first = [int(np.flatnonzero(of_line == k)[0]) for k in range(len(numbers))]
    places = np.array([head["position"][k].astype(float) @ head["slice_dir"][k] for k in first])
    if len(np.unique(places)) < len(places):
        return of_line  # no places are stated
    rank = np.empty(len(numbers), dtype=int)
    rank[np.argsort(places)] = np.arange(len(numbers))
    return rank[of_line]


def _placed(
    path: Path, counters: np.ndarray, centre: int | None, side: int, what: str
) -> np.ndarray:
    """Indices on a centred grid: the zero frequency lies at side // 2."""
    out = counters - (side // 2 if centre is None else centre) + side // 2
    if out.min() < 0 or out.max() >= side:
        raise ValueError(
            f"{path}: lines of the {what} from {out.min()} to {out.max()} "
            f"lie outside its {side} points"
        )
    return out


def _line(path: Path, head: Any, line: Any, coils: int, side: int) -> tuple[slice, np.ndarray]:
    """Where a line lies along the readout, and its numbers (coils, samples)."""
    count = int(head["number_of_samples"])
    if int(head["active_channels"]) != coils or len(line) != 2 * coils * count:
        raise ValueError(
            f"{path}: a line of {len(line)} numbers for {coils} coils x {count} points"
        )
    numbers = np.asarray(line, dtype=np.float32).view(np.complex64).reshape(coils, count)
    before, after = int(head["discard_pre"]), int(head["discard_post"])
    centre = int(head["center_sample"])
    if int(head["flags"]) >> (REVERSED - 1) & 1:
        numbers, centre = numbers[:, ::-1], count - 1 - centre
        before, after = after, before
    start = side // 2 - centre + before
    numbers = numbers[:, before : count - after]
    if start < 0 or start + numbers.shape[1] > side:
        raise ValueError(
            f"{path}: a line of {count} points with its centre at {centre} "
            f"does not fit a readout of {side}"
        )
    return slice(start, start + numbers.shape[1]), numbers


def _notes(
    path: Path, space: EncodedSpace, left_out: int, most: float, data: torch.Tensor
) -> tuple[str, ...]:
    sides = " x ".join(map(str, data.shape))
    said = [
        f"{path.name}: k-space of {sides} ({'TZCYX'[-data.ndim :]}), no field about a patient read"
    ]
    if left_out:
        said.append(f"{path.name}: {left_out} lines are no part of the image and were left out")
    if most > 1:
        said.append(f"{path.name}: lines that were acquired up to {most:.0f} times are averaged")
    if space.spaces > 1:
        said.append(f"{path.name}: of its {space.spaces} encodings the first was read")
    return tuple(said)


def _pixels(space: EncodedSpace) -> dict[str, torch.Tensor]:
    if space.fov_mm is None:
        return {}
    readout, phase, slices = (f / n for f, n in zip(space.fov_mm, space.matrix, strict=True))
    return {"pixel_mm": torch.tensor([slices, phase, readout], dtype=torch.float64)}
