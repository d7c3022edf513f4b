"""What a setting may be, checked in one place: by the classes when they are constructed, and by
problem files, which construct them.

    scale: NonNegative = 1.0                          a finite number >= 0
    weighting: Literal["bounded", "norm"] = "bounded" one of these words, or an error that names the
    nearest

A class whose metaclass is ``Checked`` compares the arguments of its constructor with their
annotations. Words, numbers, flags and tuples of them are checked and converted (1 to 1.0, NumPy's
integers to Python's); of an object that must be
callable it is asked that it is no text and no class. Whatever else a constructor takes is its own
affair.
"""

from __future__ import annotations

import difflib
import inspect
import math
import operator
import sys
import types
import typing
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError


def number(value: Any) -> float:
    """A finite number, also one that YAML left as text (1e-4). Raises ``ValueError`` for any other
    value, true and false included."""
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        result = math.nan
    if not math.isfinite(result):
        raise ValueError(f"expected a finite number, got {value!r}")
    return result


def whole_number(value: Any) -> int:
    """An integer of Python, NumPy or torch; neither true nor 3.0 nor '3'. Raises ``ValueError``."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise ValueError(f"expected a whole number, got {value!r}")


# pydantic's names
BOUNDS = {
    "greater_than": ">",
    "greater_than_equal": ">=",
    "less_than": "<",
    "less_than_equal": "<=",
}

Number = Annotated[float, BeforeValidator(number)]
Positive = Annotated[float, BeforeValidator(number), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(number), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(number), Field(ge=0, le=1)]
Share = Annotated[float, BeforeValidator(number), Field(gt=0, le=1)]
Whole = Annotated[int, BeforeValidator(whole_number)]
Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1)]
Natural = Annotated[int, BeforeValidator(whole_number), Field(ge=0)]


def suggestion(word: Any, known: Iterable[Any]) -> str:
    """'did you mean ...?' with the nearest known name where there is a near one, and all of
    them."""
    names = [str(name) for name in known]
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    start = f"did you mean {lower[near[0]]!r}? K" if near else "k"
    return f"{start}nown: {', '.join(names)}"


def first_paragraph(cls: type) -> str:
    """What the docstring of a class says first, on one line; empty without one."""
    return " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())


def absent(
    module: str, name: str, known: Iterable[str], other: Mapping[str, str] | None = None
) -> AttributeError:
    """The error for a name that a module does not have, with the nearest that it has.

    other: names by which this is known elsewhere, and the one it has here.
    """
    lower = {word.lower(): answer for word, answer in (other or {}).items()}
    if name.lower() in lower:
        return AttributeError(f"{module} has no {name!r}; here it is {lower[name.lower()]}")
    return AttributeError(f"{module} has no {name!r}; {suggestion(name, known)}")


class Checked(ABCMeta):
    """The metaclass of all that has settings: a constructor's arguments are valid, or
    ``ValueError`` names the setting and the value."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """That of the constructor, for ``help`` and editors; they would show the metaclass's
        otherwise."""
        return _signature(cls)

    if not typing.TYPE_CHECKING:

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                bound = cls.__signature__.bind_partial(*args, **kwargs)
            except TypeError:
                # An unknown argument: the constructor says so itself, as it does of a missing one.
                return super().__call__(*args, **kwargs)
            known = settings_of(cls)
            for name in known.keys() & bound.arguments.keys():
                bound.arguments[name] = known[name].valid(
                    bound.arguments[name], f"{cls.__name__}.{name}"
                )
            return super().__call__(*bound.args, **bound.kwargs)


class Setting:
    """What one argument may be.

    hint: a type as it stands in an annotation, with bounds by ``Annotated``. Words, numbers, flags,
    tuples of them, callable protocols and methods are compared with it; of other
    types only that a text is one of its words, if it has any.
    """

    def __init__(self, hint: Any) -> None:
        self.hint = hint
        self.words = [
            word
            for part in _parts(hint)
            if typing.get_origin(part) is Literal
            for word in typing.get_args(part)
        ]
        self.protocol = next((part for part in _parts(hint) if _callable(part)), None)
        # Operators and priors say themselves what they cannot be made of.
        bare = (typing.get_origin(part) or part for part in _parts(hint))
        checked = (part for part in bare if isinstance(part, Checked))
        self.kind = next((part for part in checked if is_dataclass(part)), None)
        self.adapter: TypeAdapter[Any] | None = TypeAdapter(_strict(hint)) if _plain(hint) else None

    def __bool__(self) -> bool:
        """Whether there is anything to compare with."""
        return bool(self.words or self.protocol or self.kind or self.adapter)

    def valid(self, value: Any, where: str) -> Any:
        """``value`` as the type asked for. Raises ``ValueError`` naming ``where``, the value and
        what was expected."""
        if self.protocol is not None:
            optional = type(None) in _parts(self.hint)
            if not (value is None and optional) and (
                not callable(value) or isinstance(value, str | type)
            ):
                raise ValueError(
                    f"{where} is {value!r}; expected an object such as {_examples(self.protocol)}"
                )
        elif self.kind is not None:
            optional = type(None) in _parts(self.hint)
            if not (isinstance(value, self.kind) or (value is None and optional)):
                raise ValueError(
                    f"{where} is {value!r}; expected an object such as {self.kind.__name__}()"
                )
        elif self.words and isinstance(value, str) and value not in self.words:
            raise ValueError(f"{where} is {value!r}; {suggestion(value, self.words)}")
        elif self.adapter is not None:
            return self._converted(self.adapter, value, where)
        return value

    def read(self, value: Any) -> Any:
        """A value as a file has it: YAML leaves some numbers as text (1e-4), which become the
        numbers they are."""
        if isinstance(value, str) and not self.words and self.adapter is not None:
            try:
                return number(value)
            except ValueError:
                pass
        return value

    def _converted(self, adapter: TypeAdapter[Any], value: Any, where: str) -> Any:
        if hasattr(value, "tolist") and any(
            typing.get_origin(part) is tuple for part in _parts(self.hint)
        ):
            value = value.tolist()
        try:
            out = adapter.validate_python(value)
            if isinstance(value, str) and not isinstance(out, str):
                raise ValueError(
                    f"{where}: expected a number, got the text {value!r}; leave out the quotes"
                )
            return out
        except ValidationError as error:
            if self.words and len(_parts(self.hint)) == 1:
                raise ValueError(f"{where} is {value!r}; {suggestion(value, self.words)}") from None
            item = error.errors()[0]
            place = "".join(f"[{part}]" for part in item["loc"] if isinstance(part, int))
            raise ValueError(
                f"{where}{place}: {_expected(item)}, got {item['input'] if place else value!r}"
            ) from None


def _expected(item: Any) -> str:
    """One error of pydantic's, without its value."""
    for kind, sign in BOUNDS.items():
        if item["type"] == kind:
            return f"expected a number {sign} {next(iter(item['ctx'].values())):g}"
    text = item["msg"].removeprefix("Value error, ").split(", got ")[0]
    return f"{text[:1].lower()}{text[1:]}"


@cache
def settings_of(cls: Callable[..., Any]) -> dict[str, Setting]:
    """The arguments of a constructor, or of a function, that can be checked, by name."""
    raw: dict[str, tuple[Any, str]] = {}
    if isinstance(cls, type) and hasattr(cls, "__dataclass_fields__"):
        for base in reversed(cls.__mro__):
            raw |= {
                name: (hint, base.__module__)
                for name, hint in vars(base).get("__annotations__", {}).items()
            }
    else:
        init = inspect.unwrap(_constructor(cls) if isinstance(cls, type) else cls)
        raw = {
            name: (hint, init.__module__)
            for name, hint in getattr(init, "__annotations__", {}).items()
        }
    found = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        try:
            setting = Setting(_resolved(*raw[name]))
        except (KeyError, NameError):
            # Without an annotation, or with one that only a type checker can read: nothing can be
            # compared with it.
            continue
        if setting:
            found[name] = setting
    return found


@cache
def _signature(cls: type) -> inspect.Signature:
    signature = inspect.signature(_constructor(cls))
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _constructor(cls: type) -> Any:
    return cls.__init__  # type: ignore[misc]


def _resolved(hint: Any, module: str) -> Any:
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    return typing.get_type_hints(holder, vars(sys.modules[module]), include_extras=True)["hint"]


def _examples(protocol: Any) -> str:
    """The classes beside a callable protocol that follow it, as calls."""
    module = sys.modules[protocol.__module__]
    beside = [
        c
        for c in vars(module).values()
        if isinstance(c, Checked) and c.__module__ == module.__name__ and "__call__" in vars(c)
    ]
    return (
        ", ".join(f"{c.__name__}()" for c in beside)
        or f"an instance of a class that follows {protocol.__name__}"
    )


def _callable(hint: Any) -> bool:
    """Whether the hint is a protocol of callable objects, such as a transition."""
    return getattr(hint, "_is_protocol", False) and "__call__" in vars(hint)


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _plain(hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return all(_plain(arg) for arg in args)
    if origin is Annotated:
        return _plain(args[0])
    if origin is tuple:
        return all(arg is Ellipsis or _plain(arg) for arg in args)
    return origin is Literal or hint in (int, float, bool, str, type(None))


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
        inner = tuple(arg if arg is Ellipsis else _strict(arg) for arg in args)
        return tuple[inner]  # type: ignore[valid-type]
    return hint
