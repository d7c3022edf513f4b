"""What is asked once of the components of a Gaussian mixture: their principal axes, and the limits
of noise levels that follow."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mixture_limits(weights: Tensor, means: Tensor, variances: Tensor) -> dict[str, float]:
    """What the constructor of a prior is told of a mixture."""
    K, d = means.shape
    centre = weights @ means
    total = float(
        weights @ variances.expand(K, d).mean(1) + weights @ (means - centre).square().mean(1)
    )
    apart = float((torch.linalg.matrix_norm(weights.sqrt()[:, None] * (means - centre), 2)) ** 2)
    widest = math.sqrt(float(variances.max()) + apart)
    finest = (
        math.sqrt(float(variances.min()))
        if float(variances.min()) > 1e-8 * widest**2
        else 1e-4 * widest
    )
    return {
        "variance": total,
        "sigma_max": 10 * widest,
        "sigma_min": 0.02 * finest,
        "max_std": widest,
    }


def principal_axes(C: Tensor, K: int, d: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K or 1, d) and eigenvectors (K or 1, d, d), the latter None when the covariance
    is diagonal."""
    if C.ndim == 0:
        values, axes = C.expand(1, d), None
    elif C.ndim == 2 and C.shape in {(K, d), (1, d)}:
        values, axes = C, None
    elif C.ndim == 3 and C.shape in {(K, d, d), (1, d, d)}:
        asymmetry = float((C - C.mT).abs().max())
        if asymmetry > 1e-4 * float(C.abs().max()):
            raise ValueError(
                "a covariance is not symmetric: "
                f"the largest difference to its transpose is {asymmetry:.3g}"
            )
        values, axes = torch.linalg.eigh(C)
    else:
        raise ValueError(
            f"covariances have shape {tuple(C.shape)}; "
            f"with K={K}, d={d} expected (K, d, d), (K, d) or one variance"
        )
    lowest, highest = float(values.min()), float(values.max())
    if not lowest >= -1e-5 * highest or not highest > 0:
        raise ValueError(
            "covariances must be positive semi-definite, "
            f"found eigenvalues from {lowest:.3g} to {highest:.3g}"
        )
    return values.clamp(min=0), axes
