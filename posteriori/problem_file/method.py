"""The ``method`` of a problem file: a name of ``posteriori.methods.ALL``, and its hyper-parameters
by the names of its dataclass.

    method: MMPS
    method: {name: MMPS, iterations: 3, transition: {name: DDIM, eta: 0.5}}
    method: {name: DPS, preset: published}              along the paper's own noise levels where
                                                        steps and grid are not given
    method: {name: mypackage:MyMethod, scale: 2}        a class of the user's own, see
                                                        ``posteriori.problem_file.own``

A plain name is only ever one of a list of this package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from posteriori.axis_kernels import AR1, AxisKernel, OneForAll, Slerp, SquaredExponential
from posteriori.methods import ALL, DDIM, ConstantFraction, Heun, Method, Midpoint
from posteriori.methods.axis_noise import Correlated
from posteriori.methods.courses import changed
from posteriori.methods.data_steps.descent import Adam, Conjugate, Descent, HeavyBall
from posteriori.methods.transitions import Transition
from posteriori.problem_file import own
from posteriori.settings import Setting, settings_of, suggestion

TRANSITIONS: dict[str, type] = {
    "DDIM": DDIM,
    "ConstantFraction": ConstantFraction,
    "Heun": Heun,
    "Midpoint": Midpoint,
    "Correlated": Correlated,
}
KERNELS: dict[str, type] = {
    "AR1": AR1,
    "SquaredExponential": SquaredExponential,
    "OneForAll": OneForAll,
    "Slerp": Slerp,
}
DESCENTS: dict[str, type] = {"Conjugate": Conjugate, "Adam": Adam, "HeavyBall": HeavyBall}


def named_method(raw: Any, context: Mapping[str, Any] | None = None) -> Method[Any]:
    """The method that a file or a command names: "MMPS", "mypackage:MyMethod", or a mapping with a
    name and settings.

    context: as for ``own.find``; without it import paths start at the current folder.
    Raises ``ValueError`` for an unknown name, setting or preset, for a value of the wrong kind, and
    as ``own.find``.
    """
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, dict) or not own.is_path(given.get("name")):
        return _chosen(raw, ALL, "method", presets=True)
    found = own.find(given, own.METHOD, context, free=("preset",), read=_value)
    return (
        dataclasses.replace(_preset(found.target, given["preset"]), **found.settings)
        if "preset" in given
        else found.make()
    )


def _chosen(raw: Any, table: Mapping[str, type], what: str, presets: bool = False) -> Any:
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, dict) or "name" not in given:
        raise ValueError(
            f"expected a name, or a mapping with a name, got {raw!r}. Known: {', '.join(table)}"
        )
    name = given["name"]
    if not isinstance(name, str) or name not in table:
        raise ValueError(
            f"unknown {what} {name!r}; {suggestion(name, table)}{own.hint(name) if presets else ''}"
        )
    cls = table[name]
    known = [field.name for field in dataclasses.fields(table[name]) if field.init]
    values = {}
    for key, value in given.items():
        if key == "name" or (presets and key == "preset"):
            continue
        if key not in known:
            extra = ["preset"] if presets else []
            raise ValueError(f"{name} has no setting {key!r}; {suggestion(key, [*known, *extra])}")
        values[key] = _value(settings_of(cls), key, value)
    # The class itself checks the values.
    if not presets or "preset" not in given:
        return cls(**values)
    return changed(_preset(cls, given["preset"]), **values)


def _preset(cls: Any, name: Any) -> Any:
    names = [n for n in ("published",) if hasattr(cls, n)]
    if name not in names:
        raise ValueError(
            f"{cls.__name__} has no preset {name!r}; known: {', '.join(names) or 'none'}"
        )
    return getattr(cls, name)()


def _value(known: Mapping[str, Setting], key: str, value: Any) -> Any:
    """The value of a setting; an object such as a transition is made from its name, or from a
    mapping with its name and settings."""
    protocol = known[key].protocol if key in known else None
    if value is not None and protocol is Transition:
        return _chosen(value, TRANSITIONS, "transition")
    if value is not None and protocol is AxisKernel:
        return _chosen(value, KERNELS, "kernel")
    if value is not None and protocol is Descent:
        return _chosen(value, DESCENTS, "descent")
    if value is not None and key in known and known[key].kind is Method:
        return _chosen(value, ALL, "method", presets=True)
    return known[key].read(value) if key in known else value


def _of_a_file(raw: Any, info: ValidationInfo) -> Method[Any]:
    return named_method(raw, info.context)


Solver = Annotated[Any, BeforeValidator(_of_a_file)]
