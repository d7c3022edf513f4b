"""How far a run is: one bar for all of it on a terminal, plain lines elsewhere.

The unit is a step of a group of rows, so that batches of unlike size count as what they are. A run
that is resumed, or goes back because memory ran out, is where it is: the rate counts what was done
here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm.auto import tqdm

# A line at the end, and at each tenth, but not before this many seconds since the last, and at the
# latest after so many.
SOON, LATE = 2.0, 30.0


# What is told where a run is: units done, and all of them.
Heard = Callable[[int, int], None]


class Progress:
    """``total`` units, of which ``at`` says how many are done.

    shown: whether anything is; a bar where ``terminal`` is true (by default where stderr is one, or
    in a notebook), else lines on stderr. Or a function that is told, in place of them.
    """

    def __init__(
        self,
        name: str,
        total: int,
        shown: bool | Heard,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name, self.total, self.clock = name, total, clock
        self.told = None if isinstance(shown, bool) else shown
        shown = shown is True
        bar = shown and (_live() if terminal is None else terminal)
        file = sys.stderr if sys.stderr.isatty() else None
        self.bar = tqdm(total=total, desc=name, file=file, unit="step") if bar else None
        self.lines = shown and not bar
        self.began = self.last = clock()
        self.first: int | None = None
        self.tenth = 0

    def at(self, done: int) -> None:
        """Where the run is."""
        if self.first is None:
            self.first, self.tenth = done, 10 * done // self.total
            if self.bar is not None:
                self.bar.initial = done
        if self.told is not None:
            self.told(done, self.total)
        elif self.bar is not None:
            self.bar.update(done - self.bar.n)
        elif self.lines:
            self._line(done)

    def _line(self, done: int) -> None:
        now, tenth = self.clock(), 10 * done // self.total
        waited = now - self.last
        if done < self.total and not ((tenth > self.tenth and waited >= SOON) or waited >= LATE):
            return
        self.last, self.tenth = now, tenth
        seconds = self.left(done)
        left = "" if seconds is None else f", about {seconds:.0f} s left"
        print(
            f"{self.name}: {100 * done // self.total} % after {now - self.began:.0f} s{left}",
            file=sys.stderr,
            flush=True,
        )

    def left(self, done: int) -> float | None:
        """Seconds that the rest takes at the rate so far; None where none is known or left."""
        here = done - (self.first or 0)
        if here <= 0 or done >= self.total:
            return None
        return (self.clock() - self.began) / here * (self.total - done)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _live() -> bool:
    """Whether stderr is a terminal, or the code runs in a notebook, where a bar can be drawn."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
