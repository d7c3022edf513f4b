"""The command ``posteriori run``; heavy imports wait until it is called."""

from __future__ import annotations

from pathlib import Path


def run_command(
    study: Path,
    /,
    *,
    out: Path,
    workers: int | None = None,
    scheduler: str | None = None,
    slurm: bool = False,
    quiet: bool = False,
) -> None:
    """Run several methods on many measurements, and write one table of means with intervals.

    The same command goes on with what is in the folder. A cell, one method on one measurement, that
    fails has its reason below the table, and the exit code is then 1.

    Parameters
    ----------
    study:
        the study file, YAML: a problem, its measurements and methods; docs/problem-file.md lists
        its keys.
    out:
        folder for table.md, table.csv, table.tex, results.csv, and a run folder for each cell.
    workers:
        processes of this machine that share the cells, to the same bits; this process alone by
        default.
    scheduler:
        the address of a dask scheduler whose workers, on any machines that see the same files,
        draw the cells; none by default.
    slurm:
        draw the cells in jobs of SLURM, as the section slurm of the study file states them.
    quiet:
        no progress bar, and no lines in its place where there is no terminal.
    """
    from posteriori.cli.engines import Engine
    from posteriori.cli.many import cells_kept, run_many
    from posteriori.cli.resuming import resumable
    from posteriori.problem_file.study import Slurm, load_study

    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if sum((workers is not None, scheduler is not None, slurm)) > 1:
        raise ValueError("give one of --workers, --scheduler and --slurm")
    jobs = (load_study(study).stated.slurm or Slurm()) if slurm else None
    engine = Engine(workers, scheduler, jobs)
    with resumable(lambda: cells_kept(out)):
        if run_many(study, out, engine, progress=not quiet):
            raise SystemExit(1)
