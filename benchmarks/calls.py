"""Whether many calls of the denoiser buy anything: DAPS, one call per step, with few and with many steps on photographs.

    python benchmarks/calls.py [--problems blur downsample box random] [--steps 100 1000] [--n 16] [--side 64] [--autocast bfloat16]

The two photographs and the problems are those of ``posteriori bench images``. Printed are, for each, the PSNR of one sample as the mean
over n with its standard error, the PSNR of the mean of the n, and chi-square of a sample. What fills a hidden box differs from sample to
sample by several dB, so that one sample of each compares nothing there.
"""

from __future__ import annotations

import argparse

import posteriori as po
from posteriori.evaluation import psnr
from posteriori.evaluation.gallery import PHOTOGRAPHS, PROBLEMS, scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="*", default=[*PROBLEMS])
    parser.add_argument("--steps", nargs="*", type=int, default=[100, 1000])
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--autocast", help="bfloat16, where the machine is faster so")
    args = parser.parse_args()
    prior = po.priors.photos(autocast=args.autocast)
    heads = ("problem", "photograph", "steps", "PSNR of a sample", "its standard error", "PSNR of the mean", "chi2", "s")
    print("| " + " | ".join(heads) + " |\n|---|---" + "|---:" * (len(heads) - 2) + "|")
    for problem in args.problems:
        for image in PHOTOGRAPHS:
            about = scene(image, problem, args.side)
            for steps in args.steps:
                run = po.sample(po.Posterior(prior, about.given), po.methods.DAPS(), n=args.n, steps=steps, seed=0)
                x, truth = run.samples, about.truth[None]
                each, whole = psnr(x, truth.expand_as(x), 1.0), float(psnr(x.mean(0, keepdim=True), truth, 1.0))
                numbers = (f"{each.mean():.2f}", f"{each.std() / args.n**0.5:.2f}", f"{whole:.2f}", f"{about.given.chi2(x).mean():.3f}")
                print("| " + " | ".join((problem, image, f"{steps}", *numbers, f"{run.seconds:.0f}")) + " |", flush=True)


if __name__ == "__main__":
    main()
