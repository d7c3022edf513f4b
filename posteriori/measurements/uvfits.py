"""Visibilities of radio interferometers in uvfits files: one complex number for each pair of
antennas, time and channel, at its place in the Fourier plane of the sky.

Convention of what is returned: V = sum over pixels of I exp(+2 pi i (u l + v m)), l to the east and
m to the north, as the files of the Event Horizon Telescope have it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posteriori.extras import require_extra
from posteriori.measurements.files import checked
from posteriori.measurements.measured import Measured

UVFITS = (".uvfits", ".uvf")
# Of the hands of polarisation, by their numbers in the format: those whose mean is the total
# intensity, and that itself.
_PARALLEL = ((-1, -2), (-5, -6))
_INTENSITY = 1


def read_uvfits(path: str | Path) -> Measured:
    """The visibilities of total intensity (n,), in Jy where the file says nothing else.

    arrays: "u" and "v" in wavelengths, float64; "sigma", the standard deviation of the real part
    (and of the imaginary part) by the file's weights 1 / sigma^2; where the file says so,
    "stations" (n, 2), their numbers, and "moment" (n,), the same number for one time and channel.
    The two parallel hands are averaged, their noise being independent; where one is flagged, the
    other is taken. Flagged numbers (no positive finite weight) are left out. Raises ``ImportError``
    naming the extra, ``ValueError`` naming the file.
    """
    path = checked(path)
    require_extra("files", f"reading {path.name}", "astropy")
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as units:
            groups = units[0]
            if not isinstance(groups, fits.GroupsHDU):
                raise ValueError(f"{path} holds no visibilities: it has no random groups")
            head, table = groups.header.copy(), groups.data
            names = [str(name) for name in table.parnames]
            seconds = [_parameter(path, table, names, letter) for letter in "UV"]
            pairs, times = _stations(table, names), _times(table, names)
            numbers = np.asarray(table.data, dtype=np.float64)
            offsets = _offsets(units)
    except (OSError, TypeError, fits.VerifyError) as error:
        raise ValueError(f"{path} cannot be read as uvfits: {str(error).splitlines()[0]}") from None
    # (group, dec, ra, IF, channel, polarisation, (re, im, weight))
    numbers = numbers.reshape(len(numbers), -1, *numbers.shape[-3:])
    hertz = _hertz(head, numbers.shape[1:3], offsets)
    value, sigma, single = _intensity(path, head, numbers)
    kept = np.isfinite(sigma)
    if not kept.any():
        raise ValueError(f"{path}: every visibility is flagged")
    u, v = (np.broadcast_to(s[:, None, None] * hertz, kept.shape)[kept] for s in seconds)
    longest = float(np.hypot(u, v).max())
    notes = [
        f"{path.name}: {int(kept.sum())} visibilities, baselines up to {longest / 1e9:.3g} "
        f"giga-wavelengths, finest detail {math.degrees(1 / longest) * 3.6e9:.3g} micro-arcseconds"
    ]
    if not kept.all():
        notes.append(f"{path.name}: {int((~kept).sum())} flagged visibilities were left out")
    if (single & kept).any():
        notes.append(f"{path.name}: {int((single & kept).sum())} have one hand of polarisation")
    arrays = {"u": u, "v": v, "sigma": sigma[kept]}
    if pairs is not None and times is not None:
        channels = np.arange(hertz.size).reshape(hertz.shape)
        arrays["stations"] = pairs[np.nonzero(kept)[0]]
        arrays["moment"] = (times[:, None, None] * hertz.size + channels)[kept]
    return Measured(
        torch.from_numpy(value[kept].astype(np.complex64)),
        "V",
        {"JY": "Jy"}.get(unit := str(head.get("BUNIT", "JY")).strip(), unit),
        notes=tuple(notes),
        arrays={name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()},
    )


def _parameter(path: Path, table: Any, names: list[str], letter: str) -> np.ndarray:
    """u or v in seconds: its name is UU, or UU---SIN."""
    for k, name in enumerate(names):
        if name.split("-")[0] == 2 * letter:
            return np.asarray(table.par(k), dtype=np.float64)
    raise ValueError(f"{path} has no {letter} among its parameters {names}")


def _stations(table: Any, names: list[str]) -> np.ndarray | None:
    """The two stations of each group: 256 i + j, or 2048 i + j + 65536 of more than 255."""
    if "BASELINE" not in names:
        return None
    code = np.rint(table.par(names.index("BASELINE"))).astype(np.int64)
    many = code >= 65536
    code, base = np.where(many, code - 65536, code), np.where(many, 2048, 256)
    return np.stack([code // base, code % base], -1)


def _times(table: Any, names: list[str]) -> np.ndarray | None:
    """A number for each time, from 0: what lies within a second is one. The date is the sum of the
    parameters of that name, whole days and what is beyond."""
    parts = [np.asarray(table.par(k), np.float64) for k, n in enumerate(names) if n == "DATE"]
    if not parts:
        return None
    seconds = 86400 * sum(part - part[0] for part in parts)
    order = np.argsort(seconds, kind="stable")
    label = np.zeros(len(seconds), dtype=np.int64)
    label[order[1:]] = np.cumsum(np.diff(seconds[order]) > 1)
    return label


def _offsets(units: Any) -> np.ndarray:
    """Of each window of frequencies, in Hz."""
    if "AIPS FQ" not in units:
        return np.zeros(1)
    return np.asarray(units["AIPS FQ"].data["IF FREQ"], dtype=np.float64).reshape(-1)


def _axis(head: Any, kind: str) -> tuple[float, float, float]:
    """The first value, step and reference of an axis of the header."""
    for k in range(1, int(head["NAXIS"]) + 1):
        if str(head.get(f"CTYPE{k}", "")).strip() == kind:
            value, step, reference = (head[f"{word}{k}"] for word in ("CRVAL", "CDELT", "CRPIX"))
            return float(value), float(step), float(reference)
    raise ValueError(f"the header has no axis {kind}")


def _hertz(head: Any, shape: tuple[int, ...], offsets: np.ndarray) -> np.ndarray:
    """The frequency of each window and channel."""
    first, step, at = _axis(head, "FREQ")
    channels = first + step * (np.arange(shape[1]) + 1 - at)
    windows = offsets if len(offsets) == shape[0] else np.zeros(shape[0])
    return windows[:, None] + channels


def _intensity(
    path: Path, head: Any, numbers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value and sigma of the total intensity, infinite where it is flagged, and where it is of one
    hand: (group, window, channel)."""
    first, step, at = _axis(head, "STOKES")
    codes = [round(first + step * (k + 1 - at)) for k in range(numbers.shape[-2])]
    wanted: tuple[int, ...] | None = next(
        (pair for pair in _PARALLEL if pair[0] in codes or pair[1] in codes), None
    )
    if _INTENSITY in codes:
        wanted = (_INTENSITY,)
    if wanted is None:
        raise ValueError(f"{path} has polarisations {codes}, none of which tells total intensity")
    hands = [numbers[..., codes.index(c), :] for c in wanted if c in codes]
    weight = np.stack([h[..., 2] for h in hands])
    value = np.stack([h[..., 0] + 1j * h[..., 1] for h in hands])
    seen = (weight > 0) & np.isfinite(weight) & np.isfinite(value)
    count = seen.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(seen, value, 0).sum(0) / count
        sigma = np.sqrt(np.where(seen, 1 / weight, 0).sum(0)) / count
    return mean, np.where(count > 0, sigma, np.inf), (count == 1) & (len(wanted) == 2)
