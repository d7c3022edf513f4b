"""A run with everything its page needs, in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori.evaluation.images import psnr
from posteriori.evaluation.summary import summary
from posteriori.likelihood import Posterior, framed
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
    baseline_name: str = "Wiener filter",
) -> dict[str, Any]:
    """Write run.json, samples.safetensors (with the arrays for display) and summary.json; returns the summary.

    reference, baseline: images in the range of the likelihood. method: that made the run, for what is said of its steps. baseline_name:
    what made the baseline, whose PSNR is that of the summary's ``baseline``. Each file is written beside its place and renamed.
    """
    reference, baseline = (None if image is None else framed(image, post.given.frame) for image in (reference, baseline))
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
            magnitude = image.abs() if image.is_complex() else image
            extras[name] = magnitude[None] if image.is_complex() and image.ndim == 2 else magnitude
    if baseline is not None and y.is_complex():
        extras.pop("measurement", None)  # its back-projection is the baseline
    record = summary(run, post, reference, method)
    record["baseline"] = None if baseline is None else {"name": baseline_name, "psnr": _psnr(baseline, reference, record["data_range"])}
    folder = Path(folder)
    replace(run, extras=extras).save(folder)
    write_json(folder / "summary.json", record)
    return record


def _psnr(image: Tensor, reference: Tensor | None, data_range: float | None) -> float | None:
    if reference is None or data_range is None:
        return None
    a, b = (t.abs() if t.is_complex() else t for t in (image, reference))
    return float(psnr(a[None].to(b.device), b, data_range)[0])


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
