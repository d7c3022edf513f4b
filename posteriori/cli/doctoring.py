"""``posteriori doctor``: whether a problem is set up soundly. Heavy imports wait for a problem."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from posteriori.examination import Examination


def doctor_command(
    problem: Path, /, *, json_: Annotated[bool, Parameter(name="--json")] = False
) -> None:
    """Examine the problem of a file before it is run: operator, prior, range, noise level, axes,
    fit, cost, and which methods apply. The exit code is 1 where a line fails.

    Parameters
    ----------
    problem:
        the problem file, YAML.
    json_:
        print JSON instead of a table.
    """
    found = examine_problem(problem)
    print(json.dumps(found.record(), indent=1) if json_ else found)
    if not found.passed:
        raise SystemExit(1)


def examine_problem(problem: Path) -> Examination:
    """The examination of the problem of a file; of a volume that falls apart, of its first slice.

    Raises ``ValueError`` and ``FileNotFoundError`` as ``problem_file.load`` and ``build`` for a
    file that describes no problem.
    """
    from posteriori import problem_file
    from posteriori.examination import Examination, doctor, wrong_adjoint
    from posteriori.likelihood import Posterior
    from posteriori.operators.base import AdjointError

    given = problem_file.load(problem)
    try:
        task = given.build()
    except AdjointError as error:
        return Examination((wrong_adjoint(error),))
    for note in task.notes:
        print(note, file=sys.stderr)
    how: dict[str, Any] = {"n": task.settings["n"], "steps": task.settings["steps"]}
    post = task.posterior
    if task.volume is not None and task.volume.parts is not None:
        parts, how["n"] = task.volume.parts, how["n"] * len(post.given.y)
        post = Posterior(parts.prior, parts.likelihood(post.given, 0))
    return doctor(post, task.method, **how)
