"""The files of the fastMRI data: the k-space of a whole examination, slice by slice.

Of what a file states about the examination only the geometry is read: its attributes hold a number
of the patient.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from posteriori.measurements.measured import Measured, as_tensor
from posteriori.measurements.raw_kspace import encoded_space

# Of the reconstructions that a file may hold.
TRUTHS = ("reconstruction_rss", "reconstruction_esc")


def read_fastmri(path: Path, file: Any) -> Measured:
    """The k-space (slices, coils, rows, columns) of an open file, centred as ``operators.
    MaskedFourier`` has it; the columns are phase-encoded.

    arrays: "mask" (columns,) where a file states one, "pixel_mm" of (slices, rows, columns) of the
    image on the grid of the k-space, "reference" where a file holds a reconstruction. Raises
    ``ValueError`` for other axes and real numbers.
    """
    data = as_tensor(file["kspace"][()], path)
    if data.ndim not in (3, 4) or not data.is_complex():
        raise ValueError(
            f"{path}: kspace has shape {tuple(data.shape)} and {data.dtype} values; "
            "(slices, coils, rows, columns) or (slices, rows, columns) complex ones are expected"
        )
    arrays = {}
    if "mask" in file:
        arrays["mask"] = as_tensor(file["mask"][()], path).bool()
    held = [name for name in TRUTHS if name in file]
    if held:
        arrays["reference"] = as_tensor(file[held[0]][()], path)
    if "ismrmrd_header" in file:
        space = encoded_space(file["ismrmrd_header"][()], path)
        if space.fov_mm is not None:
            readout, phase, slices = (
                f / n for f, n in zip(space.fov_mm, space.matrix, strict=True)
            )
            arrays["pixel_mm"] = torch.tensor([slices, readout, phase], dtype=torch.float64)
    coils = f"{data.shape[1]} coils" if data.ndim == 4 else "a single coil"
    note = f"{path.name}: k-space of {len(data)} slices and {coils}, no field about a patient read"
    return Measured(data, "ZCYX" if data.ndim == 4 else "ZYX", notes=(note,), arrays=arrays)
