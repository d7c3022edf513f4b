"""Every method, by name. One paper, one file; families are folders.

The files are found, not listed: a class that derives from ``Method`` in a file of a family's folder is a method of the library, under
its own name here and in ``ALL``.
"""

import inspect
import pkgutil
from importlib import import_module
from typing import Any

from posteriori.methods.base import Method
from posteriori.methods.kernels import DDIM, ConstantFraction, Heun
from posteriori.methods.unconditional import Unconditional

FAMILIES = ("explicit", "variational", "smc", "decoupled", "blind", "latent", "volume")


def _found() -> dict[str, type[Method[Any]]]:
    """The methods in the order of their families, alphabetically within one."""
    out: dict[str, type[Method[Any]]] = {}
    names = [info.name for info in pkgutil.walk_packages(__path__, f"{__name__}.")]
    for family in FAMILIES:
        found: dict[str, type[Method[Any]]] = {}
        for name in names:
            if name.startswith(f"{__name__}.{family}."):
                classes = inspect.getmembers(import_module(name), inspect.isclass)
                found |= {cls.__name__: cls for _, cls in classes if issubclass(cls, Method) and cls.__module__ == name}
        out |= dict(sorted(found.items()))
    return out


ALL: dict[str, type[Method[Any]]] = {"Unconditional": Unconditional, **_found()}
globals().update(ALL)


def __getattr__(name: str) -> Any:
    # The names of ALL are in place already; this tells type checkers that there are such names, and people which.
    raise AttributeError(f"posteriori.methods has no method {name!r}; known: {', '.join(ALL)}")


__all__ = ["ALL", "DDIM", "ConstantFraction", "Heun", "Method", *ALL]  # noqa: PLE0604
