"""What a run was started with: everything that tells two runs apart, and what is said when they are
not the same."""

from __future__ import annotations

import json
import math
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori import identity
from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Method, method_settings

# What may differ between a run and its completion: it does not enter the samples, or follows from
# the rest.
FREE_SETTINGS = ("threads", "levels", "grid", "pilot", "published")

_version = cache(version)  # it reads and parses a file, which takes longer than a step


def describe(
    post: Posterior,
    method: Method[Any],
    *,
    n: int,
    first: int,
    seed: int,
    steps: int,
    antithetic: bool = False,
) -> dict[str, Any]:
    """Plain JSON values. ``identity`` holds what prior, operator, noise, measurement and method are
    by content."""
    given, inner = post.given, post.likelihood
    framed = {} if given.frame is None else {"frame": [list(span) for span in given.frame]}
    paired = {"antithetic": True} if antithetic else {}
    return (
        framed
        | paired
        | _parts(post)
        | {
            "method": type(method).__name__,
            "settings": method_settings(method),
            "prior": type(post.prior).__name__,
            "prior_range": post.prior.range,
            "operator": type(given.A).__name__,
            "image_shape": list(given.A.in_shape),
            "measurement_shape": list(given.y.shape),
            "range": given.range,
            "noise": {"law": type(given.noise).__name__, **given.noise.levels},
            "noise_std_in_prior_range": inner.noise.std,
            "identity": {
                "method": identity.content(method),
                "prior": post.prior.record(),
                "operator": given.A.record(),
                "noise": given.noise.record(),
                "y": identity.content(given.y),
            },
            "n": n,
            "first": first,
            "seed": seed,
            "steps": steps,
            "published": courses.course_record(method),
            "dtype": str(given.y.dtype).removeprefix("torch."),
            "device": str(given.y.device),
            "versions": {
                "posteriori": _version("posteriori"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
        }
    )


def _parts(post: Posterior) -> dict[str, Any]:
    """Shape and range of each tensor, where an image is several of them in one vector."""
    shapes, ranges = post.chart.shapes, post.chart.ranges
    if shapes is None or ranges is None:
        return {}
    told = {name: {"shape": list(shape), "range": ranges[name]} for name, shape in shapes.items()}
    return {"parts": told}


def check_same(then: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise ``ValueError`` naming where the configuration of a stored run differs from the one
    asked for."""
    asked = {
        name: value
        for name, value in json.loads(json.dumps(now)).items()
        if name not in FREE_SETTINGS
    }
    stored = {name: value for name, value in then.items() if name not in FREE_SETTINGS}
    # What is said of prior, operator and method elsewhere is said again, in full, by their
    # identity.
    found = list(identity.changes(stored, asked))
    if found:
        plain = [line.removeprefix("identity.") for line in found]
        raise ValueError(
            f"the run in {folder} was started with other settings, "
            f"so it cannot be resumed ({'; '.join(plain)[:600]})"
        )


def make_levels(
    post: Posterior, method: Method[Any], steps: int, grid: grids.GridName | Tensor | None
) -> tuple[Tensor, grids.GridName | Tensor | None]:
    """The levels of a run, and what they were made from: None when they are the method's own."""
    device = post.likelihood.y.device
    if grid is None:
        own = method.levels(post, steps)
        if own is not None:
            return own.to(device), None
        grid = "karras"
    return grids.make(
        grid, steps, post.prior.sigma_max, post.prior.sigma_min, post.prior.know().ladder
    ).to(device), grid


def batch_rows(post: Posterior, method: Method[Any], n: int) -> int:
    """Rows whose images hold about a million numbers together: large batches gain nothing beyond,
    and cost memory."""
    largest = max(math.prod(post.shape), math.prod(post.given.A.in_shape))
    return min(-(-n // method.returned) * method.group, max(1, 2**20 // largest))
