"""Modules of the user's own, by name or by file; what their code raises while it is imported, as
one sentence."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

# Where code stands that is not the user's: Python's own, what is installed, this package.
_ELSEWHERE = (
    *{sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")},
    str(Path(__file__).parents[1]),
)
BY_FILE = "__named_by_file__"


def from_name(name: str, folder: Path) -> ModuleType:
    """The module of a name: an installed one, or one in ``folder`` or the current folder.

    Raises ``ValueError`` where there is none, where its code fails, and where an installed one
    hides that of the folder.
    """
    folders = list(dict.fromkeys([folder.resolve(), Path.cwd()]))
    _look_in(folders)
    with _explained(name, folders):
        module = importlib.import_module(name)
    top = name.partition(".")[0]
    for near in folders:
        mine = next(
            (p for p in (near / f"{top}.py", near / top / "__init__.py") if p.is_file()), None
        )
        if mine is not None:
            loaded = module_place(sys.modules[top])
            if Path(loaded).resolve() != mine.resolve():
                raise ValueError(
                    f"{name} is the module {loaded}, "
                    f"which hides {mine} of the same name: rename yours"
                )
            break
    return module


def from_file(file: Path) -> ModuleType:
    """The module in a file, which is run again when it has changed; it can import what stands
    beside it.

    Raises ``ValueError`` where there is no such file, where its code fails, and where a module of
    its name is loaded already.
    """
    if not file.is_file():
        near = difflib.get_close_matches(
            file.name, [p.name for p in file.parent.glob("*.py")], n=1, cutoff=0.5
        )
        raise ValueError(f"no file {file}" + (f"; did you mean {near[0]}?" if near else ""))
    file, here = file.resolve(), sys.modules.get(file.stem)
    if here is not None and not hasattr(here, BY_FILE):
        if Path(module_place(here)).resolve() != file:
            raise ValueError(
                f"{file} has the name of the module {module_place(here)}, "
                "which is loaded already: rename the file"
            )
        return here
    return _executed(file, hashlib.sha256(file.read_bytes()).hexdigest())


def import_failure(error: BaseException) -> str:
    """Kind, text and place of an error in somebody's code."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    return f"{type(error).__name__}: {error} ({where_in_own_code(error)})"


def module_place(module: ModuleType) -> str:
    """Where a module stands."""
    return str(getattr(module, "__file__", None) or "built into Python")


@cache
def _executed(file: Path, digest: str) -> ModuleType:
    """The module of a file of this content."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None  # as for each file that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, BY_FILE, digest)
    before = sys.modules.get(file.stem)
    _look_in([file.parent])
    # Annotations of its classes are read by way of this entry.
    sys.modules[file.stem] = module
    try:
        with _explained(file.name, [file.parent]):
            spec.loader.exec_module(module)
    except ValueError:
        del sys.modules[file.stem]
        sys.modules.update({} if before is None else {file.stem: before})
        raise
    return module


def _look_in(folders: list[Path]) -> None:
    """Let modules be found in folders, after all that is installed: nothing of that is replaced."""
    sys.path += [str(f) for f in folders if str(f) not in sys.path]
    importlib.invalidate_caches()


@contextmanager
def _explained(name: str, folders: list[Path]) -> Iterator[None]:
    """Turn what importing ``name`` raises into a ``ValueError``."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(_absent(name, error, folders)) from error
    except SystemExit as error:
        raise ValueError(
            f"importing {name} ended the program ({where_in_own_code(error)}): "
            "put what is to run as a script under if __name__ == '__main__'"
        ) from error
    except Exception as error:
        relative = isinstance(error, ImportError) and "relative import" in str(error)
        advice = (
            "; a file of a package is named by its module, mypackage.module:MyClass"
            if relative
            else ""
        )
        raise ValueError(f"importing {name} failed: {import_failure(error)}{advice}") from error


def _absent(name: str, error: ModuleNotFoundError, folders: list[Path]) -> str:
    """What is said of a module that is not there: the one asked for, or one that its code needs."""
    wanted, asked = error.name or "", name.split(".")
    if wanted in (".".join(asked[:k]) for k in range(1, len(asked) + 1)):
        near = difflib.get_close_matches(asked[0], _modules(folders), n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]!r}?" if near and near[0] != asked[0] else ""
        return (
            f"no module {wanted!r}: it is neither installed nor "
            f"in {' or '.join(map(str, folders))}{meant}"
        )
    return (
        f"importing {name} failed: {import_failure(error)}; "
        f"install what is missing for this Python, {sys.executable}"
    )


def _modules(folders: list[Path]) -> list[str]:
    """The names of modules and packages in folders."""
    return [p.stem for f in folders for p in f.glob("*.py")] + [
        p.parent.name for f in folders for p in f.glob("*/__init__.py")
    ]


def where_in_own_code(error: BaseException) -> str:
    """The innermost line of code that is neither Python's, nor installed, nor this package's: file
    and line; empty where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(("<", *_ELSEWHERE))]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else ""
