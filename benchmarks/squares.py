"""Squares of photographs, clean and speckled, and seeded numbers, for benchmarks/flags.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from skimage import data
from torch import Tensor

import posteriori as po
from posteriori.measurements.photos import COFFEE

SIDE = 128


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def crops(x: Tensor) -> Iterator[Tensor]:
    """Squares that do not overlap, of the picture and of the picture at half its size."""
    H, W = (n // 2 * 2 for n in x.shape[1:])
    half = x[:, :H, :W].unflatten(1, (H // 2, 2)).unflatten(3, (W // 2, 2)).mean((2, 4))
    for picture in (x, half):
        for top in range(0, picture.shape[1] - SIDE + 1, SIDE):
            for left in range(0, picture.shape[2] - SIDE + 1, SIDE):
                yield picture[:, top : top + SIDE, left : left + SIDE]


def packaged() -> Iterator[Tensor]:
    """The photographs of this package and of scikit-image."""
    yield po.measurements.read_image(COFFEE)[0].double()
    for load in (
        data.astronaut,
        data.camera,
        data.chelsea,
        data.coins,
        data.rocket,
        data.moon,
        data.grass,
        data.gravel,
        data.brick,
    ):
        pixels = load()
        yield torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).copy()).double() / 255


def salted(x: Tensor, part: float, by: float, seed: int) -> Tensor:
    hit = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(seed)) < part
    return torch.where(hit, torch.where(x > 0.5, x - by, x + by), x)
