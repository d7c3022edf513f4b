"""The two ADM networks that most papers of the field use, at full size: time and memory of loading
one and of DPS as published, 256 x 256, on random weights.

    python benchmarks/adm.py [--networks FFHQ-256 ImageNet-256] [--steps 3]

The weights are random, written to a file as a training would (names and shapes of the published
file, float32) and read from it by ``priors.load``, which recognises the network by its shapes. Each
network has a process of its own for writing and one for reading; printed are the file's size, the
seconds of loading, those of a step (one evaluation and one derivative of the network at batch 1),
and the peak resident memory of the process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import posteriori as po
from posteriori.priors.architectures.adm import ADM

ARGUMENTS = {
    "FFHQ-256": {"width": 128, "blocks": 1, "attention": (16,)},
    "ImageNet-256": {"width": 256, "blocks": 2, "attention": (8, 16, 32)},
}


def write(name: str, file: Path) -> None:
    """A file of random weights: each tensor of variance 1 / fan-in, biases 0."""
    with torch.device("meta"):
        shapes = ADM(head_channels=64, **ARGUMENTS[name]).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, tensor in shapes.items():
        if tensor.ndim == 1:
            state[key] = torch.full(tensor.shape, float(key.endswith("weight")))
        else:
            noise = torch.randn(tensor.shape, generator=generator)
            state[key] = noise.mul_(tensor[0].numel() ** -0.5)
    torch.save(state, file)


def run(file: Path, steps: int) -> str:
    """One row of the table."""
    start = time.perf_counter()
    prior = po.priors.load(file)
    loading = time.perf_counter() - start
    A = po.operators.Blur(
        po.operators.gaussian_kernel(3.0), (3, 256, 256), boundary="circular"
    )  # fmt: skip
    noise = po.noise.Gaussian(0.05)
    y = noise.sample(torch.zeros(1, 3, 256, 256), po.rng.Streams(1, [0]))[0]
    post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(-1, 1)))
    start = time.perf_counter()
    result = po.sample(post, po.methods.DPS.published(), n=1, steps=steps, seed=0, progress=False)
    seconds = (time.perf_counter() - start) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size, count = file.stat().st_size / 1e9, sum(p.numel() for p in prior.parameters()) / 1e6
    return (
        f"{count:8.1f} M {size:8.2f} GB {loading:8.1f} s {seconds:8.1f} s/step {peak:8.2f} GiB  "
        f"{result.status}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="*", default=list(ARGUMENTS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--write", nargs=2)
    parser.add_argument("--read")
    args = parser.parse_args()
    if args.write:
        write(args.write[0], Path(args.write[1]))
    elif args.read:
        print(run(Path(args.read), args.steps), flush=True)
    else:
        print(f"{torch.get_num_threads()} threads; parameters, file, loading, a step, peak memory")
        for name in args.networks:
            with tempfile.TemporaryDirectory() as folder:
                file = str(Path(folder) / "weights.pt")
                own = [sys.executable, __file__]
                subprocess.run([*own, "--write", name, file], check=True)
                print(f"{name:14}", end="", flush=True)
                subprocess.run([*own, "--read", file, "--steps", str(args.steps)], check=True)


if __name__ == "__main__":
    main()
