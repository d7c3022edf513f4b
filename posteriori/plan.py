"""What a run would do and take, said before it starts: which solve, how many calls, how long, how
much memory.

Two steps are taken in the middle of the grid, from an image of pure noise there; calls and seconds
of the run are those of the second times the number of steps. Of a method whose steps are of several
kinds (``Method.phase``) that is done for each. An iteration that stops at its
tolerance takes more steps at some levels than at others, so both are estimates.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.configuration import batch_rows, make_levels
from posteriori.counting import CALL_KINDS, Counter, counted
from posteriori.likelihood import Posterior
from posteriori.linalg import solvers_noted
from posteriori.methods import courses
from posteriori.methods.base import Method
from posteriori.rng import Streams


@dataclass(frozen=True)
class Plan:
    """What ``sample`` would do.

    solves: the linear solves of a step, in words; empty for a method that makes none. calls: per
    sample, by kind, an estimate.
    rows: images worked on together. batches: how many times so many. seconds: of the run, an
    estimate. memory: bytes that this process holds at most so far, two steps included (on a GPU, of
    its memory). pilot: whether the method chooses its levels by a pilot run, which is in neither
    calls nor seconds. notes: sentences about ranges and precision.
    """

    method: str
    n: int
    steps: int
    rows: int
    batches: int
    solves: tuple[str, ...]
    calls: dict[str, float]
    seconds: float
    memory: int
    pilot: bool
    notes: tuple[str, ...]

    def __str__(self) -> str:
        calls = ", ".join(f"{count:.3g} {kind}" for kind, count in self.calls.items() if count)
        together = f"{self.rows} at a time" if self.batches > 1 else "together"
        lines = [
            f"plan: {self.method}, {self.n} sample{'s' if self.n > 1 else ''} "
            f"in {self.steps} steps, {together}",
            f"linear solves: {' and '.join(self.solves) if self.solves else 'none'}",
            "calls a sample: "
            f"about {calls or 'none'}{', and a pilot run before' if self.pilot else ''}",
            f"time: about {said(self.seconds)}{' and the pilot' if self.pilot else ''}; "
            f"memory: about {self.memory / 2**30:.2g} GiB",
        ]
        return "\n".join([*lines, *self.notes])


def said(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Pilot(Exception):  # noqa: N818 (no error: a question that would cost more than its answer)
    """The levels cannot be had without denoiser calls."""


class _Free(dict[str, int]):
    """Counts that may not rise."""

    def __setitem__(self, kind: str, calls: int) -> None:
        raise _Pilot(kind)


def plan(
    post: Posterior,
    method: Method[Any],
    *,
    n: int = 1,
    steps: int | None = None,
    grid: grids.GridName | Tensor | None = None,
    batch: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Plan:
    """The plan of ``sample`` with the same arguments. It costs two steps of one batch,
    for each ``Method.phase``.

    Raises ``ValueError`` as ``sample`` does when the method refuses the problem.
    """
    post = post.at_work(device, dtype)
    refusal = method.refuses(post)
    if refusal:
        raise ValueError(refusal)
    steps = courses.steps_of(method, steps)
    levels, pilot = _levels(post, method, steps, grid)
    rows = batch or batch_rows(post, method, n)
    groups = -(-n // method.returned)
    together = min(max(1, rows // method.group), groups)
    batches, count = -(-groups // together), len(levels) - 1
    total, calls, solves = 0.0, dict.fromkeys(CALL_KINDS, 0), set[str]()
    for places in _phases(post, method, levels):
        counter = Counter()
        seconds, kinds = _timed(post, method, levels, together, counter, places[len(places) // 2])
        total += seconds * len(places)
        calls = {kind: calls[kind] + counter.calls[kind] * len(places) for kind in CALL_KINDS}
        solves |= kinds
    return Plan(
        method=type(method).__name__,
        n=n,
        steps=count,
        rows=together * method.group,
        batches=batches,
        solves=tuple(sorted(solves)),
        calls={kind: made / (together * method.returned) for kind, made in calls.items()},
        seconds=total * groups / together,
        memory=_memory(post.likelihood.y.device),
        pilot=pilot,
        notes=(*_notes(post), *_course(method, count, grid)),
    )


def _levels(
    post: Posterior, method: Method[Any], steps: int, grid: grids.GridName | Tensor | None
) -> tuple[Tensor, bool]:
    """The levels of a run; where a pilot would choose them, the usual ones, and True."""
    counter = Counter()
    counter.calls = _Free(counter.calls)
    try:
        return make_levels(counted(post, counter), method, steps, grid)[0], False
    except _Pilot:
        return make_levels(post, method, steps, "karras")[0], True


def _phases(post: Posterior, method: Method[Any], levels: Tensor) -> list[list[int]]:
    """The steps of a grid by their ``Method.phase``: the places of the levels they begin at."""
    found: dict[Hashable, list[int]] = {}
    for k, (sigma, s) in enumerate(pairwise(levels)):
        found.setdefault(method.phase(post, sigma, s), []).append(k)
    return list(found.values())


def _timed(
    post: Posterior, method: Method[Any], levels: Tensor, groups: int, counter: Counter, k: int
) -> tuple[float, set[str]]:
    """Seconds of the step from level k, and its solves, after one that pays what is paid once a
    run."""
    watched, before = counted(post, counter), max(k - 1, 0)
    rng = Streams(0, range(groups), method.group)
    y = post.likelihood.y
    dtype = y.real.dtype.to_complex() if post.prior.complex else y.real.dtype
    blank = torch.zeros(groups * method.group, *post.shape, dtype=dtype, device=y.device)
    with torch.no_grad(), solvers_noted() as solves:
        state = method.init(watched, watched.prior.start(rng.normal(blank), levels[before]), rng)
        state, _ = method.step(watched, state, levels[before], levels[before + 1], rng)
        if k == 0:
            state = method.init(watched, method.rows(state), rng)
        counter.calls.update(dict.fromkeys(CALL_KINDS, 0))
        began = time.perf_counter()
        state, _ = method.step(watched, state, levels[k], levels[k + 1], rng)
        float(method.rows(state).abs().max())  # waits for a GPU
        return time.perf_counter() - began, set(solves)


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _notes(post: Posterior) -> tuple[str, ...]:
    notes = []
    inner, outer = post.prior.range, post.given.range
    if inner is not None and inner != outer:
        level = post.likelihood.noise.std
        converted = (
            f"; the noise level {post.given.noise.std:g} is {level:.4g} there"
            if level is not None
            else ""
        )
        notes.append(
            f"range: the prior works in {_shown(inner)}, "
            f"the measurement is expressed in {_shown(outer)}{converted}"
        )
    y = post.likelihood.y
    notes.append(f"precision: {str(y.real.dtype).removeprefix('torch.')} on {y.device}")
    return tuple(notes)


def _course(
    method: Method[Any], steps: int, grid: grids.GridName | Tensor | None
) -> tuple[str, ...]:
    """What is said where a published setting is used otherwise than in its paper."""
    name = "explicit" if isinstance(grid, Tensor) else grid or "the method's own"
    left = courses.off_course(courses.course_record(method), steps, name)
    return () if left is None else (f"warning: {left}",)


def _shown(range: tuple[float, float] | None) -> str:
    return "numbers without a range" if range is None else f"[{range[0]:g}, {range[1]:g}]"
