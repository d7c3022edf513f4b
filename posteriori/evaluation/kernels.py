"""How near a blur kernel is to the true one, up to a shift: image and kernel may both be moved, so
that y does not tell where a kernel lies.

The largest cross-correlation over all shifts, c = max_s sum_t k(t) k'(t + s), zeros beyond the
kernels' borders:

    correlation  c / (||k|| ||k'||)
    error        sqrt(||k||^2 + ||k'||^2 - 2 c) / ||k'||
"""

from __future__ import annotations

import torch
from torch import Tensor


def kernel_correlation(kernels: Tensor, truth: Tensor) -> Tensor:
    """Of kernels (B, kh, kw) with the true one (th, tw): (B,), 1 for its own shift or multiple; 0
    for a kernel of zeros."""
    best, own, true = _products(kernels, truth)
    return torch.where(own > 0, best / (own * true).clamp(min=1e-30).sqrt(), 0.0)


def kernel_error(kernels: Tensor, truth: Tensor) -> Tensor:
    """||k shifted - truth|| / ||truth|| at the best shift, kernels (B, kh, kw) and truth (th, tw)
    being taken as they are: (B,)."""
    best, own, true = _products(kernels, truth)
    return ((own + true - 2 * best).clamp(min=0) / true).sqrt()


def _products(kernels: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The largest cross-correlation of each kernel, its square norm, and that of the truth."""
    truth = truth.to(kernels)
    if kernels.ndim != 3 or truth.ndim != 2 or not bool(truth.any()):
        raise ValueError(
            f"kernels (B, kh, kw) are compared with a true one (th, tw) that is not 0, got "
            f"{tuple(kernels.shape)} and {tuple(truth.shape)}"
        )
    sides = [a + b - 1 for a, b in zip(kernels.shape[1:], truth.shape, strict=True)]
    spectrum = torch.fft.rfft2(kernels, s=sides) * torch.fft.rfft2(truth, s=sides).conj()
    best = torch.fft.irfft2(spectrum, s=sides).amax((1, 2))
    return best, kernels.square().sum((1, 2)), truth.square().sum()
