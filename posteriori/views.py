"""What is kept of a measurement so that it can be looked at when operator and prior are gone:
arrays beside the samples of a run.

measurement      y as it lies before the instrument, real, (C, h, w); NaN where nothing was measured
kspace           |y| of complex measurements, root of the sum of squares over coils, (h, w); NaN
                 where nothing was measured
backprojection   A^H y, (C, H, W), where y is no picture itself
residual         |y - A x| of sample 0 over its noise level, as y lies

Of volumes each is that of the slice in the middle.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from posteriori.likelihood import Posterior, framed
from posteriori.measurements.pictures import pictured
from posteriori.operators.base import LinearOperator
from posteriori.run import Run


def viewed(run: Run, post: Posterior) -> Run:
    """The run with these arrays among its ``extras``; itself where they cannot be made, for no
    sample is lost for a picture."""
    try:
        with torch.no_grad():
            return replace(run, extras=run.extras | views(run, post))
    except Exception:  # an operator of the user's own may fail here in any way
        return run


def views(run: Run, post: Posterior) -> dict[str, Tensor]:
    y, A = post.given.y, post.given.A
    lies = _middle(A.layout(y), post)
    seen: dict[str, Tensor] = {}
    if lies.is_complex() and lies.ndim >= 2:
        seen["kspace"] = (
            lies.abs().square().flatten(0, -3).sum(0).sqrt() if lies.ndim > 2 else lies.abs()
        )
    elif not lies.is_complex() and pictured(lies) is not None:
        seen["measurement"] = lies if lies.ndim == 3 else lies[None]
    if "measurement" not in seen and isinstance(A, LinearOperator):
        back = _middle(A.adjoint(y[None])[0], post)
        flat = pictured(framed(back, post.given.frame))
        if flat is not None:
            seen["backprojection"] = flat
    if post.given.noise.std != 0:
        level = post.given.noise.variance(y).sqrt().clamp(min=1e-30)
        rest = post.given.residual(run.samples[:1].to(y.device))[0].abs() / level
        seen["residual"] = _middle(A.layout(rest), post)
    return {name: array.cpu() for name, array in seen.items()}


def _middle(x: Tensor, post: Posterior) -> Tensor:
    """Of something of volumes (D, C, H, W), slices first, the slice in the middle."""
    return x[len(x) // 2] if len(post.shape) == 4 and x.ndim > 2 else x
