"""A volume that falls apart into slices, drawn slab by slab: by one process, or by several at once.

    task = problem_file.load("problem.yaml").build()
    for slab in slabs_of(task):
        draw_slab(task, slab, folder)      # anywhere, in any order; again after it was killed
    run = whole_volume(task, folder)

A slab is some slices that are worked on together, each an image of its own measurement with its own
random numbers: slice j of sample k is a function of (posterior, method, levels, seed + j, k).
Slabs follow from the problem alone, not from who draws them. So the volume is the same bit by bit,
whichever process drew which slab, on processes of as many threads. Slices share nothing: no halo is
needed. Where thick slices were measured, the slices of one of them are drawn together.

Methods that tie slices together (those of the family "volume") and instruments that do (a blur
along the frames of a video) are no sum of slabs: ``why_whole`` says so.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from posteriori.configuration import describe
from posteriori.each import sample_each
from posteriori.problem_file import Task
from posteriori.problem_file.volume import VolumeParts
from posteriori.run import Run, Status, read_json

# Numbers of the images of a slab, where the file states no batch.
SLAB_NUMBERS = 2**17


@dataclass(frozen=True)
class Slab:
    """Measured slices ``first`` to ``first + count - 1``."""

    first: int
    count: int

    def place(self, folder: Path) -> Path:
        """The folder of this slab, in that of the run."""
        return slabs_folder(folder) / f"{self.first:06d}"


def slabs_folder(folder: Path) -> Path:
    """Where a run keeps its slabs until it is whole."""
    return folder / "slabs"


def why_whole(task: Task) -> str | None:
    """Why the volume of a task is drawn as one; None where it falls apart."""
    if task.volume is None:
        return "the problem is one of images, not of volumes"
    if task.volume.parts is None:
        return "the operator ties the slices together"
    if task.method.family == "volume":
        return f"{type(task.method).__name__} ties the slices together"
    return None


def slabs_of(task: Task) -> list[Slab]:
    """The slabs of a volume, in order. Raises ``ValueError`` for one that does not fall apart."""
    parts, n = _parts(task), task.settings["n"]
    blocks = len(task.posterior.given.y)
    numbers = math.prod(parts.A.in_shape)
    rows = task.settings["batch"] or max(1, SLAB_NUMBERS // numbers)
    count = max(1, rows // n)
    return [Slab(k, min(count, blocks - k)) for k in range(0, blocks, count)]


def draw_slab(task: Task, slab: Slab, folder: Path, progress: bool = False) -> list[Run]:
    """The runs of the blocks of a slab, kept in its folder. One that is done costs no denoiser
    call, one that was stopped goes on where it was."""
    parts, settings = _parts(task), task.settings
    whole = task.posterior.given
    return sample_each(
        parts.prior,
        [parts.likelihood(whole, j) for j in range(slab.first, slab.first + slab.count)],
        task.method,
        **settings | {"seed": settings["seed"] + slab.first},
        folder=slab.place(folder),
        resume=True,
        progress=progress,
    )


def whole_volume(task: Task, folder: Path) -> Run:
    """The run of all slabs, as one of volumes: a sample of the volume is one of each slice.

    Its status is that of its worst slice, its log-weight and evidence are the sums of theirs, its
    counts those of all slices together. Raises ``FloatingPointError`` where no sample has all its
    slices.
    """
    runs = [run for slab in slabs_of(task) for run in draw_slab(task, slab, folder)]
    n, steps, shape = task.settings["n"], task.settings["steps"], task.posterior.shape
    status = [_worst([run.status[k] for run in runs]) for k in range(n)]
    ok = [k for k in range(n) if status[k].ok]
    if not ok:
        raise FloatingPointError(
            f"{type(task.method).__name__}: no sample has all its slices; sample 0 {status[0]}"
        )
    kept = [[_rows(run).index(k) for k in ok] for run in runs]
    slices = torch.stack([run.samples[rows] for run, rows in zip(runs, kept, strict=True)], 1)
    weights = [run.log_w[rows] for run, rows in zip(runs, kept, strict=True)]
    known = [run.log_evidence for run in runs if run.log_evidence is not None]
    first = runs[0]
    config = describe(
        task.posterior,
        task.method,
        n=n,
        first=0,
        seed=task.settings["seed"],
        steps=steps,
        antithetic=task.settings["antithetic"],
    )
    return Run(
        samples=slices.reshape(len(ok), *shape),
        log_w=torch.stack(weights).sum(0),
        log_evidence=sum(known) if len(known) == len(runs) else None,
        status=tuple(status),
        counts={kind: sum(run.counts.get(kind, 0) for run in runs) for kind in first.counts},
        trace={},
        seconds=sum(run.seconds for run in runs),
        config=config
        | {key: first.config[key] for key in ("levels", "grid", "pilot")}
        | {"slabs": len(slabs_of(task))},
        references=first.references,
    )


def slabs_kept(folder: Path) -> tuple[int, int]:
    """How many slabs in the folder of a run are complete, and how many have begun."""
    places = [place for place in slabs_folder(folder).glob("*") if place.is_dir()]
    return sum(_complete(place) for place in places), len(places)


def clear_slabs(folder: Path) -> None:
    """Remove what only a volume under way needs."""
    shutil.rmtree(slabs_folder(folder), ignore_errors=True)


def _complete(place: Path) -> bool:
    records = list(place.glob("*/run.json"))
    return bool(records) and all(read_json(r).get("state") == "complete" for r in records)


def _parts(task: Task) -> VolumeParts:
    why = why_whole(task)
    if why is not None:
        raise ValueError(f"the volume cannot be drawn slab by slab: {why}")
    assert task.volume is not None  # why_whole has asked
    assert task.volume.parts is not None
    return task.volume.parts


def _rows(run: Run) -> list[int]:
    """The numbers of the samples that finished."""
    return [k for k, status in enumerate(run.status) if status.ok]


def _worst(ends: Sequence[Status]) -> Status:
    return next((status for status in ends if not status.ok), ends[0])
