"""Whether the residual at the border of a picture is out of line with that inside: what A assumes
beyond the image is then likely wrong.

    excess = mean of r^2 in the band / mean of r^2 inside,   r = (y - A x) / sigma,   over samples x

The band is the outer half of what the kernel reaches from the border. Of right samples both means
are about 1 and, with n numbers in the band, the excess has a standard deviation of about
sqrt(2 / n).

Measured on crops of BSDS photographs, a Gaussian of 1.6 pixels, noise 0.03 of [0, 1], 12 steps of
DiffPIR with the prior ``photos``: a blur of the true surroundings taken for a circular one is
flagged in 16 of 16 crops of 97 x 97 pixels (excess 1.2 to 10) and in 15 of 20 of 40 x 40, where
opposite sides may happen to agree; a right boundary in none of 56 (excess 0.94 to 1.07), the limits
being 1.12 and 1.18.
"""

from __future__ import annotations

import math

import torch

from posteriori.likelihood import Posterior
from posteriori.run import Run

# The excess that is no chance: so many of its standard deviations and, as samplers fit no border
# perfectly, a share besides.
DEVIATIONS, SHARE, SAMPLES = 3.0, 0.05, 8


def excess(run: Run, post: Posterior) -> tuple[float, float] | None:
    """The excess and the most that is taken for chance; None where A assumes nothing beyond the
    border, or y is no picture with noise.

    Costs an operator call for each of the first eight samples.
    """
    given = post.given
    (rows, columns), std, y = given.A.reach, given.noise.std, given.y
    if not std or y.is_complex() or y.ndim < 2 or not rows + columns:
        return None
    band = torch.ones(y.shape[-2:], dtype=torch.bool)
    top, left = -(-rows // 2), -(-columns // 2)
    if 2 * top >= len(band) or 2 * left >= band.shape[1]:
        return None  # all of it is border
    band[top : len(band) - top, left : band.shape[1] - left] = False
    with torch.no_grad():
        residual = given.residual(run.samples[:SAMPLES].to(y.device)) / std
    squares = residual.square().mean(0).double().cpu()
    inside, outside = squares[..., ~band], squares[..., band]
    chance = DEVIATIONS * math.sqrt(2 / outside.numel() + 2 / inside.numel())
    return float(outside.mean() / inside.mean().clamp(min=1e-12)), 1 + SHARE + chance


def remark(found: tuple[float, float] | None) -> str | None:
    """What is said of an excess."""
    if found is None or found[0] <= found[1]:
        return None
    return (
        f"At the border of the measurement the squared residual is {found[0]:.1f} times "
        "that inside: what the operator assumes beyond the border of the image is likely wrong. "
        "With boundary 'valid' nothing is assumed, on an image larger by the kernel."
    )
