"""MomentSMC as it was and from a bank of the prior's images, on the nine cells of GMM-25.

    python benchmarks/twists.py [--seeds 20] [--big-seeds 5] [--cells 8,1 ...] [--bank 16384]
        [--out rows.jsonl]

Problems, exact samples, the floor and the distance are those of ``posteriori bench exact``
(extended schedule, 20 steps, 1000 samples, one cloud). For each cell: the medians over problems of
the sliced Wasserstein distance, before, after, and of the floor, another 1000 exact samples; calls
a sample, denoisers and vector-Jacobian products; the share of the calls that is left, counted alike
and with a product as two; and how far log p(y) is off. ``--big-seeds`` problems are made in 800
dimensions.

The calls that make a bank are in no run. Here it costs none, as the mixture is sampled in closed
form; a network's would cost 99 for each image, once for all y.
``--out`` keeps a row for each run, and an interrupted command goes on from there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, median
from typing import Any

import posteriori as po
from posteriori.diagnostics import quiet
from posteriori.evaluation import exact_posterior, sliced_wasserstein
from posteriori.tasks import get

CELLS = [f"{d},{m}" for d in (8, 80, 800) for m in (1, 2, 4)]
N, STEPS = 1000, 20
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--big-seeds", type=int, default=5)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=CELLS)
    parser.add_argument("--bank", type=int, default=16384)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = _kept(args.out)
    ways = {"before": po.methods.MomentSMC(N), "after": po.methods.MomentSMC(N, bank=args.bank)}
    for cell in args.cells:
        for seed in range(args.big_seeds if cell.startswith("800") else args.seeds):
            if all((cell, seed, name) in rows for name in ways):
                continue
            for row in _measured(cell, seed, ways):
                rows[cell, seed, row["way"]] = row
                if args.out:
                    with args.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    _print([row for row in rows.values() if row["cell"] in args.cells])


def _kept(path: Path | None) -> dict[tuple[str, int, str], Row]:
    lines = path.read_text().splitlines() if path and path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["cell"], row["seed"], row["way"]): row for row in rows}


def _measured(cell: str, seed: int, ways: dict[str, po.methods.MomentSMC]) -> list[Row]:
    d, m = (int(number) for number in cell.split(","))
    task = get("gmm25", d=d, measured=m, seed=seed, schedule="extended")
    truth, other = (task.exact(N, seed=2 * seed + k) for k in (1, 2))
    floor = sliced_wasserstein(other, truth, slices=1000)
    evidence = exact_posterior(task.posterior).log_evidence
    out = []
    for way, method in ways.items():
        with quiet():
            run = po.sample(task.posterior, method, n=N, steps=STEPS, seed=seed, batch=N)
        assert run.log_evidence is not None
        out.append(
            {
                "cell": cell,
                "seed": seed,
                "way": way,
                "floor": floor,
                "SW1": sliced_wasserstein(run.samples, truth, slices=1000),
                "denoiser": run.counts["denoiser"],
                "vjp": run.counts["vjp"],
                "levels": len(run.config["levels"]) - 1,
                "off": run.log_evidence - evidence,
            }
        )
    return out


def _print(rows: list[Row]) -> None:
    print(
        "| cell | problems | floor | before | after | over floor | calls before | calls after "
        "| levels | share of calls | product as two | off before | off after |\n|---|"
        + "---:|"
        * 12
    )
    for cell in dict.fromkeys(row["cell"] for row in rows):
        before, after = (
            [row for row in rows if row["cell"] == cell and row["way"] == way]
            for way in ("before", "after")
        )
        medians = [
            median(row[key] for row in part)
            for key, part in (("floor", after), ("SW1", before), ("SW1", after))
        ]
        shares = [_calls(after, weight) / _calls(before, weight) for weight in (1, 2)]
        print(
            f"| {cell} | {len(after)} | "
            + " | ".join(f"{value:.3g}" for value in medians)
            + f" | {medians[2] / medians[0]:.2f} | {_spelled(before)} | {_spelled(after)} "
            f"| {mean(row['levels'] for row in after):.1f} | 1/{1 / shares[0]:.0f} "
            f"| 1/{1 / shares[1]:.0f} | "
            + " | ".join(f"{mean(abs(row['off']) for row in part):.3f}" for part in (before, after))
            + " |"
        )


def _calls(rows: list[Row], weight: int) -> float:
    return mean(row["denoiser"] + weight * row["vjp"] for row in rows)


def _spelled(rows: list[Row]) -> str:
    return " + ".join(f"{mean(row[kind] for row in rows):.1f}" for kind in ("denoiser", "vjp"))


if __name__ == "__main__":
    main()
