"""The lines on what a run would take, and on which methods take the problem."""

from __future__ import annotations

from typing import Any

from posteriori.examination.finding import Finding
from posteriori.likelihood import Posterior
from posteriori.methods import ALL
from posteriori.methods.base import Method
from posteriori.plan import plan, said

# Of a method whose step fails, as against one that refuses.
_FAILS = (ArithmeticError, ValueError, TypeError, RuntimeError, MemoryError)


def cost_line(
    post: Posterior, method: Method[Any] | None, n: int = 1, steps: int | None = None
) -> Finding:
    """Calls, seconds and memory of a run of n samples, from two steps of one of them."""
    if method is None:
        return Finding(
            "cost", "skip", "no method", remedy="none was named, and none is recommended"
        )
    name = type(method).__name__
    try:
        found = plan(post, method, n=n, steps=steps, batch=method.group)
    except _FAILS as error:
        return Finding("cost", "fail", f"a step of {name} fails", "it takes a step", f"{error}")
    calls = ", ".join(f"{count:.3g} {kind}" for kind, count in found.calls.items() if count)
    pilot = ", and a pilot run" if found.pilot else ""
    return Finding(
        "cost",
        "pass",
        f"{name}, {n} sample{'s' if n > 1 else ''} in {found.steps} steps: "
        f"{calls or 'no calls'} a sample, about {said(found.seconds)}{pilot}, "
        f"{found.memory / 2**30:.2g} GiB",
        "an estimate from one step",
    )


def methods_line(
    post: Posterior, method: Method[Any] | None
) -> tuple[Finding, dict[str, str | None]]:
    """Which methods take the problem in their default setting; and the reason of each that does
    not."""
    reasons = {name: _reason(kind(), post) for name, kind in ALL.items()}
    count = sum(reason is None for reason in reasons.values())
    value = f"{count} of {len(reasons)} apply"
    own = None if method is None else method.refuses(post)
    if own is not None:
        assert method is not None
        return Finding(
            "methods",
            "fail",
            f"{value}; {type(method).__name__} refuses",
            "the method applies",
            own,
        ), reasons
    return Finding("methods", "pass" if count else "fail", value, "one or more"), reasons


def _reason(method: Method[Any], post: Posterior) -> str | None:
    try:
        return method.refuses(post)
    except _FAILS as error:
        return str(error)
