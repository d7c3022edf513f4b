"""Do the credible intervals of EPS hold the truth as often as they say, on images of a network's
prior?

    python benchmarks/eps_coverage.py [--bed digits] [--problems 200] [--steps 20] [--samples 9]
                                      [--at-once 25] [--truths midpoint] [--precision bfloat16]
                                      [--near 2.5] [--iterations 2]
                                      [--json eps-coverage.json] [--table eps-coverage.md]

The digits of the study ``posterior-coverage``: the upper half is measured with noise 0.1 of [0, 1],
and eight test functions, groups, verdicts and seeds are the study's. EPS draws with
``priors.digits(noise_maps=True)``. The other beds are of colour pictures of 32 x 32 and
``priors.photos(noise_maps=True)``:

    half    the upper half is measured with noise 0.1
    pixels  three in ten pixels are, single ones, with noise 0.05
    means   those of blocks of 4 x 4 are, with noise 0.05

Of the prior of EPS the truths are samples too, in 80 ``Midpoint`` steps; with ``--truths study``
they are the study's, samples of ``priors.digits()`` in 80 ancestral steps. Both ask the network for
white noise alone, EPS asks it for maps: with ``--truths maps`` the truths are samples under maps
too, those of ``midpoint`` after EPS has drawn each half anew twice, the other half seen with the
noise of the problem (digits alone). The network runs in ``--precision``, of truths and samples
alike. A finished part, ``--at-once`` problems, is kept in the file ``--json``.

``--near`` and ``--iterations`` are settings of EPS: where it takes derivatives, and how many.

Beside the ranks stands the spread of the norm: of the samples of a problem, and of the truth about
their mean, which exact samples have the same. Their ratio is above 1 where intervals are too wide.
And the chi-square of the samples, less that of the truth.
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import posteriori as po
from posteriori import priors
from posteriori.evaluation import calibration
from posteriori.evaluation.distances import flat
from posteriori.experiments.studies import coverage_problems as study
from posteriori.experiments.studies.posterior_coverage import overall, rank_scores
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods import EPS, Unconditional
from posteriori.noise import Gaussian
from posteriori.operators import Downsample, LinearOperator, Mask, random_mask
from posteriori.operators.base import closed_spectrum
from posteriori.problem_file import simulate

# How truths are drawn, in words.
TRUTHS = {
    "midpoint": "samples of the same prior in 80 `Midpoint` steps",
    "study": "ancestral samples of `digits` in 80 steps",
    "maps": "samples of the same prior under maps: EPS has drawn each half twice given the other",
}
NORM, FIT, SWEEPS = 6, 7, 2


class Bed(NamedTuple):
    """A prior, what is measured of its images, the noise of images in [0, 1], and what draws."""

    prior: priors.Network
    A: LinearOperator
    law: Gaussian
    method: EPS


def bed_named(name: str, precision: str, method: EPS) -> Bed:
    autocast = None if precision == "float32" else "bfloat16"
    if name == "digits":
        A, law = study.coverage_digits()[1], Gaussian(study.NOISE["digits"])
        return Bed(priors.digits(noise_maps=True, autocast=autocast), A, law, method)
    shape, rows = (3, 32, 32), torch.arange(32)[:, None]
    A, level = {
        "half": (Mask(rows < 16, shape), 0.1),
        "pixels": (Mask(random_mask(shape[1:], 0.3, seed=0), shape), 0.05),
        "means": (Downsample(shape, 4, "box"), 0.05),
    }[name]
    return Bed(priors.photos(noise_maps=True, autocast=autocast), A, Gaussian(level), method)


@cache
def directions(A: LinearOperator) -> Tensor:
    """As ``study.directions``, of any operator with a null space: (6, d)."""
    spectrum, g = closed_spectrum(A), torch.Generator().manual_seed(1)
    c, m = torch.randn(6, A.coordinates, generator=g, dtype=torch.float64), len(spectrum.s)
    c[:3, m:], c[3:, :m] = 0, 0
    v = flat(spectrum.V(c))
    return v / v.norm(dim=1, keepdim=True)


def functions(post: Posterior, x: Tensor) -> Tensor:
    """The eight test functions of the study, of images x (n, *E): (n, 8)."""
    v = flat(x).double()
    fit = flat(post.given.residual(x)).double().norm(dim=1) / post.given.std
    seen = v @ directions(post.given.A).T
    return torch.cat([seen, v.norm(dim=1)[:, None], fit[:, None]], 1)


def drawn(
    bed: Bed, A: LinearOperator, x: Tensor, steps: int, n: int, seed: int, noise: int
) -> tuple[list[Likelihood], list[po.Run]]:
    """The measurement of each image of x by A, with the seeds ``noise`` onwards, and a run of n
    samples of EPS given each."""
    prior, law = bed.prior, bed.law
    likelihoods = [
        Likelihood(simulate(A, image, law, noise + k), A, law, range=(0, 1))
        for k, image in enumerate(x)
    ]
    runs = po.sample_each(prior, likelihoods, bed.method, n=n, steps=steps, seed=seed)
    return likelihoods, runs


def truths(bed: Bed, first: int, count: int, steps: int, kind: str) -> Tensor:
    """Truths ``first`` onwards (count, *E)."""
    other, A = study.coverage_digits()[0], bed.A
    blind = Likelihood(torch.zeros(A.out_shape), A, bed.law, range=(0, 1))
    seed = study.TRUTH + first
    with warnings.catch_warnings(action="ignore"):  # that samples of the prior do not fit y = 0
        runs = po.sample_each(
            other if kind == "study" else bed.prior,
            [blind] * count,
            study.PRIOR if kind == "study" else Unconditional(study.MIDPOINT),
            steps=study.TRUTH_STEPS,
            seed=seed,
        )
    x = torch.cat([run.samples for run in runs])
    if kind == "maps":
        rows = torch.arange(32)[:, None]
        for k in range(2 * SWEEPS):
            half = Mask((rows < 16) if k % 2 == 0 else (rows >= 16), x.shape[1:])
            own = seed + 2**34 * (k + 1)  # no other draw has these seeds
            x = torch.cat([run.samples for run in drawn(bed, half, x, steps, 1, own, own)[1]])
    return x


def part(bed: Bed, first: int, count: int, steps: int, n: int, kind: str) -> dict[str, Any]:
    """Ranks (count, 8) of the test functions of the truths ``first`` onwards among those of n
    samples; and the norms of truth and samples (count, 1 + n)."""
    x = truths(bed, first, count, steps, kind)
    likelihoods, runs = drawn(bed, bed.A, x, steps, n, first, study.TRUTH + first)
    ranks, norms, fits = [], [], []
    for k, (image, likelihood, run) in enumerate(zip(x, likelihoods, runs, strict=True)):
        post = Posterior(bed.prior, likelihood)
        of_samples, of_truth = functions(post, run.samples), functions(post, image[None])
        ranks.append(calibration.ranks(of_samples, of_truth, seed=first + k)[0].tolist())
        both = torch.cat([of_truth, of_samples])
        norms.append(both[:, NORM].tolist())
        fits.append((both[:, FIT].square() / post.given.y.numel()).tolist())
    return {"ranks": ranks, "norms": norms, "fits": fits, "products": runs[0].counts["vjp"]}


def excess(fits: Tensor) -> str:
    """Of chi-squares (problems, 1 + n), the truth's first: what those of the samples have more."""
    more = fits[:, 1:].mean(1) - fits[:, 0]
    error = more.std() / len(more) ** 0.5
    return (
        f"Chi-square of samples less that of the truth, {fits[:, 0].mean():.3f}: "
        f"{more.mean():+.3f} +- {error:.3f}."
    )


def spreads(norms: Tensor) -> str:
    """Of norms (problems, 1 + n), the truth's first: two spreads that exact samples have alike, and
    their ratio with its standard error by bootstrap."""
    truth, mine = norms[:, 0], norms[:, 1:]
    about = (truth - mine.mean(1)).square() / (1 + 1 / mine.shape[1])
    own = mine.var(1)
    g = torch.Generator().manual_seed(0)
    again = torch.randint(len(norms), (2000, len(norms)), generator=g)
    ratios = (own[again].mean(1) / about[again].mean(1)).sqrt()
    return (
        f"The norm of a problem's samples has a spread of {own.mean().sqrt():.3f}, that of the "
        f"truth about their mean {about.mean().sqrt():.3f}: a ratio of "
        f"{(own.mean() / about.mean()).sqrt():.2f} +- {ratios.std():.2f}. All norms have mean and "
        f"spread {mine.mean():.3f} and {mine.std():.3f}, those of the truths {truth.mean():.3f} "
        f"and {truth.std():.3f}."
    )


def table(found: Tensor, n: int, bed: str, how: str, what: str) -> str:
    """The page of ranks (problems, 8) among n samples: how it is made, and how they were drawn."""
    groups = {group: rank_scores(found[:, part], n) for group, part in study.GROUPS.items()}
    parts = [row | {"group": group} for group, row in groups.items() if group != "all"]
    lines = [
        f"# Coverage of EPS: {bed}",
        "",
        f"`python benchmarks/eps_coverage.py {how}`: {what}. Verdict: {overall(parts)}.",
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
    parser.add_argument("--bed", choices=["digits", "half", "pixels", "means"], default="digits")
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--at-once", type=int, default=25)
    parser.add_argument("--truths", choices=[*TRUTHS], default="midpoint")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--near", type=float, default=EPS.near)
    parser.add_argument("--iterations", type=int, default=EPS.iterations)
    parser.add_argument("--json", type=Path, default=Path("eps-coverage.json"))
    parser.add_argument("--table", type=Path, default=Path("eps-coverage.md"))
    arguments = parser.parse_args()
    kind, precision, name = arguments.truths, arguments.precision, arguments.bed
    if name != "digits" and kind != "midpoint":
        parser.error(f"--truths {kind} is of digits, got --bed {name}")
    method = EPS(near=arguments.near, iterations=arguments.iterations)
    bed = bed_named(name, precision, method)
    steps, n = arguments.steps, arguments.samples
    store: dict[str, Any] = (
        json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    )
    ranks, norms, fits = [], [], []
    for first in range(0, arguments.problems, arguments.at_once):
        count = min(arguments.at_once, arguments.problems - first)
        key = f"{name}/{kind}/{precision}/{method.near:g}/{method.iterations}/{steps}/{n}"
        key += f"/{first}/{count}"
        if key not in store:
            store[key] = part(bed, first, count, steps, n, kind)
            arguments.json.write_text(json.dumps(store))
        ranks += store[key]["ranks"]
        norms += store[key]["norms"]
        fits += store[key]["fits"]
        how = (
            f"--bed {name} --problems {len(ranks)} --steps {steps} --near {method.near:g} "
            f"--iterations {method.iterations} --samples {n} --truths {kind} "
            f"--precision {precision}"
        )
        what = (
            f"{len(ranks)} truths, {TRUTHS[kind]}; {n} samples each at {2 * steps - 1} denoiser "
            f"calls and {store[key]['products']} derivatives"
        )
        text = table(torch.tensor(ranks), n, name, how, what)
        text += "\n" + spreads(torch.tensor(norms)) + "\n"
        text += "\n" + excess(torch.tensor(fits)) + "\n"
        arguments.table.write_text(text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
