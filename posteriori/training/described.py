"""Images with descriptions, in memory, and reproducible batches of both."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.training.data import Crops


class DescribedImages(Crops):
    """Images (N, C, side, side) of any range, the numbers (N, J) of the descriptions that fit each,
    and the embeddings (K, width) of all descriptions."""

    def __init__(self, images: np.ndarray, described: np.ndarray, embeddings: np.ndarray) -> None:
        super().__init__(list(images.transpose(0, 2, 3, 1)), images.shape[-1], turns=False)
        self.described, self.embeddings = described, embeddings.astype(np.float32)

    def batch(self, size: int, seed: int, step: int) -> Tensor:
        """(size, C * side^2 + width): the numbers of an image, then the embedding of one of its
        descriptions; determined by (seed, step)."""
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(len(self.images), size=size, p=self.p)
        images = np.stack([self.images[k].transpose(2, 0, 1).reshape(-1) for k in rows])
        chosen = self.described[rows, rng.integers(self.described.shape[1], size=size)]
        return torch.from_numpy(np.concatenate([images, self.embeddings[chosen]], 1))

    def record(self) -> dict[str, Any]:
        state = hashlib.sha256(np.ascontiguousarray(self.described).data)
        state.update(np.ascontiguousarray(self.embeddings).data)
        return super().record() | {"descriptions": state.hexdigest()[:16]}


def read_described(
    file: str | Path, channels: int, side: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``images``, ``described`` and ``embeddings`` of an .npz, see ``data_kinds.Described``.

    Raises ``FileNotFoundError``, or ``ValueError`` naming the file for another kind of file, a
    missing array, shapes that do not fit each other or the configuration, and numbers that are not
    finite.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    names = ("images", "described", "embeddings")
    try:
        with np.load(file, allow_pickle=False) as data:
            if missing := [name for name in names if name not in data]:
                raise ValueError(f"{file} has no array {missing[0]!r}; it has {sorted(data)}")
            images, described, embeddings = (data[name] for name in names)
    except (zipfile.BadZipFile, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} is no .npz of arrays: {error}") from None
    if images.dtype.kind != "f" or images.shape[1:] != (channels, side, side):
        raise ValueError(
            f"{file}[images]: expected floating point (N, {channels}, {side}, {side}), got "
            f"{images.dtype} {images.shape}"
        )
    if embeddings.dtype.kind != "f" or embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise ValueError(
            f"{file}[embeddings]: expected floating point (K, {width}), got {embeddings.dtype} "
            f"{embeddings.shape}"
        )
    fits = described.dtype.kind in "iu" and described.ndim == 2 and len(described) == len(images)
    if not fits or not 0 <= int(described.min()) <= int(described.max()) < len(embeddings):
        raise ValueError(
            f"{file}[described]: expected whole numbers ({len(images)}, J) from 0 to "
            f"{len(embeddings) - 1}, got {described.dtype} {described.shape}"
        )
    for name, array in (("images", images), ("embeddings", embeddings)):
        if not np.isfinite(array).all():
            raise ValueError(f"{file}[{name}] has values that are not finite")
    return images.astype(np.float32), described, embeddings
