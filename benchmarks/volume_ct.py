"""Sparse-view tomography of a volume by the chest CT prior of slices: how rough it is from slice to
slice, and what a run takes beside the same solver run slice by slice.

    python benchmarks/volume_ct.py quality --out docs/results/volume-ct.json
    python benchmarks/volume_ct.py cost --out docs/results/volume-ct.json

The volume is drawn here: 64 slices of 128 x 128, 5 mm apart, of ellipsoids in Hounsfield units.
Noise and pixels are those of benchmarks/chest_ct.py, 20 angles. ``cost`` runs each case in a
process of its own, one after the other, in turns: "volume" is one row of 64 slices, "loop" a call
of ``sample`` for each slice, "batch" one call of ``sample_each`` for all of them in one batch.
Time is that of the processor, on one thread; memory the peak of the process less that before the
run.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posteriori as po
from posteriori.evaluation import psnr

WATER, PIXEL_MM, SLICE_MM, NOISE, ANGLES, AT_ONCE = 0.0195, 2.9, 5.0, 0.01, 20, 2
RANGE = (0.0, WATER * 2.5)
HU = 1000 / WATER
# HU, centre (x to the right, y downwards, z) and half axes in mm; later ones lie over earlier ones.
ELLIPSOIDS = (
    (-90.0, (0, 0, 0), (168, 112, 900)),  # fat
    (45.0, (0, 2, 0), (154, 98, 800)),  # muscle
    (-850.0, (-72, -4, 40), (58, 78, 190)),  # lungs
    (-850.0, (72, -4, 40), (54, 76, 185)),
    (55.0, (-60, 0, -190), (90, 84, 120)),  # liver
    (50.0, (60, -10, -200), (70, 70, 110)),  # spleen, stomach
    (42.0, (18, -22, -30), (52, 46, 70)),  # heart
    (300.0, (0, 72, 0), (19, 16, 900)),  # spine
    (40.0, (0, 84, 0), (8, 7, 900)),
    (180.0, (0, -88, 20), (16, 6, 110)),  # sternum
    (45.0, (-14, 46, 0), (12, 12, 900)),  # aorta
    (-950.0, (4, 20, 120), (9, 9, 100)),  # trachea
    (20.0, (-60, -20, 60), (9, 9, 60)),  # vessels and a nodule
    (20.0, (64, 16, 30), (7, 7, 80)),
    (30.0, (-88, 30, 10), (8, 8, 12)),
    (350.0, (-140, 20, 60), (8, 22, 120)),  # ribs
    (350.0, (140, 20, 60), (8, 22, 120)),
)


def phantom(depth: int = 64) -> Tensor:
    """The ``depth`` middle slices of 64 in Hounsfield units, (depth, 1, 128, 128), each the mean of
    2 x 2 points a pixel."""
    side = (torch.arange(256) - 127.5) * PIXEL_MM / 2
    y, x = side[:, None], side[None]
    slices = []
    for k in range(32 - depth // 2, 32 - depth // 2 + depth):
        z = (k - 31.5) * SLICE_MM
        image = torch.full((256, 256), -1000.0)
        image[(y > 120) & (y < 128) & (x.abs() < 180)] = -200.0  # the table
        for value, (a, b, c), (p, q, r) in ELLIPSOIDS:
            inside = ((x - a) / p).square() + ((y - b) / q).square() + ((z - c) / r) ** 2 <= 1
            image[inside] = value
        slices.append(torch.nn.functional.avg_pool2d(image[None], 2))
    return torch.stack(slices)


def problem(depth: int, autocast: Any = None) -> tuple[po.priors.Prior, Any, Tensor, Tensor]:
    """Prior of a slice, A of a slice, attenuations (depth, 1, 128, 128), y (depth, *O)."""
    truth = WATER * (phantom(depth) + 1000) / 1000
    A = po.operators.Radon((1, 128, 128), [180 * k / ANGLES for k in range(ANGLES)], PIXEL_MM)
    clean = A(truth)
    y = clean + NOISE * po.rng.Streams(5, range(depth)).normal(clean)
    return po.priors.chest_ct(autocast=autocast), A, truth, y


def whole(prior: Any, A: Any, y: Tensor) -> po.Posterior:
    depth = len(y)
    stack = po.operators.Slicewise(A, depth, at_once=AT_ONCE)
    likelihood = po.Likelihood(y, stack, po.noise.Gaussian(NOISE), range=RANGE)
    return po.Posterior(po.priors.Slices(prior, depth, at_once=AT_ONCE), likelihood)


# QUALITY
# --------------------------------------------------------------------------------------------------

# The published 0.04 is for y without noise. Jumps of typical size b from slice to slice ask for
# lam = sigma_y^2 / (b c ||A||^2), which is 2e-4 for b = 0.02 of images in [-1, 1] (25 HU), and the
# threshold 2 lam / rho of jumps is then b.
TIED = {"lam": 2e-4, "rho": 0.02, "iterations": 20}
METHODS = {
    "DDS": po.methods.DDS(iterations=20),
    "DDS3D": po.methods.DDS3D(**TIED),
    "DiffusionMBIR": po.methods.DiffusionMBIR(**TIED),
}


def quality(steps: int, names: list[str], keep: Callable[[str, dict[str, Any]], None]) -> None:
    prior, A, truth, y = problem(64, "bfloat16")
    post = whole(prior, A, y)
    jumps, levels = truth.diff(dim=0), po.grid.karras(steps, 3.0, 0.01)
    keep("truth", {"roughness_hu": round(HU * float(jumps.abs().mean()), 2)})
    for name in names:
        began = time.time()
        with warnings.catch_warnings(action="ignore"):
            run = po.sample(post, METHODS[name], n=1, steps=steps, seed=0, grid=levels)
        x = run.samples[0]
        gap = y - A(x)
        excess = (x - truth).diff(dim=0)
        told = {
            "psnr": round(float(psnr(x[None].clamp(*RANGE), truth, RANGE[1])[0]), 2),
            "roughness_hu": round(HU * float(x.diff(dim=0).abs().mean()), 2),
            "rough_error_hu": round(HU * float(excess.square().mean().sqrt()), 2),
            "chi2": round(float(gap.square().mean()) / NOISE**2, 2),
            "seconds": round(time.time() - began),
        }
        keep(name, told)


# COST
# --------------------------------------------------------------------------------------------------


def child(case: str, depth: int, steps: int) -> None:
    prior, A, _, y = problem(depth)
    method = po.methods.DDS(iterations=20)
    how: dict[str, Any] = {"steps": steps, "seed": 0}
    noise = po.noise.Gaussian(NOISE)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    prior.denoise(torch.zeros(1, 1, 16, 16), torch.tensor(1.0))  # what the first call alone loads
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    if case == "volume":
        po.sample(whole(prior, A, y), method, n=1, **how)
    elif case == "loop":
        for row in y:
            po.sample(
                po.Posterior(prior, po.Likelihood(row, A, noise, range=RANGE)), method, **how, n=1
            )
    else:
        likes = [po.Likelihood(row, A, noise, range=RANGE) for row in y]
        po.sample_each(prior, likes, method, batch=depth, **how)
    seconds = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {
        "cpu_seconds_per_slice": round(seconds / depth, 4),
        "mib": round((after - before) / 1024, 1),
        "process_mib": round(after / 1024, 1),
    }
    print(json.dumps(told), flush=True)


def cost(steps: int, rounds: int, keep: Callable[[str, dict[str, Any]], None]) -> None:
    cases = (("volume", 64), ("loop", 64), ("batch", 64), ("volume", 16))
    seen: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for case, depth in cases:
            command = [sys.executable, __file__, "child", case, str(depth), "--steps", str(steps)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seen.setdefault(f"{case} {depth}", []).append(json.loads(done.stdout))
            rows = seen[f"{case} {depth}"]
            middle = {key: statistics.median(r[key] for r in rows) for key in rows[0]}
            keep(f"{case} {depth}", middle | {"rounds": len(rows)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("quality", "cost", "child"))
    parser.add_argument("case", nargs="*")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    args = parser.parse_args()
    if args.what == "child":
        child(args.case[0], int(args.case[1]), args.steps)
        return
    record = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}

    def keep(name: str, told: dict[str, Any]) -> None:
        record.setdefault(args.what, {})[name] = told
        print(name, told, flush=True)
        if args.out:
            args.out.write_text(json.dumps(record, indent=1) + "\n")

    if args.what == "quality":
        quality(args.steps or 12, args.methods, keep)
    else:
        cost(args.steps or 2, args.rounds, keep)


if __name__ == "__main__":
    main()
