"""One run made of several that drew its samples in parts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from posteriori import identity
from posteriori.run import Run


def merged(runs: Sequence[Run]) -> Run:
    """See ``Run.merge``."""
    runs = sorted(runs, key=lambda run: run.config["first"])
    if not runs:
        raise ValueError("there is no run to merge")
    free = ("first", "n", "threads", "seconds")
    for run in runs[1:]:
        told = [
            {key: value for key, value in r.config.items() if key not in free}
            for r in (runs[0], run)
        ]
        different = list(
            identity.changes(json.loads(json.dumps(told[0])), json.loads(json.dumps(told[1])))
        )
        if different:
            raise ValueError(f"these are not parts of one run ({'; '.join(different)[:600]})")
    for run, after in pairwise(runs):
        end = run.config["first"] + run.config["n"]
        if end != after.config["first"]:
            raise ValueError(
                f"samples {end} to {after.config['first'] - 1} are missing"
                if end < after.config["first"]
                else f"sample {after.config['first']} is there twice"
            )
    total, clouds = sum(len(run.status) for run in runs), sum(run.clouds for run in runs)
    counts = {
        kind: sum(run.counts[kind] * len(run.status) for run in runs) / total
        for kind in runs[0].counts
    }
    parts = [
        run.log_evidence + math.log(run.clouds)
        for run in runs
        if run.log_evidence is not None and run.clouds
    ]
    evidence = None
    if parts:
        together = torch.tensor(parts, dtype=torch.float64).logsumexp(0)
        evidence = float(together) - math.log(clouds)
    return Run(
        samples=torch.cat([run.samples for run in runs]),
        log_w=torch.cat([run.log_w for run in runs]),
        log_evidence=evidence,
        status=tuple(status for run in runs for status in run.status),
        counts={
            kind: int(count) if count == int(count) else count for kind, count in counts.items()
        },
        trace={name: torch.cat([run.trace[name] for run in runs], 1) for name in runs[0].trace},
        seconds=sum(run.seconds for run in runs),
        config=runs[0].config | {"n": total},
        references=runs[0].references,
        clouds=clouds,
    )
