"""The ``method`` of a problem file: a name of ``posteriori.methods.ALL``, and its hyper-parameters by the names of its dataclass.

    method: MMPS
    method: {name: MMPS, iterations: 3, transition: {name: DDIM, eta: 0.5}}
    method: {name: DPS, preset: published}

A class is only ever chosen from a list of this package, never by a path in the file.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from posteriori.methods import ALL, DDIM, ConstantFraction, Heun, Method
from posteriori.methods.descent import Adam, Conjugate, Descent, HeavyBall
from posteriori.methods.kernels import Transition
from posteriori.problems.fields import Number, Whole, suggestion

TRANSITIONS: dict[str, type] = {"DDIM": DDIM, "ConstantFraction": ConstantFraction, "Heun": Heun}
DESCENTS: dict[str, type] = {"Conjugate": Conjugate, "Adam": Adam, "HeavyBall": HeavyBall}


def method(raw: Any) -> Method[Any]:
    """The method that a file describes. Raises ``ValueError`` for an unknown name, setting or preset, and for a value of the wrong kind."""
    return _chosen(raw, ALL, "method", presets=True)


def _chosen(raw: Any, table: Mapping[str, type], what: str, presets: bool = False) -> Any:
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, dict) or "name" not in given:
        raise ValueError(f"expected a name, or a mapping with a name, got {raw!r}. Known: {', '.join(table)}")
    name = given["name"]
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; {suggestion(name, table)}")
    cls, known = table[name], [field.name for field in dataclasses.fields(table[name]) if field.init]
    hints, values = typing.get_type_hints(cls), {}
    for key, value in given.items():
        if key == "name" or (presets and key == "preset"):
            continue
        if key not in known:
            extra = ["preset"] if presets else []
            raise ValueError(f"{name} has no setting {key!r}; {suggestion(key, [*known, *extra])}")
        values[key] = _value(hints[key], value, f"{name}.{key}")
    if not presets or "preset" not in given:
        return cls(**values)
    return dataclasses.replace(_preset(cls, given["preset"]), **values)


def _preset(cls: type, name: Any) -> Any:
    names = [n for n in ("published",) if hasattr(cls, n)]
    if name not in names:
        raise ValueError(f"{cls.__name__} has no preset {name!r}; known: {', '.join(names) or 'none'}")
    return getattr(cls, name)()


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is Transition:
        return _chosen(value, TRANSITIONS, "transition")
    if hint is Descent:
        return _chosen(value, DESCENTS, "descent")
    try:
        return TypeAdapter(_strict(hint)).validate_python(value)
    except ValidationError as error:
        item = error.errors()[0]
        expected = item["msg"].removeprefix("Value error, ")
        if item["type"] == "literal_error":
            names = [str(name) for name in typing.get_args(hint)]
            raise ValueError(f"{where} is {value!r}; {suggestion(value, names)}") from None
        raise ValueError(f"{where}: {expected}" + ("" if repr(value) in expected else f", got {value!r}")) from None


def _strict(hint: Any) -> Any:
    """A type hint with the strict readings of numbers in place of Python's."""
    if hint is float:
        return Number
    if hint is int:
        return Whole
    if hint in (bool, str):
        return Annotated[hint, Field(strict=True)]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(_strict(arg) for arg in args)]  # noqa: UP007 (members are computed)
    if origin is tuple:
        return tuple[tuple(arg if arg is Ellipsis else _strict(arg) for arg in args)]  # type: ignore[misc]
    return hint


Solver = Annotated[Any, BeforeValidator(method)]
