"""The course of a published setting: how many noise levels its paper visits, and where they lie.

    @classmethod
    @course(1000, "ddpm")
    def published(cls) -> DPS: ...

What ``published`` returns then runs along that course unless the user names steps or a grid. A step
of guidance is tuned together with the number and the place of the levels, so that a published
setting on another course is not the paper's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from posteriori import grid as grids
from posteriori.likelihood import Posterior
from posteriori.priors.base import Prior

if TYPE_CHECKING:
    from posteriori.methods.base import Method

Places = Callable[[Prior, int], Tensor]
M = TypeVar("M", bound="Method[Any]")
_USUAL_STEPS = 100


@dataclass(frozen=True)
class Course:
    """The levels that a paper visits.

    steps: the number of levels.
    grid: a name of ``posteriori.grid``, or the levels as a function of (prior, steps); None for a
        method that chooses its levels itself.
    words: the grid as a person reads it.
    fewest: the smallest number that the paper reports, where it reports several.
    """

    steps: int
    grid: grids.GridName | Places | None
    words: str
    fewest: int

    def __str__(self) -> str:
        several = f"{self.fewest} to {self.steps}" if self.fewest < self.steps else f"{self.steps}"
        return f"{several} steps, {self.words}"

    def levels(self, post: Posterior, steps: int) -> Tensor | None:
        """The levels (steps + 1,) on this course, within what the prior was trained for."""
        if self.grid is None:
            return None
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise ValueError(f"steps must be an integer >= 1, got {steps!r}")
        prior = post.prior
        if isinstance(self.grid, str):
            return grids.make(
                self.grid, steps, prior.sigma_max, prior.sigma_min, prior.know().ladder
            )
        return self.grid(prior, steps)


def course(
    steps: int, grid: grids.GridName | Places | None, words: str = "", fewest: int | None = None
) -> Callable[[Callable[..., M]], Callable[..., M]]:
    """Give what a class method returns the course that it is meant for; see ``Course``."""
    said = words or (f"grid {grid!r}" if isinstance(grid, str) else "the method's own levels")
    path = Course(steps, grid, said, steps if fewest is None else fewest)

    def mark(make: Callable[..., M]) -> Callable[..., M]:
        @functools.wraps(make)
        def made(*args: Any, **settings: Any) -> M:
            return _along(make(*args, **settings), path)

        made.__doc__ = (
            f"{make.__doc__} Along the paper's course where steps and grid are not given: {path}."
        )
        return made

    return mark


def _along(method: M, path: Course | None) -> M:
    # No hyper-parameter: two methods of equal settings are equal, whatever the course.
    object.__setattr__(method, "_course", path)
    return method


def course_of(method: Method[Any]) -> Course | None:
    """The course of a published setting; None for any other."""
    return getattr(method, "_course", None)


def changed(method: M, **settings: Any) -> M:
    """A method with other settings on the same course. ``dataclasses.replace`` makes one of your
    own instead, without a course."""
    return _along(replace(method, **settings), course_of(method))


def steps_of(method: Method[Any], steps: int | None, usual: int = _USUAL_STEPS) -> int:
    """The number of steps asked for; where none is, that of the course, and ``usual`` without
    one."""
    path = course_of(method)
    return steps if steps is not None else path.steps if path is not None else usual


def off_course(about: dict[str, Any] | None, steps: int, grid: str) -> str | None:
    """A sentence where a run leaves the course of its published setting, None where it does not.

    about: what ``course_record`` wrote.
    grid: a name, "explicit", or "the method's own".
    """
    if about is None:
        return None
    few, elsewhere = steps < about["fewest"], grid not in ("the method's own", about["grid"])
    if not few and not elsewhere:
        return None
    had = f"{steps} steps" + (
        f" of {'other levels' if grid == 'explicit' else f'grid {grid!r}'}" if elsewhere else ""
    )
    return (
        f"This published setting is meant for {about['said']}; with {had} it is not the paper's, "
        f"and may be far worse: leave steps and "
        "grid out to have the paper's."
    )


def course_record(method: Method[Any]) -> dict[str, Any] | None:
    """The course of a method as JSON values."""
    path = course_of(method)
    if path is None:
        return None
    return {
        "steps": path.steps,
        "fewest": path.fewest,
        "grid": path.grid if isinstance(path.grid, str) else None,
        "said": str(path),
    }


def _closed(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def prior_scale(prior: Prior) -> float:
    """Half the width of the prior's range: what a level stated for images in [-1, 1] is multiplied
    by. 1 without a range."""
    return 1.0 if prior.range is None else 0.5 * (prior.range[1] - prior.range[0])


def between(name: grids.GridName, top: float, bottom: float, drop: int = 0) -> Places:
    """Levels from ``top`` to ``bottom`` for images in [-1, 1]; the last ``drop`` are left out."""
    make = grids.karras if name == "karras" else grids.log

    def places(prior: Prior, steps: int) -> Tensor:
        unit = prior_scale(prior)
        high, low = min(top * unit, prior.sigma_max), max(bottom * unit, prior.sigma_min)
        return _closed(make(steps + drop, high, low)[:steps])

    return places


def times(fractions: Callable[[int], Tensor], top: float | None = None) -> Places:
    """The prior's "ddpm" levels at fractions of its time. Between two levels linear in ln(sigma).

    fractions: a function of the number of steps, (steps,), that falls within [0, 1].
    top: the level for images in [-1, 1] at which the time is 1; the largest without it.
    """

    def places(prior: Prior, steps: int) -> Tensor:
        ladder = prior.know().ladder()
        below = ladder if top is None else ladder[ladder <= top * prior_scale(prior)]
        logs = (below if len(below) else ladder[:1]).log()
        place = fractions(steps).double() * (len(logs) - 1)
        k = place.floor().long().clamp(max=max(len(logs) - 2, 0))
        return _closed(torch.lerp(logs[k], logs[(k + 1).clamp(max=len(logs) - 1)], place - k).exp())

    return places


def quadratic(steps: int) -> Tensor:
    """Fractions of time of which (1 - fraction)^2 is evenly spaced, dense at the end: (steps,) from
    1 to 0."""
    return 1 - torch.linspace(0, 1, steps, dtype=torch.float64).sqrt()


def linear(steps: int) -> Tensor:
    """Fractions of time evenly spaced: (steps,) from 1 to 0."""
    return torch.linspace(1, 0, steps, dtype=torch.float64)


def flow(shift: float = 1.0) -> Places:
    """Levels at equal distances in the time of a rectified flow, for images in [-1, 1], from the
    prior's largest level down: t = sigma / (1 + sigma), or its own time u with
    t = shift u / (1 + (shift - 1) u)."""

    def places(prior: Prior, steps: int) -> Tensor:
        unit = prior_scale(prior)

        def time(level: float) -> float:
            t = level / (unit + level)
            return t / (shift - (shift - 1) * t)

        top, bottom = time(prior.sigma_max), time(prior.sigma_min)
        u = torch.linspace(top, 0, steps + 1, dtype=torch.float64)[:-1]
        if float(u[-1]) < bottom:
            u = torch.linspace(top, bottom, steps, dtype=torch.float64)
        t = shift * u / (1 + (shift - 1) * u)
        # Rounding of the ends must not leave what the prior knows.
        return _closed((unit * t / (1 - t)).clamp(prior.sigma_min, prior.sigma_max))

    return places
