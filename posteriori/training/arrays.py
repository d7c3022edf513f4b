"""Training images that are no photographs: measured numbers of any kind, put into [-1, 1] by a
stated window."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from posteriori.measurements import read_array, read_image
from posteriori.measurements.arrays import ARRAY_SUFFIXES as ARRAYS

_PICTURES = (".tif", ".tiff", ".png")
ARRAY_FILES = (*ARRAYS, ".npz", *_PICTURES)


def read_windowed(
    paths: Sequence[str | Path],
    channels: int,
    window: tuple[float, float],
    *,
    key: str | None = None,
    clip: bool = False,
) -> list[np.ndarray]:
    """Images (H, W, channels) float32 in which window[0] is -1 and window[1] is 1.

    paths: files, or folders of them: .npy, .npz, .cfl, .pt, .safetensors, and .tif or .png with the
    numbers that they store. An array is one image (H, W) or (channels, H, W), or a stack of them
    along its first axis. Complex numbers are two channels, their real and imaginary part. key:
    which array of a file that holds several.
    clip: numbers outside the window are set to its ends; otherwise they are refused.

    Raises ``FileNotFoundError`` for a folder without such a file, ``ValueError`` naming the file
    for other shapes, for numbers that are not finite, and for those outside the window.
    """
    low, high = window
    images = []
    for path in _files(paths):
        for image in _images(numbers(path, key), channels, path):
            outside = float(((image < low) | (image > high)).mean())
            if outside > 0 and not clip:
                raise ValueError(
                    f"{path} has values from {float(image.min()):.6g} to {float(image.max()):.6g}, "
                    f"of which {100 * outside:.2g} % lie outside the window [{low:g}, {high:g}]: "
                    "state a wider window, or clip: true"
                )
            inside = np.clip(image, low, high) if clip else image
            images.append(
                (2 * (inside.astype(np.float64) - low) / (high - low) - 1).astype(np.float32)
            )
    return images


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.glob("*") if file.suffix.lower() in ARRAY_FILES)
        if not inside:
            raise FileNotFoundError(
                f"no array ({', '.join(ARRAY_FILES)}) in the training folder {path}"
            )
        yield from inside


def numbers(path: Path, key: str | None) -> np.ndarray:
    """What a file stores, without any scale."""
    if path.suffix.lower() in _PICTURES:
        x, info = read_image(path, scale=1.0)
        return x.numpy() if info.stored.startswith("float") else x.double().round().numpy()
    if path.suffix != ".npz":
        return read_array(path, key).numpy()
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz: it is no archive of arrays")
    try:
        with np.load(path, allow_pickle=False) as data:
            names = list(data)
            chosen = names[0] if key is None and len(names) == 1 else key
            if chosen not in names:
                asked = "choose one by key" if key is None else f"there is no array {key!r}"
                raise ValueError(f"{path} holds {', '.join(sorted(names))}: {asked}")
            return data[chosen]
    except (zipfile.BadZipFile, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _images(array: np.ndarray, channels: int, path: Path) -> list[np.ndarray]:
    """The images (H, W, channels) of an array, real."""
    if array.dtype.kind not in "fcuib":
        raise ValueError(f"{path} holds {array.dtype} values, numbers are expected")
    if not np.isfinite(array).all():
        raise ValueError(
            f"{path}: {int((~np.isfinite(array)).sum())} of {array.size} values are not finite; "
            "leave the image out, or fill them"
        )
    if array.dtype.kind == "c":
        if channels != 2 or array.ndim not in (2, 3):
            raise ValueError(
                f"{path} holds complex values of shape {array.shape}: "
                "(H, W) or (N, H, W) for network.channels: 2 are expected"
            )
        array = np.stack([array.real, array.imag], -3)
    if array.ndim == 2 or (array.ndim == 3 and channels == 1 and len(array) > 1):
        array = array[..., None, :, :]
    stack = array if array.ndim == 4 else array[None]
    if stack.ndim != 4 or stack.shape[1] != channels:
        raise ValueError(
            f"{path} has shape {array.shape}, the network has {channels} channels: "
            "(H, W), (channels, H, W) or a stack of them is expected"
        )
    return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in stack]
