"""What is kept of an interrupted run, so that it ends with the same bits as one that was not.

A checkpoint is one safetensors file: the rows of finished batches, the state of the batch under way, the position of its random
streams, the counts so far.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
        return (torch.arange(self.groups)[:, None] * (len(self.status) // self.groups) + torch.arange(returned)).flatten()


@dataclass
class Done:
    """Finished batches."""

    groups: int = 0
    rows: list[Tensor] = field(default_factory=list)
    log_w: list[Tensor] = field(default_factory=list)
    evidence: list[Tensor] = field(default_factory=list)
    status: list[Status] = field(default_factory=list)
    trace: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, batch: Pending, rows: Tensor, log_w: Tensor, evidence: Tensor | None, ended: list[Status]) -> None:
        """Take over a finished batch, which returns the samples ``rows``, as many of each group, and how each of them ``ended``.

        Rows of a group influence each other: one that diverged makes all samples of its group suspect. The trace of a returned sample is
        that of the row in its place. The evidence of a group that diverged is left out, unless it is an estimate of 0: a cloud without
        weight found no image that agrees with y, which counts; numbers that are not finite say nothing.
        """
        group, returned = len(batch.status) // batch.groups, len(rows) // batch.groups
        self.groups += batch.groups
        self.rows.append(rows)
        self.log_w.append(log_w)
        ends = [batch.status[g * group : (g + 1) * group] + ended[g * returned : (g + 1) * returned] for g in range(batch.groups)]
        worst = [next((status for status in end if not status.ok), end[0]) for end in ends]
        self.status += [status for status in worst for _ in range(returned)]
        if evidence is not None:
            self.evidence.append(evidence[torch.tensor([status.ok for status in worst], device=evidence.device) | evidence.isneginf()])
        for name, values in batch.trace.items():
            self.trace.setdefault(name, []).append(torch.stack(values)[:, batch.first(returned)])


def save(place: Path, done: Done, batch: Pending, calls: dict[str, int], spent: float, size: int) -> None:
    arrays = {f"state.{i}": leaf for i, leaf in enumerate(leaves(batch.state))}
    for name, parts in (("rows", done.rows), ("log_w", done.log_w), ("evidence", done.evidence)):
        arrays |= {f"{name}.{i}": part for i, part in enumerate(parts)}
    arrays |= {f"trace.{name}": torch.stack(values) for name, values in batch.trace.items()}
    arrays |= {f"traced.{name}": torch.cat(parts, dim=1) for name, parts in done.trace.items()}
    notes = {"step": batch.step, "groups": batch.groups, "done": done.groups, "calls": calls, "spent": spent, "size": size}
    notes |= {"batch_status": [astuple(s) for s in batch.status], "done_status": [astuple(s) for s in done.status]}
    write_arrays(place, arrays | {"streams": batch.rng.state()}, {"notes": json.dumps(notes)})


def load(place: Path, seed: int, group: int, device: torch.device) -> tuple[Done, Pending, list[Tensor], dict[str, Any]]:
    """What ``save`` kept. The state comes as its list of tensors: its shape is the method's affair, see ``pour``."""
    arrays, text = read_arrays(place)
    streams = arrays.pop("streams")
    arrays = {name: tensor.to(device) for name, tensor in arrays.items()}
    notes = json.loads(text["notes"])
    rng = Streams(seed, range(notes["done"], notes["done"] + notes["groups"]), group)
    rng.restore(streams)
    rows, log_w, evidence = (_series(arrays, name) for name in ("rows", "log_w", "evidence"))
    done = Done(notes["done"], rows, log_w, evidence, [Status(*s) for s in notes["done_status"]])
    done.trace = {name.removeprefix("traced."): [value.cpu()] for name, value in arrays.items() if name.startswith("traced.")}
    batch = Pending(notes["step"], notes["groups"], rng, None, [Status(*s) for s in notes["batch_status"]])
    batch.trace = {name.removeprefix("trace."): list(value.cpu()) for name, value in arrays.items() if name.startswith("trace.")}
    return done, batch, _series(arrays, "state"), notes


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in order. Raises ``TypeError`` naming a part that is no tensor, tuple or dataclass of such."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, tuple):
        return [leaf for part in state for leaf in leaves(part)]
    if is_dataclass(state) and not isinstance(state, type):
        return [leaf for f in fields(state) for leaf in leaves(getattr(state, f.name))]
    raise TypeError(f"a method's state may hold tensors, tuples and dataclasses of them, found {type(state).__name__}")


def pour(mould: Any, parts: Iterator[Tensor]) -> Any:
    """A state shaped like ``mould`` with its tensors taken from ``parts``."""
    if isinstance(mould, Tensor):
        return next(parts)
    if isinstance(mould, tuple):
        values = [pour(part, parts) for part in mould]
        return type(mould)(*values) if hasattr(mould, "_fields") else tuple(values)
    return type(mould)(**{f.name: pour(getattr(mould, f.name), parts) for f in fields(mould)})


def _series(arrays: dict[str, Tensor], name: str) -> list[Tensor]:
    keys = [key for key in arrays if key.startswith(f"{name}.")]
    return [arrays[key] for key in sorted(keys, key=lambda key: int(key.split(".")[1]))]
