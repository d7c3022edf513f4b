"""A run with everything its page needs, in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from posteriori.evaluation.images import psnr
from posteriori.evaluation.summary import summary
from posteriori.likelihood import Posterior, framed
from posteriori.methods.base import Method
from posteriori.run import Run, write_json
from posteriori.views import viewed


def save(
    run: Run,
    post: Posterior,
    folder: str | Path,
    reference: Tensor | None = None,
    baseline: Tensor | None = None,
    method: Method[Any] | None = None,
    baseline_name: str = "Wiener filter",
) -> dict[str, Any]:
    """Write run.json, samples.safetensors (with the arrays for display) and summary.json; returns
    the summary.

    reference, baseline: images in the range of the likelihood. method: that made the run, for what
    is said of its steps. baseline_name: what made the baseline, whose PSNR is that of the summary's
    ``baseline``. Each file is written beside its place and renamed.
    """
    reference, baseline = (
        None if image is None else framed(image, post.given.frame)
        for image in (reference, baseline)
    )
    extras = dict(viewed(run, post).extras)
    for name, image in (("reference", reference), ("baseline", baseline)):
        # Of several parts the page takes each one's own from an array of all.
        if image is not None and (not run.parts or image.shape == run.samples.shape[1:]):
            magnitude = image.abs() if image.is_complex() else image
            extras[name] = magnitude[None] if image.is_complex() and image.ndim == 2 else magnitude
    if baseline is not None:
        extras.pop("backprojection", None)  # what is usual says more
    record = summary(run, post, reference, method)
    record["baseline"] = (
        None
        if baseline is None
        else {"name": baseline_name, "psnr": _psnr(baseline, reference, record["data_range"])}
    )
    folder = Path(folder)
    replace(run, extras=extras).save(folder)
    write_json(folder / "summary.json", record)
    return record


def _psnr(image: Tensor, reference: Tensor | None, data_range: float | None) -> float | None:
    if reference is None or data_range is None:
        return None
    a, b = (t.abs() if t.is_complex() else t for t in (image, reference))
    return float(psnr(a[None].to(b.device), b, data_range)[0])
