"""How much memory a volume of slices takes beside what it takes to start: D and J^T u of the chest
CT prior on 16 and 64 slices, a few at a time, and on 16 at once. Each in a process of its own.

    python benchmarks/volume_memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys

import torch

import posteriori as po


def child(depth: int, at_once: int) -> None:
    prior = po.priors.Slices(po.priors.chest_ct(), depth, at_once=at_once)
    x, sigma = torch.randn(1, depth, 1, 128, 128), torch.tensor(0.3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, pull = prior.linearize(x, sigma)
    pull(x)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{depth} slices, {at_once} at once: {(after - before) / 1024:.0f} MiB more", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(int(sys.argv[1]), int(sys.argv[2]))
    else:
        for case in (("16", "4"), ("64", "4"), ("16", "16")):
            subprocess.run([sys.executable, __file__, *case], check=True)
