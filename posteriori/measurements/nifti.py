"""NIfTI volumes: the numbers that a file means, and where they lie.

Steps come from the affine: the header's own may be those of another form. Both forms are written
alike.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.measurements.files import checked
from posteriori.measurements.measured import LENGTHS, Measured, as_array, as_tensor
from posteriori.storage import write_bytes

NIFTI = (".nii", ".nii.gz")
_TO_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}


def read_nifti(path: str | Path) -> Measured:
    """A volume ZYX, or TZYX of several times, in float32 (complex64 of complex numbers) with the
    slope and intercept of the file.

    Where both forms of the file state a place, the sform is taken, as nibabel does; a difference
    between the forms, or to the steps of the header, is said. Raises ``ImportError`` naming the
    extra, ``ValueError`` naming the file.
    """
    path = checked(path)
    require_extra("volumes", f"reading {path.name}", "nibabel")
    import nibabel

    try:
        image: Any = nibabel.load(path)
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel has no common class for a damaged file
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3, 4):
        raise ValueError(f"{path} has shape {data.shape}; volumes, and volumes over time, are read")
    affine, notes = _place(path, image)
    axes = "TZYX"[-data.ndim :]
    steps: tuple[float | None, ...] | None = None
    if affine is not None:
        lengths = dict(zip("XYZ", affine[:3, :3].norm(dim=0).tolist(), strict=True))
        steps = tuple(lengths.get(axis) for axis in axes)
    wide = np.complex64 if np.iscomplexobj(data) else np.float32
    return Measured(as_tensor(data.transpose().astype(wide), path), axes, "", steps, affine, notes)


def write_nifti(path: str | Path, m: Measured) -> tuple[str, ...]:
    """YX, ZYX or TZYX as float32 (complex64) with the same affine in both forms, code 1; steps
    alone are the affine's diagonal. A sheared affine has one form only.

    Raises ``ImportError`` naming the extra, ``ValueError`` for other axes.
    """
    path = Path(path)
    require_extra("volumes", f"writing {path.name}", "nibabel")
    import nibabel

    if m.axes not in ("YX", "ZYX", "TZYX") and (m.data.ndim not in (2, 3) or "Q" not in m.axes):
        raise ValueError(f"{path}: NIfTI holds axes YX, ZYX or TZYX, got {m.axes}")
    array = as_array(m.data)
    array = array.astype(np.complex64 if m.data.is_complex() else np.float32).transpose()
    affine = _affine_of(m)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 0 if affine is None else 1)
    image.set_qform(*((None, 0) if affine is None or _sheared(affine) else (affine, 1)))
    raw = image.to_bytes()
    # The same volume is the same file
    write_bytes(path, gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)
    return ("NIfTI has no place for the unit of the numbers",) if m.unit else ()


def _affine_of(m: Measured) -> np.ndarray | None:
    if m.affine is not None:
        return m.affine.double().numpy()
    if m.spacing is None or m.spacing_unit not in LENGTHS:
        return None
    return np.diag([*(m.step(a, "mm") or 1.0 for a in "XYZ"), 1.0])


def _sheared(affine: np.ndarray) -> bool:
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(columns.T @ columns - np.eye(3)).max() > 1e-4)


def _place(path: Path, image: Any) -> tuple[Tensor | None, tuple[str, ...]]:
    """The affine in millimetres, None for a file without a form (nibabel would make one up), and
    what its forms disagree about."""
    head = image.header
    if not hasattr(head, "get_sform"):  # Analyze knows no place
        return None, ()
    forms = {
        name: get(coded=True)
        for name, get in (("sform", head.get_sform), ("qform", head.get_qform))
    }
    known = {name: form for name, (form, code) in forms.items() if code > 0 and form is not None}
    if not known:
        return None, ()
    notes = []
    if len(known) == 2 and not np.allclose(known["sform"], known["qform"], atol=1e-3):
        notes.append(f"{path.name}: its two forms state different places; the sform is taken")
    affine = np.array(image.affine, dtype=np.float64)
    steps, stated = np.linalg.norm(affine[:3, :3], axis=0), head.get_zooms()[:3]
    if len(stated) == 3 and not np.allclose(steps, stated, rtol=1e-3):
        said = " x ".join(f"{s:.4g}" for s in stated)
        notes.append(
            f"{path.name}: its header states voxels of {said}, its affine "
            f"{' x '.join(f'{s:.4g}' for s in steps)}; the affine is taken"
        )
    factor = _TO_MM.get(head.get_xyzt_units()[0], 1.0)
    return torch.from_numpy(np.diag([factor, factor, factor, 1.0]) @ affine), tuple(notes)
