"""Training images that were measured in part: the numbers, and a last channel that says where they
are."""

from __future__ import annotations

import numpy as np

from posteriori.training.arrays import numbers
from posteriori.training.data_kinds import MaskedImages

# A measured number may lie outside the window by as many standard deviations of its noise.
_BEYOND = 8.0


def read_masked(data: MaskedImages, channels: int) -> list[np.ndarray]:
    """Images (H, W, channels + 1) float32: window[0] is -1, window[1] is 1, what was not measured
    is 0; the last channel is 1 where a pixel was measured, 0 elsewhere.

    Raises ``FileNotFoundError``, and ``ValueError`` naming the file for shapes that do not fit, for
    measured numbers that are not finite or far outside the window, for images of which nothing was
    measured, and where one pixel was measured in none of them.
    """
    values = _stacked(numbers(data.file, data.key), channels, data)
    masks = _masks(values, data)
    low, high = data.window
    seen = values[np.broadcast_to(masks[:, None], values.shape)]
    slack = _BEYOND * data.noise
    if len(seen) and not (low - slack <= seen.min() and seen.max() <= high + slack):
        raise ValueError(
            f"{data.file} has measured values from {seen.min():.6g} to {seen.max():.6g}, outside "
            f"the window [{low:g}, {high:g}] by more than {_BEYOND:g} times its noise "
            f"{data.noise:g}; state a wider window, or the noise"
        )
    scaled = np.where(masks[:, None], 2 * (values - low) / (high - low) - 1, 0.0)
    joined = np.concatenate([scaled, masks[:, None]], axis=1).astype(np.float32)
    return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in joined]


def _stacked(array: np.ndarray, channels: int, data: MaskedImages) -> np.ndarray:
    """(N, channels, H, W), double precision."""
    stack = array[:, None] if array.ndim == 3 and channels == 1 else array
    if array.dtype.kind not in "fuib" or stack.ndim != 4 or stack.shape[1] != channels:
        raise ValueError(
            f"{data.file} has {array.dtype} numbers of shape {array.shape}, the network has "
            f"{channels} channels: real (N, channels, H, W), or (N, H, W) for one, is expected"
        )
    return stack.astype(np.float64)


def _masks(values: np.ndarray, data: MaskedImages) -> np.ndarray:
    """(N, H, W), true where measured."""
    if data.masks is None:
        known = ~np.isnan(values)
        masks = known[:, 0]
        if (known != masks[:, None]).any():
            raise ValueError(
                f"{data.file}: a pixel is measured in all channels or in none, and some are NaN "
                f"in a part of them"
            )
    else:
        stored = numbers(data.file, data.masks)
        if stored.shape != (len(values), *values.shape[2:]) or not np.isin(stored, (0, 1)).all():
            raise ValueError(
                f"{data.file}[{data.masks}]: masks of 0 and 1 and of shape "
                f"{(len(values), *values.shape[2:])} are expected, got {stored.dtype} "
                f"{stored.shape}"
            )
        masks = stored.astype(bool)
    measured = values[np.broadcast_to(masks[:, None], values.shape)]
    if not np.isfinite(measured).all():
        raise ValueError(
            f"{data.file}: {int((~np.isfinite(measured)).sum())} measured values are not finite; "
            f"leave them out of the mask"
        )
    empty = ~masks.any((1, 2))
    if empty.any():
        raise ValueError(f"{data.file}: nothing was measured of image {int(empty.argmax())}")
    never = ~masks.any(0)
    if never.any() and not data.turns and masks.shape[1:] == (data.crop, data.crop):
        row, column = np.argwhere(never)[0]
        raise ValueError(
            f"{data.file}: {int(never.sum())} pixels are measured in no image, the first at "
            f"({row}, {column}): nothing can be learned of them"
        )
    return masks
