"""Whether many calls of the denoiser buy anything: DAPS and PnP-DM with about 100 and with about
1000 of them on photographs.

    python benchmarks/calls.py [--methods DAPS "DAPS ode" PnPDM]
        [--problems blur downsample box random] [--n 16] [--autocast bfloat16]

The two photographs and the problems are those of ``posteriori bench images``; PnP-DM has four
levels for its prior's run, so that a hundred calls are 33 rounds. Printed are, for each, the PSNR
of one sample as the mean over n with its standard error, the PSNR of the mean of the n, and
chi-square of a sample. What fills a hidden box differs from sample to sample by several dB: one
sample of each compares nothing.
"""

from __future__ import annotations

import argparse

import posteriori as po
from posteriori.evaluation import psnr
from posteriori.tasks.photographs import DEGRADATIONS as PROBLEMS
from posteriori.tasks.photographs import PHOTOGRAPHS, scene

PLAN = {
    "DAPS": (po.methods.DAPS(), (100, 1000)),
    "DAPS ode": (po.methods.DAPS("ode", ode_steps=5), (20, 200)),
    "PnPDM": (po.methods.PnPDM(prior_steps=4), (33, 333)),
}
HEADS = (
    "method",
    "problem",
    "photograph",
    "calls",
    "PSNR of a sample",
    "its standard error",
    "PSNR of the mean",
    "chi2",
    "s",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="*", choices=[*PLAN], default=[*PLAN])
    parser.add_argument("--problems", nargs="*", choices=[*PROBLEMS], default=[*PROBLEMS])
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--autocast", help="bfloat16, where the machine is faster so")
    args = parser.parse_args()
    prior = po.priors.photos(autocast=args.autocast)
    print("| " + " | ".join(HEADS) + " |\n|---|---|---" + "|---:" * (len(HEADS) - 3) + "|")
    for name, problem, image in (
        (m, p, i) for m in args.methods for p in args.problems for i in PHOTOGRAPHS
    ):
        about, (method, lengths) = scene(image, problem, args.side), PLAN[name]
        for steps in lengths:
            run = po.sample(po.Posterior(prior, about.given), method, n=args.n, steps=steps, seed=0)
            x, truth = run.samples, about.truth[None]
            each = psnr(x, truth.expand_as(x), 1.0)
            whole = float(psnr(x.mean(0, keepdim=True), truth, 1.0))
            numbers = (
                f"{each.mean():.2f}",
                f"{each.std() / args.n**0.5:.2f}",
                f"{whole:.2f}",
                f"{about.given.chi2(x).mean():.3f}",
            )
            calls = f"{run.counts['denoiser']:g}"
            cells = (name, problem, image, calls, *numbers, f"{run.seconds:.0f}")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
