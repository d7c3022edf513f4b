"""What a measured k-space says of itself: which points were sampled, how noisy they are, and what
its fully sampled centre shows.

Images and k-spaces are related by the unitary transform of ``operators.MaskedFourier``: noise has
the same level in both, and the image is in the unit of the k-space. A k-space is (coils, H, W),
complex, with 0 where nothing was sampled.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from posteriori.extras import require_extra
from posteriori.linalg import real_view
from posteriori.measurements.bart import SUFFIX as BART
from posteriori.measurements.bart import coils_first

LONGEST = 24  # points of the centre that are used, a side
OUTERMOST = 0.05  # share of the sampled points from which the noise is estimated
_FEWEST = 64


def arranged(array: Tensor, path: str, axis: str = "first") -> Tensor:
    """The k-space (coils, H, W) in an array that was read from ``path``: BART's order by its
    suffix, else coils ``axis`` "first" or "last".

    (H, W) is that of a single coil. Raises ``ValueError`` for real numbers, zeros alone, values
    that are not finite, and other shapes.
    """
    found = f"{path} has shape {tuple(array.shape)}"
    if not array.is_complex():
        raise ValueError(f"{found} and real numbers ({array.dtype}); a k-space is complex")
    if path.endswith(BART):
        k = coils_first(array, path)
    else:
        k = array[None] if array.ndim == 2 else array
        while k.ndim > 3 and len(k) == 1:
            k = k[0]
        if k.ndim != 3:
            raise ValueError(
                f"{found}, a k-space is (coils, rows, columns) of one slice, "
                "or (rows, columns) of one coil; of several slices choose one by slice"
            )
        k = k.movedim(-1, 0).contiguous() if axis == "last" else k
        if len(k) > min(k.shape[1:]):
            other = "first" if axis == "last" else "last"
            raise ValueError(
                f"{found}: {len(k)} coils for {k.shape[1]} x {k.shape[2]} points. "
                f"Is the coil axis the {other} one?"
            )
    if not bool(real_view(k).isfinite().all()):
        raise ValueError(
            f"{path} has values that are not finite; set points that were not sampled to 0"
        )
    if not bool(k.any()):
        raise ValueError(
            f"{path} is 0 everywhere: nothing was measured, "
            "or it was read as the wrong kind of number"
        )
    return k


def sampled(kspace: Tensor) -> Tensor:
    """The points (H, W) at which a coil has a number other than 0."""
    return (kspace != 0).any(0)


def check_centre(kspace: Tensor, centred: bool) -> None:
    """Raise ``ValueError`` when the strongest point of a k-space is nearer to where the other
    convention has the zero frequency."""
    H, W = kspace.shape[1:]
    row, column = divmod(int(kspace.abs().square().sum(0).argmax()), W)
    near_middle = H // 4 <= row < H - H // 4 and W // 4 <= column < W - W // 4
    near_corner = min(row, H - row) <= H // 4 and min(column, W - column) <= W // 4
    if (near_corner and centred) or (near_middle and not centred):
        corner = "at the corner: state centred: false"
        middle = "in the middle: leave centred: false out"
        raise ValueError(
            f"the strongest point of the k-space lies at ({row}, {column}) of {H} x {W}, "
            f"so that its zero frequency is {corner if centred else middle}"
        )


def centre_block(mask: Tensor, centred: bool = True, longest: int = LONGEST) -> tuple[int, int]:
    """Rows and columns, even numbers up to ``longest``, of the fully sampled block around the zero
    frequency: (0, 0) without one.

    A square as large as it can be, then longer along one axis. mask: (H, W).
    """
    seen = mask if centred else torch.fft.fftshift(mask)
    row, column = (n // 2 for n in seen.shape)
    most = [min(n // 2, longest // 2) for n in seen.shape]

    def full(a: int, b: int) -> bool:
        return (
            a <= most[0]
            and b <= most[1]
            and bool(seen[row - a : row + a, column - b : column + b].all())
        )

    half = max((n for n in range(1, max(most) + 1) if full(n, n)), default=0)
    if half == 0:
        return 0, 0
    rows = max(n for n in range(half, most[0] + 1) if full(n, half))
    columns = max(n for n in range(half, most[1] + 1) if full(rows, n))
    return 2 * rows, 2 * columns


def phase_block(mask: Tensor, centred: bool = True) -> tuple[int, int]:
    """Rows and columns of the fully sampled block that a phase is read from: as long as the mask
    (H, W) allows, up to an eighth of all points, so that the phase takes up little of the noise, or
    to as many as ``centre_block`` has."""
    rows, columns = centre_block(mask, centred, max(mask.shape))
    most = max(mask.numel() // 8, math.prod(centre_block(mask, centred)))
    while rows * columns > most:
        rows, columns = (rows - 2, columns) if rows > columns else (rows, columns - 2)
    return rows, columns


def phase_factor(kspace: Tensor, mask: Tensor, maps: Tensor, centred: bool = True) -> Tensor:
    """e^(i phase) (H, W) of the image behind the coil maps, as its ``phase_block`` shows it without
    a taper: of two blocks the one that reaches further leaves less of an image beside its phase."""
    low = low_resolution(kspace, phase_block(mask, centred), centred, taper=False)
    image = (maps.conj() * low).sum(0)
    return torch.polar(torch.ones_like(image.real), image.angle())


def low_resolution(
    kspace: Tensor, block: tuple[int, int], centred: bool = True, taper: bool = True
) -> Tensor:
    """Coil images (coils, H, W) of the central block alone; with ``taper``, a Hann window against
    ringing."""
    k = kspace if centred else torch.fft.fftshift(kspace, (-2, -1))
    kept = torch.zeros_like(k)
    rows, columns = (
        slice(n // 2 - side // 2, n // 2 + side // 2)
        for n, side in zip(k.shape[1:], block, strict=True)
    )
    kept[:, rows, columns] = k[:, rows, columns]
    if taper:
        # Of side + 1 points from 0 to 0 the middle one is the zero frequency; the first of the
        # block would be 0: half a step inwards.
        down, along = [
            torch.sin(math.pi * (torch.arange(side, dtype=torch.float64) + 1) / (side + 2)).square()
            for side in block
        ]
        kept[:, rows, columns] *= (down[:, None] * along).to(k.real.dtype)
    images = torch.fft.ifft2(torch.fft.ifftshift(kept, (-2, -1)), norm="ortho")
    return torch.fft.fftshift(images, (-2, -1)) if centred else images


def sensitivities(low: Tensor) -> Tensor:
    """Coil maps S_c = l_c / sqrt(sum_c |l_c|^2) of low-resolution coil images l (coils, H, W):
    sum_c |S_c|^2 = 1.

    They carry the phase of the object as well, so that behind them it is real: its magnitude is the
    root of the sum of squares.
    Source: McKenzie, Yeh, Ohliger, Price, Sodickson, Self-calibrating parallel imaging with
    automatic coil sensitivity extraction, 2002.
    """
    total = low.abs().square().sum(0).sqrt()
    return low / total.clamp(min=1e-6 * float(total.max()))


def espirit(kspace: Tensor, block: tuple[int, int], centred: bool = True) -> Tensor:
    """Coil maps (coils, H, W) of the central block, sum_c |S_c|^2 = 1 everywhere, by sigpy. Their
    phase is that of the first coil, which is 0: the object keeps its own.

    kspace: with 0 where nothing was sampled. block: rows and columns; of them the largest square is
    used. Raises ``ImportError`` naming the extra.
    Source: Uecker, Lai, Murphy, Virtue, Elad, Pauly, Vasanawala, Lustig, ESPIRiT: an eigenvalue
    approach to autocalibrating parallel MRI, 2014.
    """
    require_extra("mri", "maps: espirit", "sigpy")
    from sigpy.mri.app import EspiritCalib

    k = kspace if centred else torch.fft.fftshift(kspace, (-2, -1))
    side = min(block)
    maps = EspiritCalib(
        k.to(torch.complex64).numpy(),
        calib_width=side,
        kernel_width=min(6, side // 2),
        crop=0,
        show_pbar=False,
    ).run()
    found = torch.from_numpy(np.asarray(maps)).to(kspace.dtype)
    return found if centred else torch.fft.ifftshift(found, (-2, -1))


def kspace_noise_level(kspace: Tensor, mask: Tensor, centred: bool = True) -> Tensor:
    """Standard deviation of the real (and of the imaginary) part of the noise, of each coil:
    (coils,).

    The modulus of circular noise has the median sqrt(2 ln 2) sigma; it is taken over the outermost
    5 % of the sampled points, at least 64, where an image has hardly any signal. What it has there
    counts as noise. Raises ``ValueError`` for fewer points.
    """
    k, seen = (
        (kspace, mask)
        if centred
        else (torch.fft.fftshift(kspace, (-2, -1)), torch.fft.fftshift(mask))
    )
    H, W = seen.shape
    rows, columns = (2 * (torch.arange(n, dtype=torch.float64) - n // 2) / n for n in (H, W))
    far = (rows[:, None].square() + columns.square())[seen]
    count = max(_FEWEST, round(OUTERMOST * len(far)))
    if len(far) < 4 * _FEWEST:
        raise ValueError(
            f"{len(far)} sampled points are too few to tell the noise from the signal: "
            "state the noise level"
        )
    outside = far.argsort(descending=True, stable=True)[:count]
    return k[:, seen][:, outside].abs().median(1).values / math.sqrt(2 * math.log(2))
