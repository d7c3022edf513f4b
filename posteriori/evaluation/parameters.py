"""What a run says of an instrument's unknown parameters: mean, spread and an interval of each."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.run import Run

# More numbers than these are a picture, which the page shows.
MOST_NUMBERS = 16
WIDEST_LEVEL = 0.9


def told_parameters(
    run: Run, post: Posterior, reference: Tensor | None = None
) -> list[dict[str, Any]]:
    """For each number that ``Operator.told`` reads from the samples: name, mean, std, low and high,
    the ends of the central interval of ``level`` (null for one sample), and truth, where
    ``reference`` (d,) holds image and parameters. Empty for a known instrument.

    level: 0.9, and less where fewer than 19 effective samples cannot state it.
    """
    A, x = post.given.A, run.samples
    with torch.no_grad():
        told = A.told(x)
        true = (
            A.told(reference[None].to(x))
            if reference is not None and reference.shape == x.shape[1:]
            else {}
        )
    out = []
    for name, values in told.items():
        flat = values.reshape(len(x), -1).double()
        if flat.shape[1] > MOST_NUMBERS:
            continue
        own = replace(run, samples=flat, extras={})
        level = min(WIDEST_LEVEL, math.floor(100 * (own.ess - 1) / (own.ess + 1) + 1e-9) / 100)
        low, high = own.interval(level) if level > 0 else (None, None)
        for k in range(flat.shape[1]):
            out.append(
                {
                    "name": name if flat.shape[1] == 1 else f"{name}, {k + 1}",
                    "mean": float(own.mean[k]),
                    "std": float(own.std[k]),
                    "low": None if low is None else float(low[k]),
                    "high": None if high is None else float(high[k]),
                    "level": level if level > 0 else None,
                    "truth": float(true[name].flatten()[k]) if name in true else None,
                }
            )
    return out


def sentence(told: dict[str, Any]) -> str:
    """One of them for a person."""
    text = f"{told['name']}: {told['mean']:.4g}"
    if told["level"] is not None:
        text += f", {100 * told['level']:.0f} % interval {told['low']:.4g} to {told['high']:.4g}"
    return text + (f" (truth {told['truth']:.4g})" if told["truth"] is not None else "")
