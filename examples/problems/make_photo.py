"""Makes photo.png and photo-sharp.png: a piece of a photograph that was blurred together with its
true surroundings, then noised.

    python examples/problems/make_photo.py [folder]

73 x 97 pixels of posteriori/measurements/photos/coffee.png, a Gaussian of 1.6 pixels, noise 0.03 of
[0, 1], stored with 8 bits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import posteriori as po
from posteriori.measurements import write_image
from posteriori.measurements.photos import COFFEE

TOP, LEFT, HEIGHT, WIDTH, STD, SIGMA = 60, 40, 73, 97, 1.6, 0.03


def main(folder: Path) -> None:
    photo, _ = po.measurements.read_image(COFFEE, channels=3)
    kernel = po.operators.gaussian_kernel(STD)
    m = len(kernel) // 2
    x = photo[:, TOP - m : TOP + HEIGHT + m, LEFT - m : LEFT + WIDTH + m].contiguous()
    y = po.operators.Blur(kernel, tuple(x.shape), boundary="valid")(x[None])[0]
    y = y + SIGMA * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    write_image(folder / "photo.png", y, range=(0, 1))
    write_image(folder / "photo-sharp.png", x[:, m:-m, m:-m], range=(0, 1))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
