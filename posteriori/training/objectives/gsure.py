"""GSURE-Diffusion: train a denoiser on images that are noisy and of which some pixels were never
measured, by an unbiased estimate of its error.

    ybar = P (x0 + s0 n)      P the mask of the image, s0 the noise of the data
    x    = ybar + sqrt(sigma^2 - s0^2) e where measured, sigma e elsewhere,     e ~ N(0, I)
    risk = sum_i W_i (f_i - ybar_i)^2 + 2 s0^2 sum_i W_i df_i/dx_i - s0^2 sum_i W_i,     W = P / p

    E risk = E sum_i W_i (f_i(x) - x0_i)^2       for sigma >= s0, whatever f

by Stein's lemma: ybar depends on the noise of x with covariance s0^2, where the noise of x itself
has sigma^2. The divergence is estimated with one probe u of signs: E u^T J W u = sum W_i df_i/dx_i.
Below s0 there is no such x: levels are drawn as sigma^2 = s0^2 + tau^2, ln tau ~ N, and a prior is
refused whose ``sigma_min`` lies below s0.

The risk supervises measured pixels, and f meets pure noise where nothing was measured; a complete
image at sigma is another input. What is minimised is therefore not the error of a denoiser of
complete images.

Reference: Kawar, Elata, Michaeli, Elad, GSURE-based diffusion model training with corrupted data,
2024, section 4, in VE coordinates. Departs from the authors' code: the coefficient of the
divergence, there 2 s0^2 s_t^2, is the one for which the risk is unbiased; signs for Gaussian
probes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from posteriori.priors import edm
from posteriori.training.config import TrainingConfig
from posteriori.training.data_kinds import MaskedImages
from posteriori.training.objectives.noise import (
    autocast_of,
    drawn,
    numbers_and_mask,
    over_measured,
    unit_weight,
)


def noised(ybar: Tensor, mask: Tensor, sigma: Tensor, noise: float, e: Tensor) -> Tensor:
    """x at the level sigma (B, 1, ...) from measurements of noise ``noise``: (B, *E). Raises
    ``ValueError`` for a level below it."""
    if bool((sigma < noise * (1 - 1e-6)).any()):
        raise ValueError(
            f"GSURE knows no level below the noise of the data: sigma {float(sigma.min()):.4g} is "
            f"less than {noise:.4g}; train and sample at levels of at least that"
        )
    added = (sigma**2 - noise**2).clamp_min(0).sqrt()
    return mask * (ybar + added * e) + (1 - mask) * sigma * e


def risk(
    f: Callable[[Tensor], Tensor], x: Tensor, ybar: Tensor, mask: Tensor, noise: float, u: Tensor
) -> Tensor:
    """The unbiased estimate of the mean of (f - x0)^2 over the measured numbers of each row, (B,),
    differentiable by the parameters of f. u: signs, (B, *E)."""
    probe = mask * u
    leaf = x.detach().requires_grad_()
    out = f(leaf)
    (turned,) = torch.autograd.grad(out, leaf, probe, create_graph=True)
    return over_measured((out - ybar).square() + noise**2 * (2 * probe * turned - 1), mask)


def loss(network: nn.Module, batch: Tensor, config: TrainingConfig, step: int) -> Tensor:
    """The weighted risk of one batch (0-d), with noise and probes drawn from (seed, step). batch:
    (B, C + 1, H, W), see ``noise.measured``."""
    assert isinstance(config.data, MaskedImages)
    ybar, mask = numbers_and_mask(batch)
    tau, e, rng = drawn(ybar, config, step)
    noise = config.data.std
    sigma = (tau**2 + noise**2).sqrt()
    u = torch.from_numpy(2.0 * rng.integers(0, 2, tuple(ybar.shape)) - 1).to(ybar)

    def denoised(x: Tensor) -> Tensor:
        return edm.denoise(network, x, sigma.flatten(), config.sigma_data, autocast_of(config))

    with torch.enable_grad():  # the divergence is a derivative also where no parameter is trained
        rows = risk(denoised, noised(ybar, mask, sigma, noise, e), ybar, mask, noise, u)
    return (unit_weight(sigma, config.sigma_data).flatten() * rows).mean()
