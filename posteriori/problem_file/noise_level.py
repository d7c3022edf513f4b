"""A Gaussian noise level from the measurement alone, for a file that says ``sigma: estimate``.

Where the operator has directions that no image reaches (singular values below 1e-3 of the largest,
at least 100 of them), y holds noise alone there, and sigma is their root mean square, with a
relative standard error of 1 / sqrt(2 k) for k directions. Otherwise, of a picture with enough of
them, from its patches p, all channels together:

    v     = eigenvalues of cov(p), from which the largest are left out until their mean is not above
            their median
    sigma = root of that mean, or what follows where it is less

A scene moves patches along few of the axes, noise along all alike: once only noise is left the
eigenvalues lie around sigma^2 evenly. Source: Chen, Zhu, Heng, An efficient statistical method for
image noise level estimation, 2015. Of a smaller picture, or one with holes that are exactly 0:

    D     = (y[0, 0] - y[0, 1] - y[1, 0] + y[1, 1]) / 2   of each block of 2 x 2 pixels
    sigma = median |D| / 0.6745

D has the variance of the noise, and none of an image that is a plane there; the median does not see
the few blocks on edges. Fine texture adds to it: the level is then rather too large. Source:
Donoho, Johnstone, Ideal spatial adaptation by wavelet shrinkage, 1994.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from posteriori.operators.base import LinearOperator, Operator

LEAST = 100
# The median of the absolute value of a standard normal number.
_MEDIAN = 0.674490
# Patches are of 5 x 5 pixels in colour and 7 x 7 in grey; fewer than so many for each of their
# numbers do not tell the covariance, more than so many in all are not looked at.
PATCHES, MOST_PATCHES = 20, 200_000


def estimated(A: Operator, y: Tensor) -> tuple[float, str]:
    """The level of one number of y, and a sentence that says what it is from. Raises ``ValueError``
    where y alone does not tell it."""
    alone = _unreached(A, y)
    if alone is not None:
        level = float(alone.square().mean().sqrt())
        where = f"{len(alone)} directions that no image reaches"
    elif not y.is_complex() and y.ndim in (2, 3) and min(y.shape[-2:]) >= 16:
        seen, d = by_patches(y), details(y)
        level = float(d.median()) / _MEDIAN if len(d) else 0.0
        where = "the differences of neighbouring pixels, which texture makes larger"
        if seen is not None and seen < level:
            level, where = seen, "the patches of y, of which a scene fills few dimensions"
    else:
        raise ValueError(
            f"noise.sigma: the level cannot be told from a measurement of shape {tuple(y.shape)}; "
            "state it, in the units of y"
        )
    if not level > 0:
        raise ValueError(
            "noise.sigma: the measurement shows no noise at all; "
            "state the level, for example 1e-3 of the range"
        )
    return (
        level,
        f"noise level: about {level:.3g}, estimated from {where}; state sigma if it is known",
    )


def by_patches(y: Tensor) -> float | None:
    """sigma from the covariance of the patches of one picture (H, W) or (C, H, W); None of one that
    is small, or has holes."""
    planes = y.reshape(-1, *y.shape[-2:])
    side = 7 if len(planes) == 1 else 5
    rows, columns = (n - side + 1 for n in y.shape[-2:])
    numbers = len(planes) * side**2
    if min(rows, columns) < 1 or rows * columns < PATCHES * numbers:
        return None
    if float((y == 0).double().mean()) > 0.01:
        return None
    stride = math.ceil(math.sqrt(rows * columns / MOST_PATCHES))
    p = F.unfold(planes[None], side, stride=stride)[0].double()
    if p.shape[1] < PATCHES * numbers:
        return None
    p = p - p.mean(1, keepdim=True)
    v = torch.linalg.eigvalsh(p @ p.T / p.shape[1]).clamp(min=0)
    for k in range(len(v), 0, -1):
        mean = v[:k].mean()
        if int((v[:k] > mean).sum()) >= int((v[:k] < mean).sum()):
            break
    return float(mean) ** 0.5


def details(y: Tensor) -> Tensor:
    """|D| of the blocks of all planes, but those that are exactly 0, where nothing was measured:
    (blocks,)."""
    planes = y.reshape(-1, *y.shape[-2:])[:, : y.shape[-2] // 2 * 2, : y.shape[-1] // 2 * 2]
    d = (
        planes[:, ::2, ::2] - planes[:, ::2, 1::2] - planes[:, 1::2, ::2] + planes[:, 1::2, 1::2]
    ).abs().flatten() / 2
    return d[d > 0]


def _unreached(A: Operator, y: Tensor) -> Tensor | None:
    """The coefficients of y where A makes nothing, as real numbers; None where there are few."""
    spectrum = A.spectrum() if isinstance(A, LinearOperator) else None
    if spectrum is None:
        return None
    with torch.no_grad():
        c = spectrum.Uh(y[None])[0]
    unreached = torch.ones(len(c), dtype=torch.bool)
    unreached[: len(spectrum.s)] = spectrum.s <= 1e-3 * spectrum.s.max()
    return c[unreached].abs() if int(unreached.sum()) >= LEAST else None
