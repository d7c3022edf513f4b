"""Where the cells of a study are drawn: by this process, on several of this machine, on a dask
scheduler's workers, or on SLURM."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from posteriori.cells import DEATHS, Cell, deaths_of, draw_cell
from posteriori.cli.workers import MEMORY, QUIET, client_of
from posteriori.extras import require_extra
from posteriori.problem_file.study import Slurm

# dask reads its settings from variables too, a level of a name after two underscores.
JOB_ENVIRONMENT = [
    "export OMP_NUM_THREADS=1",
    *(f"export {name}={value}" for name, value in MEMORY.items()),
    *(
        f"export DASK_{name.replace('.', '__').replace('-', '_').upper()}={value}"
        for name, value in QUIET.items()
    ),
]
_Done = Callable[[Cell, dict[str, Any]], None]


class Engine(NamedTuple):
    """workers: processes of this machine. scheduler: the address of a dask scheduler. slurm: what
    a job asks for. Without any, cells are drawn by this process."""

    workers: int | None = None
    scheduler: str | None = None
    slurm: Slurm | None = None

    def draw(self, cells: Sequence[Cell], done: _Done, logs: Path) -> None:
        """Draw every cell; ``done`` is told of each in the order in which they end. logs: the
        folder for what jobs print.

        Raises ``ImportError`` naming an extra, ``RuntimeError`` for a scheduler that does not
        answer, and ``OSError`` for a full disk.
        """
        if self == Engine():
            for cell in cells:
                done(cell, draw_cell(cell))
            return
        with self.client(logs) as client:
            spread_cells(client, cells, done)

    @contextmanager
    def client(self, logs: Path) -> Iterator[Any]:
        """A dask client of the processes that draw the cells, this one not among them. Raises as
        ``draw``."""
        require_extra("dask", "running on several workers", "distributed")
        if self.slurm is None:
            with client_of(self.workers or 1, self.scheduler, threads=1) as client:
                yield client
            return
        with _slurm(self.slurm, logs) as client:
            yield client


def cell_elsewhere(cell: dict[str, Any], call: str) -> dict[str, Any]:
    """Draw one cell; what a worker process does. call: names the command."""
    return draw_cell(Cell(**cell), call)


def spread_cells(client: Any, cells: Sequence[Cell], done: _Done) -> None:
    """A cell whose worker ends is drawn again by another. One that ends so many is given up, which
    it finds by itself in its folder; where dask gives up a cell before, that only stood by, it is
    asked for again."""
    from distributed import KilledWorker, as_completed

    call = os.urandom(8).hex()

    def asked(some: Sequence[Cell]) -> list[Any]:
        # In one message to the scheduler, not in one for each cell.
        return client.map(cell_elsewhere, [asdict(cell) for cell in some], call=call, pure=False)

    waiting = {f.key: (cell, f) for cell, f in zip(cells, asked(cells), strict=True)}
    stream = as_completed([future for _, future in waiting.values()])
    for future in stream:
        cell, _ = waiting.pop(future.key)
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker) and deaths_of(cell, call) < DEATHS:
            (again,) = asked([cell])
            waiting[again.key] = (cell, again)
            stream.add(again)
            continue
        if isinstance(error, KilledWorker):
            deaths = deaths_of(cell, call)
            done(cell, {"reason": f"it has ended its process {deaths} times and is given up"})
            continue
        done(cell, future.result())


@contextmanager
def _slurm(asked: Slurm, logs: Path) -> Iterator[Any]:
    """The workers of as many jobs as are asked for; each core of a job is a process of one
    thread."""
    require_extra("slurm", "running on SLURM", "dask_jobqueue")
    if shutil.which("sbatch") is None:
        raise RuntimeError(
            "--slurm needs the command sbatch: run on a machine from which jobs are submitted"
        )
    import dask
    from dask_jobqueue import SLURMCluster
    from distributed import Client

    logs.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="posteriori-") as scratch,
        dask.config.set(QUIET),
        SLURMCluster(
            queue=asked.partition,
            cores=asked.cores,
            processes=asked.cores,
            memory=asked.memory,
            walltime=asked.walltime,
            python=sys.executable,
            log_directory=str(logs),
            local_directory=scratch,
            job_script_prologue=JOB_ENVIRONMENT,
            scheduler_options={"dashboard_address": ":0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        # Unlike ``scale`` it submits a job anew whose time was over.
        cluster.adapt(minimum_jobs=asked.jobs, maximum_jobs=asked.jobs)
        yield client
