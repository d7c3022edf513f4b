"""Transitions shared by methods: from an image x at noise level sigma and a denoised estimate to an image at s < sigma.

A transition takes the denoiser as a function, so that guided and unguided samplers are integrated by the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from posteriori.rng import Noise
from posteriori.settings import Checked, Fraction

Denoise = Callable[[Tensor, Tensor], Tensor]


class Transition(Protocol):
    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> Tensor: ...


def renoise(x0: Tensor, x: Tensor, sigma: Tensor, s: Tensor, std: float, rng: Noise) -> Tensor:
    """x0 + sqrt(s^2 - std^2) (x - x0) / sigma + std z, with its coefficients in double precision."""
    out = torch.lerp(x0, x, math.sqrt(max(float(s) ** 2 - std**2, 0.0)) / float(sigma))
    return out.add_(rng.normal(x), alpha=std) if std > 0 else out


@dataclass(frozen=True)
class DDIM(metaclass=Checked):
    """The family between DDIM and ancestral sampling.

        x' = D + sqrt(s^2 - std^2) (x - D) / sigma + std z,    std = eta s sqrt(1 - s^2 / sigma^2)

    eta = 0 is DDIM (the probability-flow ODE by Euler, order 1), eta = 1 is DDPM's ancestral sampling.
    Reference: Song, Meng, Ermon, Denoising diffusion implicit models, 2021, equation 16.
    """

    eta: Fraction = 1.0

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> Tensor:
        return renoise(denoise(x, sigma), x, sigma, s, self.eta * float(s * (1 - s**2 / sigma**2).sqrt()), rng)


@dataclass(frozen=True)
class ConstantFraction(metaclass=Checked):
    """A fixed share zeta of the variance is fresh at every step.

        x' = D + s ( sqrt(1 - zeta) (x - D) / sigma + sqrt(zeta) z )

    Does not keep the marginals as steps are added: with zeta = 1 the variance tends to half of the prior's (tested).
    Reference: Zhu et al., Denoising diffusion models for plug-and-play image restoration, 2023, algorithm 1.
    """

    zeta: Fraction = 0.1

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> Tensor:
        return renoise(denoise(x, sigma), x, sigma, s, self.zeta**0.5 * float(s), rng)


@dataclass(frozen=True)
class Heun(metaclass=Checked):
    """The probability-flow ODE dx/dsigma = (x - D) / sigma by Heun's rule, order 2; Euler on the last step. Two denoisers a step.

    Reference: Karras et al. 2022, algorithm 1.
    """

    def __call__(self, denoise: Denoise, x: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> Tensor:
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (s - sigma) * slope
        if not bool(s > 0):
            return ahead
        return x + (s - sigma) * 0.5 * (slope + (ahead - denoise(ahead, s)) / s)


def adam(g: Tensor, first: Tensor, second: Tensor, k: int, beta2: float = 0.999) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's direction at its k-th step (from 1), and the new moments; all (B, *E). A complex number counts as one, by its modulus.

    Reference: Kingma, Ba, Adam: a method for stochastic optimization, 2015, algorithm 1, beta1 = 0.9.
    """
    first, second = torch.lerp(g, first, 0.9), torch.lerp(g.abs().square(), second, beta2)
    return first / (1 - 0.9**k) / ((second / (1 - beta2**k)).sqrt() + 1e-8), first, second
