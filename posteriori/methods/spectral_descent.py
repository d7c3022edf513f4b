"""Minimisation row by row from values and gradients alone: what a draw for a curved operator needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.linalg import dot, per_row

Both = Callable[[Tensor], tuple[Tensor, Tensor]]


def minimise(cost: Both, x: Tensor, iterations: int, rtol: float = 1e-6) -> Tensor:
    """The best of ``iterations`` points of gradient descent, row by row, with spectral step lengths and a safeguard.

    A step that does not undercut the worst of the last eight costs is shortened to a quarter. A row stops when its gradient has fallen to
    ``rtol`` of the first one.
    Source: Raydan, The Barzilai and Borwein gradient method for the large scale unconstrained minimization problem, 1997.
    """
    value, g = cost(x)
    gg = dot(g, g)
    stop, live = rtol**2 * gg, gg > 0
    # A first length from the curvature along the first gradient.
    near = 1e-3 / gg.sqrt().clamp(min=1e-30)
    bend = dot(g, g - cost(x - per_row(near, g).to(g.dtype) * g)[1]) / near
    t = torch.where(bend > 0, gg / torch.where(bend > 0, bend, 1.0), 1e-3)
    recent, best, lowest = deque([value], maxlen=8), x, value
    for _ in range(iterations):
        if not bool(live.any()):
            break
        ahead = x - per_row(t, g).to(g.dtype) * g
        new, slope = cost(ahead)
        good = live & (new <= torch.stack(tuple(recent)).amax(0) - 1e-4 * t * gg)
        turn = slope - g
        along, twist = -t * dot(g, turn), dot(turn, turn)
        length = torch.where(along > 0, along / torch.where(twist > 0, twist, 1.0), 2 * t)
        t = torch.where(good, length, t / 4)
        x, g = torch.where(per_row(good, x), ahead, x), torch.where(per_row(good, g), slope, g)
        value = torch.where(good, new, value)
        gg = dot(g, g)
        recent.append(value)
        better = value < lowest
        best, lowest = torch.where(per_row(better, x), x, best), torch.where(better, value, lowest)
        live = live & (gg > stop)
    return best
