"""The files of the trainings of the brain MRI prior, from magnitude slices of 128 x 128.

    python configs/make_brain_mri.py ../shared/data/brain_mri_128.npz training/brain-mri
    posteriori train configs/brain-mri-first.yaml --out training/brain-mri/run-first \\
        --export training/brain-mri/first
    posteriori train configs/brain-mri.yaml --out training/brain-mri/run
    python configs/make_brain_mri.py export training/brain-mri posteriori/priors/weights/brain-mri

The second run begins with the weights of the first.

The archive holds ``train`` and ``test``, uint8 (N, 128, 128), without an image in common; patients
may be shared. train.npz holds every training slice as it is, and of every second one a part of it
that is mirrored and zoomed by 1.2 to 1.9, for images with smaller pixels. varied.npz, for
configs/brain-mri-varied.yaml, holds every training slice and two variants of each, for other heads
and other scanners: turned, moved, mirrored and stretched, with another contrast and an uneven
brightness. held-out.npz holds ``test``.

``export`` writes the averaged weights as a prior whose errors, in its card, are measured on slices
that are held out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from held_out import export
from scipy.ndimage import affine_transform

ZOOM = (1.2, 1.9)
VARIANTS = 2  # of each slice
TURN, STRETCH, MOVE, GAMMA, SHADE = 0.25, 0.25, 8.0, 0.35, 0.15
SHOWN = 64  # of the held-out slices, evenly spaced, for the spectrum and the table of the card


def zoomed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mirrored part of the image, its sides 1 / zoom of it, at the size of the image."""
    side = len(image)
    zoom = rng.uniform(*ZOOM)
    first = rng.uniform(0, (side - 1) * (1 - 1 / zoom), 2)
    part = affine_transform(image.astype(np.float32), np.full(2, 1 / zoom), first, order=3)
    return np.clip(np.rint(part), 0, 255).astype(np.uint8)[:, ::-1]


def varied(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another slice made of one: turned by at most TURN radians, its sides stretched by factors of
    about exp(STRETCH) that differ by a third of that, moved by at most MOVE pixels, half the time
    mirrored; its grey values to a power, and times a smooth shade. Its brightest pixel stays."""
    image = image.astype(np.float32)
    middle = (len(image) - 1) / 2
    angle, stretch = rng.uniform(-TURN, TURN), rng.uniform(-STRETCH, STRETCH)
    sides = np.exp(-stretch + rng.uniform(-STRETCH / 6, STRETCH / 6, 2))
    sides[1] *= rng.choice([-1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) * sides
    moved = affine_transform(
        image, turn, middle - turn @ (middle + rng.uniform(-MOVE, MOVE, 2)), order=3
    )
    grey = np.clip(moved / 255, 0, 1) ** np.exp(rng.uniform(-GAMMA, GAMMA))
    up, across = np.meshgrid(*[np.linspace(-1, 1, len(image))] * 2, indexing="ij")
    slopes = rng.uniform(-SHADE, SHADE, 5)
    shaded = grey * np.exp(
        sum(s * b for s, b in zip(slopes, (up, across, up**2, across**2, up * across), strict=True))
    )
    bright = image.max() / max(float(shaded.max()), 1e-6)
    return np.clip(np.rint(shaded * bright), 0, 255).astype(np.uint8)


def main(source: str, folder: str) -> None:
    with np.load(source, allow_pickle=False) as data:
        train, test = data["train"], data["test"]
    rng = np.random.default_rng(0)
    parts = np.stack([zoomed(image, rng) for image in train[::2]])
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.savez(Path(folder) / "train.npz", train=np.concatenate([train, parts]))
    rng = np.random.default_rng(1)
    others = [varied(image, rng) for image in train for _ in range(VARIANTS)]
    np.savez(Path(folder) / "varied.npz", train=np.concatenate([train, np.stack(others)]))
    np.savez(Path(folder) / "held-out.npz", train=test)
    print(f"{len(train)} + {len(parts)} images to train on, then {len(train)} + {len(others)}")
    print(f"{len(test)} held out, in {folder}")


if __name__ == "__main__":
    if sys.argv[1] == "export":
        folder, target = map(Path, sys.argv[2:4])
        place = folder / "held-out.npz"
        with np.load(place) as data:
            x = torch.from_numpy(data["train"][:: len(data["train"]) // SHOWN]).float()[:, None]
        export("brain-mri", folder / "run", target, place, x / 127.5 - 1, {"of": "test"})
    else:
        main(*sys.argv[1:3])
