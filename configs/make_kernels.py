"""The file that configs/kernels.yaml trains on: blur kernels that are made up, 17 x 17 pixels.

    python configs/make_kernels.py training/kernels
    posteriori train configs/kernels.yaml --out training/kernels/run --export my-kernels

Three of four are traces of a shaken camera (``priors.motion_kernels``) of 9 to 17 pixels and of
several lengths, half of them through a little Gaussian blur; the fourth is a Gaussian of any two
widths and any angle. Each has sum 1 and its centre of mass near the middle, row and column 8.
train.npy holds them as (N, 20, 20): a network of this shape mirrors 17 pixels at the lower and the
right border to 20, and is trained on what it will be given.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from posteriori.priors import motion_kernels

SIDE, PADDED, COUNT = 17, 20, 16_000
SIDES, LENGTHS = (9, 13, 15, 17), (0.5, 0.7, 0.9)


def motion(count: int, rng: np.random.Generator) -> np.ndarray:
    """Traces of every side and length in equal parts, in the middle of SIDE x SIDE."""
    each = count // (len(SIDES) * len(LENGTHS))
    parts = []
    for k, side in enumerate(SIDES):
        for j, length in enumerate(LENGTHS):
            seed = 1000 + len(LENGTHS) * k + j
            made = motion_kernels(each, side, seed, length=length).numpy()
            room = (SIDE - side) // 2
            parts.append(np.pad(made, ((0, 0), (room, room), (room, room))))
    stack = np.concatenate(parts)
    softened = rng.random(len(stack)) < 0.5
    widths = rng.uniform(0.3, 0.8, len(stack))
    soft = smoothed(stack, widths)
    return np.where(softened[:, None, None], soft, stack)


def smoothed(kernels: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Each through a Gaussian blur of its own width in pixels, at sum 1."""
    t = np.arange(SIDE)
    gap = (t[:, None] - t) ** 2
    g = np.exp(-0.5 * gap / widths[:, None, None] ** 2)
    g = g / g.sum(1, keepdims=True)
    return np.einsum("nij,njk,nlk->nil", g, kernels, g)


def gaussian(count: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussians of two widths from 0.5 to 3.2 pixels, at any angle, of sum 1."""
    t = np.arange(SIDE) - SIDE // 2
    angle = rng.uniform(0, np.pi, count)[:, None, None]
    wide, narrow = np.exp(rng.uniform(np.log(0.5), np.log(3.2), (2, count)))[:, :, None, None]
    along = np.cos(angle) * t[:, None] + np.sin(angle) * t
    across = -np.sin(angle) * t[:, None] + np.cos(angle) * t
    g = np.exp(-0.5 * ((along / wide) ** 2 + (across / narrow) ** 2))
    return g / g.sum((1, 2), keepdims=True)


def main(folder: str) -> None:
    rng = np.random.default_rng(0)
    kernels = np.concatenate([motion(3 * COUNT // 4, rng), gaussian(COUNT // 4, rng)])
    kernels = kernels / kernels.sum((1, 2), keepdims=True)
    room = PADDED - SIDE
    padded = np.pad(kernels, ((0, 0), (0, room), (0, room)), mode="reflect").astype(np.float32)
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.save(Path(folder) / "train.npy", padded)
    spread = float(torch.from_numpy(kernels).var(0).mean()) ** 0.5
    print(f"{len(kernels)} kernels in {folder}; a tap has standard deviation {spread:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
