"""A video of 16 frames, blurred along time, by the prior of photographs: frame by frame, and all
frames together by SVI.

    python benchmarks/video.py --out docs/results/video.json

Frames are windows of 64 x 64 that move over the photograph that ships with the package, by two or
three pixels a frame. Each measured frame is the mean of 7 frames (the first and the last stand
still beyond the ends), with noise of 0.01 or 0.002 of [0, 1]. All runs take the same levels.

    frame by frame          each measured frame as a noisy image of its own: DDS "matched", which
                            cannot know of the blur
    deblurred, by frame     the blur along time undone first, by a Wiener filter along time; then
                            each frame by DDS "matched", its noise level the mean one that the
                            filter leaves
    SVI                     joint conjugate gradients over the video towards y without noise; one
                            noise for all frames
    DDS, one noise          the same, with the noise of y known: DDS "matched" on the whole video,
                            its transitions with one noise for all frames

Flicker is the mean squared difference of the errors of successive frames, e[k] = x[k] - truth[k]:
mean (e[k + 1] - e[k])^2, in units of 1e-4.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import torch

import posteriori as po
from posteriori.axis_kernels import OneForAll
from posteriori.evaluation import psnr
from posteriori.measurements import read_image
from posteriori.measurements.photos import COFFEE
from posteriori.methods.axis_noise import Correlated

FRAMES, SIDE, LENGTH = 16, 64, 7
LEVELS = (0.01, 0.002)
# Where the window begins, and how it moves in a frame.
PATHS = (((20, 30), (2, 1)), ((150, 40), (-1, 2)))


def clip(path) -> torch.Tensor:
    """(frames, 3, side, side)."""
    x = read_image(COFFEE, channels=3)[0]
    (top, left), (down, right) = path
    return torch.stack(
        [x[:, top + k * down :, left + k * right :][:, :SIDE, :SIDE] for k in range(FRAMES)]
    )


def flicker(x: torch.Tensor, truth: torch.Tensor) -> float:
    """Of a restored video (frames, C, H, W)."""
    return float((x - truth).double().diff(dim=0).square().mean())


def by_frames(y: torch.Tensor, sigma: float, prior, steps: int, seed: int) -> torch.Tensor:
    A = po.operators.Identity(tuple(y.shape[1:]))
    likes = [po.Likelihood(one, A, po.noise.Gaussian(sigma), range=(0, 1)) for one in y]
    method = po.methods.DDS("matched", transition=po.methods.DDIM(eta=0.15))
    runs = po.sample_each(prior, likes, method, steps=steps, seed=seed)
    return torch.cat([run.samples for run in runs])


def undone(y: torch.Tensor, A, sigma: float) -> tuple[torch.Tensor, float]:
    """The frames by the Wiener filter along time, exp(-|k - l| / 4) being their correlation and the
    variance of y their variance; and the root mean square of the noise that is left in a frame."""
    M = A.matrix.double()
    k = torch.arange(FRAMES, dtype=torch.float64)
    mean, variance = float(y.mean()), float(y.double().var())
    C = variance * torch.exp(-(k[:, None] - k).abs() / 4)
    gain = C @ M.T @ torch.linalg.inv(M @ C @ M.T + sigma**2 * torch.eye(FRAMES).double())
    left = C - gain @ M @ C
    out = mean + torch.einsum("ij,jchw->ichw", gain, y.double() - mean)
    return out.float(), float(left.diagonal().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--clips", type=int, default=len(PATHS))
    args = parser.parse_args()
    record = json.loads(args.out.read_text()) if args.out.exists() else {}
    prior = po.priors.photos()
    joint = {
        "SVI": po.methods.SVI(),
        "DDS, one noise": po.methods.DDS(
            "matched", iterations=10, transition=Correlated(po.methods.DDIM(eta=0.15), OneForAll())
        ),
    }
    for (c, path), sigma in product(enumerate(PATHS[: args.clips]), LEVELS):
        x = clip(path)
        A = po.operators.temporal_blur(tuple(x.shape), LENGTH)
        noise = po.noise.Gaussian(sigma)
        y = noise.sample(A(x[None]), po.rng.Streams(1, [c]))[0]
        volumes = po.priors.Slices(prior, kernel=OneForAll())
        post = po.Posterior(volumes, po.Likelihood(y, A, noise, range=(0, 1)))
        wiener, left = undone(y, A, sigma)
        how = {"steps": args.steps, "seed": c}
        runs = {
            "measured": lambda y=y: y,
            "Wiener filter along time": lambda w=wiener: w,
            "frame by frame": lambda y=y, s=sigma, how=how: by_frames(y, s, prior, **how),
            "deblurred, by frame": lambda w=wiener, s=left, how=how: by_frames(w, s, prior, **how),
        } | {
            name: lambda post=post, m=method, how=how: po.sample(post, m, **how).samples[0]
            for name, method in joint.items()
        }
        for name, run in runs.items():
            key = f"{name}, noise {sigma}, clip {c}"
            if key in record:
                continue
            began = time.perf_counter()
            found = run()
            record[key] = {
                "psnr": round(float(psnr(found, x, 1.0).mean()), 2),
                "flicker": round(1e4 * flicker(found, x), 3),
                "seconds": round(time.perf_counter() - began),
            }
            print(key, record[key], flush=True)
            args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
