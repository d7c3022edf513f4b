"""What each line of ``posteriori calibrate`` sees of planted faults, how often it blames exact
samples, and whether scaled intervals hold on photographs.

    python benchmarks/calibrate.py                    exact samples and planted faults, on a mixture
    python benchmarks/calibrate.py --photos FOLDER    intervals on photographs the prior never saw
    python benchmarks/calibrate.py --write            docs/results/calibrate.md from calibrate.json

FOLDER holds photographs; docs/results/calibrate.md is of BSDS500's ``val``. Each row is kept in
docs/results/calibrate.json when it is done; what is to be measured again is taken out there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import posteriori as po
from posteriori.conformal import Conformal, ratios_of
from posteriori.evaluation import exact_posterior, student
from posteriori.evaluation.exact import ExactPosterior
from posteriori.experiments.studies.coverage_problems import coverage_mixture
from posteriori.run import read_json
from posteriori.storage import write_text
from posteriori.trials import diagnose, simulated_trials, trial_of
from posteriori.trials.scored import scored_trial

HERE = Path(__file__).resolve().parents[1]
KEPT, PAGE = HERE / "docs/results/calibrate.json", HERE / "docs/results/calibrate.md"
LINES = ("ranks", "coverage", "tarp", "crps", "spread-skill")
# Reports, each of 40 trials of 20 samples.
TRIALS, EXACT_REPORTS, FAULT_REPORTS = 40, 60, 10
SIDE, CROPS, SAMPLES, STEPS, LEVEL, SPLITS = 32, 32, 4, 6, 0.9, 1000


def heaviest(samples: Tensor, exact: ExactPosterior) -> Tensor:
    """Draws of the component of the exact posterior that weighs most."""
    mixture = exact.mixture
    best = int(mixture.weights.argmax())
    part = po.priors.GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        mixture.means[best : best + 1],
        mixture.covariances[:1],
    )
    return part.sample(len(samples), int(1e6 * samples[0, 0].abs()) % 2**31)


def spread_by(factor: float) -> Callable[[Tensor, ExactPosterior], Tensor]:
    return lambda x, _: x.mean(0) + factor * (x - x.mean(0))


FAULTS: dict[str, Callable[[Tensor, ExactPosterior], Tensor]] = {
    "none: exact samples": lambda x, _: x,
    "shifted by half a standard deviation": lambda x, _: x + 0.5 * x.std(0),
    "0.8 times as wide": spread_by(0.8),
    "0.6 times as wide": spread_by(0.6),
    "1.6 times as wide": spread_by(1.6),
    "one mode of several": heaviest,
    "draws of the prior, whatever y is": lambda x, _: coverage_mixture()[0].sample(
        len(x), int(1e6 * x[0, 0].abs()) % 2**31
    ),
}


def lines_of(fault: str) -> dict[str, Any]:
    """How many of the reports blame the samples, line by line."""
    prior, A = coverage_mixture()
    y = torch.zeros(A.out_shape, dtype=torch.float64)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.2)))
    reports = EXACT_REPORTS if fault.startswith("none") else FAULT_REPORTS
    trials = simulated_trials(post, reports * TRIALS + 1, seed=1)
    records = []
    for k, trial in enumerate(trials[:-1]):
        exact = exact_posterior(trial.posterior)
        samples = FAULTS[fault](exact.sample(20, k), exact)
        elsewhere = trials[k + 1].truth
        records.append(scored_trial(samples, trial.truth, trial.posterior, elsewhere, k))
    blamed = dict.fromkeys((*LINES, "any"), 0)
    for start in range(0, len(records), TRIALS):
        found = diagnose(records[start : start + TRIALS], 19)
        bad = {line.name for line in found if line.verdict == "fail"}
        for name in LINES:
            blamed[name] += name in bad
        blamed["any"] += bool(bad)
    return {"reports": reports, "blamed": blamed}


METHODS = {"DDRM": po.methods.DDRM(), "DiffPIR": po.methods.DiffPIR(), "DAPS": po.methods.DAPS()}


def crops(folder: Path) -> list[Tensor]:
    """The central square of each photograph, in the order of their names."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".jpg", ".png"))[:CROPS]
    out = []
    for file in files:
        image, _ = po.measurements.read_image(file, channels=3)
        top, left = ((n - SIDE) // 2 for n in image.shape[1:])
        out.append(image[:, top : top + SIDE, left : left + SIDE].contiguous())
    return out


def photographs(name: str, images: list[Tensor]) -> dict[str, Any]:
    """Ratios of every crop, and the share inside of the usual interval."""
    A = po.operators.Blur(po.operators.gaussian_kernel(1.0), (3, SIDE, SIDE), boundary="circular")
    y, law = torch.zeros(3, SIDE, SIDE), po.noise.Gaussian(0.05)
    post = po.Posterior(po.priors.photos(), po.Likelihood(y, A, law, range=(0, 1)))
    trials = [trial_of(post, image, k) for k, image in enumerate(images)]
    runs = po.sample_each(
        post.prior,
        [trial.posterior.given for trial in trials],
        METHODS[name],
        n=SAMPLES,
        steps=STEPS,
        seed=1,
    )
    pairs = list(zip(runs, trials, strict=True))
    return {
        "plain": [student(r.mean, r.std, r.ess, t.truth, LEVEL) for r, t in pairs],
        "ratios": [_short(ratios_of(r.mean, r.std, t.truth)) for r, t in pairs],
    }


def _short(ratios: Tensor) -> list[float]:
    """To five digits: the file is kept."""
    return [float(f"{ratio:.5g}") for ratio in ratios.tolist()]


def judged(row: dict[str, Any]) -> dict[str, float]:
    """Half of the crops calibrate, the others test: the first half by name, and random halves."""
    ratios = torch.tensor(row["ratios"], dtype=torch.float64)
    half = len(ratios) // 2
    found = Conformal(ratios[:half], {})
    inside = (ratios[half:] <= found.factor(LEVEL)).double().mean(1)
    enough = (ratios[half:] <= found.factor(LEVEL, LEVEL)).double().mean(1) >= LEVEL
    g, means, shares = torch.Generator().manual_seed(0), [], []
    for _ in range(SPLITS):
        order = torch.randperm(len(ratios), generator=g)
        some, others = Conformal(ratios[order[:half]], {}), ratios[order[half:]]
        means.append(float((others <= some.factor(LEVEL)).double().mean()))
        each = (others <= some.factor(LEVEL, LEVEL)).double().mean(1)
        shares.append(float((each >= LEVEL).double().mean()))
    plain = torch.tensor(row["plain"], dtype=torch.float64)
    return {
        "plain": float(plain.mean()),
        "plain_error": float(plain.std()) / math.sqrt(len(plain)),
        "factor": found.factor(LEVEL),
        "inside": float(inside.mean()),
        "inside_error": float(inside.std()) / math.sqrt(half),
        "least": float(inside.min()),
        "images": float(enough.double().mean()),
        "mean_inside": sum(means) / SPLITS,
        "mean_images": sum(shares) / SPLITS,
        "bound": LEVEL + found.bound(),
        "images_bound": LEVEL + found.bound(images=True),
    }


# What each line compares, and its limit.
TOLD = (
    (
        "ranks",
        "the rank of the truth among samples: of three directions that are measured and three "
        "random ones, mean value, length, residual",
        "uniform: ten bins by simulated chi-squares, and the mean rank; the smallest p times "
        "their number at least 0.005",
    ),
    (
        "coverage",
        "the share of truths inside central intervals of those of 50, 80, 90 and 95 % that the "
        "samples can state: of these functions, and of all numbers of the image",
        "3 standard errors over trials; of all numbers as crps",
    ),
    (
        "tarp",
        "the rank of the distance to a draw of the prior, and to one more sample",
        "as ranks",
    ),
    (
        "crps",
        "the mean distance to the samples, of the truth and of each sample in its place, on which "
        "CRPS depends",
        "alike, by 4000 random choices of a member of each trial: p at least 0.005",
    ),
    (
        "spread-skill",
        "the squared distance to the mean of all, likewise; told is the spread, sqrt((1 + 1 / n) "
        "variance), over the error of the mean",
        "as crps",
    ),
    (
        "intervals",
        "the factor of the standard deviation that holds, and what the unscaled interval holds",
        "none: it is told",
    ),
)

TEXT = """# Calibration: what each line sees, and intervals that hold

`python benchmarks/calibrate.py`, with `--photos BSDS500/val` for photographs, and `--write`.

`posteriori calibrate` draws truths from the prior, or takes given ones, measures each by the
problem's operator and noise, and samples it. A line compares a number with what exact samples
have, whatever the posterior, and allows for its own scatter over trials.

{told}

TARP asks for distances to a reference that may depend on y but not on the truth. Ranks among n
samples are uniform on 0..n for any n, so that few samples are no fault, nor are references of the
truths' own law; a reference that is one of the ranked samples, and shares of samples that are
compared with a continuous law, would be. A draw of the prior as the only reference does not see
samples that ignore y: the residual, in ranks and coverage, does.

## Exact samples and planted faults

Four Gaussians in R^8 seen through three numbers, whose posterior is known and often has several
modes. Exact draws of it, changed as named; reports of {trials} trials with 20 samples each.
Shares of reports in which a line blames the samples:

{lines}

Exact samples are blamed by some line in {alarms} of {reports} reports.

## Intervals that hold

With N known images, each with its mean m, spread s and ratios |x - m| / s, the interval m +- f s
of a further image holds

- on average at least `level` of its numbers, and at most level + (1 + 1 / K) / (N + 1), with f the
  ceil(level (N + 1) K)-th smallest of all ratios, K of each image:
  `run.interval(level, calibrated=...)`;
- at least `level` of its numbers with probability at least `images`, and at most
  images + 1 / (N + 1), with f the ceil(images (N + 1))-th smallest of the images' own factors:
  `run.interval(level, calibrated=..., images=...)`.

The average, and the probability, are over the further image *and* the N known ones, their
measurements and samples. These N + 1 are assumed to be exchangeable, nothing else is. The upper
bounds are for ratios without ties. It is no statement about one pixel of one image, nor one given
y, nor about images of another kind than the known ones: truths that the prior draws stand for
photographs as far as the prior is right. `posteriori.conformal` has the proof;
`tests/trials/test_conformal.py` checks both bounds exactly, by taking each of N + 1 images as the
further one.
{photos}"""

PHOTOS = """
Measured on {count} photographs of BSDS500's val, which the prior never saw: central {side} x
{side} crops, Gaussian blur of 1 pixel, noise 0.05 of [0, 1], {n} samples in {steps} steps. The
first half of the crops by name calibrates, the other half tests. 90 % intervals by Student's t of
the {n} samples, and scaled ones:

{table}

Random halves: means over {splits} of them. Larger crops, other levels and more methods were not
measured.
"""


def page(kept: dict[str, Any]) -> str:
    rows = ["| fault | " + " | ".join((*LINES, "any")) + " |", "|---" * 7 + "|"]
    for fault, row in kept.get("lines", {}).items():
        shares = [f"{100 * row['blamed'][name] / row['reports']:.0f} %" for name in (*LINES, "any")]
        rows.append(f"| {fault} | " + " | ".join(shares) + " |")
    none = kept["lines"]["none: exact samples"]
    photos = ""
    if kept.get("photos"):
        table = [
            "| method | Student's t | factor | scaled | least of a crop | random halves | bound "
            "| crops with 90 %, images=0.9 | random halves | bound |",
            "|---" * 10 + "|",
        ]
        for name, row in kept["photos"].items():
            m = {key: 100 * value for key, value in judged(row).items()}
            table.append(
                f"| {name} | {m['plain']:.1f} +- {m['plain_error']:.1f} % "
                f"| {m['factor'] / 100:.2f} "
                f"| {m['inside']:.1f} +- {m['inside_error']:.1f} % | {m['least']:.0f} % "
                f"| {m['mean_inside']:.1f} % | 90 to {m['bound']:.1f} % | {m['images']:.0f} % "
                f"| {m['mean_images']:.1f} % | 90 to {m['images_bound']:.1f} % |"
            )
        photos = PHOTOS.format(
            count=len(row["plain"]),
            side=SIDE,
            n=SAMPLES,
            steps=STEPS,
            table="\n".join(table),
            splits=SPLITS,
        )
    told = ["| line | what is compared | limit |", "|---|---|---|"]
    return TEXT.format(
        told="\n".join([*told, *(f"| {' | '.join(row)} |" for row in TOLD)]),
        trials=TRIALS,
        lines="\n".join(rows),
        alarms=none["blamed"]["any"],
        reports=none["reports"],
        photos=photos,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", default="", help="of the faults or methods one")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    kept = read_json(KEPT) if KEPT.exists() else {"lines": {}, "photos": {}}
    if args.write:
        PAGE.write_text(page(kept))
        return
    todo: list[tuple[str, str]] = (
        [("lines", fault) for fault in FAULTS]
        if args.photos is None
        else [("photos", name) for name in METHODS]
    )
    for part, name in todo:
        if name in kept[part] or args.only not in name:
            continue
        found = lines_of(name) if part == "lines" else photographs(name, crops(args.photos))
        kept[part][name] = found
        write_text(KEPT, json.dumps(kept))
        print(json.dumps(judged(found) if part == "photos" else found), flush=True)


if __name__ == "__main__":
    main()
