"""The file of the two trainings of the brain MRI prior, from magnitude slices of 128 x 128.

    python configs/make_brain_mri.py ../shared/data/brain_mri_128.npz training/brain-mri
    posteriori train configs/brain-mri-first.yaml --out training/brain-mri/run-first \\
        --export training/brain-mri/first
    posteriori train configs/brain-mri.yaml --out training/brain-mri/run
    python configs/make_brain_mri.py export training/brain-mri posteriori/priors/weights/brain-mri

The second run begins with the weights of the first.

The archive holds ``train`` and ``test``, uint8 (N, 128, 128), without an image in common; patients
may be shared. train.npz holds every training slice as it is, and of every second one a part of it
that is mirrored and zoomed by 1.2 to 1.9, for images with smaller pixels. held-out.npz holds
``test``.

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
SHOWN = 64  # of the held-out slices, evenly spaced, for the spectrum and the table of the card


def zoomed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mirrored part of the image, its sides 1 / zoom of it, at the size of the image."""
    side = len(image)
    zoom = rng.uniform(*ZOOM)
    first = rng.uniform(0, (side - 1) * (1 - 1 / zoom), 2)
    part = affine_transform(image.astype(np.float32), np.full(2, 1 / zoom), first, order=3)
    return np.clip(np.rint(part), 0, 255).astype(np.uint8)[:, ::-1]


def main(source: str, folder: str) -> None:
    with np.load(source, allow_pickle=False) as data:
        train, test = data["train"], data["test"]
    rng = np.random.default_rng(0)
    parts = np.stack([zoomed(image, rng) for image in train[::2]])
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.savez(Path(folder) / "train.npz", train=np.concatenate([train, parts]))
    np.savez(Path(folder) / "held-out.npz", train=test)
    print(f"{len(train)} + {len(parts)} images to train on, {len(test)} held out, in {folder}")


if __name__ == "__main__":
    if sys.argv[1] == "export":
        folder, target = map(Path, sys.argv[2:4])
        place = folder / "held-out.npz"
        with np.load(place) as data:
            x = torch.from_numpy(data["train"][:: len(data["train"]) // SHOWN]).float()[:, None]
        export("brain-mri", folder / "run", target, place, x / 127.5 - 1, {"of": "test"})
    else:
        main(*sys.argv[1:3])
