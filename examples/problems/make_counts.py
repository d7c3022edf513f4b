"""Writes counts.npy, blank.npy and chest.npy: X-ray photons behind a drawn chest of 48 x 48 pixels,
through a filter that is thin in the middle, and the chest in Hounsfield units.

Run:  python examples/problems/make_counts.py
"""

from pathlib import Path

import numpy as np
import torch

import posteriori as po

SIDE, ANGLES, DETECTORS, PIXEL_MM, MU_WATER = 48, 60, 72, 7.0, 0.0193
# (HU, half axes, centre, tilt in degrees), the later over the earlier, in units of half the field
# of view.
PARTS = (
    (30, 0.92, 0.66, 0.0, 0.0, 0),
    (-850, 0.30, 0.42, -0.42, 0.05, 8),
    (-850, 0.30, 0.42, 0.42, 0.05, -8),
    (50, 0.26, 0.24, 0.08, 0.05, 30),
    (120, 0.10, 0.10, -0.02, -0.26, 0),
    (500, 0.13, 0.11, 0.0, 0.46, 0),
    (60, 0.05, 0.05, 0.45, -0.1, 0),
    (400, 0.10, 0.03, 0.0, -0.58, 0),
)


def main(folder: Path) -> None:
    fine = 4 * SIDE  # four by four points a pixel, averaged
    y, x = np.meshgrid(*2 * [(np.arange(fine) + 0.5) / fine * 2 - 1], indexing="ij")
    chest = np.full((fine, fine), -1000.0)
    for value, a, b, right, down, tilt in PARTS:
        c, s = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
        u, v = (x - right) * c + (y - down) * s, (y - down) * c - (x - right) * s
        chest[(u / a) ** 2 + (v / b) ** 2 <= 1] = value
    chest = chest.reshape(SIDE, 4, SIDE, 4).mean((1, 3)).astype(np.float32)
    rays = po.operators.Radon(
        (1, SIDE, SIDE), [180 * k / ANGLES for k in range(ANGLES)], PIXEL_MM, DETECTORS
    )
    t = np.linspace(-1, 1, DETECTORS)
    blank = np.round(20_000 * (1 - 0.7 * t**2)).astype(np.float32)
    mu = torch.from_numpy(MU_WATER * (1 + chest / 1000))
    expected = blank * torch.exp(-rays(mu[None, None])[0, 0]).numpy()
    counts = np.random.default_rng(0).poisson(expected)
    np.save(folder / "counts.npy", counts.astype(np.uint16))
    np.save(folder / "blank.npy", blank)
    np.save(folder / "chest.npy", chest)


if __name__ == "__main__":
    main(Path(__file__).parent)
