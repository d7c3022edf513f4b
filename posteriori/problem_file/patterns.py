"""Kernels and masks that a problem names by file: judged before they are used, and described in
numbers.

A kernel k acts as y(i) = sum_j k(j) x(i - j + c) with c its middle tap: a sum other than 1 changes
the brightness, a centre of mass away from c moves the picture. A mask has two values; where it has
more, only its author knows which of them were observed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from posteriori.measurements import read_array, read_image
from posteriori.measurements.arrays import ARRAY_SUFFIXES as ARRAYS
from posteriori.problem_file.section import Notes

UNIT = 1e-3  # a sum this near 1 is rounding
_EMPTY = 1e-3  # a sum below this part of the absolute values cannot be divided out


def kernel(path: Path, normalize: bool) -> tuple[Tensor, Notes]:
    """The kernel (kh, kw) float32 of a file, and sentences with its sum and its centre of mass.

    normalize: divide by the sum. Raises ``ValueError`` for a sum that is not 1 without it, and for
    one near 0 with it.
    """
    k = _values(path, "kernel")
    total, size = float(k.sum()), float(k.abs().sum())
    if not normalize and abs(total - 1) > UNIT:
        raise ValueError(
            f"{path} is a kernel of sum {total:.4g}, not 1: "
            f"a grey of 0.5 would become {total / 2:.4g}. State normalize: true"
        )
    if total <= _EMPTY * size:
        raise ValueError(
            f"{path} is a kernel of sum {total:.4g}, its absolute values of {size:.4g}: "
            "no blur has that, check the file"
        )
    rows, columns = (
        float((k.sum(1 - axis) * torch.arange(n)).sum()) / total - n // 2
        for axis, n in enumerate(k.shape)
    )
    moved = (
        f": the picture moves down {rows:.2f} and right {columns:.2f}"
        if max(abs(rows), abs(columns)) >= 0.05
        else ""
    )
    note = (
        f"{path.name}: a kernel of {k.shape[0]}x{k.shape[1]}, "
        f"{'divided by its sum of' if normalize else 'sum'} {total:.5g}, "
        f"centre of mass ({rows:+.2f}, {columns:+.2f}) pixels from its middle tap{moved}"
    )
    return (k / total if normalize else k).float(), (note,)


def kernels(path: Path, normalize: bool) -> Tensor:
    """The kernels (rows, columns, kh, kw) float32 of a file. normalize: divide each by its sum.
    Raises ``ValueError`` as ``kernel``, naming the first that is not one."""
    k = read_array(path).double()
    if k.ndim != 4 or not bool(k.isfinite().all()):
        raise ValueError(
            f"{path} holds values of shape {tuple(k.shape)}, kernels that vary are (rows, columns, "
            "kernel rows, kernel columns) of finite real numbers"
        )
    totals, sizes = k.sum((-2, -1)), k.abs().sum((-2, -1))
    bad = (totals <= _EMPTY * sizes) if normalize else ((totals - 1).abs() > UNIT)
    if bool(bad.any()):
        row, column = bad.nonzero()[0].tolist()
        cure = "check the file" if normalize else "state normalize: true"
        raise ValueError(
            f"{path}: the kernel in row {row} and column {column} has the sum "
            f"{float(totals[row, column]):.4g}, not {'one above 0' if normalize else '1'}; {cure}"
        )
    return (k / totals[..., None, None] if normalize else k).float()


def mask(path: Path, threshold: float | None) -> tuple[Tensor, Notes]:
    """True where a picture or array is bright, and a sentence with how many pixels are.

    threshold: bright is above this share of the way from the darkest to the brightest value.
    Without it two values are expected.
    Raises ``ValueError`` for one value, for more than two without a threshold, and for numbers that
    are not finite.
    """
    p = _values(path, "mask")
    low, high = float(p.min()), float(p.max())
    if low == high:
        raise ValueError(
            f"{path}: a mask needs dark and bright pixels, all of this one are {low:g}"
        )
    between = int(((p > low) & (p < high)).sum())
    observed = p > low + (high - low) * (0.5 if threshold is None else threshold)
    shares = f"{int(observed.sum())} of {observed.numel()} pixels"
    if between and threshold is None:
        raise ValueError(
            f"{path} is no mask of two values: {between} of {p.numel()} pixels lie between {low:g} "
            f"and {high:g}. State threshold, the share of the way from dark to bright above "
            f"which a pixel was observed (0.5 observes {shares})"
        )
    cut = (
        f"; {between} between dark and bright were cut at {threshold:g} of the way"
        if between
        else ""
    )
    return observed, (f"{path.name}: {shares} are bright, which means observed{cut}",)


def _values(path: Path, what: str) -> Tensor:
    """The numbers of a grey picture or an array of rows and columns, in double precision."""
    x = read_array(path) if path.suffix in ARRAYS else read_image(path, channels=1)[0]
    x = x[0] if x.ndim == 3 and len(x) == 1 else x
    if x.ndim != 2 or x.is_complex() or not bool(x.isfinite().all()):
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(
            f"{path} holds {kind} values of shape {tuple(x.shape)}, "
            f"a {what} is (rows, columns) of finite real numbers"
        )
    return x.double()
