"""``posteriori solve``: a problem file to a run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posteriori import places, problem_file, report
from posteriori.cli.volume import Workers, draw_volume
from posteriori.diagnostics import quiet
from posteriori.driver import Watch, sample
from posteriori.evaluation.noise_level import noise_level
from posteriori.evaluation.parameters import sentence
from posteriori.likelihood import Posterior
from posteriori.measurements import Depth, FileKind, depth
from posteriori.measurements.images import SUFFIXES
from posteriori.plan import Plan
from posteriori.progress import Heard
from posteriori.report import files, volumes
from posteriori.run import Run, locked, read_json, write_json
from posteriori.run_folder import explained, holds
from posteriori.settings import NonNegative, Setting
from posteriori.slabs import clear_slabs, why_whole


def solve_problem(
    problem: Path,
    out: Path,
    *,
    resume: bool,
    progress: bool,
    checkpoint_seconds: float,
    workers: Workers | None = None,
    write: FileKind | None = None,
    live: bool = False,
) -> None:
    """Solve, save, print. A folder that holds another run is refused before anything is
    computed.

    workers: processes that draw the slabs of a volume; this one alone by default. write: in place
    of the problem file's own. live: whether index.html tells of the run while it lasts.
    """
    Setting(NonNegative).valid(checkpoint_seconds, "--checkpoint-seconds")
    workers = workers or Workers()
    auto = problem_file.settled_in(out / "problem.json", problem) if resume else None
    given = problem_file.load(problem, auto)
    check_folder(given, out, resume)
    task = written_as(given, write)
    why = why_whole(task)
    if workers.asked and why is not None:
        raise ValueError(
            f"--workers draws the slabs of a volume that falls apart, and {why}; leave it out"
        )
    for note in task.notes:
        print(note, file=sys.stderr)
    if task.choice is not None:
        print(task.choice)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "problem.json", given.record)
    if holds(out) is None:
        with locked(out), explained(out):
            print(_plan(task), flush=True)
    with quiet(), _told(out, task, progress, live) as (watch, told):
        if why is None:
            done = draw_volume(problem, task, out, resume=resume, progress=told, workers=workers)
        else:
            done = sample(
                task.posterior,
                task.method,
                **task.settings,
                watch=watch,
                progress=told,
                folder=out,
                resume=resume,
                checkpoint_seconds=checkpoint_seconds,
            )
    record = report.save(
        done, task.posterior, out, task.reference, **task.usual, method=task.method
    )
    level = noise_level(done, task.posterior)
    record |= {
        "chosen": str(task.choice) if task.choice else None,
        "noise_level": asdict(level) if level else None,
    }
    write_json(out / "summary.json", record)
    clear_slabs(out)
    said = (
        files.write(done, out, stored(given))
        if task.volume is None
        else volumes.write(done, out, task.volume.kind, task.volume.info)
    )
    if task.written is not None:
        said += volumes.write(done.in_frame(), out, task.written.kind, task.written.info)
    told_level = [str(level)] if level is not None and level.differs else []
    print("\n".join([*lines(done, record), *told_level, *said, f"page: {report.page(out)}"]))


@contextmanager
def _told(
    out: Path, task: problem_file.Task, progress: bool, live: bool
) -> Iterator[tuple[tuple[Watch, ...], bool | Heard]]:
    """``watch`` and ``progress`` of the run, with a page about it while it lasts if one is asked
    for."""
    if not live:
        yield (), progress
        return
    name = type(task.method).__name__
    with report.LivePage(out, task.posterior, name, shown=progress, followed=True) as page:
        yield (page,), page.at


def _plan(task: problem_file.Task) -> Plan:
    """Of a volume that falls apart that of all its slices, from two steps of one of them."""
    settings = {name: task.settings[name] for name in ("n", "steps", "grid", "batch")}
    if why_whole(task) is not None:
        return task.posterior.plan(task.method, **settings)
    assert task.volume is not None  # why_whole has asked
    assert task.volume.parts is not None
    parts, whole = task.volume.parts, task.posterior.given
    settings["n"] *= len(whole.y)
    return Posterior(parts.prior, parts.likelihood(whole, 0)).plan(task.method, **settings)


def written_as(given: problem_file.Problem, kind: FileKind | None) -> problem_file.Task:
    """The task of a problem, its results written in ``kind`` where one is stated. Raises
    ``ValueError`` where they cannot be written so."""
    return (given if kind is None else given.model_copy(update={"write": kind})).build()


def check_folder(given: problem_file.Problem, out: Path, resume: bool) -> None:
    """Raise ``ValueError`` when the folder holds a run already or, on resuming, one of another
    problem."""
    what = places.occupied(out)
    if what is not None:
        raise ValueError(
            f"{out} is {what}, which a run would write into; choose another folder with --out"
        )
    held = holds(out)
    if held is not None and not resume:
        raise ValueError(
            f"{out} already holds a run{held}; choose another folder, or go on with it by --resume"
        )
    place = out / "problem.json"
    if resume and place.exists():
        changes = problem_file.unlike(read_json(place), json.loads(json.dumps(given.record)))
        if changes:
            raise ValueError(
                f"the run in {out} belongs to another problem, "
                f"so it cannot be resumed ({changes[:600]})"
            )


def lines(done: Run, record: dict[str, Any]) -> list[str]:
    """What a person wants to know at once."""
    c = done.config
    level = ", ".join(f"{name} {value}" for name, value in c["noise"].items())
    inner = c["noise_std_in_prior_range"]
    told = c["prior_range"]
    out = [
        f"noise: {level}"
        + (f" in {c['range']}" if c["range"] else "")
        + ("" if inner is None or not told else f"; {inner:g} in the prior's {told}")
    ]
    out.append(
        f"samples: {record['finished']} of {record['n']}; calls per sample: {done.counts}; "
        f"{done.seconds:.1f} s"
    )
    if record["chi2_samples"] is not None:
        out.append(
            f"chi-square: {record['chi2_samples']:.3f} (samples), {record['chi2_mean']:.3f} (mean)"
        )
    if record["psnr_mean"] is not None:
        out.append(
            f"PSNR: {record['psnr_sample']:.2f} dB (one sample), "
            f"{record['psnr_mean']:.2f} dB (mean)"
        )
    if record["baseline"] is not None and record["baseline"]["psnr"] is not None:
        out.append(f"{record['baseline']['name']}: {record['baseline']['psnr']:.2f} dB")
    if record["ssim_mean"] is not None:
        out.append(
            f"SSIM: {record['ssim_sample']:.3f} (one sample), {record['ssim_mean']:.3f} (mean)"
        )
    out += [sentence(told) for told in record["parameters"]]
    if record["kernel"] is not None and record["kernel"]["correlation"] is not None:
        out.append(
            f"kernel: correlation {record['kernel']['correlation']:.3f} with the true one, over "
            f"shifts"
        )
    if record["kept"] is not None:
        out.append(
            f"spread: {record['spread']:.3g}; "
            f"steps keep {100 * record['kept']:.0f} % of that of a Gaussian as wide"
        )
    if record["inside_80"] is not None:
        out.append(f"80 % intervals hold {100 * record['inside_80']:.1f} % of the reference")
    return out + [f"note: {flag}" for flag in record["flags"]]


def stored(given: problem_file.Problem) -> Depth | None:
    """How the picture that was measured, or degraded, is stored; None for what is no picture
    file."""
    source = given.measurement
    path = source.file or source.image
    if (
        path is None
        or given.prior.slices is not None
        or path.suffix.lower() not in SUFFIXES
        or (source.file and not given.operator.pictorial)
    ):
        return None
    return depth(path, white=source.white, unit=source.scale)
