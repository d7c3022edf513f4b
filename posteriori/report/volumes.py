"""Volumes of a run: as files beside it, and by their middle slice where a page shows pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from posteriori.measurements import FileKind, Measured, VolumeInfo, write_measured, write_series
from posteriori.measurements.formats import RESULTS
from posteriori.run import Run


def write(run: Run, out: Path, kind: FileKind, info: VolumeInfo) -> list[str]:
    """Write sample-000, ..., mean and, of several samples, std into the folder ``out``: files, or
    with "dicom" folders of a series each. Sentences about them.

    info: where the slices lie, and the unit. Nothing else of what was measured goes into them.
    """
    images = {f"sample-{k:03d}": x for k, x in enumerate(run.samples)} | {"mean": run.mean}
    if len(run.samples) > 1:
        images["std"] = run.std
    shape = " x ".join(map(str, run.samples.shape[1:]))
    what = "volumes" if run.samples.ndim > 4 else "images"
    said = [f"{what}: {', '.join(images)} as {kind}, {shape}"]
    if kind == "dicom":
        steps = [
            write_series(out / name, _one_channel(x), info.affine, info.unit)
            for name, x in images.items()
        ]
        return [
            *said,
            f"dicom: numbers of 16 bits, rounded to at most {max(steps) / 2:.2g} from the "
            f"samples, which samples.safetensors has in full; no field about a patient",
        ]
    lost: dict[str, None] = {}
    for name, x in images.items():
        told = write_measured(out / f"{name}{RESULTS[kind]}", _measured(x, info, what))
        lost |= dict.fromkeys(told if kind != "npy" else ())
    return said + list(lost)


def _one_channel(x: Tensor) -> Tensor:
    return x[:, 0] if x.ndim == 4 and x.shape[1] == 1 else x


def _measured(x: Tensor, info: VolumeInfo, what: str) -> Measured:
    """A volume (D, C, H, W) or an image (C, H, W), without a channel of its own where there is but
    one, with its unit and steps."""
    if x.ndim > 2 and x.shape[-3] == 1:
        x = x.squeeze(-3)
    axes = {"volumes": "ZCYX" if x.ndim == 4 else "ZYX", "images": "CYX"[-x.ndim :]}[what]
    steps = info.spacing
    if steps is None and info.spacing_mm is not None:
        steps = info.spacing_mm
    spacing = None
    if steps is not None:
        known = dict(zip("ZYX", steps, strict=True))
        spacing = tuple(known.get(axis) for axis in axes)
        spacing = None if not any(spacing) else spacing
    real = x if x.is_complex() else x.float()
    return Measured(real.cpu(), axes, info.unit, spacing, info.affine, (), info.spacing_unit)


def middle_slice(run: Run) -> Run:
    """Of a run of volumes (D, C, H, W) that of the slice in the middle, with what is kept beside
    it; itself for images."""
    return run if run.samples.ndim != 5 else slice_of(run, run.samples.shape[1] // 2)


def slice_of(run: Run, k: int) -> Run:
    """Of a run of volumes (D, C, H, W) that of slice k. What is kept of the slice in the middle
    alone goes with that one."""
    depth = run.samples.shape[1]
    extras = {
        name: array[k] if array.ndim == 4 else array
        for name, array in run.extras.items()
        if array.ndim == 4 or k == depth // 2
    }
    config = run.config | {
        "image_shape": list(run.samples.shape[2:]),
        "shown": f"Pictures are of slice {k} of {depth}, counted from 0.",
    }
    return replace(run, samples=run.samples[:, k], extras=extras, config=config)
