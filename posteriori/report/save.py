"""A run with everything its page needs, in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori.evaluation.summary import summary
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.operators.base import LinearOperator
from posteriori.run import Run, write_json


def save(
    run: Run,
    post: Posterior,
    folder: str | Path,
    reference: Tensor | None = None,
    baseline: Tensor | None = None,
    method: Method[Any] | None = None,
) -> dict[str, Any]:
    """Write run.json, samples.safetensors (with the arrays for display) and summary.json; returns the summary.

    reference, baseline: images in the range of the likelihood. method: that made the run, for what is said of its steps. Each file is
    written beside its place and renamed.
    """
    extras = dict(run.extras)
    y, A = post.given.y, post.given.A
    shown = _display(y, A)
    if shown is not None:
        extras["measurement"] = shown
    with torch.no_grad():
        residual = post.given.residual(run.samples[:1].to(y.device))[0].abs()
    level = post.given.noise.variance(y).sqrt()
    extras["residual"] = residual / level.clamp(min=1e-30)
    for name, image in (("reference", reference), ("baseline", baseline)):
        if image is not None:
            extras[name] = image
    record = summary(run, post, reference, method)
    folder = Path(folder)
    replace(run, extras=extras).save(folder)
    write_json(folder / "summary.json", record)
    return record


def _display(y: Tensor, A: torch.nn.Module) -> Tensor | None:
    """The measurement as a picture (C, h, w): itself when it is real and has that shape, else its back-projection when that has."""
    candidates = [] if y.is_complex() else [y]
    if isinstance(A, LinearOperator):
        with torch.no_grad():
            candidates.append(A.adjoint(y[None])[0])
    for image in candidates:
        image = image.abs() if image.is_complex() else image
        planes = image[None] if image.ndim == 2 else image
        if planes.ndim == 3 and planes.shape[0] in (1, 3):
            return planes
    return None
