"""A page of a run under way: how far it is, how long it takes, and what the denoiser sees now."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from posteriori.likelihood import Posterior, framed
from posteriori.measurements.pictures import image, picture_limits, pictured, uri
from posteriori.methods.base import Info
from posteriori.packing import unpack
from posteriori.progress import Progress
from posteriori.report.figures import figure
from posteriori.report.page import document
from posteriori.storage import write_text

# Seconds between two pages at least; and the part of a run that its pages may take.
OFTEN, SHARE = 5.0, 0.05


class LivePage:
    """``folder/index.html``, written while ``sample`` works:

        with LivePage(folder, posterior) as live:
            run = sample(posterior, method, folder=folder, watch=[live], progress=live.at)

    The page loads itself again. It is written whole every ``every`` seconds at most, the first time
    after as many, and takes a twentieth of the run's time at most. Its picture is D(x, s) of the
    first row of the batch under way, a denoiser call that is not counted. The samples are those of
    a run without it.

    name: of what is drawn. shown: whether the usual bar or lines tell of the run as well. followed:
    whether another page takes this place in the end; without it the last page does not load itself
    again.
    """

    def __init__(
        self,
        folder: str | Path,
        post: Posterior,
        name: str = "Posterior samples",
        *,
        every: float = OFTEN,
        shown: bool = False,
        followed: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.place, self.post, self.name = Path(folder) / "index.html", post, name
        self.every, self.shown, self.followed, self.clock = every, shown, followed, clock
        self.bar: Progress | None = None
        self.done, self.total = 0, 1
        self.due, self.written, self.watched = clock() + every, False, False
        self.row: tuple[Tensor, float] | None = None
        self.shot = ""

    def at(self, done: int, total: int) -> None:
        """Where the run is, see ``progress`` of ``sample``."""
        if self.bar is None:
            self.bar = Progress(self.name, total, self.shown, clock=self.clock)
        self.done, self.total = done, total
        self.bar.at(done)
        # With steps to watch a page is written after them, with their image.
        if not self.watched and self.clock() >= self.due:
            self._renew()

    def __call__(self, step: int, s: Tensor, rows: Tensor, info: Info) -> None:
        """After a step, see ``watch`` of ``sample``."""
        self.watched = True
        if self.clock() >= self.due:
            self.row = rows[:1].detach().clone(), float(s)
            self._renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        if not self.written:
            return
        if error is None:
            self._write("All samples are drawn.", again=self.followed)
        else:
            why = f"{type(error).__name__}: {error}".removesuffix(": ")
            self._write(f"The run has stopped: {why}.", again=False)

    def _renew(self) -> None:
        began = self.clock()
        with suppress(
            Exception
        ):  # as of a denoiser of the user's own: no run is lost for a picture
            self.shot = self._picture()
        self._write(self._so_far(), again=True)
        self.due = self.clock() + max(self.every, (self.clock() - began) / SHARE)

    def _so_far(self) -> str:
        assert self.bar is not None
        left = self.bar.left(self.done)
        soon = "" if left is None else f", about {_duration(left)} left"
        return f"{_duration(self.clock() - self.bar.began)} so far{soon}."

    def _write(self, said: str, *, again: bool) -> None:
        share = 100 * self.done // self.total
        parts = [
            f"<h1>{html.escape(self.name)}</h1>",
            f'<p class="lead" role="status">{share} % of the steps. {html.escape(said)}</p>',
            f'<progress aria-label="steps" max="{self.total}" value="{self.done}"></progress>',
            self.shot,
            f'<p class="lead">Written at {datetime.now():%H:%M:%S}'
            f"{f', at most every {self.every:g} s' if again else ''}.</p>",
        ]
        head = f'<meta http-equiv="refresh" content="{max(1, round(self.every))}">' if again else ""
        style = (
            "progress { width:100%; accent-color:var(--accent) } "
            "figure { max-width:560px; margin:14px 0 }"
        )
        # A full disk is told by what the run itself writes.
        with suppress(OSError):
            write_text(
                self.place, document(f"{share} %: {self.name}", parts, style=style, head=head)
            )
            self.written = True

    def _picture(self) -> str:
        if self.row is None:
            return ""
        row, s = self.row
        y = self.post.likelihood.y
        kind = y.real.dtype.to_complex() if row.is_complex() else y.real.dtype
        x = row.to(y.device, kind)
        with torch.no_grad():
            if s > 0:
                x = self.post.prior.denoise(x, torch.tensor(s, dtype=x.real.dtype, device=x.device))
            seen = self.post.to_given(x)
        range = self.post.given.range
        shapes, ranges = self.post.chart.shapes, self.post.chart.ranges
        if shapes is not None and ranges is not None:
            parts = unpack(seen, shapes)
            name = next(k for k, part in parts.items() if pictured(part[0]) is not None)
            seen, range = parts[name], ranges[name]
        one = framed(seen[0], self.post.given.frame)
        planes = pictured(one[len(one) // 2] if one.ndim == 4 else one)
        if planes is None:
            return ""
        ends = picture_limits(range, one.is_complex() or len(one) == 2) if range else None
        low, high = ends or (float(planes.min()), float(planes.max()))
        return figure(
            uri(image(planes, low, high)),
            "The first sample under way",
            f"as the denoiser sees it at noise level {s:.3g} of the prior; "
            f"black is {low:.3g}, white is {high:.3g}",
        )


def _duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
