"""One measurement and one method of a study: a cell, drawn anywhere, to the same bits.

    for cell in cells_of(study, steps, folder):
        draw_cell(cell)          # by any process that sees the files; again after it was killed

A cell is drawn on one thread, as a run in a folder of its own. So its samples are those of any
other process on such a machine, whatever was killed on the way. A process keeps priors and problems
from one cell to the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from posteriori.diagnostics import quiet
from posteriori.driver import sample
from posteriori.evaluation.forecasts import forecast
from posteriori.evaluation.images import MetricUnavailable
from posteriori.likelihood import Posterior
from posteriori.methods.base import method_settings
from posteriori.methods.courses import steps_of
from posteriori.plan import plan
from posteriori.priors import Prior
from posteriori.problem_file import Task
from posteriori.problem_file.entries import Entry, entries
from posteriori.problem_file.file import USUAL_STEPS, problem_of
from posteriori.problem_file.prior import Arithmetic, Belief
from posteriori.problem_file.study import ManyProblems
from posteriori.run import locked, read_json, write_json
from posteriori.storage import full

BELIEF: TypeAdapter[Any] = TypeAdapter(Belief)
# A cell that ends its process so many times is given up.
DEATHS = 3
# Seconds for which a cell waits for a process that draws it already, cut off but alive.
PATIENCE = 60.0
# What one cell may raise without ending the others.
CELL_ERRORS = (
    ArithmeticError,
    ValueError,
    TypeError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    OSError,
    ImportError,
)


@dataclass(frozen=True)
class Cell:
    """Of JSON values, so that it can be sent anywhere.

    problem: the content of a problem file, of one measurement, without a method; folder: where its
    paths start. measurement, method: their names. entry: the method as written; methods_folder:
    where a path in it starts. place: the folder of the run. settings: of the method, with those
    that are not written, which another version of this library may have otherwise.
    """

    problem: dict[str, Any]
    folder: str
    measurement: str
    method: str
    entry: Any
    methods_folder: str
    steps: int
    grid: str | None
    place: str
    perceptual: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of all that it states but its place."""
        said = asdict(self) | {"place": ""}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def cells_of(study: ManyProblems, steps: Sequence[int], folder: Path) -> list[Cell]:
    """Every cell of a study, measurement by measurement. steps: of each method."""
    return [
        Cell(
            problem=study.raw(k),
            folder=str(study.folder.resolve()),
            measurement=item.name,
            method=entry.label,
            entry=raw,
            methods_folder=str(study.path.parent.resolve()),
            steps=count,
            grid=entry.grid,
            place=str((folder / "cells" / item.name / entry.folder).resolve()),
            perceptual=study.stated.lpips,
            settings=json.loads(json.dumps(method_settings(entry.method))),
        )
        for k, item in enumerate(study.items)
        for entry, raw, count in zip(study.entries, study.methods, steps, strict=True)
    ]


def steps_within(
    post: Posterior, entry: Entry, calls: int | None, *, settings: dict[str, Any], steps: int | None
) -> tuple[int, float | None]:
    """The steps of a method, and the passes through the network that a sample is to take.

    calls: the most passes allowed. The steps are then the largest number that keeps to them, as
    counted by drawing one sample (of the method's cloud, where it draws several together): a plan
    only says where to begin. Where one step more may take fewer passes, as of ``EPS`` near the
    level of y, that is a number which keeps to them and one more does not. Without it the steps are
    those that are stated, and the passes None, as for a method that refuses the problem. settings:
    n, seed, batch and grid.
    Raises ``ValueError`` where a single step takes more.
    """
    method, fixed = entry.method, settings | {"grid": entry.grid or settings["grid"]}

    def planned(count: int) -> float:
        said = {key: fixed[key] for key in ("n", "batch", "grid")}
        return _passes(plan(post, method, steps=count, **said).calls)

    def passes(count: int) -> float:
        try:
            return _passes(
                sample(post, method, steps=count, **fixed | {"n": method.returned}).counts
            )
        except ArithmeticError:  # a sample that diverges at so few steps
            return planned(count)

    usual = steps_of(method, entry.steps or steps, USUAL_STEPS)
    if calls is None or method.refuses(post):
        return usual, None
    each = planned(2) / 2
    if each == 0:
        return usual, 0.0
    count = max(1, int(calls / each + 1e-9))
    while (found := passes(count)) > calls + 1e-9:
        if count == 1:
            raise ValueError(
                f"{entry.label} takes {found:g} passes through the network a sample in one step, "
                f"more than calls: {calls}"
            )
        count = max(1, min(count - 1, int(count * calls / found)))
    # What a step takes may differ along the grid, so that proportion alone does not tell.
    further = max(count + 1, int(count * calls / found))
    while further > count:
        if (more := passes(further)) <= calls + 1e-9:
            count, found, further = further, more, max(further + 1, int(further * calls / more))
        else:
            further = min(further - 1, (count + further) // 2)
    return count, found


def _passes(counts: dict[str, float]) -> float:
    """Denoiser calls and vector-Jacobian products."""
    return counts["denoiser"] + counts["vjp"]


def draw_cell(cell: Cell, call: str = "") -> dict[str, Any]:
    """The numbers of a cell, as kept in ``summary.json`` of its folder: ``forecast``'s with
    ``elapsed``, the seconds of all work on it; or why there are none as ``reason``. A cell that is
    done costs nothing, one that was stopped goes on where it was.

    call: names the command; within it a cell that has ended ``DEATHS`` processes is given up.
    Raises ``OSError`` for a full disk.
    """
    place = Path(cell.place)
    try:
        with _alone(place):
            kept = read_json(place / "summary.json") if (place / "summary.json").exists() else {}
            if kept.get("cell") == cell.digest:
                return kept
            deaths = deaths_of(cell, call)
            if deaths >= DEATHS:
                return {"reason": f"it has ended its process {deaths} times and is given up"}
            with _counted_death(place, call), _one_thread(), quiet():
                return _drawn(cell)
    except CELL_ERRORS as error:
        if full(error):
            raise
        kind = "" if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: "
        return {"reason": f"{kind}{error}".removesuffix(": ")}


def deaths_of(cell: Cell, call: str) -> int:
    """How many processes of a command have begun this cell and not come to its end."""
    begun = Path(cell.place) / "begun"
    return begun.read_text().split().count(call) if call and begun.exists() else 0


def cell_task(cell: Cell) -> Task:
    """The problem of a cell, read once for all methods on it."""
    return _task(json.dumps(cell.problem), cell.folder, cell.measurement)


def _drawn(cell: Cell) -> dict[str, Any]:
    began, place, task = time.perf_counter(), Path(cell.place), cell_task(cell)
    (entry,) = entries([cell.entry], {"folder": Path(cell.methods_folder)})
    settings = {key: task.settings[key] for key in ("n", "seed", "batch")}
    settings |= {"steps": cell.steps, "grid": cell.grid or cell.problem.get("grid")}
    done = sample(task.posterior, entry.method, **settings, folder=place, resume=True)
    try:
        record = forecast(
            done, task.posterior, task.reference, entry.method, perceptual=cell.perceptual
        )
    except MetricUnavailable as error:
        record = forecast(done, task.posterior, task.reference, entry.method)
        record["flags"] = [*record["flags"], str(error)]
    record |= {
        "steps": len(done.config["levels"]) - 1,
        "cell": cell.digest,
        "elapsed": time.perf_counter() - began,
    }
    write_json(place / "summary.json", record)
    return record


# Cells of one measurement follow one another, on several processes in turns.
@lru_cache(maxsize=4)
def _task(raw: str, folder: str, name: str) -> Task:
    # Which method a problem names does not matter here: each cell brings its own.
    said = json.loads(raw) | {"method": "MMPS"}
    # What the study has settled, whatever this machine is best at: without a word float32.
    settled = said.get("precision", "float32")
    problem = problem_of(said, Path(folder), f"measurement {name}", settled)
    return problem.build(_prior(json.dumps(problem.raw["prior"]), problem.arithmetic, folder))


@lru_cache(maxsize=2)
def _prior(section: str, precision: Arithmetic, folder: str) -> Prior:
    context = {"folder": Path(folder), "code": {}}
    return BELIEF.validate_python(json.loads(section), context=context).build(precision)


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the cell, after a process that was cut off and still draws it. Raises ``RuntimeError``
    where that one does not end within ``PATIENCE``."""
    until = time.monotonic() + PATIENCE
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(place, ".cell.lock"))
                break
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
        yield


@contextmanager
def _counted_death(place: Path, call: str) -> Iterator[None]:
    """Note that the cell was begun, for whoever finds that its process has ended within."""
    begun = place / "begun"
    if call:
        with begun.open("a") as handle:
            handle.write(call + "\n")
            handle.flush()
            os.fsync(handle.fileno())
    yield
    begun.unlink(missing_ok=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
