"""Sparse-view and limited-angle tomography of patients that the chest CT prior was not trained on,
against filtered back-projection and total variation.

    python benchmarks/chest_ct.py training/chest-ct --out docs/results/chest-ct.json
    python benchmarks/chest_ct.py training/chest-ct --out ... --setups 8 --samples 2 --steps 12
    python benchmarks/chest_ct.py training/chest-ct --out ... --settings

The folder is that of configs/make_chest_ct.py: held-out.npy has the slices of ten patients, of
which one each is used, tuning.npy one slice each of ten patients that the prior was trained on: the
weight of total variation is chosen on them, as every setting below was.

Tomography is parallel-beam with pixels of 2.9 mm. A ray starts with a million photons, of which
about ten thousand pass a chest (a line integral of 4.6): the logarithm of their number has noise of
0.01, which all rays get, as a filter before the patient evens them out. Images are attenuations in
1 / mm (0.0195 of water); PSNR and SSIM are over the window of 2500 HU, CRPS and widths in HU. Every
number that is measured is kept in --out at once; a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import posteriori as po
from posteriori.evaluation import psnr, ssim, student
from posteriori.grid import karras
from posteriori.linalg import dot

LOW, HIGH, WATER, PIXEL_MM, NOISE, PHOTONS = -1000.0, 1500.0, 0.0195, 2.9, 0.01, 1e6
HU = 1000 / WATER
SHIPPED = Path(po.__file__).parent / "priors" / "weights" / "chest-ct"
RANGE = (0.0, WATER * (HIGH - LOW) / 1000)  # attenuation of the window, per mm
SETUPS = {
    "20": [180 * k / 20 for k in range(20)],
    "8": [180 * k / 8 for k in range(8)],
    "40": [180 * k / 40 for k in range(40)],
    "limited": [120 * k / 60 for k in range(60)],
}
ENDS = (3.0, 0.01)  # the levels of every run, for images in [-1, 1]
# Name -> (method, share of the steps that the others have).
METHODS: dict[str, tuple[Any, float]] = {
    "DCPnPDP": (po.methods.DCPnPDP(), 1.0),
    "DDS": (po.methods.DDS(iterations=20), 1.0),
    "DiffusionMBIR": (po.methods.DiffusionMBIR(lam=0.0, iterations=20), 1.0),
    "DAPS": (po.methods.DAPS(), 1.0),
    "DiffPIR": (po.methods.DiffPIR(), 1.0),
    "MMPS": (po.methods.MMPS(iterations=3, transition=po.methods.DDIM()), 0.5),
}
# Of DDS on training patients at 20 angles: name -> (method, levels).
SETTINGS: dict[str, tuple[Any, torch.Tensor]] = {
    "16 levels from 3 to 0.01": (po.methods.DDS(iterations=20), karras(16, 3.0, 0.01)),
    "16 levels from 3 to 0.05": (po.methods.DDS(iterations=20), karras(16, 3.0, 0.05)),
    "scale 4": (po.methods.DDS(iterations=20, scale=4.0), karras(16, 3.0, 0.01)),
    "60 iterations": (po.methods.DDS(iterations=60), karras(16, 3.0, 0.01)),
    "fresh noise": (
        po.methods.DDS(iterations=20, transition=po.methods.ConstantFraction(zeta=1.0)),
        karras(16, 3.0, 0.01),
    ),
    "DCPnPDP": (po.methods.DCPnPDP(), karras(16, 3.0, 0.01)),
    "25 levels from 20 to 0.002": (po.methods.DDS(iterations=20), karras(25, 20.0, 0.002)),
}
WEIGHTS = (0.001, 0.002, 0.004, 0.008, 0.016)  # of total variation
LEVELS = (0.5, 0.8, 0.95)


def total_variation(A, y, weight: float, steps: int = 300) -> torch.Tensor:
    """argmin 1/2 ||y - A x||^2 + weight sum |grad x|_2 by primal and dual steps (Chambolle and
    Pock, 2011); x >= 0 where A takes real images."""
    size = float(po.operators.norm2(A))
    scale = size / 8**0.5  # gradients weighted so that both parts have one norm
    step = 0.95 / (size * 2**0.5)
    x = A.probe(torch.zeros, len(y))
    ahead, p, q = x, torch.zeros_like(y), gradient(x)
    for _ in range(steps):
        p = (p + step * (A(ahead) - y)) / (1 + step)
        q = q + step * scale * gradient(ahead)
        q = q / (q.abs().square().sum(1, keepdim=True).sqrt() / (weight / scale)).clamp(min=1.0)
        new = x - step * (A.adjoint(p) - scale * divergence(q))
        new = new if A.complex_in else new.clamp(min=0)
        ahead, x = 2 * new - x, new
    return x


def gradient(x: torch.Tensor) -> torch.Tensor:
    down = torch.zeros_like(x)
    right = torch.zeros_like(x)
    down[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    right[..., :-1] = x[..., 1:] - x[..., :-1]
    return torch.cat([down, right], 1)


def divergence(q: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(q[:, :1])
    out[:, :, :-1] += q[:, :1, :-1]
    out[:, :, 1:] -= q[:, :1, :-1]
    out[..., :-1] += q[:, 1:, :, :-1]
    out[..., 1:] -= q[:, 1:, :, :-1]
    return out


def scores(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Means over slices (B, 1, H, W) of one estimate each."""
    width = RANGE[1] - RANGE[0]
    found = found.clamp(*RANGE).float()
    return {
        "psnr": round(float(psnr(found, truth, width).mean()), 2),
        "ssim": round(float(ssim(found, truth, RANGE).mean()), 4),
        "mae_hu": round(float((found - truth).abs().mean()) * HU, 2),
    }


def spread(x: torch.Tensor, truth: torch.Tensor) -> dict[str, Any]:
    """What samples (B, n, 1, H, W) say of their spread. CRPS is the fair one, of which the mean
    over samples does not depend on n; coverage is by Student's law, as n is small."""
    n = x.shape[1]
    pairs = (x[:, :, None] - x[:, None]).abs().sum((1, 2)) / (2 * n * (n - 1))
    crps = (x - truth[:, None]).abs().mean(1) - pairs
    mean, std = x.mean(1), x.std(1)
    return {
        "crps_hu": round(float(crps.mean()) * HU, 2),
        "std_hu": round(float(std.square().mean().sqrt()) * HU, 2),
        "coverage": {str(a): round(student(mean, std, n, truth, a), 3) for a in LEVELS},
    }


def measured(truth: torch.Tensor, angles: list[float], seed: int) -> tuple[Any, torch.Tensor]:
    A = po.operators.Radon((1, 128, 128), angles, PIXEL_MM)
    clean = A(truth)
    return A, clean + NOISE * po.rng.Streams(seed, range(len(truth))).normal(clean)


def sampled(prior, A, y, truth, method, levels, n: int, batch: int) -> dict[str, Any]:
    """Scores of single samples and of the mean of n; residuals of single samples over the noise."""
    likes = [po.Likelihood(row, A, po.noise.Gaussian(NOISE), range=RANGE) for row in y]
    began = time.time()
    how: dict[str, Any] = {"n": n, "steps": len(levels) - 1, "grid": levels}
    with warnings.catch_warnings(action="ignore"):
        runs = po.sample_each(prior, likes, method, seed=0, batch=batch, **how)
    seconds = (time.time() - began) / (n * len(y))
    x = torch.stack([run.samples for run in runs])
    gap = y[:, None] - A(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    one = scores(x.flatten(0, 1), truth.repeat_interleave(n, 0))
    return {
        "one": one,
        "mean": scores(x.mean(1), truth),
        **(spread(x, truth) if n > 1 else {}),
        "chi2": round(float(dot(gap, gap).mean() / (NOISE**2 * gap[0, 0].numel() * n)), 3),
        "seconds": round(seconds, 2),
    }


def attenuation(file: Path, rows: list[int]) -> torch.Tensor:
    hu = torch.from_numpy(np.load(file).astype(np.float32))[rows, None]
    return WATER * (hu - LOW) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="of configs/make_chest_ct.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", type=Path, help="a folder; the one that ships when left out")
    parser.add_argument("--setups", nargs="*", default=list(SETUPS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--settings", action="store_true", help="on training patients")
    parser.add_argument("--batch", type=int, default=20)
    args = parser.parse_args()
    prior = po.priors.from_pretrained(args.prior or SHIPPED, autocast="bfloat16")
    patients = np.load(args.folder / "held-out-patients.npy").tolist()
    rows = [patients.index(patient) for patient in sorted(set(patients))]
    truth = attenuation(args.folder / "held-out.npy", rows)
    known = attenuation(args.folder / "tuning.npy", [0, 3, 6, 9])
    record = json.loads(args.out.read_text()) if args.out.exists() else {}
    about = {
        "slices": len(truth),
        "noise": NOISE,
        "photons": PHOTONS,
        "pixel_mm": PIXEL_MM,
    }
    if record.setdefault("about", about) != about:
        raise SystemExit(f"{args.out} holds numbers of another setting: {record['about']}")

    weights = po.priors.pretrained.read_card(args.prior or SHIPPED).sha256[:12]

    def keep(place: str, make: Callable[[], dict[str, Any]], **by: Any) -> None:
        """Measured anew where the number that is kept was found ``by`` something else."""
        if place not in record or any(record[place].get(k) != v for k, v in by.items()):
            record[place] = make() | by
            print(place, record[place], flush=True)
            args.out.write_text(json.dumps(record, indent=1) + "\n")

    if args.settings:
        A, y = measured(known, SETUPS["20"], 12)
        for name, (what, levels) in SETTINGS.items():
            keep(
                f"training patients, {name}",
                lambda m=what, levels=levels: sampled(prior, A, y, known, m, levels, 2, 8),
                prior=weights,
                samples=2,
            )
        return
    for name in args.setups:
        A, y = measured(truth, SETUPS[name], 11)
        keep(
            f"{name} FBP",
            lambda A=A, y=y: scores(po.operators.back_projection(A, y).float(), truth),
        )
        _, other = measured(known, SETUPS[name], 12)
        for weight in WEIGHTS:
            keep(
                f"{name} TV {weight} on training patients",
                lambda A=A, y=other, w=weight: scores(total_variation(A, y, w), known),
            )
        best = max(WEIGHTS, key=lambda w: record[f"{name} TV {w} on training patients"]["psnr"])
        keep(
            f"{name} TV",
            lambda A=A, y=y, w=best: scores(total_variation(A, y, w), truth),
            weight=best,
        )
        for method in args.methods:
            what, share = METHODS[method]
            steps = round(share * args.steps)
            levels = karras(steps, *ENDS)
            keep(
                f"{name} {method}",
                lambda A=A, y=y, m=what, levels=levels: sampled(
                    prior, A, y, truth, m, levels, args.samples, args.batch
                ),
                prior=weights,
                samples=args.samples,
                steps=steps,
            )


if __name__ == "__main__":
    main()
