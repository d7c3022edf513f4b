"""The problems of the scoreboard: how each is made, what is measured on it, and the setting in
which the literature reports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from posteriori import tasks
from posteriori.evaluation.distances import sliced_wasserstein
from posteriori.experiments.bed_scores import (
    Score,
    bipsda_score,
    kernels_score,
    ksd_toy_score,
    mixture256_score,
)
from posteriori.tasks import beds, bipsda
from posteriori.tasks.kernels import KERNEL_SIGMAS

SLICES = 1000


@dataclass(frozen=True)
class Board:
    """One bed of the scoreboard.

    make: (cell, seed, schedule) -> task. score: (samples, bed, exact samples) -> numbers by name;
    None where the affine probe gives them.
    metric: the number that ranks. n: samples of each run.
    """

    cells: tuple[str, ...]
    schedules: tuple[str, ...]
    steps: tuple[int, ...]
    seeds: int
    n: int
    metric: str
    make: Callable[[str, int, str], tasks.BenchmarkTask]
    score: Score | None


def _gmm25(cell: str, seed: int, schedule: str) -> tasks.BenchmarkTask:
    d, measured = (int(number) for number in cell.split(","))
    return tasks.get("gmm25", d=d, measured=measured, seed=seed, schedule=schedule)


def _sw1(samples: Tensor, bed: beds.Bed, reference: Tensor) -> dict[str, float]:
    return {"SW1": sliced_wasserstein(samples, reference, slices=SLICES)}


BOARDS = {
    "gmm25": Board(
        tuple(f"{d},{m}" for d in beds.DIMENSIONS for m in beds.MEASURED),
        tuple(beds.SCHEDULES),
        (20, 100),
        20,
        1000,
        "SW1",
        _gmm25,
        _sw1,
    ),
    "gaussian": Board(
        ("white", "diagonal", "general"),
        ("karras",),
        (20, 100),
        1,
        0,
        "KL",
        lambda cell, seed, schedule: tasks.get("gaussian", kind=cell, seed=seed),
        None,
    ),
    "bipsda": Board(
        bipsda.PROBLEMS,
        tuple(bipsda.BIPSDA_SCHEDULES),
        (200,),
        5,
        10000,
        "variance_error",
        lambda cell, seed, schedule: tasks.get(
            "bipsda", problem=cell, seed=seed, schedule=schedule
        ),
        bipsda_score,
    ),
    "ksd": Board(
        ("0.2", "0.5"),
        ("karras",),
        (100,),
        5,
        500,
        "ksd",
        lambda cell, seed, schedule: tasks.get("ksd", sigma=float(cell), seed=seed),
        ksd_toy_score,
    ),
    "mixture256": Board(
        ("256",),
        ("log",),
        (100,),
        5,
        256,
        "sw2",
        lambda cell, seed, schedule: tasks.get("mixture256", seed=seed),
        mixture256_score,
    ),
    "kernels": Board(
        tuple(f"{sigma:g}" for sigma in KERNEL_SIGMAS),
        ("karras",),
        (50,),
        5,
        100,
        "TV",
        lambda cell, seed, schedule: tasks.get("kernels", sigma=float(cell), seed=seed),
        kernels_score,
    ),
}
