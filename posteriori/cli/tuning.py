"""``posteriori tune``: which method, with which settings. Heavy imports wait for a problem."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from posteriori.tuning import Budget, Tuning


def tune_command(
    problem: Path,
    /,
    *,
    budget: str | None = None,
    calls: float | None = None,
    metric: Literal["energy", "crps", "psnr", "lpips"] = "energy",
    methods: str | None = None,
    samples: int = 8,
    seed: int = 0,
    out: Path = Path("tuning"),
    json_: Annotated[bool, Parameter(name="--json")] = False,
    quiet: bool = False,
) -> None:
    """Choose a method and its settings for the problem of a file, without ground truth: truths are
    drawn from the prior and measured by the problem's operator and noise. The problem with the
    chosen method is written beside the file, as NAME.tuned.yaml.

    The same command goes on with what is in the folder. The exit code is 1 where no method could be
    scored.

    Parameters
    ----------
    problem:
        the problem file, YAML.
    budget:
        what the search may take, such as 90s, 2m or 1h; by default only --calls limits it.
    calls:
        passes through the network that it may take, of every row; by default only --budget limits
        it.
    metric:
        what is best: energy (score of the samples as a forecast of the image), crps (number by
        number), psnr (of their mean, in dB) or lpips (of a sample).
    methods:
        names such as MMPS,DPS to search these alone, or what is to be tried itself, such as
        "MMPS,DPS(scale=0.5,steps=16)"; by default every method that takes the problem.
    samples:
        of each truth.
    seed:
        of truths, noise and samples.
    out:
        folder for tuning.md, outcome.json, front.png and the scored cells.
    json_:
        print JSON instead of a table.
    quiet:
        no progress bar, and no lines in its place where there is no terminal.
    """
    from posteriori.cli.resuming import resumable
    from posteriori.tuning import Budget, write_tuned
    from posteriori.tuning.written import tuned_place, write_search

    if budget is None and calls is None:
        raise ValueError("say what the search may take: --budget 2m, or --calls 100000")
    given = Budget.read(budget, calls)
    tuned_place(problem)
    names = [] if methods is None else [methods]
    with resumable(lambda: cells_scored(out)):
        found = tune_problem(problem, given, metric, names, samples, seed, out, not quiet)
    said = write_search(out, found)
    if found.choice is not None:
        said.append(f"problem: {write_tuned(problem, found)}")
    print(json.dumps(found.record(), indent=1) if json_ else "\n".join([str(found), *said]))
    if found.choice is None:
        raise SystemExit(1)


def cells_scored(out: Path) -> str:
    """What an interrupted search has kept, for the message."""
    from posteriori.run import read_json
    from posteriori.tuning.halving import SEARCH_RECORD

    place = out / SEARCH_RECORD
    cells = read_json(place)["cells"] if place.exists() else {}
    return f"{sum(map(len, cells.values()))} scored cells are kept in {out}"


def tune_problem(
    problem: Path,
    budget: Budget,
    metric: Literal["energy", "crps", "psnr", "lpips"],
    methods: list[str],
    n: int,
    seed: int,
    out: Path,
    progress: bool,
) -> Tuning:
    """The search for the problem of a file. Raises ``ValueError`` and ``FileNotFoundError`` as
    ``problem_file.load``, ``build`` and ``tune``."""
    from posteriori import places, problem_file
    from posteriori.run import write_json
    from posteriori.tuning import tune
    from posteriori.tuning.halving import SEARCH_RECORD

    kept = out / "problem.json"
    given = problem_file.load(problem, problem_file.settled_in(kept, problem))
    if (what := places.occupied(out)) is not None:
        raise ValueError(f"{out} is {what}; choose another folder with --out")
    held = {p.name for p in out.iterdir()} if out.exists() else set()
    if held - {kept.name} and SEARCH_RECORD not in held:
        raise ValueError(f"{out} exists and holds no search; choose another folder by --out")
    task = given.build()
    for note in task.notes:
        print(note, file=sys.stderr)
    if task.volume is not None:
        raise ValueError(
            "a volume is not tuned as a whole; tune the problem of one of its slices, and name the "
            "method in the file of the volume"
        )
    if SEARCH_RECORD not in held:  # all cells in one precision, wherever the search goes on
        out.mkdir(parents=True, exist_ok=True)
        write_json(kept, given.record)
    return tune(
        task.posterior,
        budget,
        metric=metric,
        methods=methods,
        n=n,
        seed=seed,
        folder=out,
        progress=progress,
    )
