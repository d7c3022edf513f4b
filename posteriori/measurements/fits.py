"""FITS images of astronomy."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from posteriori.extras import require_extra
from posteriori.measurements.files import checked
from posteriori.measurements.measured import UNKNOWN, Measured, as_array, as_tensor
from posteriori.storage import write_bytes

FITS = (".fits", ".fit", ".fts", ".fits.gz")
# What the kind of an axis begins with.
_SKY = {"RA": "X", "GLON": "X", "ELON": "X", "DEC": "Y", "GLAT": "Y", "ELAT": "Y"}
_OTHER = {"STOKES": "C", "FREQ": "Z", "VELO": "Z", "VRAD": "Z", "WAVE": "Z", "TIME": "T"}
_KNOWN = _SKY | _OTHER | {"X": "X", "Y": "Y", "Z": "Z"}


def read_fits(path: str | Path, key: str | None = None) -> Measured:
    """The first image of a FITS file, or that of the extension ``key`` (its name or number).

    Numbers are scaled by BSCALE and BZERO; blank ones are NaN. Axes come as numpy has them, the
    fastest last, those of one element left out; row 0 is the top of the picture, as everywhere
    here, which the format stores last. spacing: absolute steps CDELT (or of the CD matrix) in the
    unit CUNIT. Raises ``ImportError`` naming the extra, ``ValueError`` naming the file.
    """
    path = checked(path)
    require_extra("files", f"reading {path.name}", "astropy")
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as units:
            unit = _image(path, units, key)
            array, head = np.asarray(unit.data), unit.header.copy()
    except (OSError, TypeError, fits.VerifyError) as error:
        raise ValueError(f"{path} cannot be read as FITS: {str(error).splitlines()[0]}") from None
    numbers = list(range(array.ndim, 0, -1))  # of the axes in the header, which counts from the end
    kept = [k for k, n in enumerate(array.shape) if n > 1 or k >= array.ndim - 2]
    axes = _letters([str(head.get(f"CTYPE{numbers[k]}", "")) for k in kept])
    steps, units_of = zip(*(_step(head, numbers[k]) for k in kept), strict=True)
    places = [k for k, axis in enumerate(axes) if axis in "YX"]
    units_here = {units_of[k] for k in places}
    known = len(units_here) == 1 and all(steps[k] for k in places) and places
    spacing = tuple(steps[k] if k in places else None for k in range(len(axes))) if known else None
    array = array.reshape([array.shape[k] for k in kept])
    data = as_tensor(np.flip(array, _rows(axes)), path)
    note = f"{path.name}: row 0 is the top of the picture, which FITS stores last"
    return Measured(
        data,
        axes,
        str(head.get("BUNIT", "")).strip(),
        spacing,
        notes=(note,),
        spacing_unit=(units_here.pop() or "") if known else "mm",
    )


def write_fits(path: str | Path, m: Measured) -> tuple[str, ...]:
    """Data with BUNIT and the steps, row 0 as the last. Raises ``ImportError`` naming the extra,
    ``ValueError`` for complex numbers, which the format has not."""
    path = Path(path)
    require_extra("files", f"writing {path.name}", "astropy")
    from astropy.io import fits

    if m.data.is_complex():
        raise ValueError(f"{path}: FITS images are real; write modulus and phase apart")
    array = as_array(m.data)
    array = array.astype(np.uint8) if array.dtype == bool else array
    array = np.flip(array, _rows(m.axes))
    unit = fits.PrimaryHDU(array)
    if m.unit:
        unit.header["BUNIT"] = m.unit
    for k, axis in enumerate(m.axes):
        number = m.data.ndim - k
        step = None if m.spacing is None else m.spacing[k]
        if axis != UNKNOWN:
            unit.header[f"CTYPE{number}"] = {"C": "STOKES", "T": "TIME"}.get(axis, axis)
        if step is not None:
            unit.header[f"CDELT{number}"] = step
            unit.header[f"CUNIT{number}"] = m.spacing_unit
    content = BytesIO()
    unit.writeto(content)
    write_bytes(path, content.getvalue())
    return ("FITS has no place for an affine of the body",) if m.affine is not None else ()


def _rows(axes: str) -> int:
    """Which axis runs along the rows of a picture: the last but one where it is not said."""
    return axes.index("Y") if "Y" in axes else max(0, len(axes) - 2)


def _image(path: Path, units: Any, key: str | None) -> Any:
    from astropy.io import fits

    images = [
        u
        for u in units
        if getattr(u, "is_image", False)
        and u.header.get("NAXIS", 0) >= 2
        and not isinstance(u, fits.GroupsHDU)
    ]
    if key is not None:
        chosen = [u for u in images if u.name == key or str(units.index(u)) == key]
        if len(chosen) != 1:
            raise ValueError(f"{path} has no image {key!r}; it has {[u.name for u in images]}")
        return chosen[0]
    if not images:
        raise ValueError(
            f"{path} holds no image; visibilities are read from a file that ends in .uvfits"
        )
    return images[0]


def _letters(kinds: list[str]) -> str:
    """Letters of axes by their kinds; the last two are rows and columns where nothing is said."""
    out: list[str] = []
    for k, kind in enumerate(kinds):
        word = kind.split("-")[0].strip().upper()
        letter = _KNOWN.get(word, "YX"[k - len(kinds)] if k >= len(kinds) - 2 else UNKNOWN)
        out.append(letter if letter not in out else UNKNOWN)
    return "".join(out)


def _step(head: Any, number: int) -> tuple[float | None, str | None]:
    """The absolute step along an axis of the header and its unit; None where it states none."""
    if f"CDELT{number}" in head:
        step = abs(float(head[f"CDELT{number}"]))
    else:
        column = [float(head.get(f"CD{k}_{number}", 0.0)) for k in (1, 2, 3)]
        step = float(np.linalg.norm(column))
    unit = str(head.get(f"CUNIT{number}", "")).strip()
    sky = str(head.get(f"CTYPE{number}", "")).split("-")[0] in _SKY
    return step or None, unit or ("deg" if sky else None)
