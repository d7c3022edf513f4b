"""What a person should look at before believing a run, as plain sentences."""

from __future__ import annotations

import math
from typing import Any

from posteriori.methods.evidence import GAP

SPECKLE = 0.002
# Clouds that are resampled at half of their particles keep more lines than this for as long as the weights are sound.
LINES = 0.25


def flags(record: dict[str, Any], measured: int, numbers: int) -> list[str]:
    """The sentences for a record of ``summary``, none when nothing stands out.

    measured: real numbers in y. numbers: real numbers in one image.
    """
    found = [*_ended(record), *_lines(record), *_lost(record), *_fit(record, measured), *_looks(record), *_spread(record, numbers)]
    return [sentence for sentence in found if sentence]


def _ended(record: dict[str, Any]) -> list[str]:
    out = []
    if record["diverged"]:
        out.append(f"{record['diverged']} of {record['n']} rows diverged and are left out: {record['first_failure']}.")
    if record["finished"] > 1 and record["effective_samples"] < 2:
        out.append(
            f"The weights have collapsed: {record['finished']} samples count as {record['effective_samples']:.1f}; "
            "use more particles, or a larger noise level."
        )
    return out


def _lines(record: dict[str, Any]) -> list[str]:
    """A cloud has degenerated when its samples descend from at most a quarter as many ancestors."""
    cloud = record["cloud"]
    if cloud is None or cloud["ancestors"] > LINES * cloud["samples"]:
        return []
    n, k = cloud["samples"], cloud["ancestors"]
    return [
        f"{n} samples descend from {k} distinct ancestor{'s' if k > 1 else ''} at step {cloud['step']} (noise level {cloud['level']:.3g}): "
        f"treat them as {k} sample{'s' if k > 1 else ''}; their spread is too small. Use more particles, or several clouds (single=True)."
    ]


def _lost(record: dict[str, Any]) -> list[str]:
    gap = record["evidence_gap"]
    if gap is None or gap <= GAP:
        return []
    return [
        f"The evidence bound of the fit lies {gap:.2f} below the evidence, as if modes of {100 * (1 - math.exp(-gap)):.0f} % of "
        "the posterior were lost: use more updates, annealing or a wider family; weights do not bring back what the fit has lost."
    ]


def _fit(record: dict[str, Any], measured: int) -> list[str]:
    """chi2 is 1 on average and scatters by sqrt(2 / m): few measurements are given more room than [0.5, 2]."""
    chi2 = record["chi2_samples"]
    if chi2 is None:
        return []
    room = 4 * math.sqrt(2 / measured)
    if chi2 > max(2.0, 1 + room):
        return [
            f"The residual is {math.sqrt(chi2):.1f} times the stated noise: is the noise level in the right unit, and is A the operator "
            "that made this measurement?"
        ]
    if chi2 < min(0.5, 1 - room):
        return [
            f"The residual is only {math.sqrt(chi2):.2f} times the stated noise: the samples reproduce the noise, or the noise level is "
            "stated too high."
        ]
    return []


def _looks(record: dict[str, Any]) -> list[str]:
    out = []
    if record["speckle"] is not None and record["speckle"] > SPECKLE:
        out.append(
            f"{100 * record['speckle']:.1f} % of the pixels stick out of all their neighbours (salt-and-pepper speckle): look at a sample "
            "at full size, whatever its PSNR."
        )
    if record["outside_range"] is not None and record["outside_range"] > 0.05:
        low, high = record["range"]
        out.append(
            f"{100 * record['outside_range']:.0f} % of the values lie over a tenth of the range outside the stated [{low:g}, {high:g}]: "
            "is the range right?"
        )
    return out


def _spread(record: dict[str, Any], numbers: int) -> list[str]:
    if record["spread"] is not None and record["spread"] <= 1e-6 * record["scale"]:
        return ["All samples are the same: this run is a point estimate, its spread says nothing about uncertainty."]
    # A share over few numbers scatters by itself, and neighbouring pixels are not independent.
    if record["coverage"] is None or numbers < 50:
        return []
    widest = record["coverage"][-1]
    nominal, covered = widest["nominal"], widest["covered"]
    said = f"The {100 * nominal:.0f} % intervals hold {100 * covered:.0f} % of the reference"
    if covered < nominal - 0.15:
        return [f"{said}: the samples are under-dispersed, or biased."]
    if covered > nominal + 0.6 * (1 - nominal) and nominal < 0.97:
        return [f"{said}: the samples are over-dispersed."]
    return []
