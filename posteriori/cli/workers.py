"""Slabs of a volume on several processes, of this machine or of others: ``solve --workers``.

Each process reads the problem file by itself and keeps its slabs in the folder of the run, which
all of them see. A slab whose process dies is drawn again by another; what it had kept goes on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from posteriori import problem_file
from posteriori.diagnostics import quiet
from posteriori.extras import require_extra
from posteriori.slabs import Slab, draw_slab

# A slab that fails by itself, or loses its process, this many times more is given up.
RETRIES = 3
# dask gives freed memory back to the system at once, and malloc by itself soon: every image that a
# network makes is then paid for page by page. A process may keep 64 MB of it.
MEMORY = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**26}
# A dask process that has nothing to do takes 2 to 3 % of a processor for what nobody looks at here:
# it samples its own stack a hundred times a second, and its clock and memory nearly as often.
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


def spread(
    problem: Path,
    folder: Path,
    slabs: Sequence[Slab],
    *,
    workers: int,
    scheduler: str | None,
    threads: int,
    drawn: Callable[[int], None],
) -> None:
    """Draw the slabs on ``workers`` processes of this machine, or on those of the dask scheduler at
    the address ``scheduler``. ``drawn`` is told how many are done.

    threads: of each process, on which the last bits of its arithmetic may depend. Raises
    ``ImportError`` naming the extra, ``RuntimeError`` for a scheduler that does not answer, and
    what a slab raised.
    """
    require_extra("dask", "solving on several workers", "distributed")
    from distributed import as_completed

    where = (str(problem.resolve()), str(folder.resolve()), threads, os.urandom(8).hex())
    with client_of(workers, scheduler, torch.get_num_threads()) as client:
        asked = [
            client.submit(
                draw_elsewhere, slab.first, slab.count, *where, pure=False, retries=RETRIES
            )
            for slab in slabs
        ]
        for k, future in enumerate(as_completed(asked)):
            future.result()
            drawn(k + 1)


def draw_elsewhere(
    first: int, count: int, problem: str, folder: str, threads: int, call: str
) -> None:
    """Draw one slab; what a worker process does. call: names the command, within which the problem
    is read once."""
    torch.set_num_threads(threads)
    with quiet():
        draw_slab(_task(problem, folder, call), Slab(first, count), Path(folder))


@lru_cache(maxsize=1)
def _task(problem: str, folder: str, call: str) -> problem_file.Task:
    # In the precision that the command has settled, whatever this machine is best at.
    settled = problem_file.settled_in(Path(folder) / "problem.json", Path(problem))
    return problem_file.load(problem, settled).build()


@contextmanager
def client_of(workers: int, scheduler: str | None, threads: int) -> Iterator[Any]:
    """A dask client of so many processes of this machine, or of a scheduler that has its own.
    threads: that each of them uses. Raises ``RuntimeError`` for one that does not answer."""
    import logging

    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout="20s")
        except (OSError, ValueError) as error:
            raise RuntimeError(f"no dask scheduler answers at {scheduler}: {error}") from None
        with client:
            yield client
        return
    cores = os.cpu_count() or 1
    if workers * threads > cores:
        print(
            f"{workers} workers of {threads} threads on {cores} cores: "
            f"OMP_NUM_THREADS={max(1, cores // workers)} is faster",
            file=sys.stderr,
        )
    environment = {f"distributed.nanny.pre-spawn-environ.{k}": v for k, v in MEMORY.items()}
    with (
        tempfile.TemporaryDirectory(prefix="posteriori-") as scratch,
        dask.config.set(QUIET | environment),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
