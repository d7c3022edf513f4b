"""What is kept of a run under way, so that it ends with the same bits as one that was not
interrupted.

rows/00000000.safetensors   the samples of a finished batch, named by its first group; written once
checkpoint.safetensors      the state of the batch under way, the position of its random
                            streams, the counts so far
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori.rng import Streams
from posteriori.run import Status, read_arrays, write_arrays


@dataclass
class Pending:
    """A batch under way: ``step`` steps of it are done."""

    step: int
    groups: int
    rng: Streams
    state: Any
    status: list[Status]
    trace: dict[str, list[Tensor]] = field(default_factory=dict)

    def first(self, returned: int) -> Tensor:
        """The rows in whose places the samples of each group are returned: (groups * returned,)."""
        return (
            torch.arange(self.groups)[:, None] * (len(self.status) // self.groups)
            + torch.arange(returned)
        ).flatten()


@dataclass
class Done:
    """Finished batches, in the memory of the CPU."""

    groups: int = 0
    rows: list[Tensor] = field(default_factory=list)
    log_w: list[Tensor] = field(default_factory=list)
    evidence: list[Tensor] = field(default_factory=list)
    status: list[Status] = field(default_factory=list)
    trace: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(
        self,
        batch: Pending,
        rows: Tensor,
        log_w: Tensor,
        evidence: Tensor | None,
        ended: list[Status],
    ) -> None:
        """Take over a finished batch, which returns the samples ``rows``, as many of each group,
        and how each of them ``ended``.

        Rows of a group influence each other: one that diverged makes all samples of its group
        suspect. The trace of a returned sample is that of the row in its place. The evidence of a
        group that diverged is left out, unless it is an estimate of 0: a cloud without weight found
        no image that agrees with y, which counts; numbers that are not finite say nothing.
        """
        group, returned = len(batch.status) // batch.groups, len(rows) // batch.groups
        self.groups += batch.groups
        self.rows.append(rows.cpu())
        self.log_w.append(log_w.cpu())
        ends = [
            batch.status[g * group : (g + 1) * group] + ended[g * returned : (g + 1) * returned]
            for g in range(batch.groups)
        ]
        worst = [next((status for status in end if not status.ok), end[0]) for end in ends]
        self.status += [status for status in worst for _ in range(returned)]
        if evidence is not None:
            evidence = evidence.cpu()
            self.evidence.append(
                evidence[torch.tensor([status.ok for status in worst]) | evidence.isneginf()]
            )
        for name, values in batch.trace.items():
            self.trace.setdefault(name, []).append(torch.stack(values)[:, batch.first(returned)])

    def arrays(self) -> dict[str, Tensor]:
        """The last batch, as ``append`` writes it."""
        out = {"rows": self.rows[-1], "log_w": self.log_w[-1]} | {
            f"trace.{name}": parts[-1] for name, parts in self.trace.items()
        }
        return out | ({"evidence": self.evidence[-1]} if self.evidence else {})

    def take(self, arrays: dict[str, Tensor], groups: int, status: list[Status]) -> None:
        """Add a batch that ``append`` has written."""
        self.groups += groups
        self.status += status
        self.rows.append(arrays["rows"])
        self.log_w.append(arrays["log_w"])
        self.evidence += [arrays["evidence"]] if "evidence" in arrays else []
        for name, value in arrays.items():
            if name.startswith("trace."):
                self.trace.setdefault(name.removeprefix("trace."), []).append(value)


CheckpointNotes = dict[str, Any]
"""calls: row-calls so far by kind; spent: seconds; size: rows worked on together."""


def append(folder: Path, done: Done, groups: int, progress: CheckpointNotes) -> None:
    """Keep the batch that was finished last, of so many groups."""
    first, ends = done.groups - groups, done.status[len(done.status) - len(done.rows[-1]) :]
    notes = progress | {"groups": groups, "status": [astuple(status) for status in ends]}
    (folder / "rows").mkdir(exist_ok=True)
    write_arrays(
        folder / "rows" / f"{first:08d}.safetensors", done.arrays(), {"notes": json.dumps(notes)}
    )


def save_checkpoint(folder: Path, done: Done, batch: Pending, progress: CheckpointNotes) -> None:
    """Keep the batch under way."""
    arrays = {f"state.{i}": leaf for i, leaf in enumerate(leaves(batch.state))}
    arrays |= {f"trace.{name}": torch.stack(values) for name, values in batch.trace.items()}
    notes = progress | {
        "step": batch.step,
        "groups": batch.groups,
        "done": done.groups,
        "status": [astuple(s) for s in batch.status],
    }
    write_arrays(
        folder / "checkpoint.safetensors",
        arrays | {"streams": batch.rng.state()},
        {"notes": json.dumps(notes)},
    )


def finished(folder: Path) -> tuple[Done, CheckpointNotes | None]:
    """The finished batches of a folder, and how far the run was after the last of them; None when
    there is none."""
    done, progress = Done(), None
    while (place := folder / "rows" / f"{done.groups:08d}.safetensors").exists():
        arrays, text = read_arrays(place)
        progress = json.loads(text["notes"])
        done.take(arrays, progress["groups"], [Status(*s) for s in progress["status"]])
    return done, progress


def pending(
    folder: Path, done: Done, streams: Callable[[int, int], Streams], device: torch.device
) -> tuple[Pending, list[Tensor], CheckpointNotes] | None:
    """The batch under way, with its state as a list of tensors (its shape is the method's affair,
    see ``pour``), and the progress then.

    streams: the random streams of so many groups from one on. None when no batch after those that
    are ``done`` was kept.
    """
    place = folder / "checkpoint.safetensors"
    if not place.exists():
        return None
    arrays, text = read_arrays(place)
    notes = json.loads(text["notes"])
    if notes["done"] != done.groups:
        return None
    rng = streams(done.groups, notes["groups"])
    rng.restore(arrays.pop("streams"))
    batch = Pending(
        notes["step"], notes["groups"], rng, None, [Status(*s) for s in notes["status"]]
    )
    batch.trace = {
        name.removeprefix("trace."): list(value)
        for name, value in arrays.items()
        if name.startswith("trace.")
    }
    state = sorted(
        (int(name.removeprefix("state.")), value)
        for name, value in arrays.items()
        if name.startswith("state.")
    )
    return batch, [value.to(device) for _, value in state], notes


def kept_in(folder: Path) -> bool:
    """Whether anything of a run under way, or of a slab of a volume, is kept in a folder."""
    return (
        (folder / "checkpoint.safetensors").exists()
        or any((folder / "rows").glob("*.safetensors"))
        or any((folder / "slabs").glob("*/*/run.json"))
    )


def clear(folder: Path) -> None:
    """Remove what only a run under way needs."""
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    shutil.rmtree(folder / "rows", ignore_errors=True)


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in order. Raises ``TypeError`` naming a part that is no tensor, tuple
    or dataclass of such."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, tuple):
        return [leaf for part in state for leaf in leaves(part)]
    if is_dataclass(state) and not isinstance(state, type):
        return [leaf for f in fields(state) for leaf in leaves(getattr(state, f.name))]
    raise TypeError(
        "a method's state may hold tensors, tuples and dataclasses of them, "
        f"found {type(state).__name__}"
    )


def pour(mould: Any, parts: Iterator[Tensor]) -> Any:
    """A state shaped like ``mould`` with its tensors taken from ``parts``."""
    if isinstance(mould, Tensor):
        return next(parts)
    if isinstance(mould, tuple):
        values = [pour(part, parts) for part in mould]
        return type(mould)(*values) if hasattr(mould, "_fields") else tuple(values)
    return type(mould)(**{f.name: pour(getattr(mould, f.name), parts) for f in fields(mould)})
