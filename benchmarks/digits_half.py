"""The upper half of a digit completed by clouds of particles: TDS and FPS with the shipped digits
prior, noise 0.05 of [0, 1].

    python benchmarks/digits_half.py [--digits 2] [--steps 50] [--particles 4 16 64] [--seed 5]
                                     [--table half.md] [--picture half.png]

Truths are drawn by the prior. Each row of the table is the mean over digits of one run of one cloud
each: the lowest ESS of any step (in particles), the ancestors from which the samples descend and
the steps that resampled (``genealogy``), chi-square of the samples, their diversity (the root mean
square difference of two samples in the hidden half, averaged over pairs, in units of [0, 1]),
seconds, and how many runs the report calls degenerate. TDS has PiGDM's twist: the moments of 512
numbers of y are beyond a benchmark's budget. Nothing is run twice and nothing is chosen among runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from phase_digits import drawn

import posteriori as po
from posteriori.evaluation import summary
from posteriori.methods import FPS, TDS
from posteriori.report.sheet import contact_sheet
from posteriori.rng import Streams

SIGMA, SIDE, SHOWN = 0.05, 32, 8
HEADS = (
    "Method",
    "Particles",
    "Lowest ESS",
    "Ancestors",
    "Resamplings",
    "chi2",
    "Diversity",
    "Seconds",
    "Called degenerate",
)


def diversity(x: torch.Tensor) -> float:
    """Mean over pairs of rows of the root mean square difference in the upper half:
    (n, 1, h, w)."""
    flat = x[..., : SIDE // 2, :].flatten(1).double()
    return float(torch.pdist(flat).mean()) / flat.shape[1] ** 0.5


def halves(prior: po.Prior, truth: torch.Tensor, seed: int) -> po.Posterior:
    """The posterior of a digit (1, 1, 32, 32) whose lower half is seen."""
    seen = torch.arange(SIDE)[:, None].expand(SIDE, SIDE) >= SIDE // 2
    A, law = po.operators.Mask(seen, (1, SIDE, SIDE)), po.noise.Gaussian(SIGMA)
    y = law.sample(A(truth), Streams(seed + 2**20, [0]))[0]
    return po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1)))


def measured(
    posts: list[po.Posterior], method: TDS | FPS, steps: int, seed: int
) -> tuple[dict, list[torch.Tensor]]:
    """One cloud for each digit: the means of its numbers, and its samples."""
    rows, samples = [], []
    for k, post in enumerate(posts):
        run = po.sample(
            post, method, n=method.particles, grid=po.grid.karras(steps, 20.0, 0.02), seed=seed + k
        )
        record = summary(run, post)
        cloud = record["cloud"]
        rows.append(
            {
                "ess": cloud["lowest_ess"] * method.particles,
                "ancestors": cloud["ancestors"],
                "resamplings": cloud["resamplings"],
                "chi2": record["chi2_samples"],
                "diversity": diversity(run.samples),
                "seconds": run.seconds,
                "flagged": any("descend from" in flag for flag in record["flags"]),
            }
        )
        samples.append(run.samples)
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}, samples


def told(found: dict[tuple[str, int], dict], unrelated: float) -> str:
    """What the numbers say, in sentences."""
    lines = []
    for name in ("TDS", "FPS"):
        sizes = sorted(n for method, n in found if method == name)
        few, many = found[name, sizes[0]], found[name, sizes[-1]]
        lines.append(
            f"{name}: from {sizes[0]} to {sizes[-1]} particles the ancestors of a cloud go "
            f"from {few['ancestors']:.3g} to {many['ancestors']:.3g} and the diversity "
            f"of its completions from {few['diversity']:.3f} to {many['diversity']:.3f}, "
            f"{100 * many['diversity'] / unrelated:.0f} % "
            f"of the {unrelated:.3f} between upper halves of unrelated digits; "
            f"{100 * many['ancestors'] / sizes[-1]:.0f} % of the {sizes[-1]} samples count. "
            f"chi2 is {many['chi2']:.2f}."
        )
    degenerate = sum(row["flagged"] > 0 for row in found.values())
    lines.append(f"The report calls clouds degenerate in {degenerate} of {len(found)} rows.")
    return "\n".join(lines)


def tile(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(0, 1).expand(3, SIDE, SIDE)


def picture(
    path: Path,
    truth: torch.Tensor,
    post: po.Posterior,
    samples: dict[tuple[str, int], torch.Tensor],
) -> None:
    """The first digit: what is known, then completions of every row."""
    seen = post.given.A.adjoint(post.given.y[None])[0]
    heads = ["truth", "measured", *(f"sample {k}" for k in range(SHOWN))]
    rows = []
    for (name, n), x in samples.items():
        shown = [(tile(row), "") for row in x[:SHOWN]]
        shown += [(None, "no more particles")] * max(0, SHOWN - len(x))
        rows.append((f"{name}, {n} particles", [(tile(truth), ""), (tile(seen), ""), *shown]))
    contact_sheet(path, heads, rows, SIDE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--particles", type=int, nargs="*", default=[4, 16, 64])
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    prior = po.priors.digits()
    truths = drawn(prior, args.digits + 16, args.seed)
    posts = [halves(prior, truths[k : k + 1], args.seed + k) for k in range(args.digits)]
    found, samples = {}, {}
    lines = ["| " + " | ".join(HEADS) + " |", "|---|" + "---:|" * (len(HEADS) - 1)]
    for make in (lambda n: TDS(n, "pigdm"), lambda n: FPS(n)):
        for n in args.particles:
            method = make(n)
            key = (type(method).__name__, n)
            r, x = measured(posts, method, args.steps, args.seed)
            found[key], samples[key] = r, x[0]
            numbers = (
                f"{r['ess']:.2f} | {r['ancestors']:.1f} | {r['resamplings']:.1f} | "
                f"{r['chi2']:.2f} | {r['diversity']:.3f}"
            )
            lines.append(
                f"| {key[0]} | {n} | {numbers} | {r['seconds']:.1f} | "
                f"{r['flagged'] * args.digits:.0f} of {args.digits} |"
            )
            print(lines[-1], flush=True)
    unrelated = diversity(truths[args.digits :])
    command = (
        f"python benchmarks/digits_half.py --digits {args.digits} "
        f"--steps {args.steps} --seed {args.seed}"
    )
    text = "\n".join(
        [
            "# Half a digit",
            "",
            f"`{command}`; {__doc__.split('Truths', 1)[1].join(['Truths', '']).strip()}",
            "",
            *lines,
            "",
        ]
    )
    text += f"\n{told(found, unrelated)}\n"
    print(text)
    if args.table:
        args.table.write_text(text)
    if args.picture:
        picture(args.picture, truths[0], posts[0], samples)


if __name__ == "__main__":
    main()
