"""The folder of a run: made there, completed, or read where it is complete; and what a run that
stops leaves in it.

run.json has a ``state``: "running" (also after the process was killed), "complete", "failed" or
"interrupted". The last two come with a ``reason``; what was kept by then is completed by ``resume``
as after any other end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from posteriori import checkpoint
from posteriori.configuration import check_same
from posteriori.likelihood import Posterior
from posteriori.run import Run, locked, read_json, write_json
from posteriori.settings import NonNegative, Setting
from posteriori.views import viewed


class Resumable(Protocol):
    """A run to be done in a folder: the ``Job`` of ``posteriori.sample``."""

    config: dict[str, Any]
    post: Posterior

    def visit(self, folder: Path, config: dict[str, Any]) -> None: ...
    def run(self, folder: Path | None, every: float) -> Run: ...


def keep(work: Resumable, folder: Path, resume: bool, every: float) -> Run:
    """The run of a folder, with checkpoints ``every`` so many seconds.

    Raises ``ValueError`` when ``every`` is negative, and when the folder holds a run and ``resume``
    is not asked for, or holds another one.
    """
    Setting(NonNegative).valid(every, "checkpoint_seconds")
    with locked(folder):
        held = holds(folder)
        if held is not None and not resume:
            raise ValueError(
                f"{folder} already holds a run{held}; "
                "choose another folder, or go on with it by resume"
            )
        record = read_json(folder / "run.json") if resume and (folder / "run.json").exists() else {}
        if record.get("config"):
            check_same(record["config"], work.config, folder)
            if "levels" in record["config"]:  # a run may fail before it has them
                work.visit(folder, record["config"])
            if record["state"] == "complete":
                return Run.load(folder)
        else:  # rows or a checkpoint without the record of their run are nobody's
            checkpoint.clear(folder)
        with explained(folder, work):
            run = viewed(work.run(folder, every), work.post)
            run.save(folder)
        checkpoint.clear(folder)
        return run


def holds(folder: Path) -> str | None:
    """How the run in a folder ended, in brackets, "" where it went well or goes on; None where the
    folder is free.

    It is free without a run, and where a run stopped by itself or by its user before anything of it
    was kept.
    """
    if not (folder / "run.json").exists():
        return None
    record = read_json(folder / "run.json")
    if record["state"] not in ("failed", "interrupted"):
        return ""
    return f" ({record['state']}: {record['reason']})" if checkpoint.kept_in(folder) else None


@contextmanager
def explained(
    folder: Path, work: Resumable | None = None, config: dict[str, Any] | None = None
) -> Iterator[None]:
    """Write into run.json that, and why, what is done within it ended before its time. The
    exception goes on.

    work: whose configuration is written; it may still change within. config: that does not.
    """
    try:
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        reason = (
            "by the keyboard (Ctrl-C)"
            if state == "interrupted"
            else f"{type(error).__name__}: {error}".removesuffix(": ")
        )
        with suppress(OSError):  # as of a full disk, of which the first error tells
            write_json(
                folder / "run.json",
                {"state": state, "reason": reason, "config": work.config if work else config or {}},
            )
        raise
