"""Transitions shared by methods: from an image x at noise level sigma and a denoised estimate to an
image at s < sigma.

A transition takes the denoiser as a function, so that guided and unguided samplers are integrated
by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from posteriori.rng import Rng
from posteriori.settings import Checked, Fraction

Denoise = Callable[[Tensor, Tensor], Tensor]


class Transition(Protocol):
    def __call__(
        self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> Tensor: ...


def renoise(
    x0: Tensor,
    x: Tensor,
    sigma: Tensor,
    s: Tensor,
    std: float,
    rng: Rng,
    *,
    origin: Tensor | None = None,
) -> Tensor:
    """An image at level s from the denoised image x0 and the noise that x holds: (B, *E).

        x0 + sqrt(s^2 - std^2) (x - origin) / sigma + std z

    Its coefficients are in double precision.

    origin: the denoised image that tells the noise in x, x0 when None. The unconditional one beside
        a guided x0 is CFG++ (Chung et al., 2024). The network's beside one that a measurement has
        moved is that of DDS (Chung, Lee, Ye, 2024) and FlowDPS (Kim et al., 2025).
    """
    share = math.sqrt(max(float(s) ** 2 - std**2, 0.0)) / float(sigma)
    out = torch.lerp(x0, x, share) if origin is None else x0.add(x - origin, alpha=share)
    return out.add_(rng.normal(x), alpha=std) if std > 0 else out


def one_call(transition: Transition, method: str, setting: str) -> None:
    """Raise ``ValueError`` for a transition of two denoisers in a setting that moves the image
    after the step: the second would miss it."""
    if getattr(transition, "calls", 1) > 1:
        name = type(transition).__name__
        raise ValueError(
            f"{method}: {name} asks for a second denoised image, {setting} has one a step; use "
            f"DDIM or ConstantFraction"
        )


def _ancestral(x0: Tensor, x: Tensor, z: Tensor, sigma: Tensor, s: Tensor) -> Tensor:
    """x0 + (s^2 / sigma^2) (x - x0) + s sqrt(1 - s^2 / sigma^2) z."""
    share = float(s / sigma) ** 2
    return torch.lerp(x0, x, share).add_(z, alpha=float(s) * math.sqrt(1 - share))


@dataclass(frozen=True)
class DDIM(metaclass=Checked):
    """The family between DDIM and ancestral sampling.

        x' = D + sqrt(s^2 - std^2) (x - D) / sigma + std z,   std = eta s sqrt(1 - s^2 / sigma^2)

    eta: in [0, 1]. 0 is DDIM (the probability-flow ODE by Euler, order 1), 1 is DDPM's ancestral
        sampling.

    Reference: Song, Meng, Ermon, Denoising diffusion implicit models, 2021, equation 16.
    """

    calls: ClassVar[int] = 1
    eta: Fraction = 1.0

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng) -> Tensor:
        return renoise(
            denoise(x, sigma), x, sigma, s, self.eta * float(s * (1 - s**2 / sigma**2).sqrt()), rng
        )


@dataclass(frozen=True)
class Midpoint(metaclass=Checked):
    """Ancestral sampling of order 2: a denoised image between the two levels, seen through the
    step's own noise. Two denoisers a step.

        m^2 = 2 s sigma^2 / (sigma + s),   s < m < sigma
        x_m = D + (m^2 / sigma^2) (x - D) + m sqrt(1 - m^2 / sigma^2) z     an ancestral step to m
        E   = D + (sigma / m) (D(x_m, m) - D)
        x'  = E + (s^2 / sigma^2) (x - E) + s sqrt(1 - s^2 / sigma^2) z     with the same z
            = D                                                             on the last step

    An ancestral step has the mean of x_s given x_sigma, for any prior, but lacks the covariance
    (1 - s^2 / sigma^2)^2 Cov(x0 | x) of its covariance. That is sigma^2 J, J = dD/dx, and z comes
    back from the second denoiser multiplied by J. For a Gaussian prior the noise of x' along an
    axis of J is, times that of x_s,

        (1 + (q/2) / (1 + c q)) / sqrt(1 + q),   q = (sigma^2 / s^2 - 1) J,
                                                 c = s / (2 (sigma + s))

    It is 1 at J = 0 and J = 1, else above it, by at most 1.2 % for s = sigma / 2 and 9 % for s =
    sigma / 4. The covariance of a run converges with steps^-3 there, and moments for any smooth
    denoiser with steps^-2. Ancestral sampling: steps^-1, from below.
    D of a guided sampler is its estimate of E[x0 | x, y], whose J tells what y leaves open.

    Source: derived here. In u = x / sigma^2 and time 1 / sigma^2 reverse diffusion is
        du = D dt + dB (Montanari, Sampling, diffusions, and stochastic localization, 2023), and
        this is a two-stage rule for it at 1 / m^2.
    """

    calls: ClassVar[int] = 2

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng) -> Tensor:
        x0 = denoise(x, sigma)
        if not bool(s > 0):
            return x0
        m, z = sigma * (2 * s / (sigma + s)).sqrt(), rng.normal(x)
        ahead = denoise(_ancestral(x0, x, z, sigma, m), m)
        return _ancestral(torch.lerp(x0, ahead, float(sigma / m)), x, z, sigma, s)


@dataclass(frozen=True)
class ConstantFraction(metaclass=Checked):
    """A fixed share of the variance is fresh at every step.

        x' = D + s ( sqrt(1 - zeta) (x - D) / sigma + sqrt(zeta) z )

    zeta: that share, in [0, 1].

    Does not keep the marginals as steps are added: with zeta = 1 the variance tends to half of the
    prior's (tested).

    Reference: Zhu et al., Denoising diffusion models for plug-and-play image restoration, 2023,
        algorithm 1.
    """

    calls: ClassVar[int] = 1
    zeta: Fraction = 0.1

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng) -> Tensor:
        return renoise(denoise(x, sigma), x, sigma, s, self.zeta**0.5 * float(s), rng)


@dataclass(frozen=True)
class Heun(metaclass=Checked):
    """The probability-flow ODE dx/dsigma = (x - D) / sigma by Heun's rule, order 2; Euler on the
    last step. Two denoisers a step.

    Reference: Karras et al. 2022, algorithm 1.
    """

    calls: ClassVar[int] = 2

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Rng) -> Tensor:
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (s - sigma) * slope
        if not bool(s > 0):
            return ahead
        return x + (s - sigma) * 0.5 * (slope + (ahead - denoise(ahead, s)) / s)


def along_flow(denoise: Denoise, x: Tensor, levels: Tensor) -> Tensor:
    """The end of the probability-flow ODE started at x, along ``levels`` by Euler's rule: one
    denoiser a step."""
    for level, lower in pairwise(levels):
        x = torch.lerp(denoise(x, level), x, float(lower / level))
    return x


def adam(
    g: Tensor, first: Tensor, second: Tensor, k: int, beta2: float = 0.999
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction at its k-th step (from 1), and the new moments; all (B, *E). A complex
    number counts as one, by its modulus.

    Reference: Kingma, Ba, Adam: a method for stochastic optimization, 2015, algorithm 1,
        beta1 = 0.9.
    """
    first, second = torch.lerp(g, first, 0.9), torch.lerp(g.abs().square(), second, beta2)
    return first / (1 - 0.9**k) / ((second / (1 - beta2**k)).sqrt() + 1e-8), first, second
