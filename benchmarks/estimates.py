"""How good an estimate of E[x0 | x, y] is on photographs, by the level of x: that of EPS, one call
of ``priors.photos(noise_maps=True)``, beside that of MMPS, by the Jacobian of ``priors.photos()``.

    OMP_NUM_THREADS=1 python benchmarks/estimates.py FOLDER [--count 12] [--side 64]
        [--prior NOISE_MAPS_PRIOR] [--problems blur ...] [--levels 0.1 0.2 ...] [--only EPS]

The photographs and measurements of ``twenty.py``. x = x0 + sigma z, images in [-1, 1], the same for
both. PSNR in dB of the mean squared error over all photographs. A sampler asks these questions at
every level; what it draws cannot be better than their answers.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from twenty import PROBLEMS, centre, operator

import posteriori as po
from posteriori import methods


def estimates(
    problem: str, image: Tensor, sigma: float, priors: dict[str, po.Prior], rng: torch.Generator
) -> dict[str, float]:
    """Mean squared errors for an image in [0, 1]."""
    std, x0 = PROBLEMS[problem], (2 * image - 1)[None]
    A = operator(problem, image.shape[-1])
    x = x0 + sigma * torch.randn(x0.shape, generator=rng)
    y = A(image[None])
    y = y + std * torch.randn(y.shape, generator=rng)
    like, level = po.Likelihood(y, A, po.noise.Gaussian(std), range=(0, 1)), torch.tensor(sigma)
    found = {"EPS": methods.EPS().denoise(po.Posterior(priors["EPS"], like), x, level)}
    if "MMPS" in priors:
        found["MMPS"] = methods.MMPS().denoise(po.Posterior(priors["MMPS"], like), x, level)[0]
    return {name: float((d.detach() - x0).square().mean()) for name, d in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--prior", type=Path, help="that of EPS; the shipped one by default")
    parser.add_argument("--problems", nargs="*", choices=[*PROBLEMS], default=[*PROBLEMS])
    parser.add_argument(
        "--levels", nargs="*", type=float, default=[0.1, 0.2, 0.4, 0.8, 1.6, 5.0, 20.0]
    )
    parser.add_argument("--only", choices=("EPS",))
    args = parser.parse_args()
    images = [centre(file, args.side) for file in sorted(args.folder.glob("*.jpg"))[: args.count]]
    priors: dict[str, po.Prior] = {
        "EPS": po.priors.from_pretrained(args.prior, autocast="bfloat16")
        if args.prior
        else po.priors.photos(noise_maps=True, autocast="bfloat16")
    }
    if not args.only:
        priors["MMPS"] = po.priors.photos(autocast="bfloat16")
    heads = [f"{sigma:g}" for sigma in args.levels]
    print("| problem | estimate |", " | ".join(heads), "|\n|---|---|" + "---:|" * len(heads))
    for problem in args.problems:
        rows: dict[str, list[str]] = {name: [] for name in priors}
        for sigma in args.levels:
            rng = torch.Generator().manual_seed(1)
            found = [estimates(problem, image, sigma, priors, rng) for image in images]
            for name, row in rows.items():
                error = sum(one[name] for one in found) / len(found)
                row.append(f"{-10 * math.log10(error / 4):.2f}")
        for name, row in rows.items():
            print(f"| {problem} | {name} |", " | ".join(row), "|", flush=True)


if __name__ == "__main__":
    main()
