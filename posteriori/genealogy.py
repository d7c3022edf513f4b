"""How many independent samples a cloud of particles is: from how many ancestors its samples
descend, and how few particles have carried it.

    ancestors  distinct particles at the first level that matters (``particles.near``) from which
               the samples descend
    carried    sum(w)^2 / sum(w^2) of a cloud at its worst step from that level on; the median over
               clouds

A cloud has degenerated when its samples descend from at most a quarter as many ancestors; when an
eighth of its particles, or 1.25, have carried it, what is left of it is biased however many samples
are drawn, and however many clouds.
"""

from __future__ import annotations

from typing import Any

import torch

from posteriori.likelihood import Posterior
from posteriori.methods.smc import particles
from posteriori.run import Run

# Clouds that are resampled at half of their particles keep more lines, and more weight, than this
# for as long as the weights are sound.
LINES, SHARE, LEAST = 0.25, 0.125, 1.25


def genealogy_of(run: Run, post: Posterior) -> dict[str, Any] | None:
    """What became of the clouds of a run, as plain JSON values; None for a method without clouds.

    samples: the finished ones. ancestors: how many distinct particles they descend from at most, at
    ``step``, the first whose noise ``level`` (in the prior's coordinates) is at or below the
    prior's width, see ``particles.near``; samples that are copies of one another count once.
    particles: of a cloud. carried, worst: see the module, and the step of the worst cloud.
    lowest_ess: the smallest share of effective particles of any cloud at any step. resamplings: of
    a cloud, on average.
    """
    settings, trace, samples = run.config.get("settings", {}), run.trace, run.samples
    size = int(settings.get("particles", 1))
    if size < 2 or "ancestors" not in trace:
        return None
    levels, ok = run.config["levels"], torch.tensor([status.ok for status in run.status])
    last, ess = trace["ancestors"][-1][ok], trace["ess"][:, ok]
    cloud = (torch.arange(len(ok)) // (1 if settings.get("single") else size))[ok]
    heads = torch.cat([torch.ones(1, dtype=torch.bool), cloud.diff() != 0])
    # A cloud of which fewer samples were asked for than it has particles cannot give more lines
    # than samples.
    lines = torch.minimum(last[heads].long(), cloud.unique_consecutive(return_counts=True)[1])
    step = next(
        (k for k, level in enumerate(levels[:-1]) if particles.near(post, level)), len(levels) - 2
    )
    lowest, at = ess[step:, heads].min(0)
    # What a power of the weights left to be taken back soon costs nothing: see
    # ``particles.resample``.
    carried = float(lowest.median()) if settings.get("power", 1.0) == 1.0 else 1.0
    resampled = (ess < settings["share"]) | (settings["share"] >= 1)
    return {
        "samples": len(samples),
        "ancestors": min(int(lines.sum()), len(samples.flatten(1).unique(dim=0))),
        "step": step,
        "level": float(levels[step]),
        "particles": size,
        "carried": size * carried,
        "worst": step + int(at[lowest.argmin()]),
        "lowest_ess": float(ess.min()),
        "resamplings": float(resampled[:, heads].sum(0).double().mean()),
    }


def remarks(cloud: dict[str, Any] | None) -> list[str]:
    """What a person should know of a record of ``genealogy`` before believing the samples: nothing
    of a sound cloud."""
    if cloud is None:
        return []
    out, n, k = [], cloud["samples"], cloud["ancestors"]
    if n > 1 and k <= LINES * n:
        out.append(
            f"{n} samples descend from {k} distinct ancestor{'s' if k > 1 else ''} "
            f"at step {cloud['step']} (noise level {cloud['level']:.3g}): "
            f"treat them as {k} sample{'s' if k > 1 else ''}; their spread is too small. "
            "Use more particles, or several clouds (single=True)."
        )
    if cloud["carried"] <= max(SHARE * cloud["particles"], LEAST):
        out.append(
            f"The {cloud['particles']} particles of a cloud have counted as {cloud['carried']:.1f} "
            f"at their worst step ({cloud['worst']}): the samples are biased towards the prior. "
            "Either y surprises it, or particles or steps are too few; "
            "use more, or a method that y guides better."
        )
    return out
