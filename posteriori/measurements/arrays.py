"""Arrays of numbers in files: .npy, .safetensors, .pt, .cfl. No file of these is ever executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from posteriori.measurements.bart import SUFFIX as BART
from posteriori.measurements.bart import read_cfl
from posteriori.measurements.files import checked

ARRAY_SUFFIXES = (".npy", ".safetensors", ".pt", BART)


def read_array(path: str | Path, key: str | None = None) -> Tensor:
    """The array in a file, with the numbers and the dtype it was stored with; contiguous, without
    gradient or pending conjugation.

    key: which tensor of a .safetensors or .pt file that holds several.
    Raises ``FileNotFoundError``, and ``ValueError`` naming the file for another suffix, pickled
    objects, a damaged file, or an unknown key.
    """
    path = checked(path)
    if path.suffix in (".npy", BART):
        if key is not None:
            raise ValueError(f"{path} holds one array without a name; leave the key {key!r} out")
        return _npy(path) if path.suffix == ".npy" else read_cfl(path)
    try:
        if path.suffix == ".safetensors":
            return _pick(load_file(path), key, path)
        if path.suffix == ".pt":
            return _pick(torch.load(path, map_location="cpu", weights_only=True), key, path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects, which could run code; "
            "save a tensor alone with torch.save(tensor, ...)"
        ) from error
    except ValueError:
        raise
    except Exception as error:  # safetensors and torch have no common class for a damaged file
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    raise ValueError(
        f"{path}: arrays are read from {', '.join(ARRAY_SUFFIXES)}, "
        f"not from {path.suffix or 'a file without suffix'!r}"
    )


def _npy(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no plain .npy array: {error}") from error
    if array.dtype.kind not in "fcuib":
        raise ValueError(f"{path} holds {array.dtype} values, numbers are expected")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        raise ValueError(
            f"{path} holds {array.dtype} values, which torch does not know; convert to float64"
        )
    # A fresh contiguous array in native byte order: torch takes no other.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _pick(content: object, key: str | None, path: Path) -> Tensor:
    if isinstance(content, Tensor) and key is None:
        return _plain(content)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}, expected a tensor or named tensors"
        )
    if key is None and len(content) == 1:
        key = next(iter(content))
    if key is None or not isinstance(content.get(key), Tensor):
        asked = "choose one by key" if key is None else f"there is no tensor {key!r}"
        names = sorted(map(str, content))
        more = f" and {len(names) - 8} more, as a network's weights do" if len(names) > 8 else ""
        raise ValueError(f"{path} holds {', '.join(names[:8])}{more}: {asked}")
    return _plain(content[key])


def _plain(x: Tensor) -> Tensor:
    """torch.save keeps strides, the gradient's flag and lazy conjugation; whoever reads numbers
    expects none of them."""
    return x.detach().resolve_conj().resolve_neg().contiguous()
