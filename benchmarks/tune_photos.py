"""Does ``posteriori tune`` beat the method that is taken where a problem names none, on the blur of
photographs, at no more time?

    python benchmarks/tune_photos.py BSDS500/val

The search is given truths of the prior alone, and candidates that cost no more passes through the
network than the default, MMPS on 16 levels. Its choice and the default then restore the middle
48 x 48 pixels of the first 12 photographs by name, blurred by a Gaussian of 2 pixels with noise of
0.02 of [0, 1], four samples each, with the same random numbers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

import posteriori as po
from posteriori.measurements import read_image
from posteriori.problem_file.advice import choose
from posteriori.trials import trial_of
from posteriori.tuning import candidates
from posteriori.tuning.scores import score_block

SIDE, COUNT, SAMPLES, SEED = 48, 12, 4, 10**9
SEARCHED = [
    "MMPS(steps=16)",
    "MMPS(steps=10)",
    "MMPS(steps=24,iterations=3)",
    "MMPS(steps=16,iterations=3)",
    "DiffPIR(steps=20)",
    "DiffPIR(steps=60)",
    "DDRM(steps=20)",
    "DAPS(steps=20)",
    "DMPS(steps=40)",
]


def crop(file: Path) -> Tensor:
    x, _ = read_image(file, channels=3)
    top, left = ((n - SIDE) // 2 for n in x.shape[-2:])
    return x[:, top : top + SIDE, left : left + SIDE].contiguous()


def posterior() -> po.Posterior:
    shape = (3, SIDE, SIDE)
    A = po.operators.Blur(po.operators.gaussian_kernel(2.0), shape, boundary="circular")
    given = po.Likelihood(torch.zeros(A.out_shape), A, po.noise.Gaussian(0.02), range=(0, 1))
    return po.Posterior(po.priors.photos(autocast="bfloat16"), given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", default="4m", help="of the search (default: 4m)")
    asked = parser.parse_args()
    post = posterior()
    print("the default:", type(choose(post).method).__name__, "on 16 levels")
    began = time.process_time()
    found = po.tune(post, asked.budget, methods=SEARCHED, n=SAMPLES)
    assert found.choice is not None
    print(f"the search: {time.process_time() - began:.0f} s of the processor")
    for line in found.sentences():
        print(" ", line)
    files = sorted(asked.folder.glob("*.jpg"))[:COUNT]
    trials = [trial_of(post, crop(file), SEED + k) for k, file in enumerate(files)]
    rows = {}
    for label in dict.fromkeys((SEARCHED[0], found.choice.label)):
        (one,) = candidates(post, [label])
        rows[label] = score_block(one, trials, n=SAMPLES, seed=SEED + 1)
        row = rows[label]
        means = ", ".join(
            f"{name} {sum(row[name]) / len(row[name]):.4f}"
            for name in ("energy", "crps", "psnr", "inside", "chi2")
        )
        print(f"{label}: {means}, {row['network']:.0f} passes and {row['seconds']:.2f} s a sample")
    if len(rows) == 2:
        default, choice = (torch.tensor(row["energy"]) for row in rows.values())
        gap = choice / default - 1
        print(f"energy of the choice over that of the default: {100 * float(gap.mean()):.1f} +- "
              f"{100 * float(gap.std() / len(gap) ** 0.5):.1f} %, better on "
              f"{int((gap < 0).sum())} of {len(gap)}")  # fmt: skip


if __name__ == "__main__":
    main()
