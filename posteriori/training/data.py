"""Training images in memory, and reproducible random crops from them.

A batch is a function of (seed, step) alone, so that a run that was stopped and resumed sees exactly
the batches of one that was not.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

PICTURE_FILES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


class Crops:
    """Random crops, flips and quarter turns of a list of images, each of a size of its own.

    Parameters
    ----------
    images: arrays (H, W, C), each at least ``crop`` on both sides: all uint8, black 0 and white
        255, or all float32 in [-1, 1].
    crop: side of the square crops.
    weights: relative probability of each image; uniform over pixels when None.
    turns: also flip and rotate (off for digits, whose orientation has a meaning).
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        crop: int,
        weights: Sequence[float] | None = None,
        turns: bool = True,
    ) -> None:
        small = [im.shape for im in images if min(im.shape[:2]) < crop]
        if small or not images:
            raise ValueError(
                f"Crops: {len(images)} images, "
                f"{len(small)} of them smaller than the crop {crop} (first: {small[:1]})"
            )
        p = np.asarray(
            weights if weights is not None else [im.shape[0] * im.shape[1] for im in images],
            dtype=np.float64,
        )
        self.images, self.crop, self.turns, self.p = list(images), crop, turns, p / p.sum()

    def batch(self, size: int, seed: int, step: int) -> Tensor:
        """A batch in [-1, 1]: (size, C, crop, crop) float32, determined by (seed, step)."""
        rng = np.random.default_rng([seed, step])
        rows = []
        for k in rng.choice(len(self.images), size=size, p=self.p):
            im = self.images[k]
            top, left = (int(rng.integers(n - self.crop + 1)) for n in im.shape[:2])
            patch = im[top : top + self.crop, left : left + self.crop]
            if self.turns:
                patch = np.rot90(patch, int(rng.integers(4)))
                patch = patch[:, ::-1] if rng.integers(2) else patch
            rows.append(np.ascontiguousarray(patch.transpose(2, 0, 1)))
        stacked = torch.from_numpy(np.stack(rows))
        return stacked.float() / 127.5 - 1 if stacked.dtype == torch.uint8 else stacked

    def record(self) -> dict[str, Any]:
        """What the images are by content: how many, and one digest of all."""
        state = hashlib.sha256()
        for im in self.images:
            state.update(f"{im.dtype}{im.shape}".encode())
            state.update(np.ascontiguousarray(im).data)
        return {"count": len(self.images), "sha256": state.hexdigest()[:16]}


def apart(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """The numbers of the images to train on, and of those held out: a share of ``count``, at least
    one, drawn by the seed.

    None is held out of a share of 0, or of a single image.
    """
    held = min(count - 1, max(1, round(share * count))) if share > 0 and count > 1 else 0
    order = np.random.default_rng([seed, 2]).permutation(count)
    return sorted(order[held:].tolist()), sorted(order[:held].tolist())


def read_folders(
    folders: Sequence[str | Path], channels: int, scales: Sequence[float], crop: int
) -> tuple[list[np.ndarray], list[float]]:
    """Read every image of some folders at several scales.

    Returns the images and their sampling weights: every scale is equally likely, and within a scale
    every image.
    Raises ``FileNotFoundError`` naming the folder that holds no image, ``ValueError`` naming a file
    of several pages, or of more than 8 bits of grey, which Pillow would clip at 255.
    """
    if channels not in (1, 3):
        raise ValueError(
            f"photographs have 1 or 3 channels, network.channels is {channels}; "
            "other images are data of kind: arrays"
        )
    images, weights = [], []
    for folder in map(Path, folders):
        files = sorted(f for f in folder.glob("*") if f.suffix.lower() in PICTURE_FILES)
        if not files:
            raise FileNotFoundError(
                f"no image ({', '.join(sorted(PICTURE_FILES))}) in the training folder {folder}"
            )
        for file in files:
            with Image.open(file) as picture:
                if picture.mode.startswith(("I", "F")) or getattr(picture, "n_frames", 1) > 1:
                    found = f"{getattr(picture, 'n_frames', 1)} page(s) of mode {picture.mode}"
                    raise ValueError(
                        f"{file} holds {found}; training reads one picture of 8 bits from a file: "
                        "convert it first"
                    )
                full = picture.convert("RGB" if channels == 3 else "L")
            for scale in scales:
                size = (max(crop, round(full.width * scale)), max(crop, round(full.height * scale)))
                array = np.asarray(
                    full if scale == 1 else full.resize(size, Image.Resampling.LANCZOS)
                )
                images.append(array.reshape(*array.shape[:2], channels))
                weights.append(1.0)
    return images, weights


def read_npz_pictures(file: str | Path, key: str, side: int) -> list[np.ndarray]:
    """Grey uint8 images (N, h, w) of an .npz, centred in a square of zeros of the given side."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"no such file: {file}")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is no .npz: it is no archive of arrays")
    try:
        with np.load(file, allow_pickle=False) as data:
            if key not in data:
                raise ValueError(f"{file} has no array '{key}'; it has {sorted(data)}")
            stack = data[key]
    except (zipfile.BadZipFile, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file} is no .npz of arrays: {error}") from None
    before = [(side - n) // 2 for n in stack.shape[1:3]]
    if stack.dtype != np.uint8 or stack.ndim != 3 or min(before) < 0:
        raise ValueError(
            f"{file}[{key}]: expected uint8 (N, h <= {side}, w <= {side}), "
            f"got {stack.dtype} {stack.shape}"
        )
    padded = np.zeros((len(stack), side, side, 1), dtype=np.uint8)
    padded[:, before[0] : before[0] + stack.shape[1], before[1] : before[1] + stack.shape[2], 0] = (
        stack
    )
    return list(padded)
