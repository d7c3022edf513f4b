"""A row of detectors that is not where it is thought to be."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Map, Spectrum
from posteriori.settings import Number


class DetectorShift(LinearOperator):
    """y(..., t) = x(..., t - shift): the last axis moved by ``shift`` steps, towards larger t for
    shift > 0.

    Between the steps a band-limited function is taken, by a Fourier transform over twice the length
    with zeros beyond the ends; what leaves at one end does not return at the other. The adjoint is
    the shift back.
    """

    def __init__(self, shape: tuple[int, ...], shift: Number) -> None:
        super().__init__(shape)
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return moved_along(x, torch.tensor(self.shift, dtype=x.dtype, device=x.device))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return moved_along(y, torch.tensor(-self.shift, dtype=y.dtype, device=y.device))

    def spectrum(self) -> Spectrum:
        n = self.in_shape[-1]
        U, s, Vh = kept(self, "svd", lambda: torch.linalg.svd(_matrix(n, self.shift)))

        def times(M: Tensor) -> Map:
            return lambda c: (c.reshape(len(c), -1, n) @ M.T.to(c)).flatten(1)

        def image(M: Tensor) -> Map:
            return lambda c: times(M)(c).view(len(c), *self.in_shape)

        s = s.repeat(math.prod(self.in_shape[:-1]))
        return Spectrum(s, V=image(Vh.T), Vh=times(Vh), U=image(U), Uh=times(U.T))


def _matrix(n: int, shift: float) -> Tensor:
    """The shift of n numbers as a matrix, float64."""
    eye = torch.eye(n, dtype=torch.float64)
    return moved_along(eye, torch.tensor(shift, dtype=torch.float64)).T


def moved_along(x: Tensor, shift: Tensor) -> Tensor:
    """x (B, ..., n) moved by ``shift`` steps, one for all rows or one for each (B,); differentiable
    in both."""
    n = x.shape[-1]
    f = torch.fft.rfftfreq(2 * n, dtype=x.dtype, device=x.device)
    angle = -2 * math.pi * f * shift.reshape(-1, *(1,) * (x.ndim - 1))
    # Of the highest frequency the inverse transform takes the cosine alone, as a shift back does.
    turn = torch.complex(angle.cos(), angle.sin())
    return torch.fft.irfft(torch.fft.rfft(x, n=2 * n) * turn, n=2 * n)[..., :n]
