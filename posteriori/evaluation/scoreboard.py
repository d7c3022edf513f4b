"""The scoreboard: every method that applies, on posteriors known in closed form, one row per (bed, cell, schedule, steps, method, seed).

GMM-25 is scored by the sliced 1-Wasserstein distance of ``N`` samples to as many exact ones, beside three rows that are no methods:
``floor`` (two exact sets), ``oracle`` (the same grid and transition with the exact conditional score) and ``prior`` (y ignored). Every
method sees the same measurement, grid and seeds. The Gaussian beds are scored without Monte Carlo, by the affine probe: KL(output ||
posterior), largest mean error in posterior standard deviations, and the ratio of the traces of the covariances. A row without a value
has an ``outcome`` that says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posteriori import grid, methods
from posteriori.evaluation.distances import gaussian_kl, sliced_wasserstein
from posteriori.evaluation.exact import ExactPosterior, exact_posterior, oracle
from posteriori.evaluation.probe import NotAffineError, affine_probe
from posteriori.problems import beds
from posteriori.sample import sample

N, SLICES = 1000, 1000
REFERENCES = ("floor", "oracle", "prior")
Row = dict[str, Any]


class Cell(NamedTuple):
    """What a row is about; two rows with the same cell are the same measurement of a method."""

    bed: str
    cell: str
    schedule: str
    steps: int
    method: str
    seed: int


def settings() -> dict[str, methods.Method[Any]]:
    """The methods of the scoreboard by name: each with its default. MMPS solves to convergence, which on these beds takes few products."""
    return {name: methods.MMPS(iterations=16, rtol=1e-8) if name == "MMPS" else make() for name, make in methods.ALL.items()}


def plan(bed: str, cells: list[str], schedules: list[str], steps: list[int], names: list[str], seeds: int) -> Iterator[Cell]:
    """Every row of a run, seed by seed, so that an interrupted run has whole seeds. Raises ``ValueError`` for an unknown bed or method."""
    known = [*REFERENCES, *settings()]
    unknown = [name for name in names if name not in known]
    if unknown or bed not in ("gmm25", "gaussian"):
        raise ValueError(f"unknown {f'method {unknown[0]!r}; known: {known}' if unknown else f'bed {bed!r}; known: gmm25, gaussian'}")
    for cell in cells:
        for schedule in schedules:
            for count in steps:
                for seed in range(seeds):
                    for name in names:
                        if bed == "gmm25" or name not in ("floor", "prior"):
                            yield Cell(bed, cell, schedule, count, name, seed)


def measure(cell: Cell) -> Row | None:
    """One row, or None when the method cannot work on the bed (or, on a Gaussian bed, is not an affine map of its random numbers)."""
    return _gmm25(cell) if cell.bed == "gmm25" else _gaussian(cell)


def _method(cell: Cell) -> methods.Method[Any]:
    return methods.Unconditional() if cell.method in REFERENCES else settings()[cell.method]


@lru_cache(maxsize=2)
def _problem(d: int, measured: int, seed: int, schedule: str) -> tuple[beds.Bed, Tensor, float]:
    """A bed of GMM-25, exact samples and the floor: the same for every method, which follow one another in a plan."""
    bed = beds.gmm25(d, measured, seed, schedule)
    exact = exact_posterior(bed.posterior)
    truth = exact.sample(N, seed=1)
    return bed, truth, sliced_wasserstein(exact.sample(N, seed=2), truth, slices=SLICES)


def _gmm25(cell: Cell) -> Row | None:
    d, measured = (int(n) for n in cell.cell.split(","))
    (bed, truth, floor), method = _problem(d, measured, cell.seed, cell.schedule), _method(cell)
    if method.refuses(bed.posterior):
        return None
    row = {**cell._asdict(), "metric": "SW1", "floor": floor}
    began = time.perf_counter()
    if cell.method == "floor":
        return row | {"value": floor, "denoiser": 0, "vjp": 0, "seconds": 0.0}
    target = oracle(bed.posterior) if cell.method == "oracle" else bed.posterior
    levels = grid.log(cell.steps, bed.sigma_max, bed.sigma_min)
    try:
        run = sample(target, method, n=N, grid=levels, seed=0, batch=250 if d > 100 else N, progress=False)
    except FloatingPointError:
        return row | {"value": None, "outcome": "diverged", "denoiser": None, "vjp": None, "seconds": time.perf_counter() - began}
    seconds = time.perf_counter() - began
    kept = run.samples[torch.tensor([status.ok for status in run.status])]
    # A method that loses rows is not scored on those that survived.
    whole = len(kept) == N
    score: Row = {"value": sliced_wasserstein(kept, truth, slices=SLICES)} if whole else {"value": None, "outcome": "diverged"}
    return row | score | {"denoiser": run.counts["denoiser"], "vjp": run.counts["vjp"], "seconds": seconds}


def _gaussian(cell: Cell) -> Row | None:
    bed, method = beds.gaussian(cell.cell, cell.seed), _method(cell)
    if method.refuses(bed.posterior):
        return None
    target = oracle(bed.posterior) if cell.method == "oracle" else bed.posterior
    levels = grid.karras(cell.steps, bed.sigma_max, bed.sigma_min)
    began = time.perf_counter()
    try:
        mean, covariance = affine_probe(target, method, cell.steps, levels)
    except (NotAffineError, ArithmeticError):
        return None
    exact: ExactPosterior = exact_posterior(bed.posterior)
    row = {**cell._asdict(), "metric": "KL", "floor": 0.0, "denoiser": 0, "vjp": 0, "seconds": time.perf_counter() - began}
    singular = float(torch.linalg.eigvalsh(covariance)[0]) <= 1e-12 * float(exact.covariance.trace())
    kl = None if singular else gaussian_kl(mean, covariance, exact.mean.flatten(), exact.covariance)
    return (
        row
        | ({"outcome": "no spread along some direction"} if singular else {})
        | {
            "value": kl,
            "mean_error": float(((mean - exact.mean.flatten()) / exact.std.flatten()).abs().max()),
            "variance_ratio": float(covariance.trace() / exact.covariance.trace()),
        }
    )


def table(rows: list[Row]) -> str:
    """Markdown: one line per (bed, schedule, steps, method), one column per cell: mean +- 95 % interval (median), and calls per sample."""
    out = []
    groups = dict.fromkeys((r["bed"], r["schedule"], r["steps"]) for r in rows)
    for bed, schedule, steps in groups:
        part = [r for r in rows if (r["bed"], r["schedule"], r["steps"]) == (bed, schedule, steps)]
        cells, names = list(dict.fromkeys(r["cell"] for r in part)), list(dict.fromkeys(r["method"] for r in part))
        out += ["", f"**{bed}, {schedule} schedule, {steps} steps, {part[0]['metric']}**: mean +- 95 % interval (median)", ""]
        out += ["| method | " + " | ".join(cells) + " | denoiser, VJP |", "|---|" + "---|" * (len(cells) + 1)]
        for name in names:
            mine = [r for r in part if r["method"] == name]
            columns = [_entry([r for r in mine if r["cell"] == cell]) for cell in cells]
            calls = ", ".join(_most(mine, kind) for kind in ("denoiser", "vjp")) if bed == "gmm25" else "probe"
            out.append(f"| {name} | " + " | ".join(columns) + f" | {calls} |")
    return "\n".join(out).strip() + "\n"


def _most(rows: list[Row], kind: str) -> str:
    """The largest count of calls; a run that was lost as a whole has none."""
    return str(max((r[kind] for r in rows if r[kind] is not None), default="-"))


def _entry(rows: list[Row]) -> str:
    if not rows:
        return "-"
    lost = [r["outcome"] for r in rows if r["value"] is None]
    if lost:
        return f"{lost[0]}, {len(lost)} of {len(rows)}" if len(rows) > 1 else lost[0]
    values = [r["value"] for r in rows]
    v = torch.tensor(values, dtype=torch.float64)
    if len(v) == 1:
        return f"{float(v[0]):.3g}"
    return f"{float(v.mean()):.2f} +- {1.96 * float(v.std()) / len(v) ** 0.5:.2f} ({float(v.median()):.2f})"
