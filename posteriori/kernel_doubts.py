"""What is suspicious of the blur kernels that a blind run has found: a point, a wrong sum, a kernel
that has drifted to its border, one beside which others explain y far better."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posteriori.kernel_evidence import kernel_gain
from posteriori.likelihood import Posterior
from posteriori.run import Run

# Mass of one tap above which a kernel is a point.
POINT = 0.9
# By how much the sum of a kernel may differ from 1.
SUM = 0.25
# Share of the half side that the centre of mass may lie off the middle.
DRIFT = 0.6
# What log p(y | kernel) may gain near a kernel, in nats per number of y; how often it is passed is
# in docs/results/blind.md.
GAIN = 0.02


def kernel_facts(run: Run, post: Posterior) -> dict[str, float | None] | None:
    """Of the mean kernel of a run with a part "kernel" (kh, kw): the mass of its largest tap, its
    sum, how far its centre of mass lies off the middle as a share of half a side, and what y gains
    by another kernel near it (None where that is not known, see ``kernel_evidence``). None for
    other runs."""
    part = run.parts.get("kernel")
    if part is None or part.samples.ndim != 3 or part.samples.is_complex():
        return None
    k = part.mean.double()
    mass = k.abs() / k.abs().sum().clamp(min=1e-30)
    return {
        "point": float(mass.max()),
        "sum": float(k.sum()),
        "drift": _drift(mass),
        "gain": kernel_gain(run, post),
    }


def _drift(mass: Tensor) -> float:
    far = 0.0
    for axis, n in enumerate(mass.shape):
        t = torch.arange(n, dtype=mass.dtype) - n // 2
        off = float((mass.sum(1 - axis) * t).sum())
        far = max(far, abs(off) / max((n - 1) / 2, 1.0))
    return far


def kernel_remarks(facts: dict[str, Any] | None) -> list[str]:
    """Sentences about these; none where nothing stands out."""
    if facts is None:
        return []
    out = []
    if facts["point"] > POINT:
        out.append(
            f"The kernel is a point: {100 * facts['point']:.0f} % of it lies in one tap, so that "
            f"the image itself is as blurred as y. Unless y is sharp, state a belief that excludes "
            f"points, or start from a wider kernel."
        )
    if abs(facts["sum"] - 1) > SUM:
        out.append(
            f"The taps of the kernel sum to {facts['sum']:.2f}, not 1: image and kernel have "
            f"traded brightness. A belief that fixes the sum, such as priors.kernel_family, "
            f"prevents it."
        )
    if facts["drift"] > DRIFT:
        out.append(
            f"The kernel has drifted: its centre of mass lies {100 * facts['drift']:.0f} % of the "
            f"way from its middle to its border, and the image is shifted as far the other way."
        )
    if (facts.get("gain") or 0.0) > GAIN:
        out.append(
            f"The kernel is an unlikely one: beside it are others that explain y better by "
            f"{facts['gain']:.3f} nats per number, beside most right ones by less than {GAIN}. "
            f"Image and kernel may be a wrong pair that meets y: look at the image for ringing."
        )
    return out
