"""``posteriori solve`` of a volume that falls apart into slices: slab by slab, here or on
workers."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from posteriori.cli.workers import spread
from posteriori.configuration import check_same, describe
from posteriori.problem_file import Task
from posteriori.progress import Heard, Progress
from posteriori.run import Run, locked, read_json, write_json
from posteriori.run_folder import explained, holds
from posteriori.slabs import clear_slabs, draw_slab, slabs_of, whole_volume


class Workers(NamedTuple):
    """How many processes of this machine, or the address of a dask scheduler that has some."""

    processes: int | None = None
    scheduler: str | None = None

    @property
    def asked(self) -> bool:
        return self.processes is not None or self.scheduler is not None


def draw_volume(
    problem: Path, task: Task, out: Path, *, resume: bool, progress: bool | Heard, workers: Workers
) -> Run:
    """The volume of a problem, kept in ``out`` slab by slab.

    Raises ``ValueError`` when the folder holds a run and ``resume`` is not asked for, or another
    one.
    """
    settings = task.settings
    config = describe(
        task.posterior,
        task.method,
        n=settings["n"],
        first=0,
        seed=settings["seed"],
        steps=settings["steps"],
        antithetic=settings["antithetic"],
    )
    with locked(out):
        held = holds(out)
        if held is not None and not resume:
            raise ValueError(
                f"{out} already holds a run{held}; choose another folder, or go on by --resume"
            )
        record = read_json(out / "run.json") if (out / "run.json").exists() else {}
        if record.get("config") and held is not None:
            known = {k: v for k, v in record["config"].items() if k != "slabs"}
            check_same(known, config, out)
            if record["state"] == "complete":
                return Run.load(out)
        else:
            clear_slabs(out)
        with explained(out, config=config):
            write_json(out / "run.json", {"state": "running", "config": config})
            _draw(problem, task, out, progress, workers)
            run = whole_volume(task, out)
            run.save(out)
        return run


def _draw(problem: Path, task: Task, out: Path, progress: bool | Heard, workers: Workers) -> None:
    import torch

    slabs = slabs_of(task)
    bar = Progress(f"{type(task.method).__name__}, slabs", len(slabs), progress)
    bar.at(0)
    if workers.asked:
        spread(
            problem,
            out,
            slabs,
            workers=workers.processes or 1,
            scheduler=workers.scheduler,
            threads=torch.get_num_threads(),
            drawn=bar.at,
        )
    else:
        for k, slab in enumerate(slabs):
            draw_slab(task, slab, out)
            bar.at(k + 1)
    bar.close()
