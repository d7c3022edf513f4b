"""The scoreboard: methods on posteriors known in closed form, one row per run.

    gmm25, bipsda, ksd, mixture256, kernels
                                     the bed's number of samples on its grid; distances to
                                     as many exact samples
    gaussian                         the affine probe: KL(samples || posterior), no Monte Carlo

Beside the methods: ``floor``, another exact set of the same size (what no sampler can be expected
to beat); ``oracle``, the exact conditional score on the same grid; ``prior``, samples that ignore
y. Every method meets the same y, the same exact samples and the same noise levels.

The seed rule: problem k is made with seed k. A row's samples are drawn with its ``sample_seed`` s,
the exact samples with 2 s + 1 (their streams differ from those of runs) and the other exact set, of
the floor, with 2 s + 2. s is k, so that problems share no random number; rows that state no
``sample_seed`` were drawn with s = 0 on every problem.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posteriori import methods
from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.evaluation.distances import gaussian_kl
from posteriori.evaluation.exact import ExactPosterior, exact_posterior, oracle
from posteriori.evaluation.probe import NotAffineError, affine_probe
from posteriori.experiments import Row
from posteriori.experiments.boards import BOARDS
from posteriori.problem_file import method as solvers
from posteriori.problem_file import own
from posteriori.settings import suggestion
from posteriori.tasks import BenchmarkTask

REFERENCES = ("floor", "oracle", "prior")


class BoardCell(NamedTuple):
    """What a row is about; two rows with the same cell are the same measurement of a method."""

    bed: str
    cell: str
    schedule: str
    steps: int
    method: str
    seed: int


def board_methods(n: int = 1000) -> dict[str, methods.Method[Any]]:
    """The methods of the scoreboard by name: each with its default, and the settings that the
    literature reports on these beds.

    MMPS solves to convergence, which on these beds takes few products; it and EPS step ancestrally
    as the oracle and most others do, and "EPS midpoint" as EPS does by default. Sequential Monte
    Carlo has one cloud of n particles, as many as there are samples; "8 clouds" shares them out.
    "MomentSMC bank" starts from 16384 of the prior's images, whose calls are in no row.
    "Bootstrap end" gives up no particle on the way: it tends to the posterior for any A, with more
    particles, of which "Bootstrap end 10000" has so many. "CBG kept" draws its 256 candidates from
    the mixture. "MCGDiff of 64" and "FPS of 20" return one sample of each cloud of so many, as
    repeated runs of a sampler do. "FPS published" and "DDNM ignored" are the published path with
    fresh noise of 0.95, and the rule for y without noise.
    "DPS norm 0.2" is the literature's zeta = 0.1, whose gradient is that of the square.
    """
    out = {name: make() for name, make in methods.ALL.items() if name != "Unconditional"}
    out["EPS"] = methods.EPS(transition=methods.DDIM(1.0))
    out["MMPS"] = methods.MMPS(iterations=16, rtol=1e-8, transition=methods.DDIM(1.0))
    clouds: dict[str, Any] = {
        name: method for name, method in out.items() if "particles" in vars(method)
    }
    out |= {name: replace(method, particles=n) for name, method in clouds.items()}
    out |= {
        f"{name} 8 clouds": replace(method, particles=n // 8) for name, method in clouds.items()
    }
    return out | {
        "Bootstrap end": methods.Bootstrap(n, "end", share=0.0),
        "Bootstrap end 10000": methods.Bootstrap(10000, "end", share=0.0),
        "CBG kept": methods.CBG(256, "exact", keep=True, transition=methods.Midpoint()),
        "DDNM ignored": methods.DDNM(noise="ignored"),
        "EPS midpoint": methods.EPS(),
        "FPS of 20": methods.FPS(20, single=True),
        "FPS published": replace(methods.FPS.published(), particles=20, single=True),
        "MCGDiff of 64": methods.MCGDiff(64, single=True),
        "MomentSMC bank": methods.MomentSMC(n, bank=16384),
        "DPS norm 0.2": methods.DPS("norm", 0.2, methods.DDIM(0.85)),
        "PiGDM c=1": methods.PiGDM(variance=1.0),
    }


def families() -> dict[str, str]:
    """The family of each of ``board_methods``, by its name on the scoreboard."""
    return {name: method.family for name, method in board_methods().items()}


def plan_board(
    bed: str, cells: list[str], schedules: list[str], steps: list[int], names: list[str], seeds: int
) -> Iterator[BoardCell]:
    """Every row of a run, seed by seed, so that an interrupted run has whole seeds.

    names: of ``board_methods``, or import paths of methods of the user's own, with their default
    settings.
    Raises ``ValueError`` for an unknown bed or method, and for an own one that cannot be made.
    """
    known = [*REFERENCES, *board_methods()]
    for name in names:
        if own.is_path(name):
            solvers.named_method(name)
        elif name not in known:
            raise ValueError(f"unknown method {name!r}; {suggestion(name, known)}{own.hint(name)}")
    if bed not in BOARDS:
        raise ValueError(f"unknown bed {bed!r}; {suggestion(bed, BOARDS)}")
    for cell in cells:
        for schedule in schedules:
            for count in steps:
                for seed in range(seeds):
                    for name in names:
                        if BOARDS[bed].score or name != "floor":
                            yield BoardCell(bed, cell, schedule, count, name, seed)


def measure_cell(cell: BoardCell, sample_seed: int | None = None) -> Row | None:
    """One row, or None when the method cannot work on the bed (or, on a Gaussian bed, is not an
    affine map of its random numbers).

    sample_seed: s of the seed rule above; the seed of the problem when None.
    """
    row = (
        _drawn(cell, cell.seed if sample_seed is None else sample_seed)
        if BOARDS[cell.bed].score
        else _probed(cell)
    )
    return (
        row
        if row is None or not own.is_path(cell.method)
        else row | {"code": own.code(solvers.named_method(cell.method))}
    )


def current(row: Row, cells: Sequence[BoardCell]) -> bool:
    """Whether a stored row still says what a new one would: not where it is of a user's own method
    whose file has changed since."""
    asked = {cell.method for cell in cells if own.is_path(cell.method)}
    return row["method"] not in asked or row.get("code") == own.code(
        solvers.named_method(row["method"])
    )


def _method(cell: BoardCell) -> methods.Method[Any]:
    if own.is_path(cell.method):
        return solvers.named_method(cell.method)
    return (
        methods.Unconditional()
        if cell.method in REFERENCES
        else board_methods(BOARDS[cell.bed].n or 8)[cell.method]
    )


@lru_cache(maxsize=2)
def _problem(
    name: str, cell: str, seed: int, schedule: str, s: int
) -> tuple[BenchmarkTask, Tensor, dict[str, float]]:
    """A task, exact samples and the floor: the same for every method, which follow one another in a
    plan."""
    board = BOARDS[name]
    assert board.score is not None
    task = board.make(cell, seed, schedule)
    truth = task.exact(board.n, seed=2 * s + 1)
    return task, truth, board.score(task.exact(board.n, seed=2 * s + 2), task.bed, truth)


def _target(cell: BoardCell, task: BenchmarkTask) -> Any:
    """The posterior to sample. Raises ``TypeError`` for an oracle where the exact score is not
    known."""
    return oracle(task.posterior) if cell.method == "oracle" else task.posterior


def _drawn(cell: BoardCell, s: int) -> Row | None:
    board = BOARDS[cell.bed]
    assert board.score is not None
    task, truth, floor = _problem(cell.bed, cell.cell, cell.seed, cell.schedule, s)
    method = _method(cell)
    row = {
        **cell._asdict(),
        "sample_seed": s,
        "metric": board.metric,
        "floor": floor[board.metric],
        "uses": _uses(cell, method, 0),
    }
    if cell.method == "floor":
        return row | {
            "value": floor[board.metric],
            "all": floor,
            "denoiser": 0,
            "vjp": 0,
            "seconds": 0.0,
        }
    try:
        target = _target(cell, task)
    except TypeError:
        return None
    if method.refuses(target):
        return None
    began = time.perf_counter()
    # A method that chooses its own levels does so at its own cost; all others share the bed's.
    own = type(method).levels is not methods.Method.levels
    levels = None if own else task.levels(cell.steps)
    big = task.posterior.shape[0] > 100
    try:
        with quiet():
            run = sample(
                target,
                method,
                n=board.n,
                steps=cell.steps,
                grid=levels,
                seed=s,
                batch=max(250, method.group) if big else board.n * method.group,
            )
    except FloatingPointError:
        lost = {"value": None, "outcome": "diverged", "denoiser": None, "vjp": None}
        return row | lost | {"seconds": time.perf_counter() - began}
    seconds = time.perf_counter() - began
    row |= {
        "denoiser": run.counts["denoiser"],
        "vjp": run.counts["vjp"],
        "seconds": seconds,
        "uses": _uses(cell, method, run.counts["vjp"]),
    }
    # A method that loses rows is not scored on those that survived.
    if not all(status.ok for status in run.status):
        return row | {"value": None, "outcome": "diverged"}
    score = board.score(run.samples, task.bed, truth)
    return row | {"value": score[board.metric], "all": score}


def _uses(cell: BoardCell, method: methods.Method[Any], vjp: float) -> str:
    """What a row may look at: the score alone, products with the denoiser's Jacobian as well, also
    draws of the prior, or the mixture itself."""
    if isinstance(method, methods.MomentSMC) and method.bank is not None:
        return "Jacobian, draws"
    if cell.method in ("floor", "oracle") or _closed(method):
        return "mixture"
    return "Jacobian" if vjp else "score"


def _closed(method: methods.Method[Any]) -> bool:
    """Whether a method asks the mixture for more than its score: EPS does, for its denoiser under
    coloured noise."""
    return "closed form" in method.requires or isinstance(method, methods.EPS)


def _probed(cell: BoardCell) -> Row | None:
    board = BOARDS[cell.bed]
    task, method = board.make(cell.cell, cell.seed, cell.schedule), _method(cell)
    if method.refuses(task.posterior):
        return None
    levels = task.levels(cell.steps)
    began = time.perf_counter()
    try:
        mean, covariance = affine_probe(_target(cell, task), method, cell.steps, levels)
    except (NotAffineError, ArithmeticError, ValueError):
        return None
    exact: ExactPosterior = exact_posterior(task.posterior)
    uses = "mixture" if cell.method == "oracle" or _closed(method) else "-"
    row = {
        **cell._asdict(),
        "metric": board.metric,
        "floor": 0.0,
        "uses": uses,
        "denoiser": 0,
        "vjp": 0,
    }
    least = float(torch.linalg.eigvalsh(covariance)[0])
    singular = least <= 1e-12 * float(exact.covariance.trace())
    kl = None if singular else gaussian_kl(mean, covariance, exact.mean.flatten(), exact.covariance)
    return (
        row
        | ({"outcome": "no spread along some direction"} if singular else {})
        | {
            "value": kl,
            "seconds": time.perf_counter() - began,
            "mean_error": float(((mean - exact.mean.flatten()) / exact.std.flatten()).abs().max()),
            "variance_ratio": float(covariance.trace() / exact.covariance.trace()),
        }
    )
