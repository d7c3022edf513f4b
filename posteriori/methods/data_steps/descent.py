"""Least squares ||y - f(x)||^2 by descent, every row by itself, ended where the residual is as
large as the noise.

A row stops where ||y - f(x)||^2 first equals ``floor``: the step that would cross it is shortened
on the line between the two residuals (exact for an affine f). With floor = m sigma_y^2 no row fits
the noise of y; with floor = 0 rows go on to the least squares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from posteriori.linalg import dot, per_row
from posteriori.methods.data_steps.misfit import Misfit, crossing, safe_ratio
from posteriori.settings import Checked, Positive


class Descent(Protocol):
    def __call__(self, fit: Misfit, x: Tensor, steps: int, floor: float) -> Tensor: ...


def _walk(
    fit: Misfit, x: Tensor, steps: int, floor: float, move: Callable[[int, Tensor], Tensor]
) -> Tensor:
    """x + move + move + ...

    ``move`` takes the number of the step and the slope -d/dx ||y - f(x)||^2 / 2.
    """
    clean, pull, _ = fit.f(x)
    r = fit.y - clean
    live = dot(r, r) > floor
    for k in range(steps):
        if not bool(live.any()):
            break
        step = torch.where(per_row(live, x), move(k, pull(r)), 0.0)
        clean, pull, _ = fit.f(x + step)
        ahead = fit.y - clean
        crossed = live & (dot(ahead, ahead) <= floor)
        x = x + per_row(torch.where(crossed, crossing(r, ahead, floor), 1.0), x) * step
        r, live = ahead, live & ~crossed
    return x


@dataclass(frozen=True)
class HeavyBall(metaclass=Checked):
    """Gradient descent with momentum.

    rate: the share of 1 / ||df/dx||^2; > 0, stable below 2 (1 + momentum).
    momentum: in [0, 1).

    Raises ``ValueError`` outside of these.
    """

    rate: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.momentum < 1 and 0 < self.rate < 2 * (1 + self.momentum)):
            raise ValueError(
                f"HeavyBall: expected 0 <= momentum < 1 and 0 < rate < 2 (1 + momentum), got "
                f"{self.momentum} and {self.rate}"
            )

    def __call__(self, fit: Misfit, x: Tensor, steps: int, floor: float) -> Tensor:
        curvature, speed = fit.curvature(x), torch.zeros_like(x)
        h = per_row(safe_ratio(torch.full_like(curvature, self.rate), curvature), x)

        def move(k: int, slope: Tensor) -> Tensor:
            nonlocal speed
            speed = self.momentum * speed + slope
            return h * speed

        return _walk(fit, x, steps, floor, move)


@dataclass(frozen=True)
class Adam(metaclass=Checked):
    """Adam with decays 0.9 and 0.999 and no weight decay.

    rate: > 0; ``rate`` times ``fit.unit`` is its step.

    Reference: Kingma, Ba, Adam: a method for stochastic optimization, 2015, algorithm 1.
    """

    rate: Positive = 0.01

    def __call__(self, fit: Misfit, x: Tensor, steps: int, floor: float) -> Tensor:
        mean, square = torch.zeros_like(x), x.abs() * 0

        def move(k: int, slope: Tensor) -> Tensor:
            nonlocal mean, square
            mean = torch.lerp(slope, mean, 0.9)
            square = torch.lerp(slope.abs().square(), square, 0.999)
            root = (square / (1 - 0.999 ** (k + 1))).sqrt()
            # The usual 1e-8 depends on the unit of y, and in single precision lets rounding errors
            # move a number by the full rate.
            least = (
                torch.finfo(root.dtype).eps ** 0.5 * root.flatten(1).square().mean(1).sqrt() + 1e-30
            )
            return (
                self.rate * fit.unit * (mean / (1 - 0.9 ** (k + 1))) / (root + per_row(least, root))
            )

        return _walk(fit, x, steps, floor, move)


@dataclass(frozen=True)
class Conjugate(metaclass=Checked):
    """Conjugate gradients (Polak and Ribiere's, restarted at negative weights), each step as long
    as the linearised misfit says.

    No step size to choose. For an affine f it is the method for linear least squares: from x to the
    nearest minimiser in at most m steps. A step that does not lower the misfit is not taken; the
    row goes on downhill with half its length.
    """

    def __call__(self, fit: Misfit, x: Tensor, steps: int, floor: float) -> Tensor:
        clean, pull, push = fit.f(x)
        r = fit.y - clean
        g = d = pull(r)
        live, share = dot(r, r) > floor, torch.ones_like(dot(r, r))
        for _ in range(steps):
            if not bool(live.any()):
                break
            q = push(d)
            step = torch.where(
                per_row(live, x), per_row(share * safe_ratio(dot(r, q), dot(q, q)), d) * d, 0.0
            )
            clean, pull, push = fit.f(x + step)
            ahead = fit.y - clean
            better = live & (dot(ahead, ahead) < dot(r, r))
            crossed = better & (dot(ahead, ahead) <= floor)
            x = (
                x
                + per_row(torch.where(crossed, crossing(r, ahead, floor), better.to(share)), x)
                * step
            )
            share = torch.where(better, (2 * share).clamp(max=1), share / 2)
            live = live & ~crossed & (share > 1e-3)
            if bool((live & ~better).any()):
                clean, pull, push = fit.f(x)
                ahead = fit.y - clean
            slope = pull(ahead)
            turn = torch.where(better, safe_ratio(dot(slope, slope - g), dot(g, g)), 0.0).clamp(
                min=0
            )
            r, g, d = ahead, slope, slope + per_row(turn, d) * d
        return x
