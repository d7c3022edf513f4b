"""Do the credible intervals of EPS hold the truth as often as they say, on images of a network's
prior?

    python benchmarks/eps_coverage.py [--problems 200] [--steps 20] [--samples 9] [--at-once 25]
                                      [--truths midpoint] [--precision bfloat16]
                                      [--table eps-coverage.md]

The digits of the study ``posterior-coverage``: the upper half is measured with noise 0.1 of [0, 1],
and eight test functions, groups, verdicts and seeds are the study's. EPS draws with
``priors.digits(noise_maps=True)``. Of that prior the truths are samples too, in 80 ``Midpoint``
steps; with ``--truths study`` they are the study's, samples of ``priors.digits()`` in 80 ancestral
steps. The network runs in ``--precision``, of truths and samples alike.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor

import posteriori as po
from posteriori import priors
from posteriori.evaluation import calibration
from posteriori.experiments.studies import coverage_problems as study
from posteriori.experiments.studies.posterior_coverage import overall, rank_scores
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods import EPS, Unconditional
from posteriori.noise import Gaussian
from posteriori.problem_file import simulate

# How truths are drawn, in words.
TRUTHS = {
    "midpoint": "samples of the same prior in 80 `Midpoint` steps",
    "study": "ancestral samples of `digits` in 80 steps",
}


def ranks(prior: priors.Network, first: int, count: int, steps: int, n: int, kind: str) -> Tensor:
    """Ranks (count, 8) of the test functions of the truths ``first`` onwards among those of n
    samples."""
    other, A = study.coverage_digits()
    law = Gaussian(study.NOISE["digits"])
    blind = Likelihood(torch.zeros(A.out_shape), A, law, range=(0, 1))
    seed = study.TRUTH + first
    with warnings.catch_warnings(action="ignore"):  # that samples of the prior do not fit y = 0
        drawn = po.sample_each(
            other if kind == "study" else prior,
            [blind] * count,
            study.PRIOR if kind == "study" else Unconditional(study.MIDPOINT),
            steps=study.TRUTH_STEPS,
            seed=seed,
        )
    truths = [run.samples[0] for run in drawn]
    likelihoods = [
        Likelihood(simulate(A, x, law, seed + k), A, law, range=(0, 1))
        for k, x in enumerate(truths)
    ]
    runs = po.sample_each(prior, likelihoods, EPS(), n=n, steps=steps, seed=first)
    found = []
    for k, (x, likelihood, run) in enumerate(zip(truths, likelihoods, runs, strict=True)):
        post = Posterior(prior, likelihood)
        of_samples = study.functions("digits", post, run.samples)
        of_truth = study.functions("digits", post, x[None])
        found.append(calibration.ranks(of_samples, of_truth, seed=first + k)[0])
    return torch.stack(found)


def table(found: Tensor, n: int, steps: int, kind: str, precision: str) -> str:
    """The page of ranks (problems, 8)."""
    groups = {group: rank_scores(found[:, part], n) for group, part in study.GROUPS.items()}
    parts = [row | {"group": group} for group, row in groups.items() if group != "all"]
    lines = [
        "# Coverage of EPS on digits",
        "",
        f"`python benchmarks/eps_coverage.py --problems {len(found)} --steps {steps} "
        f"--samples {n} --truths {kind} --precision {precision}`: "
        f"{len(found)} truths, {TRUTHS[kind]}; {n} samples each at {2 * steps - 1} denoiser calls. "
        f"Verdict: {overall(parts)}.",
        "",
        "| functions | 80 % intervals hold | p of uniform ranks | ranks in ten bins | verdict |",
        "|---|---|---|---|---|",
    ]
    for group, row in groups.items():
        held = f"{100 * row['cover_80']:.1f} +- {100 * row['se_80']:.1f} %"
        bins = ", ".join(str(row[f"bin_{k}"]) for k in range(1, 11))
        said = overall(parts) if group == "all" else row["verdict"]
        lines.append(f"| {group} | {held} | {row['p']:.3f} | {bins} | {said} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--at-once", type=int, default=25)
    parser.add_argument("--truths", choices=[*TRUTHS], default="midpoint")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--table", type=Path, default=Path("eps-coverage.md"))
    arguments = parser.parse_args()
    kind, precision = arguments.truths, arguments.precision
    prior = priors.digits(noise_maps=True, autocast=None if precision == "float32" else "bfloat16")
    found = []
    for first in range(0, arguments.problems, arguments.at_once):
        count = min(arguments.at_once, arguments.problems - first)
        found.append(ranks(prior, first, count, arguments.steps, arguments.samples, kind))
        text = table(torch.cat(found), arguments.samples, arguments.steps, kind, precision)
        arguments.table.write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
