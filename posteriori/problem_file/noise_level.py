"""A Gaussian noise level from the measurement alone, for a file that says ``sigma: estimate``.

Where the operator has directions that no image reaches (singular values below 1e-3 of the largest,
at least 100 of them), y holds noise alone there, and sigma is their root mean square, with a
relative standard error of 1 / sqrt(2 k) for k directions. Otherwise, of a picture:

    D     = (y[0, 0] - y[0, 1] - y[1, 0] + y[1, 1]) / 2   of each block of 2 x 2 pixels
    sigma = median |D| / 0.6745

D has the variance of the noise, and none of an image that is a plane there; the median does not see
the few blocks on edges. Fine texture adds to it: the level is then rather too large. Source:
Donoho, Johnstone, Ideal spatial adaptation by wavelet shrinkage, 1994.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Operator

LEAST = 100
# The median of the absolute value of a standard normal number.
MEDIAN = 0.674490


def estimated(A: Operator, y: Tensor) -> tuple[float, str]:
    """The level of one number of y, and a sentence that says what it is from. Raises ``ValueError``
    where y alone does not tell it."""
    alone = _unreached(A, y)
    if alone is not None:
        level = float(alone.square().mean().sqrt())
        where = f"{len(alone)} directions that no image reaches"
    elif not y.is_complex() and y.ndim in (2, 3) and min(y.shape[-2:]) >= 16:
        d = details(y)
        level = float(d.median()) / MEDIAN if len(d) else 0.0
        where = "the differences of neighbouring pixels, which texture makes larger"
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
