"""Filtered back-projection: what parallel-beam tomography makes of a sinogram without a prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from posteriori.operators.radon import Radon


def back_projection(A: Radon, y: Tensor) -> Tensor:
    """Images (B, *E) from sinograms y (B, *O) of ``A``, in the units of x.

        x(p) = sum_a w_a (h * y_a)(t_a(p)),   the sum of * times d
        h(0) = 1 / 4 d^2,   h(n d) = -1 / (pi n d)^2 for odd n, 0 for even

    h is the ramp filter of a detector of spacing d, (h * y_a) is interpolated linearly at
    t_a(p) = X cos a + Y sin a, 0 outside the detector, and w_a is half the angle between the
    neighbours of a among all angles modulo 180 degrees. Unlike ``pinv`` it is one sweep, and
    amplifies noise. Source: Kak and Slaney, Principles of computerized tomographic imaging, 1988,
    chapter 3.
    """
    A.check_measurement(y)
    planes = y.reshape(-1, len(A.angles), A.detectors)
    d, count = A.detector_mm, A.detectors
    n = torch.arange(-count + 1, count, dtype=torch.float64, device=y.device)
    h = torch.where(n % 2 == 1, -1 / (math.pi * n.abs().clamp(min=1) * d) ** 2, torch.zeros_like(n))
    h[count - 1] = 1 / (4 * d**2)
    size = 3 * count
    product = torch.fft.rfft(planes.double(), n=size) * torch.fft.rfft(h, n=size)
    filtered = d * torch.fft.irfft(product, n=size)[..., count - 1 : 2 * count - 1]
    H, W = A.in_shape[-2:]
    X = (torch.arange(W, dtype=torch.float64, device=y.device) - (W - 1) / 2) * A.pixel_mm
    Y = ((H - 1) / 2 - torch.arange(H, dtype=torch.float64, device=y.device)) * A.pixel_mm
    padded = torch.nn.functional.pad(filtered, (1, 1))
    out = torch.zeros(len(planes), H, W, dtype=torch.float64, device=y.device)
    for k, (degrees, weight) in enumerate(zip(A.angles, _weights(A.angles), strict=True)):
        a = math.radians(degrees)
        place = (
            (X[None] * math.cos(a) + Y[:, None] * math.sin(a)) / d + (count - 1) / 2 + 1
        ).clamp(0, count + 1)
        low = place.floor().clamp(max=count).long()
        share = place - low
        row = padded[:, k]
        out += weight * ((1 - share) * row[:, low] + share * row[:, low + 1])
    return out.reshape(len(y), *A.in_shape).to(y.dtype)


def _weights(degrees: list[float]) -> list[float]:
    """Half the angle between the two neighbours of each angle on the half circle, in radians: they
    sum to pi. Equal angles share theirs."""
    order = sorted(range(len(degrees)), key=lambda k: degrees[k] % 180)
    folded = [degrees[k] % 180 for k in order]
    out = [0.0] * len(degrees)
    for place, k in enumerate(order):
        after = folded[(place + 1) % len(order)] + (180 if place + 1 == len(order) else 0)
        before = folded[place - 1] - (180 if place == 0 else 0)
        out[k] = math.radians(after - before) / 2
    return out
