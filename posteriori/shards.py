"""A run cut into pieces for several processes or machines, and put together again.

Row k of a run is a function of (posterior, method, levels, seed, k), so a run is a map and a merge:

    pieces = plan("problem.yaml", "runs/one", shards=8)
    work(pieces[3])            # wherever the files are; again, or elsewhere, after it was killed
    run = merge("runs/one")

Pieces begin and end where a batch does. So the batches are those of one process, and the samples
agree with its samples bit by bit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posteriori import problem_file
from posteriori.asked import check_pairs
from posteriori.configuration import batch_rows
from posteriori.diagnostics import tell
from posteriori.driver import sample
from posteriori.identity import changes
from posteriori.methods import Method
from posteriori.problem_file.method import named_method as chosen
from posteriori.problem_file.prior import Arithmetic
from posteriori.run import Run, locked, read_json, write_json
from posteriori.views import viewed

PLAN = "plan.json"


@dataclass(frozen=True)
class Work:
    """One piece of a run, of JSON values: ``Work(**json.loads(json.dumps(asdict(piece))))`` is the
    same piece.

    problem: the problem file. folder: of the whole run. first, n: the samples of this piece. batch:
    rows worked on together.
    method: as a problem file states it, in place of the file's own; None for that. precision: of
    the network, as it was settled where the run was planned; None leaves it to the machine.
    """

    problem: str
    folder: str
    first: int
    n: int
    batch: int
    method: str | dict[str, Any] | None = None
    precision: Arithmetic | None = None

    @property
    def place(self) -> Path:
        """The folder of this piece."""
        return Path(self.folder) / "pieces" / f"{self.first:08d}"


def plan(
    problem: str | Path,
    folder: str | Path,
    *,
    shards: int,
    n: int | None = None,
    method: str | Mapping[str, Any] | None = None,
) -> list[Work]:
    """The pieces of a run, at most ``shards`` of about the same size, written to plan.json in
    ``folder``.

    n, method: in place of those of the problem file. No denoiser is called. To plan the same again
    changes nothing.
    Raises ``ValueError`` for shards below 1, and when the folder holds another plan.
    """
    if not isinstance(shards, int) or isinstance(shards, bool) or shards < 1:
        raise ValueError(
            f"shards is the number of pieces of a run: an integer >= 1, got {shards!r}"
        )
    stated = dict(method) if isinstance(method, Mapping) else method
    path, home = os.path.relpath(problem, folder), Path(folder)
    held = read_json(home / PLAN) if (home / PLAN).exists() else {}
    settled = held.get("precision") if held.get("problem") == path else None
    precision = problem_file.load(problem, settled).arithmetic
    task = _task(problem, stated, precision)
    total = task.settings["n"] if n is None else n
    solver: Method[Any] = task.method
    groups = -(-total // solver.returned)
    rows = task.settings["batch"] or batch_rows(task.posterior, solver, total)
    together = min(max(1, rows // solver.group), -(-groups // shards))
    whole = together
    check_pairs(task.settings["antithetic"], total, method=solver)
    if task.settings["antithetic"]:
        whole = math.lcm(together, 2)  # a piece has whole batches, and whole pairs
    size = math.ceil(-(-groups // whole) / shards) * whole * solver.returned
    record = {
        "problem": path,
        "method": stated,
        "n": total,
        "size": size,
        "batch": together * solver.group,
        "precision": precision,
    }
    with locked(home, ".plan.lock"):
        held = {"precision": precision} | read_json(home / PLAN) if (home / PLAN).exists() else {}
        if held and (found := list(changes(held, record))):
            raise ValueError(
                f"{folder} holds the plan of another run ({'; '.join(found)}); "
                "choose another folder"
            )
        write_json(home / PLAN, record)
    return planned(home)


def planned(folder: str | Path) -> list[Work]:
    """The pieces of the run that was planned in ``folder``. Raises ``FileNotFoundError`` where none
    was."""
    home = Path(folder)
    if not (home / PLAN).exists():
        raise FileNotFoundError(
            f"{folder} holds no plan of a run in pieces; "
            "make one by posteriori.plan(problem, folder, shards=...)"
        )
    record = read_json(home / PLAN)
    total, size, problem = record["n"], record["size"], os.path.normpath(home / record["problem"])
    starts = range(0, total, size)
    how = record["batch"], record["method"], record.get("precision")
    return [Work(problem, str(home), k, min(size, total - k), *how) for k in starts]


def work(piece: Work, *, progress: bool = False) -> Path:
    """Do a piece, and return its folder. A piece that is done costs no denoiser call, one that was
    stopped goes on where it was."""
    task = _task(piece.problem, piece.method, piece.precision)
    settings = task.settings | {"n": piece.n, "first": piece.first, "batch": piece.batch}
    sample(
        task.posterior, task.method, **settings, folder=piece.place, resume=True, progress=progress
    )
    return piece.place


def merge(folder: str | Path) -> Run:
    """The run that was planned in ``folder``, from its pieces; saved there. The estimate of log
    p(y) is that of one process to rounding.

    Raises ``RuntimeError`` naming the pieces that are not done, and ``ValueError`` when they are
    not parts of one run.
    """
    pieces = planned(folder)
    missing = [f"{p.first} to {p.first + p.n - 1}" for p in pieces if not _done(p)]
    if missing:
        raise RuntimeError(
            f"the run in {folder} cannot be merged yet: samples {', '.join(missing)} are not drawn"
        )
    post = _task(pieces[0].problem, pieces[0].method, pieces[0].precision).posterior
    with locked(Path(folder)):
        run = viewed(Run.merge([Run.load(piece.place) for piece in pieces]), post)
        run.save(folder)
    return tell(run, post, folder)


def _done(piece: Work) -> bool:
    record = piece.place / "run.json"
    return record.exists() and read_json(record)["state"] == "complete"


def _task(
    problem: str | Path, method: str | dict[str, Any] | None, precision: Arithmetic | None
) -> problem_file.Task:
    task = problem_file.load(problem, precision).build()
    return task if method is None else task._replace(method=chosen(method))
