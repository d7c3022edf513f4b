"""Writes kspace.npy and magnitude.npy: the phantom of Shepp and Logan, 48 x 48, behind a smooth
phase, in eight coils, two rows of five.

Run:  python examples/problems/make_kspace.py
"""

from pathlib import Path

import numpy as np
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

SIDE, COILS, SIGMA = 48, 8, 0.01


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    magnitude = resize(shepp_logan_phantom(), (SIDE, SIDE), anti_aliasing=True)
    rows, columns = np.meshgrid(*2 * [np.linspace(-1, 1, SIDE)], indexing="ij")
    around = 2 * np.pi * np.arange(COILS)[:, None, None] / COILS
    far = (rows - 1.2 * np.sin(around)) ** 2 + (columns - 1.2 * np.cos(around)) ** 2
    maps = np.exp(-far / 2 + 1j * (around + 0.5 * rows))
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    image = magnitude * np.exp(1j * (0.3 + 0.8 * rows - 0.5 * columns**2))
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes), norm="ortho"), axes)
    kspace += SIGMA * (rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape))
    seen = np.zeros(SIDE, dtype=bool)
    seen[SIDE // 2 - 6 : SIDE // 2 + 6] = True
    seen[rng.choice(np.flatnonzero(~seen), 8, replace=False)] = True
    kspace[:, ~seen] = 0
    np.save(folder / "kspace.npy", kspace.astype(np.complex64))
    np.save(folder / "magnitude.npy", magnitude.astype(np.float32))


if __name__ == "__main__":
    main(Path(__file__).parent)
