"""What a scanner or a camera does along the slices of a volume or the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Spectrum


class AlongAxis(LinearOperator):
    """y[i] = sum_k M_ik x[k] along the first axis: (n, *E') -> (m, *E').

    matrix: M, real (m, n). shape: that of x. complex_images: whether x is complex.
    After an instrument on each slice: ``AlongAxis(M, A.out_shape) @ A`` with A a ``Slicewise``.
    Raises ``ValueError`` for a matrix that is not finite or does not fit the first axis.
    ``thick_slices``, ``temporal_blur`` and ``kept_frames`` make the usual ones.
    """

    matrix: Tensor

    def __init__(
        self, matrix: Tensor, shape: tuple[int, ...], *, complex_images: bool = False
    ) -> None:
        super().__init__(shape, complex_in=complex_images, complex_out=complex_images)
        if matrix.ndim != 2 or matrix.shape[1] != self.in_shape[0] or not len(matrix):
            raise ValueError(
                f"AlongAxis: the matrix must be (m, {self.in_shape[0]}) for images of shape "
                f"{self.in_shape}, got {tuple(matrix.shape)}"
            )
        if not matrix.is_floating_point() or not bool(matrix.isfinite().all()):
            raise ValueError(f"AlongAxis needs finite real numbers, got {matrix.dtype}")
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return _along(self.matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return _along(self.matrix.T, y)

    def spectrum(self) -> Spectrum:
        U, s, Vh = kept(self, "svd", lambda: torch.linalg.svd(self.matrix), self.matrix)
        (m, n), rest = self.matrix.shape, self.in_shape[1:]
        # Coordinates with a singular value are those of the first min(m, n) rows: they come first.
        return Spectrum(
            s.repeat_interleave(max(1, torch.Size(rest).numel())),
            V=lambda c: _along(Vh.T, c.reshape(-1, n, *rest)),
            Vh=lambda x: _along(Vh, x).flatten(1),
            U=lambda c: _along(U, c.reshape(-1, m, *rest)),
            Uh=lambda y: _along(U.T, y).flatten(1),
        )


def _along(matrix: Tensor, x: Tensor) -> Tensor:
    """(m, n) on the first axis of images (B, n, *E')."""
    return (
        (matrix.to(x.dtype) @ x.flatten(2)).view(len(x), len(matrix), *x.shape[2:])
        if (x.ndim > 2)
        else x @ matrix.to(x.dtype).T
    )


def thick_slices(shape: tuple[int, ...], factor: int, *, complex_images: bool = False) -> AlongAxis:
    """Means of ``factor`` slices each, as of a scan with thick slices: (n, *E') -> (n / factor,
    *E'). Raises ``ValueError`` when the factor does not divide n."""
    n = shape[0]
    if not isinstance(factor, int) or factor < 1 or n % factor:
        raise ValueError(
            f"thick_slices: the factor {factor!r} does not divide {n} slices; crop them to a "
            f"multiple of it"
        )
    means = torch.eye(n // factor, dtype=torch.float64).repeat_interleave(factor, 1) / factor
    return AlongAxis(means, shape, complex_images=complex_images)


def temporal_blur(
    shape: tuple[int, ...],
    kernel: Tensor | Sequence[float] | int,
    boundary: Literal["circular", "repeat", "valid"] = "repeat",
) -> AlongAxis:
    """y[i] = sum_j kernel_j x[i - j + c], c = len(kernel) // 2, as of a shutter that is open for
    several frames.

    kernel: its numbers, or how many frames a mean is over. boundary: what is beyond the first and
    the last frame: the video again ("circular"), that frame ("repeat"), or nothing is assumed and
    the measurement is shorter by len(kernel) - 1 ("valid"). Raises ``ValueError`` for a kernel that
    is longer than the video.
    """
    n = shape[0]
    taps = (
        torch.full((kernel,), 1 / kernel, dtype=torch.float64)
        if isinstance(kernel, int) and kernel >= 1
        else torch.as_tensor(kernel, dtype=torch.float64)
    )
    if taps.ndim != 1 or not 1 <= len(taps) <= n:
        raise ValueError(f"temporal_blur: the kernel must have 1 to {n} numbers, got {kernel!r}")
    length, c = len(taps), len(taps) // 2
    seen = torch.arange(n)[:, None] + c - torch.arange(length)
    if boundary == "valid":
        seen = seen[(seen.amin(1) >= 0) & (seen.amax(1) < n)]
    seen = seen % n if boundary == "circular" else seen.clamp(0, n - 1)
    matrix = torch.zeros(len(seen), n, dtype=torch.float64)
    return AlongAxis(matrix.scatter_add_(1, seen, taps.expand(len(seen), -1)), shape)


def kept_frames(
    shape: tuple[int, ...], frames: Sequence[int], *, complex_images: bool = False
) -> AlongAxis:
    """The frames of these numbers, counted from 0, in this order; the others were dropped. Raises
    ``ValueError`` for none, and for a number that is no frame."""
    n = shape[0]
    bad = [k for k in frames if not 0 <= k < n]
    if bad or not len(frames):
        raise ValueError(f"kept_frames: numbers from 0 to {n - 1}, got {list(frames)}")
    matrix = torch.eye(n, dtype=torch.float64)[list(frames)]
    return AlongAxis(matrix, shape, complex_images=complex_images)
