"""Where a run visits the noise levels: a decreasing list of sigmas that ends at 0.

A step always goes from level i to level i + 1 of the list; nothing is computed from strides. Levels
that were computed in different ways are the same level when they agree within ``SLACK`` of their
size: which of the two is larger is a matter of the processor's rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

GridName = Literal["karras", "log", "ddpm"]
# Relative. Levels may come from a singular value decomposition, a power of a root, or single
# precision.
SLACK = 1e-6
_LARGEST = 1e150


def above(level: Tensor | float, bound: Tensor | float) -> bool:
    """Whether a level exceeds a bound by more than rounding."""
    return float(level) > float(bound) * (1 + SLACK)


def distinct(levels: Tensor) -> Tensor:
    """The levels in rising order, those that agree up to rounding once."""
    levels = levels.sort().values
    return levels[levels.diff(prepend=levels.new_full((1,), -1.0)) > SLACK * levels]


def karras(steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> Tensor:
    """(steps + 1,) float64: sigma^(1/rho) falls linearly from sigma_max to sigma_min, then 0.
    Source: Karras et al. 2022, equation 5."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _closed((top + ramp * (bottom - top)) ** rho)


def log(steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """(steps + 1,) float64: geometric from sigma_max to sigma_min, then 0."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    return _closed(sigma_max * (sigma_min / sigma_max) ** ramp)


def ddpm(
    steps: int, beta_min: float = 1e-4, beta_max: float = 0.02, train_steps: int = 1000
) -> Tensor:
    """(steps + 1,) float64: the levels sqrt((1 - abar) / abar) of a linear-beta DDPM, ``steps`` of
    them evenly spaced and the noisiest included, then 0. Source: Ho, Jain, Abbeel 2020, section
    4."""
    if not 1 <= steps <= train_steps:
        raise ValueError(f"a ddpm grid has between 1 and {train_steps} steps, got {steps}")
    abar = torch.cumprod(
        1 - torch.linspace(beta_min, beta_max, train_steps, dtype=torch.float64), 0
    )
    return trained(steps, ((1 - abar) / abar).sqrt())


def trained(steps: int, ladder: Tensor) -> Tensor:
    """(steps + 1,) float64: ``steps`` of the levels ``ladder`` (K,), which rise, evenly spaced by
    rank and the noisiest included, then 0. More steps than levels interpolate between them,
    linearly in ln(sigma)."""
    place = torch.linspace(len(ladder) - 1, 0, steps, dtype=torch.float64)
    if steps <= len(ladder):
        return _closed(ladder.double()[place.round().long()])
    below = place.floor().long().clamp(max=max(len(ladder) - 2, 0))
    logs = ladder.double().log()
    return _closed(
        torch.lerp(logs[below], logs[(below + 1).clamp(max=len(ladder) - 1)], place - below).exp()
    )


def make(
    grid: GridName | Tensor,
    steps: int,
    sigma_max: float,
    sigma_min: float,
    ladder: Callable[[], Tensor] | None = None,
) -> Tensor:
    """The grid of a run: one of the names above with the prior's own end points, or an explicit
    list of levels.

    ladder: gives the levels that "ddpm" chooses from, see ``Prior.ladder``; those of a linear-beta
    DDPM when None.

    Raises ``ValueError`` when an explicit list is not strictly decreasing down to 0, or a name is
    unknown.
    """
    if isinstance(grid, Tensor):
        levels = grid.double()
        if (
            levels.ndim != 1
            or len(levels) < 2
            or float(levels[-1]) != 0
            or not bool((levels[1:] < levels[:-1]).all())
        ):
            raise ValueError(
                "a grid is a strictly decreasing list of noise levels that ends at 0, "
                f"got {levels.tolist()[:8]}"
            )
        if not (float(levels[0]) < _LARGEST and float(levels[-2]) > 1 / _LARGEST):
            raise ValueError(
                f"noise levels lie between {1 / _LARGEST:g} and {_LARGEST:g}, to be squared, got "
                f"{float(levels[0]):g} down to {float(levels[-2]):g}; state images in other units"
            )
        return levels
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
    if grid == "karras":
        return karras(steps, sigma_max, sigma_min)
    if grid == "log":
        return log(steps, sigma_max, sigma_min)
    if grid == "ddpm":
        return ddpm(steps) if ladder is None else trained(steps, ladder())
    raise ValueError(
        f"unknown grid {grid!r}; choose 'karras', 'log', 'ddpm' or give the levels as a tensor"
    )


def _closed(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])
