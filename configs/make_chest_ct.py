"""The files of the two trainings of the chest CT prior, from 100 chest slices of 54 patients.

    python configs/make_chest_ct.py ../shared/data/chest_ct_256.npz training/chest-ct
    posteriori train configs/chest-ct-first.yaml --out training/chest-ct/run-first \\
        --export training/chest-ct/first
    posteriori train configs/chest-ct.yaml --out training/chest-ct/run
    python configs/make_chest_ct.py export training/chest-ct posteriori/priors/weights/chest-ct

The second run begins with the weights of the first.

The archive holds ``hu`` (100, 256, 256), ``patient`` (100,). Patients 0 to 43 are for training,
44 to 53 are held out: no patient is in both. Slices are brought to 128 x 128 by means of 2 x 2
pixels, and cut to the window [-1000, 1500] HU. train.npy holds every training slice 32 times: at
4 shifts of one pixel and mirrored, which are exact, and turned, zoomed and shifted by a seed: the
first run. bent.npy holds each of them 104 times: the 8 exact ones, and 96 that are also stretched
and bent smoothly: the second run. held-out.npy holds the slices of the other patients once, as they
are, held-out-patients.npy their numbers; tuning.npy one slice each of ten patients of the training,
to choose settings on.

``export`` writes the averaged weights as a prior whose errors, in its card, are measured on the
patients that are held out: those on 88 slices that were trained on would be too small.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from held_out import export
from scipy.ndimage import affine_transform, map_coordinates, spline_filter, zoom

WINDOW = (-1000, 1500)
TURNED, BENT = 24, 96
NODES = 6
FIRST_HELD_OUT = 44


def halved(image: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, cut to the window and rounded to whole HU."""
    means = image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean((1, 3))
    return np.clip(np.rint(means), *WINDOW).astype(np.int16)


def shifts(image: np.ndarray) -> list[np.ndarray]:
    """The slice at four places of the grid of 2 x 2 pixels, and mirrored."""
    padded = np.pad(image, ((0, 1), (0, 1)), mode="edge")
    height, width = image.shape
    moved = [halved(padded[i : i + height, j : j + width]) for i in (0, 1) for j in (0, 1)]
    return moved + [np.ascontiguousarray(m[:, ::-1]) for m in moved]


def turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The slice turned by about 5 degrees, zoomed by 0.85 to 1.2, shifted by up to 6 pixels, and
    mirrored half of the time; air where nothing was measured."""
    angle = np.deg2rad(5 * rng.standard_normal())
    zoom = np.exp(rng.uniform(np.log(0.85), np.log(1.2)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - turn @ (middle + rng.uniform(-6, 6, 2))
    moved = affine_transform(image, turn, offset, order=3, mode="constant", cval=WINDOW[0])
    small = halved(moved)
    return np.ascontiguousarray(small[:, ::-1]) if rng.integers(2) else small


def bent(spline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The slice of these spline coefficients turned by about 5 degrees, zoomed by 0.8 to 1.25, its
    sides by up to 8 % apart, shifted by up to 8 pixels, moved by a smooth field of 3 pixels with
    6 x 6 nodes, and mirrored half of the time."""
    angle = np.deg2rad(5 * rng.standard_normal())
    zooms = np.exp(rng.uniform(np.log(0.8), np.log(1.25)) + rng.uniform(-0.04, 0.04) * np.r_[1, -1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = (np.array(spline.shape) - 1) / 2
    grid = np.stack(
        np.meshgrid(
            *(np.arange(n) - m for n, m in zip(spline.shape, middle, strict=True)), indexing="ij"
        )
    )
    smooth = zoom(np.eye(NODES), (spline.shape[0] / NODES, 1), order=3)
    field = smooth @ (3 * rng.standard_normal((2, NODES, NODES))) @ smooth.T
    places = np.einsum("ij,jkl->ikl", turn / zooms, grid) + field
    places += (middle + rng.uniform(-8, 8, 2))[:, None, None]
    moved = map_coordinates(
        spline, places, order=3, mode="constant", cval=WINDOW[0], prefilter=False
    )
    small = halved(moved)
    return np.ascontiguousarray(small[:, ::-1]) if rng.integers(2) else small


def main(source: str, folder: str) -> None:
    with np.load(source, allow_pickle=False) as data:
        slices = np.clip(data["hu"], *WINDOW).astype(np.float32)
        patient = data["patient"]
    rng = np.random.default_rng(0)
    train, further = [], []
    for image in slices[patient < FIRST_HELD_OUT]:
        train += shifts(image) + [turned(image, rng) for _ in range(TURNED)]
    rng = np.random.default_rng(1)
    for image in slices[patient < FIRST_HELD_OUT]:
        spline = spline_filter(image, order=3, mode="mirror")
        further += shifts(image) + [bent(spline, rng) for _ in range(BENT)]
    held_out = [halved(image) for image in slices[patient >= FIRST_HELD_OUT]]
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.save(Path(folder) / "train.npy", np.stack(train))
    np.save(Path(folder) / "bent.npy", np.stack(further))
    np.save(Path(folder) / "held-out.npy", np.stack(held_out))
    np.save(Path(folder) / "held-out-patients.npy", patient[patient >= FIRST_HELD_OUT])
    first = [int(np.flatnonzero(patient == k)[0]) for k in range(10)]
    np.save(Path(folder) / "tuning.npy", np.stack([halved(slices[k]) for k in first]))
    print(f"{len(train)} and {len(further)} images to train on, {len(held_out)} held out")


def export_chest(folder: Path, target: Path) -> None:
    place, (low, high) = folder / "held-out.npy", WINDOW
    x = 2 * (torch.from_numpy(np.load(place)).float()[:, None] - low) / (high - low) - 1
    export("chest-ct", folder / "run", target, place, x, {"patients": "44 to 53"})


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export_chest(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(*sys.argv[1:3])
