"""Volumes of a run: as files beside it, and by their middle slice where a page shows pictures."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from posteriori.measurements import VolumeInfo, write_series, write_volume
from posteriori.run import Run
from posteriori.storage import write_bytes

Kind = Literal["nifti", "npy", "dicom"]
SUFFIXES = {"nifti": ".nii.gz", "npy": ".npy", "dicom": ""}


def write(run: Run, out: Path, kind: Kind, info: VolumeInfo) -> list[str]:
    """Write sample-000, ..., mean and, of several samples, std into the folder ``out``: files, or
    with "dicom" folders of a series each. Sentences about them.

    info: where the slices lie, and the unit. Nothing else of what was measured goes into them.
    """
    volumes = {f"sample-{k:03d}": x for k, x in enumerate(run.samples)} | {"mean": run.mean}
    if len(run.samples) > 1:
        volumes["std"] = run.std
    rounded = [
        _written(out / f"{name}{SUFFIXES[kind]}", x, kind, info) for name, x in volumes.items()
    ]
    shape = " x ".join(map(str, run.samples.shape[1:]))
    said = [f"volumes: {', '.join(volumes)} as {kind}, {shape}"]
    if kind == "dicom":
        said.append(
            f"dicom: numbers of 16 bits, rounded to at most {max(rounded) / 2:.2g} from the "
            f"samples, which samples.safetensors has in full; no field about a patient"
        )
    return said


def _written(place: Path, x: Tensor, kind: Kind, info: VolumeInfo) -> float:
    x = x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x
    if kind == "dicom":
        return write_series(place, x, info.affine, info.unit)
    if x.ndim == 3:
        write_volume(place, x, info)
    else:  # a video in colours
        content = BytesIO()
        np.save(content, x.float().numpy())
        write_bytes(place, content.getvalue())
    return 0.0


def middle_slice(run: Run) -> Run:
    """Of a run of volumes (D, C, H, W) that of the slice in the middle, with what is kept beside
    it; itself for images."""
    if run.samples.ndim != 5:
        return run
    extras = {
        name: array[len(array) // 2] if array.ndim == 4 else array
        for name, array in run.extras.items()
    }
    depth = run.samples.shape[1]
    config = run.config | {
        "image_shape": list(run.samples.shape[2:]),
        "shown": f"Pictures are of slice {depth // 2} of {depth}, counted from 0.",
    }
    samples = run.samples[:, depth // 2]
    return replace(run, samples=samples, extras=extras, config=config)
