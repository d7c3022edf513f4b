"""The folder of a training run: its checkpoint, what it may be gone on with, and how it stops at a
keystroke.

``checkpoint.pt`` holds network, average, optimisers, step, losses, and a record of the
configuration and of the images by content. A run goes on with the same record alone; what may
differ is named in ``FREE``, and ``steps`` as long as the decay of the rate has not begun.
"""

from __future__ import annotations

import io
import pickle
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from posteriori.identity import changes
from posteriori.storage import write_bytes

_FREE = ("name", "card", "threads", "checkpoint_every")


@dataclass
class Stop:
    """Whether Ctrl-C has been pressed."""

    asked: bool = field(default=False)


@contextmanager
def at_a_keystroke() -> Iterator[Stop]:
    """Within it the first Ctrl-C only asks to stop, at the end of a step; the second interrupts at
    once, as always."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def asked(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, asked)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def save_session(state: dict[str, object], file: Path) -> None:
    """Written whole or not at all: a kill, or a full disk, leaves the old checkpoint."""
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(file, content.getvalue())


def load_session(file: Path, device: torch.device, record: dict[str, Any]) -> dict[str, Any]:
    """The state in a checkpoint. Raises ``ValueError`` naming the file where it cannot be read, and
    what differs from ``record``."""
    try:
        state = torch.load(file, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} cannot be read: {str(error).splitlines()[0]}; remove it to begin anew"
        ) from None
    if "record" not in state:
        raise ValueError(
            f"{file} does not say with which configuration it was trained: "
            "choose another folder, or export it as it is"
        )
    then, now = (
        {name: value for name, value in r.items() if name != "steps"}
        for r in (state["record"], record)
    )
    found = list(changes(then, now))
    old, new = state["record"]["steps"], record["steps"]
    decay = record["optimizer"]["decay"]
    if new < state["step"]:
        found.append(f"steps: {state['step']} are made, {new} asked for")
    elif old != new and old - state["step"] + 1 < decay:
        found.append(
            f"steps: {old!r} then, {new!r} now, and the rate has begun to fall towards the end"
        )
    if found:
        raise ValueError(
            f"the training run in {file.parent} was started with other settings "
            f"({'; '.join(found)[:600]}); choose another folder"
        )
    return state


def session_kept(folder: Path) -> str:
    """How far the run in a folder has come, for a person."""
    file = folder / "checkpoint.pt"
    if not file.exists():
        return f"nothing is kept in {folder} yet"
    return (
        f"{torch.load(file, map_location='cpu', weights_only=True)['step']} steps are kept "
        f"in {file}"
    )


def comparable(config: dict[str, Any], images: dict[str, Any]) -> dict[str, Any]:
    """What tells two runs apart: the configuration without ``FREE`` and without places on one
    machine, and the images by content."""
    kept = {name: value for name, value in config.items() if name not in _FREE}
    if kept.get("start", "") is None:  # runs from before they could start from weights
        del kept["start"]
    if kept["objective"] == {"name": "score-matching"}:  # runs from before there were others
        del kept["objective"]
    places = ("file", "folders", "paths")
    return kept | {
        "data": {name: value for name, value in config["data"].items() if name not in places}
        | {"images": images}
    }
