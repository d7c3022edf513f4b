"""How many independent samples a cloud of particles is: from how many ancestors, at the first level that matters, its samples descend."""

from __future__ import annotations

from typing import Any

import torch

from posteriori.likelihood import Posterior
from posteriori.methods import clouds
from posteriori.run import Run


def lineage(run: Run, post: Posterior) -> dict[str, Any] | None:
    """What became of the clouds of a run, as plain JSON values; None when its samples are not several of each cloud.

    samples: the finished ones. ancestors: how many distinct particles they descend from at most, at ``step``, the first whose noise
    ``level`` (in the prior's coordinates) is at or below the prior's width, see ``clouds.near``; samples that are copies of one another
    count once. lowest_ess: the smallest share of effective particles of any cloud at any step. resamplings: of a cloud, on average.
    """
    settings = run.config.get("settings", {})
    size = int(settings.get("particles", 1))
    if size < 2 or settings.get("single") or "ancestors" not in run.trace:
        return None
    ok = torch.tensor([status.ok for status in run.status])
    last, ess = run.trace["ancestors"][-1][ok], run.trace["ess"][:, ok]
    cloud = (torch.arange(len(ok)) // size)[ok]
    heads = torch.cat([torch.ones(1, dtype=torch.bool), cloud.diff() != 0])
    # A cloud of which fewer samples were asked for than it has particles cannot give more lines than samples.
    lines = torch.minimum(last[heads].long(), cloud.unique_consecutive(return_counts=True)[1])
    levels = run.config["levels"][:-1]
    step = next((k for k, level in enumerate(levels) if clouds.near(post, level)), len(levels) - 1)
    return {
        "samples": len(run.samples),
        "ancestors": min(int(lines.sum()), len(run.samples.flatten(1).unique(dim=0))),
        "step": step,
        "level": float(levels[step]),
        "lowest_ess": float(ess.min()),
        "resamplings": float(((ess < settings["share"]) | (settings["share"] >= 1))[:, heads].sum(0).double().mean()),
    }
