"""Whose intervals hold the truths of the digits, with enough of them to see a fault in ``fit``?

    python benchmarks/digits_coverage.py [--methods DAPS DiffPIR ...] [--problems 100]
                                         [--at-once 25] [--json FILE] [--table digits-coverage.md]

The digits of the study ``posterior-coverage``: the upper half is measured with noise 0.1 of [0, 1],
and the eight test functions, groups and verdicts are the study's. Truths are samples of
``priors.digits()`` in 80 ``Midpoint`` steps, nine samples each are drawn from the same network, all
in bfloat16. A finished part, ``--at-once`` problems of a method, is kept in the file ``--json`` and
not computed again.

Beside the ranks stands chi-square, the squared length of the residual over the noise level for each
measured number: of the truths and of the samples. Ranks of ``fit`` say whether they agree.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posteriori as po
from posteriori import methods, priors
from posteriori.evaluation import calibration
from posteriori.experiments.studies import coverage_problems as study
from posteriori.experiments.studies.posterior_coverage import rank_scores
from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Gaussian
from posteriori.problem_file import simulate

SAMPLES, FIT = 9, 7
# Method and steps; levels are Karras', as in the study.
METHODS: dict[str, tuple[methods.Method[Any], int]] = {
    "DAPS": (methods.DAPS(), 20),
    "DiffPIR": (methods.DiffPIR(), 20),
    "DAPS matched": (methods.DAPS(width="matched"), 20),
    "DiffPIR matched": (methods.DiffPIR(width="matched"), 20),
    "PnPDM 8": (methods.PnPDM(prior_steps=8), 10),
    "PnPDM": (methods.PnPDM(), 20),
    "MMPS": (methods.MMPS(), 16),
}


def truths(prior: priors.Prior, first: int, count: int) -> Tensor:
    """Samples of the prior (count, 1, 32, 32)."""
    A = study.coverage_digits()[1]
    blind = Likelihood(torch.zeros(A.out_shape), A, Gaussian(study.NOISE["digits"]), range=(0, 1))
    with warnings.catch_warnings(action="ignore"):  # that samples of the prior do not fit y = 0
        drawn = po.sample_each(
            prior,
            [blind] * count,
            methods.Unconditional(study.MIDPOINT),
            steps=study.TRUTH_STEPS,
            seed=study.TRUTH + first,
        )
    return torch.cat([run.samples for run in drawn])


def part(name: str, prior: priors.Prior, x: Tensor, first: int) -> dict[str, Any]:
    """Ranks (problems, 8) and the fit of truths x and samples."""
    method, steps = METHODS[name]
    A, law = study.coverage_digits()[1], Gaussian(study.NOISE["digits"])
    likelihoods = [
        Likelihood(simulate(A, truth, law, study.TRUTH + first + k), A, law, range=(0, 1))
        for k, truth in enumerate(x)
    ]
    with warnings.catch_warnings(action="ignore"):  # poor fits: the table says them
        runs = po.sample_each(prior, likelihoods, method, n=SAMPLES, steps=steps, seed=first)
    ranks, fits, kept = [], [], []
    for k, (truth, given, run) in enumerate(zip(x, likelihoods, runs, strict=True)):
        post = Posterior(prior, given)
        of_samples = study.functions("digits", post, run.samples)
        of_truth = study.functions("digits", post, truth[None])
        ranks.append(calibration.ranks(of_samples, of_truth, seed=first + k)[0].tolist())
        numbers = given.y.numel()
        both = torch.cat([of_truth, of_samples])
        fits.append((both[:, FIT].square() / numbers).tolist())
        kept.append(both[:, FIT - 1].tolist())
    return {"ranks": ranks, "chi2": fits, "norm": kept, "calls": runs[0].counts}


def table(parts: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| method | steps | calls | truths | chi-square of samples | group | 80 % intervals hold "
        "| p of uniform ranks | verdict |",
        "|---|---:|---:|---:|---:|---|---:|---:|---|",
    ]
    for name, found in parts.items():
        ranks = torch.tensor([row for one in found for row in one["ranks"]])
        chi2 = torch.tensor([row for one in found for row in one["chi2"]])
        calls = found[0]["calls"]["denoiser"]
        for group, columns in list(study.GROUPS.items())[:-1]:
            row = rank_scores(ranks[:, columns], SAMPLES)
            lines.append(
                f"| {name} | {METHODS[name][1]} | {calls} | {len(ranks)} "
                f"| {chi2[:, 1:].mean():.3f} | {group} "
                f"| {100 * row['cover_80']:.1f} +- {100 * row['se_80']:.1f} % "
                f"| {row['p']:.3f} | {row['verdict']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="*", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=25)
    parser.add_argument("--json", type=Path, default=Path("digits-coverage.json"))
    parser.add_argument("--table", type=Path, default=Path("digits-coverage.md"))
    asked = parser.parse_args()
    prior = priors.digits(autocast="bfloat16")
    store: dict[str, Any] = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    for first in range(0, asked.problems, asked.at_once):
        count = min(asked.at_once, asked.problems - first)
        at = f"truths/{first}/{count}"
        if at not in store:
            store[at] = truths(prior, first, count).flatten(1).tolist()
            asked.json.write_text(json.dumps(store))
        x = torch.tensor(store[at]).reshape(-1, 1, 32, 32)
        for name in asked.methods:
            if (key := f"{name}/{first}/{count}") not in store:
                store[key] = part(name, prior, x, first)
                asked.json.write_text(json.dumps(store))
        found = {
            name: [one for key, one in store.items() if key.startswith(f"{name}/")]
            for name in METHODS
        }
        asked.table.write_text(table({name: one for name, one in found.items() if one}))
        print(asked.table.read_text(), flush=True)


if __name__ == "__main__":
    main()
