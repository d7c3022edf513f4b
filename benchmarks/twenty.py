"""Posterior samples of photographs in twenty calls: EPS beside MMPS, DAPS, DiffPIR, PnPDM and DDRM.

    python benchmarks/twenty.py FOLDER [--count 12] [--side 128] [--n 4] [--prior NOISE_MAPS_PRIOR]
        [--pairs] [--seconds] [--methods "EPS 20" MMPS ...] [--problems blur ...] [--json FILE]
        [--table twenty.md]

FOLDER holds photographs that no prior was trained on (BSDS500's ``val``). Of the first ``count`` by
name the central ``side`` x ``side`` is measured four times:

    blur    circular Gaussian blur of 2 pixels, noise 0.02 of [0, 1]
    means   4 x 4 box downsampling, noise 0.05
    random  70 % of the pixels hidden, noise 0.05
    box     a square of half the side hidden, noise 0.05

EPS draws with ``priors.photos(noise_maps=True)`` in 5, 10 and 20 ``Midpoint`` steps of 9, 19 and 39
calls, with and without derivatives near the level of y, the others with ``priors.photos()``: MMPS
on 16 levels, DDRM on 20, PnPDM with four prior steps on 16 (docs/results/advice.md), DiffPIR and
DAPS on the blur as ``posteriori demo`` has them, elsewhere in their defaults on 20 levels.
Measurements and seeds are the same for all. A finished cell, a method on one measurement, is kept
in the file ``--json`` and not computed again; the table is of the photographs on which every method
of a problem has a cell. Seconds are processor time, which of one thread is the time on an idle
machine: run it with OMP_NUM_THREADS=1. ``--seconds`` draws four samples by MMPS and two and four by
EPS in turns and prints ratios, nothing else. With ``--pairs`` four antithetic samples are drawn
beside the others. LPIPS (alex) is there where the package and its weights are.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

import posteriori as po
from posteriori import methods, operators
from posteriori.cli.demo import BOTTOM, TOP
from posteriori.evaluation import calibration, ensembles, lpips, psnr
from posteriori.experiments import photographs
from posteriori.problem_file import simulate

PROBLEMS = {"blur": 0.02, "means": 0.05, "random": 0.05, "box": 0.05}
LEVELS = (0.5, 0.8, 0.95)
# Method and steps. EPS has levels of its own; the others those of ``posteriori demo``.
METHODS: dict[str, tuple[methods.Method[Any], int]] = {
    "EPS 10": (methods.EPS(), 5),
    "EPS 20": (methods.EPS(), 10),
    "EPS 40": (methods.EPS(), 20),
    "EPS 10, no derivative": (methods.EPS(near=0), 5),
    "EPS 20, no derivative": (methods.EPS(near=0), 10),
    "EPS 40, no derivative": (methods.EPS(near=0), 20),
    "MMPS": (methods.MMPS(), 16),
    "DAPS": (methods.DAPS(width="matched"), 20),
    "DiffPIR": (
        methods.DiffPIR(lam=0.25, width="matched", transition=methods.Midpoint()),
        10,
    ),
    "PnPDM": (methods.PnPDM(prior_steps=4), 16),
    "DDRM": (methods.DDRM(), 20),
}
# Those of the demo are for blurs alone.
ELSEWHERE: dict[str, tuple[methods.Method[Any], int]] = {
    "DAPS": (methods.DAPS(), 20),
    "DiffPIR": (methods.DiffPIR(), 20),
}
COLUMNS = {
    "one": "PSNR of one",
    "mean4": "of the mean of 4",
    "mean16": "of 16",
    "pair2": "of 2, antithetic",
    "pair4": "of 4, antithetic",
    "crps": "CRPS",
    "energy": "energy score",
    "lpips": "LPIPS of one",
    "held": "50 / 80 / 95 % hold",
    "chi2": "chi-square",
    "denoiser": "denoiser",
    "vjp": "VJP",
    "seconds": "s a sample",
}


@cache
def with_lpips() -> bool:
    return photographs.lpips_missing() is None


def operator(problem: str, side: int) -> operators.LinearOperator:
    shape = (3, side, side)
    if problem == "blur":
        return operators.Blur(operators.gaussian_kernel(2.0), shape)
    if problem == "means":
        return operators.Downsample(shape, 4, "box")
    if problem == "random":
        return operators.Mask(operators.random_mask(shape[1:], 0.3, seed=0), shape)
    return operators.Mask(operators.box_mask(shape[1:], side // 2), shape)


def centre(file: Path, side: int) -> Tensor:
    image, _ = po.measurements.read_image(file, channels=3)
    top, left = ((n - side) // 2 for n in image.shape[1:])
    return image[:, top : top + side, left : left + side].contiguous()


def drawn(
    name: str, problem: str, truth: Tensor, priors: dict[str, po.Prior], n: int, pairs: bool = False
) -> tuple[po.Posterior, po.Run]:
    """The samples of one method on one measurement."""
    method, steps = METHODS[name]
    if problem != "blur":
        method, steps = ELSEWHERE.get(name, (method, steps))
    A, law = operator(problem, truth.shape[-1]), po.noise.Gaussian(PROBLEMS[problem])
    given = po.Likelihood(simulate(A, truth, law, seed=0), A, law, range=(0, 1))
    of_eps = name.startswith("EPS")
    post = po.Posterior(priors["maps" if of_eps else "photos"], given)
    how: dict[str, Any] = (
        {"steps": steps} if of_eps else {"grid": po.grid.karras(steps, TOP, BOTTOM)}
    )
    return post, po.sample(post, method, n=n, seed=0, antithetic=pairs, **how)


def means_of_pairs(name: str, problem: str, truth: Tensor, priors: dict[str, po.Prior]) -> dict:
    """PSNR of the mean of the first two and of all four antithetic samples."""
    _, run = drawn(name, problem, truth, priors, 4, pairs=True)
    means = {k: run.samples[:k].mean(0, keepdim=True) for k in (2, 4)}
    return {f"pair{k}": float(psnr(x, truth[None], 1.0)) for k, x in means.items()}


def cell(name: str, problem: str, truth: Tensor, priors: dict[str, po.Prior], n: int) -> dict:
    """The scores of one method on one measurement."""
    began = time.process_time()
    post, run = drawn(name, problem, truth, priors, n)
    seconds = (time.process_time() - began) / n
    x = run.samples
    scores = {
        "one": float(psnr(x, truth[None], 1.0).mean()),
        "crps": ensembles.crps(x, truth),
        "energy": ensembles.energy_score(x, truth),
        "chi2": float(post.given.chi2(x).mean()),
        "denoiser": run.counts["denoiser"],
        "vjp": run.counts["vjp"],
        "seconds": seconds,
        "n": n,
    }
    spread = (x.mean(0), x.std(0), n, truth)
    for level in LEVELS:
        scores[f"held {level:g}"] = calibration.student(*spread, level)
    for k in (4, 16):
        if n >= k:
            scores[f"mean{k}"] = float(psnr(x[:k].mean(0, keepdim=True), truth[None], 1.0))
    if with_lpips():
        scores["lpips"] = float(lpips(x, truth[None].expand_as(x), (0, 1)).mean())
    return scores


def side_by_side(
    truths: list[Tensor], problems: list[str], priors: dict[str, po.Prior]
) -> dict[str, list[float]]:
    """Seconds of four samples of MMPS over those of EPS, in turns: by EPS's calls and samples."""
    ratios: dict[str, list[float]] = {}
    of_eps = [
        ("EPS 10, no derivative", 2),
        ("EPS 10, no derivative", 4),
        ("EPS 10", 4),
        ("EPS 20", 2),
        ("EPS 20, no derivative", 4),
        ("EPS 20", 4),
    ]
    for problem in problems:
        for name, n in of_eps:
            drawn(name, problem, truths[0], priors, n, pairs=True)  # the first run takes longer
        for truth in truths:
            spent = []
            for name, n in [("MMPS", 4), *of_eps, ("MMPS", 4)]:
                began = time.process_time()
                drawn(name, problem, truth, priors, n, pairs=True)
                spent.append(time.process_time() - began)
            rival = (spent[0] + spent[-1]) / 2
            for (name, n), seconds in zip(of_eps, spent[1:-1], strict=True):
                ratios.setdefault(f"{problem}, {name}, n = {n}", []).append(rival / seconds)
            print(problem, [round(one, 2) for one in spent], flush=True)
    return ratios


def table(cells: dict[str, dict]) -> str:
    """The page of the cells: one table for each problem."""
    of: dict[str, dict[str, dict[str, dict]]] = {}
    for key, scores in cells.items():
        file, problem, name = key.split("/")
        of.setdefault(problem, {}).setdefault(name, {})[file] = scores
    lines = []
    for problem in (p for p in PROBLEMS if p in of):
        rows = {name: of[problem][name] for name in METHODS if name in of[problem]}
        files = sorted(set.intersection(*(set(row) for row in rows.values())))
        lines += [f"**{problem}**, noise {PROBLEMS[problem]:g}, {len(files)} photographs", ""]
        if not files:
            continue
        cells_of = [row[file] for row in rows.values() for file in files]
        shown = [c for c in COLUMNS if c == "held" or all(c in found for found in cells_of)]
        lines += [
            f"| method | {' | '.join(COLUMNS[c] for c in shown)} |",
            f"|---|{'---:|' * len(shown)}",
        ]
        for name, row in rows.items():
            lines.append(f"| {name} | {' | '.join(said(c, row, files) for c in shown)} |")
        lines.append("")
    return "\n".join(lines)


def said(column: str, row: dict[str, dict], files: list[str]) -> str:
    """A column's mean over the photographs."""

    def mean(key: str) -> float:
        return sum(row[file][key] for file in files) / len(files)

    if column == "held":
        return " / ".join(f"{100 * mean(f'held {level:g}'):.0f}" for level in LEVELS)
    if column in ("crps", "energy"):
        return f"{mean(column):.4f}"
    if column in ("denoiser", "vjp"):
        return f"{mean(column):.0f}"
    return f"{mean(column):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--pairs", action="store_true", help="means of antithetic samples as well")
    parser.add_argument("--seconds", action="store_true", help="of EPS and MMPS in turns, alone")
    parser.add_argument("--prior", type=Path, help="that of EPS; the shipped one by default")
    parser.add_argument("--methods", nargs="*", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--problems", nargs="*", choices=[*PROBLEMS], default=[*PROBLEMS])
    parser.add_argument("--json", type=Path, help="twenty-SIDE-N.json by default")
    parser.add_argument("--table", type=Path, default=Path("twenty.md"))
    args = parser.parse_args()
    files = sorted(args.folder.glob("*.jpg"))[: args.count]
    priors = {"photos": po.priors.photos(autocast="bfloat16")}
    if any(name.startswith("EPS") for name in args.methods):
        priors["maps"] = (
            po.priors.from_pretrained(args.prior, autocast="bfloat16")
            if args.prior
            else po.priors.photos(noise_maps=True, autocast="bfloat16")
        )
    if args.seconds:
        truths = [centre(file, args.side) for file in files]
        for what, found in side_by_side(truths, args.problems, priors).items():
            low, middle, high = min(found), median(found), max(found)
            print(f"{what}: MMPS takes {middle:.1f} times as long ({low:.1f} to {high:.1f})")
        return
    store = args.json or Path(f"twenty-{args.side}-{args.n}.json")
    cells = json.loads(store.read_text()) if store.exists() else {}
    for file in files:
        for problem in args.problems:
            for name in args.methods:
                key, truth = f"{file.stem}/{problem}/{name}", centre(file, args.side)
                missing = args.pairs and "pair4" not in cells.get(key, {})
                if key in cells and not missing:
                    continue
                if key not in cells:
                    cells[key] = cell(name, problem, truth, priors, args.n)
                if missing:
                    cells[key] |= means_of_pairs(name, problem, truth, priors)
                store.write_text(json.dumps(cells, indent=1))
                args.table.write_text(table(cells))
                print(key, {k: round(v, 4) for k, v in cells[key].items()}, flush=True)
    print(table(cells))


if __name__ == "__main__":
    main()
