"""A method, operator or prior of the user's own, named by the place where Python finds it.

    method: mypackage.samplers:MyMethod                a class of a module that can be imported
    method: {name: my_method.py:MyMethod, scale: 2}    a class in a file beside the problem file,
                                                       with its settings
    prior: {name: my_prior.py:load, weights: net.pt}   a function that makes one

What it annotates as Path starts at the folder of the problem file.
Modules are looked for beside the problem file and in the current folder, after all that is
installed, so that nothing of that is replaced. Whoever names such a class runs the code of its
module, with all that they may do on this machine: it is never done for a plain name, and a problem
file from somebody else is to be read before it is used.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from posteriori.methods.base import Method
from posteriori.operators.base import Operator
from posteriori.priors.base import Prior
from posteriori.problem_file.modules import from_file, from_name, import_failure, module_place
from posteriori.settings import Setting, settings_of, suggestion


class OwnKind(NamedTuple):
    """One of the three nouns that a user may write. must: what its author writes; check: the
    contract in ``posteriori.testing``."""

    noun: str
    base: type
    must: str
    check: str


METHOD = OwnKind("method", Method, "step", "check_method")
OPERATOR = OwnKind("operator", Operator, "forward", "check_operator")
PRIOR = OwnKind("prior", Prior, "denoise", "check_prior")
Read = Callable[[Mapping[str, Setting], str, Any], Any]
OWN_KINDS = (METHOD, OPERATOR, PRIOR)
HOW = (
    "a class of your own is named by its import path, mypackage:MyClass, "
    "or by its file, my_file.py:MyClass"
)


def is_path(name: Any) -> bool:
    """Whether a name is an import path rather than a name of this package."""
    return isinstance(name, str) and ":" in name


def hint(name: Any) -> str:
    """What to add to the error for an unknown name that looks as if an import path was meant; empty
    otherwise."""
    return f"; {HOW}" if isinstance(name, str) and ("." in name or "/" in name) else ""


@dataclass(frozen=True)
class Own:
    """A class, or a function that makes an object, and the settings to make it with. path: as it
    was named."""

    path: str
    kind: OwnKind
    target: Callable[..., Any]
    settings: dict[str, Any]

    @property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.target).parameters

    def make(self, **given: Any) -> Any:
        """The object. ``given`` are arguments that no file states, such as the shape of images.

        Raises ``ValueError`` naming what is missing, what the code raised and where, and what it
        made if that is of another kind.
        """
        values = {**given, **self.settings}
        lacking = [
            p.name
            for p in self.arguments.values()
            if p.default is p.empty and _nameable(p) and p.name not in values
        ]
        if lacking:
            raise ValueError(
                f"{self.path} needs {', '.join(lacking)}: "
                f"state it beside its name, {{name: {self.path}, {lacking[0]}: ...}}"
            )
        try:
            made = self.target(**values)
        except ValueError as error:  # of a setting, in words
            raise ValueError(f"{self.path}: {error}") from error
        except Exception as error:
            raise ValueError(f"{self.path} could not be made: {import_failure(error)}") from error
        if not isinstance(made, self.kind.base):
            raise ValueError(
                f"{self.path} made {_described(made)}; "
                f"expected {_a(self.kind.noun)}, {_base(self.kind)}"
            )
        return made


def code(thing: Any) -> str:
    """The digest of the file in which the class of ``thing``, or the function that it is, stands:
    16 hexadecimal digits.

    Empty for what is part of this package, and where there is no file.
    """
    maker = thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)
    if maker.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    file = getattr(sys.modules.get(maker.__module__), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def find(
    raw: Mapping[str, Any],
    kind: OwnKind,
    context: Mapping[str, Any] | None = None,
    *,
    given: tuple[str, ...] = (),
    free: tuple[str, ...] = (),
    read: Read | None = None,
) -> Own:
    """What a mapping with an import path under ``name`` asks for, with its settings checked as
    those of the library's classes are.

    context: of a problem file: "folder", where files and modules are looked for first, the current
    one without it; and "code", which takes the digest of the file that was found. given: arguments
    that the caller will fill. free: keys of the mapping that are the caller's own. read: turns a
    value of the file into that of a setting.
    Raises ``ValueError`` in a sentence for a module or name that is not there, code that fails,
    another kind of thing, and a setting that is unknown or has a bad value.
    """
    path, context = str(raw["name"]), context or {}
    folder = context.get("folder", Path())
    target = _target(path, kind, folder)
    own = Own(path, kind, target, {})
    context.get("code", {})[path] = code(target)
    known = {name: p for name, p in own.arguments.items() if _nameable(p)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in own.arguments.values())
    checks, files = settings_of(target), _paths(target)
    for key, value in raw.items():
        if key == "name" or key in free:
            continue
        if key not in known and not open_ended:
            offered = [name for name in known if name not in given] + [
                k for k in free if k != "preset" or hasattr(target, "published")
            ]
            raise ValueError(
                f"{path} has no setting {key!r}; "
                f"{suggestion(key, offered) if offered else 'it has none'}"
            )
        value = (
            folder / value
            if key in files and isinstance(value, str)
            else (read or _read)(checks, key, value)
        )
        own.settings[key] = checks[key].valid(value, f"{path}.{key}") if key in checks else value
    return own


def _read(checks: Mapping[str, Setting], key: str, value: Any) -> Any:
    return checks[key].read(value) if key in checks else value


def _nameable(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def _paths(target: Callable[..., Any]) -> set[str]:
    """The arguments that are annotated as a path."""
    called: Any = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(called)
    except (NameError, TypeError):  # an annotation that only a type checker can read
        return set()
    return {name for name, hint in hints.items() if hint is Path or Path in typing.get_args(hint)}


def _target(path: str, kind: OwnKind, folder: Path) -> Callable[..., Any]:
    """The class or function at an import path, if it can be one that makes a ``kind``."""
    where, _, name = path.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"{path!r} is no import path; {HOW}")
    module = from_file(folder / where) if where.endswith(".py") else from_name(where, folder)
    found = getattr(module, name, None)
    fitting = [
        n
        for n, thing in vars(module).items()
        if _makes(thing, kind) and thing.__module__ == module.__name__
    ]
    if found is None:
        there = suggestion(name, fitting) if fitting else f"no {kind.noun} of its own is there"
        raise ValueError(f"{where} ({module_place(module)}) has no {name!r}; {there}")
    _check_kind(path, found, kind)
    return found


def _makes(thing: Any, kind: OwnKind) -> bool:
    return isinstance(thing, type) and issubclass(thing, kind.base) and thing is not kind.base


def _check_kind(path: str, found: Any, kind: OwnKind) -> None:
    """Raise ``ValueError`` in a sentence where ``found`` cannot make an object of a kind."""
    expected = f"expected {_a(kind.noun)}, {_base(kind)}"
    if not isinstance(found, type):
        other = next((k for k in OWN_KINDS if isinstance(found, k.base)), None)
        if other is not None or not inspect.isroutine(found):
            raise ValueError(
                f"{path} is {_described(found)}; "
                f"{expected}: name the class, its settings stand beside it"
            )
        return
    if not issubclass(found, kind.base):
        other = next((k for k in OWN_KINDS if issubclass(found, k.base)), None)
        if other is not None:
            raise ValueError(
                f"{path} is a class of {other.noun}s; {expected}. It belongs under `{other.noun}:`"
            )
        raise ValueError(
            f"{path} is the class {found.__name__}, which derives from no {kind.noun}; "
            f"{expected}{_wrapping(found, kind)}"
        )
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise ValueError(
            f"{path} does not define {', '.join(missing)}, which {_a(kind.noun)} must: "
            f"see posteriori.testing.{kind.check}"
        )
    bare = [
        n
        for n, h in vars(found).get("__annotations__", {}).items()
        if "ClassVar" not in str(h) and ClassVar is not h
    ]
    if kind is METHOD and bare and "__dataclass_fields__" not in vars(found):
        raise ValueError(
            f"{path} has the settings {', '.join(bare)} but is no dataclass: "
            "write @dataclass(frozen=True) above the class"
        )


def _base(kind: OwnKind) -> str:
    return (
        f"a class that derives from posteriori.{kind.noun}s.{kind.base.__name__} "
        f"and defines {kind.must}"
    )


def _wrapping(found: type, kind: OwnKind) -> str:
    """How a network becomes a prior; empty for any other class."""
    if kind is not PRIOR or not any(
        base.__module__ == "torch.nn.modules.module" for base in found.__mro__
    ):
        return ""
    return (
        ". A network becomes one in a function of yours "
        "that returns posteriori.priors.Network(net, ...): name that function"
    )


def _described(thing: Any) -> str:
    noun = next((kind.noun for kind in OWN_KINDS if isinstance(thing, kind.base)), None)
    return f"{_a(noun)} ({type(thing).__name__})" if noun else _a(type(thing).__name__)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0].lower() in "aeiou" else f"a {noun}"
