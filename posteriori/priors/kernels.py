"""What is believed of a blur kernel, in closed form: a family of shapes, each known up to a little.

    p(k) = sum_j w_j N(k; k_j, spread^2 (I - 1 1^T / n) + jitter^2 1 1^T / n),   n taps

Deviations from a member of the family sum to 0, up to ``jitter``, so that the scale of kernel and
image is fixed by the sum of the taps. As ``spread`` tends to 0 it is a finite set of kernels, for
which the posterior of a Gaussian image is known: p(k_j | y) ~ w_j p(y | k_j).
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.priors.mixture import GaussianMixture
from posteriori.rng import Streams

# Of ``spread``: how far the sum of a kernel lies from its member's, in units of the taps' spread.
JITTER = 1e-2
# Points of the trace of a motion kernel.
_STEPS = 64


def kernel_family(kernels: Tensor, spread: float, weights: Tensor | None = None) -> GaussianMixture:
    """A prior of kernels (kh, kw) near one of ``kernels`` (K, kh, kw).

    spread: standard deviation of one tap, in the unit of a tap. weights: (K,), equal without.
    Raises ``ValueError`` for kernels of another shape, or a spread that is not > 0.
    """
    if kernels.ndim != 3 or not kernels.numel():
        raise ValueError(f"kernel_family takes kernels (K, kh, kw), got {tuple(kernels.shape)}")
    if not spread > 0:
        raise ValueError(f"kernel_family: spread must be > 0, got {spread}")
    K, n = len(kernels), kernels[0].numel()
    even = torch.full((n, n), 1 / n, dtype=kernels.dtype)
    covariance = spread**2 * (torch.eye(n, dtype=kernels.dtype) - even + JITTER**2 * even)
    share = kernels.new_ones(K) if weights is None else weights
    return GaussianMixture(
        share, kernels.flatten(1), covariance[None], shape=tuple(kernels.shape[1:])
    )


def gaussian_kernels(size: int, widths: Tensor, spread: float) -> GaussianMixture:
    """``kernel_family`` of isotropic Gaussians of these widths (K,) in pixels, on size x size
    pixels, each of sum 1. Raises ``ValueError`` for a width that is not > 0."""
    if widths.ndim != 1 or not bool((widths > 0).all()):
        raise ValueError(f"gaussian_kernels takes widths (K,) > 0, got {widths.tolist()}")
    t = torch.arange(size, dtype=widths.dtype) - size // 2
    g = torch.softmax(-0.5 * (t / widths[:, None]).square(), 1)
    return kernel_family(g[:, :, None] * g[:, None], spread)


def motion_kernels(count: int, size: int, seed: int = 0, *, length: float = 0.6) -> Tensor:
    """Kernels of a camera that was shaken, (count, size, size), each of sum 1 with its centre of
    mass in the middle: kernel k depends on (seed, k) alone.

    A point walks with a velocity that keeps its direction for a while, is pulled back now and then,
    and leaves a trace as long as about ``length`` times the side. Raises ``ValueError`` for fewer
    than one kernel, a side that is even or below 5, or a length outside (0, 1].

    Source: Boracchi and Foi, Modeling the performance of image restoration from motion blur, 2012
    (random trajectories; the constants are this library's).
    """
    if count < 1 or size < 5 or size % 2 == 0 or not 0 < length <= 1:
        raise ValueError(
            f"motion_kernels needs count >= 1, an odd size >= 5 and length in (0, 1], got {count}, "
            f"{size} and {length}"
        )
    zero = torch.zeros(count, _STEPS, 3, dtype=torch.float64)
    z = Streams(seed, range(count)).normal(zero)
    angle = 2 * torch.pi * torch.special.ndtr(z[:, :1, 0]) + 0.25 * z[:, :, 1].cumsum(1)
    speed = (0.5 * z[:, :, 2]).exp()
    step = torch.stack([angle.sin(), angle.cos()], -1) * speed[..., None]
    path = step.cumsum(1)
    path = path - path.mean(1, keepdim=True)
    reach = path.abs().amax((1, 2), keepdim=True)
    path = path * (length * (size - 1) / 2 / reach)
    t = torch.arange(size, dtype=torch.float64) - size // 2
    # Each point of the trace covers the four pixels around it.
    rows, columns = ((1 - (t - path[..., axis, None]).abs()).clamp(min=0) for axis in (0, 1))
    return torch.einsum("nsi,nsj->nij", rows, columns) / _STEPS
