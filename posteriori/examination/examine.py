"""The order of the lines: each is judged where those that it stands on have not failed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from posteriori.examination.cost_lines import cost_line, methods_line
from posteriori.examination.data_lines import (
    BETTER,
    better_orientation,
    noise_line,
    range_line,
    seen_noise,
)
from posteriori.examination.finding import Examination, Finding
from posteriori.examination.operator_lines import adjoint_line, norm_line, spectrum_line
from posteriori.examination.prior_lines import prior_findings
from posteriori.examination.restored_lines import (
    Restoration,
    at_level,
    axes_line,
    fit_line,
    restore,
    sound,
    world_line,
)
from posteriori.likelihood import Posterior
from posteriori.methods.base import Method
from posteriori.operators.base import SolveError
from posteriori.problem_file.advice import choose

# What each line stands on: where one of these has failed, it would only repeat it.
_AFTER: dict[str, tuple[str, ...]] = {
    "norm": ("adjoint",),
    "spectrum": ("adjoint", "norm"),
    "range": ("adjoint", "norm", "spectrum", "tweedie", "samples"),
    "noise": ("adjoint", "norm", "spectrum", "tweedie", "samples", "range"),
    "axes": ("adjoint", "norm", "spectrum", "tweedie", "samples", "range", "noise"),
    "fit": ("adjoint", "norm", "spectrum", "tweedie", "samples", "range", "noise", "axes"),
    "world": ("adjoint", "norm", "spectrum", "tweedie", "samples", "range", "noise", "axes", "fit"),
    "cost": ("adjoint", "norm", "spectrum", "noise"),
}
# What a line may meet in a problem that is wrong elsewhere.
_FAILS = (ArithmeticError, ValueError, TypeError, RuntimeError, NotImplementedError)


def doctor(
    posterior: Posterior,
    method: Method[Any] | None = None,
    *,
    n: int = 1,
    steps: int | None = None,
) -> Examination:
    """Whether a problem is set up soundly, before it is run: one line for each thing that is often
    wrong.

        adjoint, norm, spectrum                    of the operator
        tweedie, symmetry, idempotence, samples    of the prior, on images that it draws
        range, noise                               what y tells of them, against what is stated
        axes, fit, world                           of a restoration in a few steps
        cost, methods                              what a run takes, and which methods apply

    method, n, steps: those of the run that ``cost`` is of; by default the method that a problem
    file without one would get.

    It costs about thirty denoiser calls at the size of the measurement, fewer where it is large.
    A line that stands on one that failed is skipped. Nothing is raised for a problem that is
    unsound. Limits and false alarms: docs/results/doctor.md.
    """
    post = posterior.at_work()
    judged = _Judged()
    A, dtype = post.given.A, post.given.y.real.dtype
    judged.line("adjoint", lambda: adjoint_line(A, dtype))
    judged.line("norm", lambda: norm_line(A, dtype))
    judged.line("spectrum", lambda: spectrum_line(A, dtype))
    with warnings.catch_warnings(action="ignore"):
        judged.add(*prior_findings(post.prior))
    if method is None:
        try:
            method = choose(post, steps).method
        except _FAILS:
            method = None

    @cache
    def restored() -> Restoration | None:
        return restore(post, method)

    judged.line("range", lambda: range_line(post, lambda: _images(restored())))
    judged.line("noise", lambda: _noise(post, method, restored))
    judged.line("axes", lambda: axes_line(post, restored()))
    judged.line("fit", lambda: fit_line(post, restored()))
    judged.line("world", lambda: world_line(post, restored()))
    judged.line("cost", lambda: cost_line(post, method, n, steps))
    last, reasons = methods_line(post, method)
    judged.add(last)
    return Examination(tuple(judged.findings), reasons)


class _Judged:
    """The lines so far."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(self, *found: Finding) -> None:
        self.findings += found

    def line(self, name: str, judge: Callable[[], Finding]) -> None:
        failed = [f.name for f in self.findings if f.verdict == "fail"]
        cause = next((other for other in _AFTER.get(name, ()) if other in failed), None)
        if cause is not None:
            self.add(Finding(name, "skip", "not judged", remedy=f"the line {cause} failed"))
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                self.add(judge())
        except SolveError as error:
            self.add(Finding(name, "warn", "a linear solve did not converge", remedy=f"{error}"))
        except _FAILS as error:
            self.add(Finding(name, "fail", "it could not be judged", remedy=f"{error}"))


def _images(found: Restoration | None) -> Any:
    return None if found is None else found.images


def _noise(
    post: Posterior, method: Method[Any] | None, restored: Callable[[], Restoration | None]
) -> Finding:
    """The line of the noise level. Where y shows far more than is stated, it is noise if a
    restoration for the stated level is unsound and one for the level seen is sound."""
    seen = seen_noise(post.given)

    def is_noise() -> bool:
        assert seen is not None  # it is asked for what was seen
        turned = better_orientation(post)
        if (turned is not None and turned[0] > BETTER) or post.given.noise.std is None:
            return False
        try:
            if restored() is None or sound(post, restored()):
                return False
        except SolveError:
            pass  # a level so small that no image is found which meets it is unsound
        louder = at_level(post, seen.ratio)
        return sound(louder, restore(louder, method))

    def chi2() -> float | None:
        found = restored()
        return None if found is None else found.chi2

    return noise_line(post.given, seen, is_noise, chi2)
