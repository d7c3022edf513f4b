"""A run: samples, what they cost, how each of them ended; and the folder that holds it.

    run.json              configuration, seed, versions, units, counts, status of every row
    samples.safetensors   the arrays
    checkpoint.safetensors   only while a run is under way

Every file is written beside its place and renamed, so that a kill leaves the old one or the new one, never half of one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from posteriori.linalg import real_view


@dataclass(frozen=True)
class Status:
    """How one row ended. ``step`` and ``reason`` say where and why it diverged, and what to try."""

    kind: Literal["finished", "diverged"] = "finished"
    step: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.kind == "finished"

    def __str__(self) -> str:
        return "finished" if self.ok else f"diverged at step {self.step}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Run:
    """The result of ``posteriori.sample``.

    samples: (n_ok, *E) in the range the likelihood states: the rows that finished, in order. A diverged row is not among them.
    log_w: (n_ok,) float64 log-weights, 0 for unweighted methods.
    log_evidence: estimate of log p(y), or None for methods that make none: the log of the mean over clouds, one that has lost all its
    weight being an estimate of 0; clouds whose numbers broke are left out.
    status: one for each of the n rows.
    counts: denoiser, vjp, operator and adjoint calls per sample.
    trace: name -> (steps, n) numbers that the method reported at each step.
    seconds: wall-clock time. config: everything needed to repeat the run. references: BibTeX keys.
    """

    samples: Tensor
    log_w: Tensor
    log_evidence: float | None
    status: tuple[Status, ...]
    counts: dict[str, float]
    trace: dict[str, Tensor]
    seconds: float
    config: dict[str, Any]
    references: tuple[str, ...]
    extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """Weighted mean of the samples, shape E."""
        w = self.log_w.softmax(0).to(self.samples.real.dtype)
        return torch.tensordot(w.to(self.samples.dtype), self.samples, 1)

    @property
    def std(self) -> Tensor:
        """Weighted standard deviation over samples, shape E; real. NaN-free: 0 when there is one sample."""
        w = self.log_w.softmax(0).to(self.samples.real.dtype)
        return torch.tensordot(w, (self.samples - self.mean).abs().square(), 1).div((1 - w.square().sum()).clamp(min=1e-12)).sqrt()

    def save(self, folder: str | Path) -> None:
        """Write the run to a folder, arrays first, so that a complete run.json means a complete run."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"samples": self.samples, "log_w": self.log_w}
        arrays |= {f"trace.{k}": v for k, v in self.trace.items()} | {f"extra.{k}": v for k, v in self.extras.items()}
        write_arrays(folder / "samples.safetensors", arrays)
        record = {
            "state": "complete",
            "config": self.config,
            "counts": self.counts,
            "seconds": self.seconds,
            "log_evidence": self.log_evidence,
            "references": list(self.references),
            "status": [asdict(s) for s in self.status],
        }
        write_json(folder / "run.json", record)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder. Raises ``FileNotFoundError``, or ``RuntimeError`` when the run in it is not complete."""
        folder = Path(folder)
        record = read_json(folder / "run.json")
        if record.get("state") != "complete":
            raise RuntimeError(f"the run in {folder} is {record.get('state')}, not complete; finish it with --resume")
        arrays, _ = read_arrays(folder / "samples.safetensors")
        return cls(
            samples=arrays["samples"],
            log_w=arrays["log_w"],
            log_evidence=record["log_evidence"],
            status=tuple(Status(**s) for s in record["status"]),
            counts=record["counts"],
            trace={k.removeprefix("trace."): v for k, v in arrays.items() if k.startswith("trace.")},
            seconds=record["seconds"],
            config=record["config"],
            references=tuple(record["references"]),
            extras={k.removeprefix("extra."): v for k, v in arrays.items() if k.startswith("extra.")},
        )


def replace_file(beside: Path, place: Path) -> None:
    """Flush ``beside`` to disk and rename it to ``place``."""
    with beside.open("rb") as handle:
        os.fsync(handle.fileno())
    beside.replace(place)


def write_text(place: Path, text: str) -> None:
    """A text file, in a folder that is made if need be."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(place.name + ".partial")
    beside.write_text(text)
    replace_file(beside, place)


def write_json(place: Path, record: dict[str, Any]) -> None:
    write_text(place, json.dumps(record, indent=1))


def read_json(place: Path) -> dict[str, Any]:
    if not place.exists():
        raise FileNotFoundError(f"no run in {place.parent}: {place.name} is missing")
    return json.loads(place.read_text())


def write_arrays(place: Path, arrays: dict[str, Tensor], notes: dict[str, str] | None = None) -> None:
    """Tensors and text in one safetensors file; complex tensors are stored as pairs under the name ``NAME!complex``."""
    flat = {}
    for name, tensor in arrays.items():
        tensor = tensor.detach().cpu()
        # Files hold what is in memory, where a lazily conjugated or negated tensor has the wrong sign.
        flat[f"{name}!complex" if tensor.is_complex() else name] = real_view(tensor).contiguous().clone()
    beside = place.with_name(place.name + ".partial")
    save_file(flat, str(beside), metadata=notes)
    replace_file(beside, place)


def read_arrays(place: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    arrays = {}
    with safe_open(str(place), framework="pt") as file:
        notes = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118 (not a dict)
            tensor = file.get_tensor(key)
            name, is_complex = key.removesuffix("!complex"), key.endswith("!complex")
            arrays[name] = torch.view_as_complex(tensor) if is_complex else tensor
    return arrays, notes


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Hold a folder, or in it what ``name`` stands for, for this process. Raises ``RuntimeError`` naming the owner when another does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise RuntimeError(
                f"another process ({handle.read().strip() or 'unknown'}) is writing to {folder}; use another folder"
            ) from None
        handle.truncate(0)
        handle.write(f"pid {os.getpid()}")
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)
