"""The time of a rectified flow as a function of the noise level, and settings that change along it.

    z_t = (1 - t) x0 + t noise      in images of a unit of 1
    x   = z_t / (1 - t),            sigma = t / (1 - t),   t = sigma / (1 + sigma)

t = 1 is noise and t = 0 is data, whatever the prior was trained as: a method of flows runs on every
prior.
"""

from __future__ import annotations

from torch import Tensor

from posteriori.methods.courses import prior_scale
from posteriori.priors.base import Prior
from posteriori.settings import Fraction

# A number, or its values at noise (t = 1) and at data (t = 0), linear in t between them.
Along = Fraction | tuple[Fraction, Fraction]


def flow_time(prior: Prior, sigma: Tensor | float) -> float:
    """t in [0, 1) of a noise level, the unit of images being half the width of the prior's
    range."""
    level = float(sigma)
    return level / (prior_scale(prior) + level)


def along(setting: float | tuple[float, float], t: float) -> float:
    """The value of a setting at the time t."""
    if not isinstance(setting, tuple):
        return setting
    noise, data = setting
    return data + (noise - data) * t
