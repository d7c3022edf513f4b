"""Sparse-view and limited-angle tomography of patients that the chest CT prior was not trained on,
against filtered back-projection and total variation.

    python benchmarks/chest_ct.py training/chest-ct/held-out.npy --out docs/results/chest-ct.json
    python benchmarks/chest_ct.py training/chest-ct/held-out.npy --out ... --setups 20 --slices 4

held-out.npy is written by configs/make_chest_ct.py: slices of 128 x 128 in Hounsfield units.
Tomography is parallel-beam with pixels of 2.9 mm; line integrals of the attenuation (0.0195 / mm
for water) have Gaussian noise of 0.02. PSNR and SSIM are over the window of 2500 HU. Every number
that is measured is kept in --out at once; a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import posteriori as po
from posteriori.evaluation import psnr, ssim
from posteriori.linalg import dot

LOW, HIGH, WATER, PIXEL_MM, NOISE = -1000.0, 1500.0, 0.0195, 2.9, 0.02
RANGE = (0.0, WATER * (HIGH - LOW) / 1000)  # attenuation of the window, per mm
SETUPS = {
    "8": [180 * k / 8 for k in range(8)],
    "20": [180 * k / 20 for k in range(20)],
    "40": [180 * k / 40 for k in range(40)],
    "limited": [120 * k / 60 for k in range(60)],
}
METHODS = {
    "DDS": po.methods.DDS(iterations=20),
    "DiffPIR": po.methods.DiffPIR(),
    "MMPS": po.methods.MMPS(),
}


def total_variation(A, y, weight: float, steps: int = 300) -> torch.Tensor:
    """argmin 1/2 ||y - A x||^2 + weight sum |grad x|_2, x >= 0, by primal and dual steps
    (Chambolle and Pock, 2011)."""
    size = float(po.operators.norm2(A))
    scale = size / 8**0.5  # gradients weighted so that both parts have one norm
    step = 0.95 / (size * 2**0.5)
    x = torch.zeros(len(y), *A.in_shape)
    ahead, p, q = x, torch.zeros_like(y), torch.zeros(len(y), 2, *A.in_shape[1:])
    for _ in range(steps):
        p = (p + step * (A(ahead) - y)) / (1 + step)
        q = q + step * scale * gradient(ahead)
        q = q / (q.square().sum(1, keepdim=True).sqrt() / (weight / scale)).clamp(min=1.0)
        new = (x - step * (A.adjoint(p) - scale * divergence(q))).clamp(min=0)
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
    width = RANGE[1] - RANGE[0]
    found = found.clamp(*RANGE).float()
    return {
        "psnr": round(float(psnr(found, truth, width).mean()), 2),
        "ssim": round(float(ssim(found, truth, RANGE).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", type=Path, help="a folder; the one that ships when left out")
    parser.add_argument("--setups", nargs="*", default=list(SETUPS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--slices", type=int, help="of the held-out ones, all when left out")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--samples", type=int, default=1, help="more: scores of their mean")
    args = parser.parse_args()
    hu = torch.from_numpy(np.load(args.held_out).astype(np.float32))[: args.slices, None]
    prior = po.priors.from_pretrained(args.prior) if args.prior else po.priors.chest_ct()
    record = json.loads(args.out.read_text()) if args.out.exists() else {}
    about = {"slices": len(hu), "steps": args.steps, "noise": NOISE, "pixel_mm": PIXEL_MM}
    assert record.get("about", about) == about, "the file holds numbers of another setting"
    record["about"] = about

    def keep(place: str, make) -> None:
        if place not in record:
            began = time.time()
            record[place] = make()
            print(place, record[place], f"{time.time() - began:.0f} s", flush=True)
            args.out.write_text(json.dumps(record, indent=1) + "\n")

    truth = WATER * (hu - LOW) / 1000
    for name in args.setups:
        A = po.operators.Radon((1, 128, 128), SETUPS[name], PIXEL_MM)
        clean = A(truth)
        y = clean + NOISE * po.rng.Streams(11, range(len(hu))).normal(clean)
        noise = po.noise.Gaussian(NOISE)
        keep(
            f"{name} FBP",
            lambda A=A, y=y: scores(po.operators.back_projection(A, y).float(), truth),
        )
        for weight in (0.003, 0.01, 0.03):  # of which the best is told
            keep(
                f"{name} TV {weight}",
                lambda A=A, y=y, w=weight: scores(total_variation(A, y, w), truth),
            )
        for method in args.methods:

            def run(A=A, y=y, noise=noise, method=method):
                likes = [po.Likelihood(row, A, noise, range=RANGE) for row in y]
                how = {"n": args.samples, "steps": args.steps, "seed": 0}
                runs = po.sample_each(prior, likes, METHODS[method], **how)
                x = torch.stack([r.samples.mean(0) for r in runs])
                rest = y - A(x)
                chi2 = float((dot(rest, rest) / (NOISE**2 * y[0].numel())).mean())
                return {**scores(x, truth), "chi2": round(chi2, 3)}

            several = f" mean of {args.samples}" if args.samples > 1 else ""
            keep(f"{name} {method}{several}", run)


if __name__ == "__main__":
    main()
