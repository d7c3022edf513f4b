"""A photograph of 512 x 512 by the prior of photographs through tiles of 64 x 64, the size that it
was trained at: what tiles do to the picture, and whether their borders are seen.

    python benchmarks/seams.py --out docs/results

Blur of 2 pixels, noise 0.02 of [0, 1], one sample of DiffPIR with the same random numbers each
time, through tiles that overlap, through tiles that only touch, and by the prior on the whole
image. The prior itself takes any size; tiles stand for one that does not.

The seam energy is the mean squared difference of the error (sample less truth) of the two pixels on
either side of a tile's border, over all borders, rows and columns alike. That of the inside is the
same of the lines at least 4 pixels from any border. Lines pass through other parts of the picture
than their neighbours: the same ratio of the sample without tiles says what the picture itself does.
seams.png shows the middle of the picture through tiles that overlap, and that only touch.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
from skimage import data

import posteriori as po
from posteriori.evaluation import psnr
from posteriori.measurements import write_image

SIZE, OVERLAP, AWAY = 64, 16, 4
NOISE = 0.02


def borders(side: int, size: int, overlap: int) -> list[int]:
    """k where a tile begins or ends between pixels k - 1 and k, but at the image's own border."""
    starts = po.priors.Tiles(po.priors.photos(), size, overlap)._starts(side)
    return sorted({k for s in starts for k in (s, s + size) if 0 < k < side})


def energies(error: torch.Tensor, lines: list[int]) -> tuple[float, float]:
    """Seam energy at the lines and that of the inside, of an error (C, H, W), both orientations."""
    at, inside = [], []
    for turned in (error, error.transpose(1, 2)):
        steps = turned.double().diff(dim=2).square().mean((0, 1))  # step k is between k and k + 1
        far = [
            k
            for k in range(1, turned.shape[2])
            if min((abs(k - b) for b in lines), default=AWAY) >= AWAY
        ]
        at += [float(steps[k - 1]) for k in lines]
        inside += [float(steps[k - 1]) for k in far]
    return sum(at) / len(at), sum(inside) / len(inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="*", default=["tiles", "touching tiles", "whole"])
    args = parser.parse_args()
    x = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    A = po.operators.Blur(po.operators.gaussian_kernel(2.0), tuple(x.shape), "circular")
    noise = po.noise.Gaussian(NOISE)
    y = noise.sample(A(x[None]), po.rng.Streams(1, [0]))[0]
    photos = po.priors.photos()
    priors = {
        "tiles": po.priors.Tiles(photos, SIZE, OVERLAP),
        "touching tiles": po.priors.Tiles(photos, SIZE, 0),
        "whole": photos,
    }
    place = args.out / "seams.json"
    record = json.loads(place.read_text()) if place.exists() else {}
    method = po.methods.DiffPIR(lam=0.25, width="matched")
    lines = {
        name: borders(512, SIZE, 0 if name == "touching tiles" else OVERLAP) for name in priors
    }
    shown: dict[str, torch.Tensor] = {}
    for name in args.only:
        post = po.Posterior(priors[name], po.Likelihood(y, A, noise, range=(0, 1)))
        began, used = time.perf_counter(), time.process_time()
        run = po.sample(post, method, grid=po.grid.karras(args.steps, 4.0, 0.01), seed=0)
        error = run.samples[0] - x
        row = {
            "steps": args.steps,
            "seconds": round(time.perf_counter() - began),
            "cpu_seconds": round(time.process_time() - used),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "psnr": round(float(psnr(run.samples, x[None], 1.0)), 2),
        }
        for grid in ("tiles", "touching tiles"):
            if name in (grid, "whole"):
                seam, inside = energies(error, lines[grid])
                row[f"at borders of {grid}"] = float(f"{seam:.4g}")
                row[f"inside of {grid}"] = float(f"{inside:.4g}")
                row[f"ratio, {grid}"] = round(seam / inside, 4)
        record[name] = row
        print(name, row, flush=True)
        place.write_text(json.dumps(record, indent=1) + "\n")
        shown[name] = run.samples[0, :, 40:296, 100:356]
    if {"tiles", "touching tiles"} <= shown.keys():
        pair = torch.cat([shown["tiles"], shown["touching tiles"]], 2)
        write_image(args.out / "seams.png", pair, range=(0, 1), bits=8)
    print(f"PSNR of the measurement {float(psnr(y[None], x[None], 1.0)):.2f} dB")


if __name__ == "__main__":
    main()
