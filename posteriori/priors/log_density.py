"""log p(x) of a prior that is known as a denoiser only, in VE coordinates; t = ln sigma, J = dD/dx.

Exactly, along the probability-flow ODE dx/dt = x - D(x, sigma), whose marginals are those of the
prior:

    log p(x; sigma_min) = log p(x_T; sigma_max) + int (d - tr J) dt

From below, by a bound that costs one denoiser per noise level and no divergence. With
x_s = x + sigma z,

    log p(x) >= E log N(x_T; m, (c + sigma_max^2) I)                          the end, closed form
                + int ( d - E |x - D(x_s)|^2 / sigma^2 ) dt                   denoising
                + d/2 (1 + ln(sigma_min^2 / v))
                - E |x - D(x_s)|^2 / (2 v)  at sigma_min                      the first step

because d/dt E log p(x_s; sigma) = E |x - D|^2 / sigma^2 - d for the exact denoiser (heat equation
and Stein's identity), and any other one adds the non-negative E |D - D_exact|^2 / sigma^2 to it,
averaged over x ~ p. The first step is the bound of one Gaussian decoder N(x; D(x_s), v I),
v = error(sigma_min). Drawing sigma uniformly in ln sigma is importance sampling in proportion to
g^2 / sigma^2.

Source: Song et al., Score-based generative modeling through SDEs, 2021 (ODE); Song, Durkan, Murray,
Ermon, Maximum likelihood training of score-based diffusion models, 2021, theorem 3; Feng and
Bouman, Variational Bayesian imaging with an efficient surrogate score-based prior, 2024 (bound).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from posteriori.linalg import dot
from posteriori.priors.base import Prior
from posteriori.rng import Rng


def count_numbers(x: Tensor) -> int:
    """Real numbers in one image of a batch."""
    return x[0].numel() * (2 if x.is_complex() else 1)


def centre(prior: Prior, x: Tensor) -> Tensor:
    """The prior's mean, (1, *E): its estimate from a starting image without noise."""
    sigma = torch.tensor(prior.sigma_max, dtype=torch.float64)
    return prior.denoise(prior.start(torch.zeros_like(x[:1]), sigma), sigma)


def log_density(prior: Prior, x: Tensor, steps: int = 100) -> Tensor:
    """log p(x) for x (B, *E): (B,) float64. The closed form where the prior has one, else the ODE
    with the exact divergence."""
    closed = prior.know().closed
    return ode_log_density(prior, x, steps=steps) if closed is None else closed.log_prob(x).double()


def ode_log_density(
    prior: Prior,
    x: Tensor,
    *,
    steps: int = 100,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    probes: Tensor | None = None,
) -> Tensor:
    """log p(x; sigma_min) by the probability-flow ODE: (B, *E) -> (B,) float64.

    steps: of Runge and Kutta's rule of order 4, even in ln sigma; four denoisers each.
    sigma_min, sigma_max: the ends, by default the prior's.
    probes: (K, B, *E) with E v v^T = I, for example random signs: tr J = mean of v^T J v
    (Hutchinson), K VJPs. None: the exact trace, one VJP for each of the d numbers.

    The density at sigma_max is the Gaussian with the score (D - x) / sigma^2 and the trace of J
    found there: exact for a white prior, and off by about (spread / sigma_max)^4 d for others.
    """
    low, high = sigma_min or prior.sigma_min, sigma_max or prior.sigma_max
    if not 0 < low < high or steps < 1:
        raise ValueError(
            f"the ODE needs 0 < sigma_min < sigma_max and steps >= 1, got {low}, {high} and {steps}"
        )
    d, h = count_numbers(x), math.log(high / low) / steps
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for k in range(steps):
        t = math.log(low) + k * h
        k1, f1 = _flow(prior, x, t, probes)
        k2, f2 = _flow(prior, x.add(k1, alpha=h / 2), t + h / 2, probes)
        k3, f3 = _flow(prior, x.add(k2, alpha=h / 2), t + h / 2, probes)
        k4, f4 = _flow(prior, x.add(k3, alpha=h), t + h, probes)
        x = x.add(k1 + 2 * (k2 + k3) + k4, alpha=h / 6)
        total += (f1 + 2 * (f2 + f3) + f4) * (h / 6)
    slope, divergence = _flow(prior, x, math.log(high), probes)
    quadratic = dot(x - centre(prior, x), slope).double() / high**2
    # -log det(I - J), as if all eigenvalues were equal: divergence / d = 1 - tr J / d.
    log_det = d * math.log(high**2) - d * (divergence / d).log()
    return total - 0.5 * (d * math.log(2 * math.pi) + log_det + quadratic)


def _flow(prior: Prior, x: Tensor, t: float, probes: Tensor | None) -> tuple[Tensor, Tensor]:
    """x - D, and its divergence d - tr J in float64."""
    x0, pull = prior.linearize(x, torch.tensor(math.exp(t), dtype=torch.float64))
    if probes is not None:
        trace = torch.stack([dot(v, pull(v)).double() for v in probes]).mean(0)
    else:
        trace = torch.stack([dot(v, pull(v)).double() for v in _axes(x)]).sum(0)
    return x - x0, count_numbers(x) - trace


def _axes(x: Tensor) -> Tensor:
    """The unit vectors along every real number of an image, each for all rows: (d, B, *E)."""
    units = torch.eye(count_numbers(x), dtype=x.real.dtype, device=x.device).view(
        -1, 1, *x.shape[1:], *([2] if x.is_complex() else [])
    )
    return (torch.view_as_complex(units) if x.is_complex() else units).expand(-1, *x.shape)


def denoising(prior: Prior, x: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
    """|z|^2 - |x - D(x + sigma z)|^2 / sigma^2 of each row, whose mean over z is the integrand of
    the bound: (B,) float64.

    |z|^2 stands for its mean d: the two terms fluctuate together, and the variance vanishes as
    sigma does.
    """
    gap = x - prior.denoise(x.add(z, alpha=float(sigma)), sigma)
    return dot(z, z).double() - dot(gap, gap).double() / float(sigma) ** 2


def denoising_slope(prior: Prior, x: Tensor, z: Tensor, sigma: Tensor) -> Tensor:
    """The gradient of ``denoising`` with respect to x: -2 (I - J^T)(x - D) / sigma^2, (B, *E). One
    denoiser, one VJP."""
    x0, pull = prior.linearize(x.add(z, alpha=float(sigma)), sigma)
    gap = x - x0
    return (pull(gap) - gap) * (2 / float(sigma) ** 2)


def evidence_bound(
    prior: Prior,
    x: Tensor,
    rng: Rng,
    *,
    nodes: int = 32,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Tensor:
    """An unbiased estimate of the lower bound of log p(x) for x (B, *E): (B,) float64;
    ``nodes`` + 1 denoisers.

    Gauss and Legendre's quadrature in ln sigma with ``nodes`` levels, one noise image per level.
    """
    low, high = sigma_min or prior.sigma_min, sigma_max or prior.sigma_max
    if not 0 < low < high or nodes < 1:
        raise ValueError(
            "the bound needs 0 < sigma_min < sigma_max and nodes >= 1, "
            f"got {low}, {high} and {nodes}"
        )
    d, width = count_numbers(x), math.log(high / low)
    at, weight = np.polynomial.legendre.leggauss(nodes)
    away = x - centre(prior, x)
    total = _end(prior, dot(away, away).double(), d, high)
    for u, w in zip(at, weight, strict=True):
        sigma = torch.tensor(low * math.exp(0.5 * (float(u) + 1) * width), dtype=torch.float64)
        total = total + 0.5 * width * float(w) * denoising(prior, x, rng.normal(x), sigma)
    z = rng.normal(x)
    gap = x - prior.denoise(x.add(z, alpha=low), torch.tensor(low, dtype=torch.float64))
    v = prior.know().error(low)
    # low^2 |z|^2 / (2 v) has the mean d low^2 / (2 v) and fluctuates with the gap.
    first = 0.5 * (dot(z, z).double() * low**2 - dot(gap, gap).double()) / v
    return total + first + 0.5 * d * (1 + math.log(low**2 / v) - low**2 / v)


def _end(prior: Prior, distance2: Tensor, d: int, sigma: float) -> Tensor:
    """E log N(x + sigma z; m, (c + sigma^2) I) for the squared distance of x from m."""
    v = prior.variance + sigma**2
    return -0.5 * (d * math.log(2 * math.pi * v) + (distance2 + d * sigma**2) / v)
