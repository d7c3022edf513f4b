"""What a cloud of images costs in memory: 256 particles of 3x64x64, two levels, all at once and by
the default ``chunk``.

    python benchmarks/memory.py [--prior conv | photos] [--particles 256]
        [--methods Bootstrap TDS ...]

Each run has a process of its own; printed is by how much its peak resident memory grew during the
run, in MiB, beside that of one batch of the cloud's images. "conv" is a network of two convolutions
with 32 channels, whose graph holds about 22 numbers for each of an image's; "photos" the shipped
prior, with several hundred: 256 images at once then need 6 GiB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import torch
from torch import nn

import posteriori as po
from posteriori.methods import DDSMC, FPS, TDS, Bootstrap, MCGDiff, MomentSMC, SMCDiff
from posteriori.priors.base import Prior

SIZE = (3, 64, 64)
METHODS = {
    "Bootstrap": lambda n, chunk: Bootstrap(n, chunk=chunk),
    "TDS": lambda n, chunk: TDS(n, "pigdm", chunk=chunk),
    "TDS moments": lambda n, chunk: TDS(n, "moments", chunk=chunk),
    "DDSMC": lambda n, chunk: DDSMC(n, chunk=chunk),
    "MCGDiff": lambda n, chunk: MCGDiff(n, chunk=chunk),
    "FPS": lambda n, chunk: FPS(n, chunk=chunk),
    "SMCDiff": lambda n, chunk: SMCDiff(n, chunk=chunk),
    "MomentSMC": lambda n, chunk: MomentSMC(n, solves=1, roots=2, chunk=chunk),
}


class Conv(Prior):
    """Two 3x3 convolutions with 32 channels."""

    def __init__(self) -> None:
        super().__init__(SIZE, variance=0.25, sigma_max=20.0, sigma_min=0.01, max_std=5.0)
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 3, 3, padding=1)
        ).requires_grad_(False)

    def denoise(self, x, sigma):
        c = 0.25 / (0.25 + sigma**2)
        return c * x + 0.1 * (1 - c) * self.net(x / (0.25 + sigma**2).sqrt())


def peak() -> float:
    """Peak resident memory of this process in MiB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(name: str, prior: Prior, particles: int, chunk: int | None) -> float:
    """MiB by which the peak grows during one run; a run of one row at a time before it has loaded
    what is loaded once."""
    seen = torch.zeros(SIZE, dtype=torch.bool)
    seen[0, 10, 20] = seen[2, 40, 50] = True
    post = po.Posterior(
        prior,
        po.Likelihood(torch.tensor([0.3, -0.2]), po.operators.Mask(seen), po.noise.Gaussian(0.2)),
    )
    levels = torch.tensor([1.0, 0.5, 0.0])
    po.sample(post, METHODS[name](2, 1), n=2, grid=levels)
    before = peak()
    po.sample(post, METHODS[name](particles, chunk), n=particles, grid=levels)
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", choices=["conv", "photos"], default="conv")
    parser.add_argument("--particles", type=int, default=256)
    parser.add_argument("--methods", nargs="*", default=[*METHODS], choices=[*METHODS])
    parser.add_argument(
        "--one", choices=["whole", "chunks"], help="measure one method in this process"
    )
    args = parser.parse_args()
    if args.one:
        prior = po.priors.photos() if args.prior == "photos" else Conv()
        print(
            growth(
                args.methods[0],
                prior,
                args.particles,
                args.particles if args.one == "whole" else None,
            )
        )
        return
    print(
        f"images of the cloud: {args.particles * 3 * 64 * 64 * 4 / 2**20:.0f} MiB\n"
        f"{'method':12} {'at once':>9} {'chunks':>9}"
    )
    for name in args.methods:
        command = [
            sys.executable,
            __file__,
            "--prior",
            args.prior,
            "--particles",
            str(args.particles),
            "--methods",
            name,
            "--one",
        ]
        found = [
            subprocess.run([*command, way], check=True, capture_output=True, text=True).stdout
            for way in ("whole", "chunks")
        ]
        print(f"{name:12} {float(found[0]):9.0f} {float(found[1]):9.0f}", flush=True)


if __name__ == "__main__":
    main()
