"""Ptychography: far fields of an object behind a probe that moves over it, with overlaps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.linalg import real_view
from posteriori.memo import kept
from posteriori.operators.base import LinearOperator
from posteriori.operators.normal_equations import Preconditioner


class Ptychography(LinearOperator):
    """y_k = F (p x[r_k : r_k + (h, w)]): complex images (H, W) -> (K, h, w) complex numbers, the
    wave on the detector at each position of the probe. ``Modulus`` makes of it what is counted.

    F = fftshift fft2 of norm "ortho": the zero frequency lies at index (h // 2, w // 2) of the
    detector. The image of each position begins at its first pixel, which changes phases on the
    detector and no intensity. F is unitary and samples the probe's window fully, so that
    A^H A = diag(P), P(r) = sum_k |p(r - r_k)|^2, the exposure of each pixel. Hence ||A|| = max
    P^(1/2); the intensities sum to sum P |x|^2 (Parseval); A^H A + s is inverted pixel by pixel.

    probe: p, complex (h, w), or (K, h, w) for one that differs from position to position. It is
    divided by nothing: |p|^2 is the intensity of the beam.
    positions: (K, 2) integers r_k, row and column of the window's first pixel. The window must lie
    within the image.

    Raises ``ValueError`` for shapes that do not fit and a window beyond the border; ``TypeError``
    for positions between pixels.
    Source: Rodenburg and Faulkner, A phase retrieval algorithm for shifting illumination, 2004.
    """

    probe_field: Tensor
    places: Tensor

    def __init__(self, probe: Tensor, positions: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(shape, complex_in=True, complex_out=True)
        if len(self.in_shape) != 2:
            raise ValueError(f"Ptychography takes images of shape (H, W), got {self.in_shape}")
        self.__dict__["_out_shape"] = _check(probe, positions, self.in_shape)
        (_, h, w), W = self.out_shape, self.in_shape[1]
        window = torch.arange(h)[:, None] * W + torch.arange(w)
        first = positions[:, 0].long() * W + positions[:, 1].long()
        self.register_buffer("probe_field", probe.resolve_conj())
        self.register_buffer("places", first.to(window.device)[:, None, None] + window)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        wave = self.probe_field.to(x.dtype) * x.flatten(1)[:, self.places]
        return torch.fft.fftshift(torch.fft.fft2(wave, norm="ortho"), (-2, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        wave = torch.fft.ifft2(torch.fft.ifftshift(y, (-2, -1)), norm="ortho")
        return self._laid(self.probe_field.conj().to(y.dtype) * wave)

    @property
    def exposure(self) -> Tensor:
        """P, (H, W) real numbers >= 0: A^H A x = P x."""
        p = real_view(self.probe_field).square().sum(-1)
        return kept(
            self,
            "exposure",
            lambda: self._laid(p.expand(self.out_shape)[None])[0],
            self.probe_field,
            self.places,
        )

    @property
    def steady_norm(self) -> float:
        return math.sqrt(float(self.exposure.max()))

    def preconditioner(self, r2: float, s2: float) -> Preconditioner:
        """(r2 P + s2)^-1, the answer itself."""
        share = 1 / (r2 * self.exposure + s2)
        return Preconditioner(lambda v: v * share.to(v.real.dtype), images=True)

    def _laid(self, windows: Tensor) -> Tensor:
        """The sum of windows (B, K, h, w), each in its place of the image: (B, H, W)."""
        flat = windows.new_zeros(len(windows), math.prod(self.in_shape))
        return flat.index_add(1, self.places.flatten(), windows.flatten(1)).view(-1, *self.in_shape)


def _check(probe: Tensor, positions: Tensor, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """K, h, w."""
    if not probe.is_complex() or probe.ndim not in (2, 3):
        raise ValueError(
            "Ptychography takes a complex probe (h, w) or (K, h, w), "
            f"got {probe.dtype} of shape {tuple(probe.shape)}"
        )
    if not bool(real_view(probe).isfinite().all()):
        raise ValueError("Ptychography: the probe holds values that are not finite")
    if positions.is_floating_point() or positions.is_complex() or positions.dtype == torch.bool:
        raise TypeError(
            f"Ptychography takes positions in whole pixels (an integer tensor), got "
            f"{positions.dtype}; shift the probe by what is left of a pixel, one probe a position"
        )
    if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions):
        raise ValueError(
            f"Ptychography takes positions (K, 2), rows and columns, got {tuple(positions.shape)}"
        )
    K = len(positions)
    if probe.ndim == 3 and len(probe) != K:
        raise ValueError(f"Ptychography: {len(probe)} probes and {K} positions, one for each")
    h, w = probe.shape[-2:]
    last = (positions.cpu() + torch.tensor([h, w])).amax(0).tolist()
    if int(positions.min()) < 0 or last[0] > shape[0] or last[1] > shape[1]:
        raise ValueError(
            f"Ptychography: windows of {h}x{w} reach from {positions.amin(0).tolist()} to {last}, "
            f"and the image ends at {list(shape)}: make the image as large as the scan"
        )
    return K, h, w
