"""The preconditioning of Karras et al.: a network F of unit-variance input and target makes a
denoiser D.

    D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4)
    c_skip = d^2 / (sigma^2 + d^2),        c_out = sigma d / sqrt(sigma^2 + d^2),
    c_in   = 1 / sqrt(sigma^2 + d^2),      d = sigma_data

Reference: Karras, Aittala, Aila, Laine, Elucidating the design space of diffusion-based generative
models, 2022, table 1. Under coloured noise the coefficients are those functions of its covariance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.covariances import NoiseCovariance
from posteriori.covariances.told import Told
from posteriori.priors import first_estimates


def denoise(
    network: Callable[..., Tensor],
    x: Tensor,
    sigma: Tensor,
    sigma_data: float,
    autocast: torch.dtype | None,
    *,
    filled: bool = False,
) -> Tensor:
    """D(x, sigma): x (B, C, H, W) in data units, sigma () or (B,), -> (B, C, H, W) in x's dtype.

    sigma (B, 1, H, W) is a map, the level of each pixel: coefficients are those of the pixel, and
    the network is given its map of labels (B, H, W). filled: x and the map are those of
    ``first_estimates.filled``, which leaves a map of one level as it is, and the network is called
    with ``shrunk``, d / (sigma^2 + d^2) x of the x and sigma that are given.

    Only the network runs under ``autocast``; the skip connection, which carries the small noise
    levels, stays in x's precision.
    """
    beside: dict[str, Tensor] = {}
    if sigma.ndim > 1:
        level = sigma.to(x.dtype)
        if filled:
            beside = {"shrunk": sigma_data / (level**2 + sigma_data**2) * x}
            x, level = first_estimates.filled(x, level, sigma_data)
        rows = level[:, 0]
    else:
        rows = sigma.to(x.dtype).expand(x.shape[0])
        level = rows.view(-1, *[1] * (x.ndim - 1))
    total = (level**2 + sigma_data**2).sqrt()
    with torch.autocast(
        x.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None
    ):
        raw = network(x / total, rows.log() / 4, **beside)
    return (sigma_data / total) ** 2 * x + (level * sigma_data / total) * raw.to(x.dtype)


def denoise_under(
    network: Callable[..., Tensor],
    mu: Tensor,
    covariance: NoiseCovariance,
    sigma_data: float,
    autocast: torch.dtype | None,
    *,
    shown: bool = False,
) -> Tensor:
    """D(mu, Sigma), the coefficients being functions of Sigma, in its own basis: mu = x0 +
    Sigma^(1/2) z (B, C, H, W) -> (B, C, H, W).

    The network is called with c_in(Sigma) mu, the label ln(level) / 4 of each row (B,) and, as
    ``colour``, the colours (B, COLOURS) of ``covariance.told``, which must have one level for all
    pixels of a row. shown: also with ``shrunk``, d (Sigma + d^2)^-1 mu (B, C, H, W).
    """
    told, rows, d2 = told_of(covariance, mu), len(mu), sigma_data**2
    label = told.levels.flatten().expand(rows).to(mu).log() / 4
    beside = {"colour": told.colour.expand(rows, -1).to(mu)}
    if shown:
        beside["shrunk"] = covariance.applied(lambda v: sigma_data / (v + d2), mu)
    with torch.autocast(
        mu.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None
    ):
        raw = network(
            covariance.applied(lambda v: (v + d2) ** -0.5, mu),
            label,
            **beside,
        )
    return covariance.applied(lambda v: d2 / (v + d2), mu) + covariance.applied(
        lambda v: (d2 * v / (v + d2)) ** 0.5, raw.to(mu.dtype)
    )


def told_of(covariance: NoiseCovariance, mu: Tensor) -> Told:
    """``covariance.told`` where every pixel of an image has one level. Raises ``ValueError`` where
    nothing is told, or a map."""
    told = covariance.told(mu)
    if told is None or not told.alike:
        raise ValueError(f"no network is told, by one level and a colour, {covariance.words}")
    return told


def of_hidden(level: Tensor, sigma_data: float, seen: Tensor) -> Tensor:
    """What turns D of ``denoise`` into that of a network which is given the mask ``seen`` and 0
    where it is 0: the factor 1 where seen, sqrt(sigma^2 + d^2) / sigma elsewhere.

    A pixel that is not seen is one at the level infinity, where c_skip = 0 and c_out = d; with the
    c_out of sigma the network would have to return x0 / sigma there. level, seen broadcast.
    """
    return seen + (1 - seen) * (level**2 + sigma_data**2).sqrt() / level
