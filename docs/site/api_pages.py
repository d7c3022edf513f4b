"""The pages of the API: a page a room, its names in the order in which the code reads."""

from __future__ import annotations

import inspect
from typing import Any

from docstrings import rest

import posteriori
from posteriori.methods import ALL, METHODS

# What a reader meets first at the top of the package, in this order; the others follow.
FIRST = ("Posterior", "Likelihood", "sample", "Run", "Status", "RunWarning", "doctor", "calibrate")
# Names of a room that are data, or told of on another page.
NOT_HERE = {"ALL", "METHODS", "FAMILIES", *(name for name in posteriori.__all__)}


def pages() -> dict[str, str]:
    """Every page by its place."""
    rooms = {f"api/{room}.rst": room_page(room) for room in posteriori.ROOMS}
    return {"api/index.rst": index(), "api/top.rst": top(), **rooms}


def index() -> str:
    """The rooms, each with its first sentence."""
    lines = [*_title("API"), "Members are in the order in which the code reads.", ""]
    lines += [
        "======================  ======",
        "room  what it holds".replace("room  ", "room" + " " * 20),
    ]
    lines += ["======================  ======"]
    lines.insert(-3, "")
    names = ", ".join(verbs())
    lines += [f":doc:`po <top>`{' ' * 9}  The verbs and the nouns at the top: {names}."]
    for room in posteriori.ROOMS:
        first = (getattr(posteriori, room).__doc__ or "").strip().splitlines()[0]
        link = f":doc:`{room}`"
        lines.append(f"{link:<22}  {rest([first])[0]}")
    lines += ["======================  ======", "", ".. toctree::", "   :hidden:", "", "   top"]
    return "\n".join([*lines, *(f"   {room}" for room in posteriori.ROOMS)]) + "\n"


def verbs() -> list[str]:
    """The names at the top of the package that are no rooms."""
    known = [name for name in posteriori.__all__ if name not in posteriori.ROOMS]
    return [name for name in FIRST if name in known] + [n for n in known if n not in FIRST]


def top() -> str:
    """What is at the top of the package."""
    lines = _title("po")
    lines += ["``import posteriori as po`` brings these, and the rooms.", ""]
    for name in verbs():
        lines += _entry(f"posteriori.{name}", getattr(posteriori, name))
    return "\n".join(lines)


def room_page(room: str) -> str:
    """One room: what it is about, then its classes and functions."""
    module = getattr(posteriori, room)
    lines = [*_title(f"po.{room}"), f".. py:module:: posteriori.{room}", ""]
    lines += rest(inspect.cleandoc(module.__doc__ or "").splitlines())
    if room == "methods":
        lines += ["", "Each method is on the page of its family, under :doc:`/theory/index`.", ""]
    for name in reading_order(module):
        lines += _entry(f"posteriori.{room}.{name}", getattr(module, name))
    return "\n".join(lines)


def reading_order(module: Any) -> list[str]:
    """The public names of a room: its files by name, the names of a file from top to bottom.
    Methods are on the pages of their families."""
    known = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__
    ]
    described = [
        name
        for name in known
        if name not in NOT_HERE
        and getattr(module, name) not in METHODS
        and (inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)))
    ]
    return sorted(described, key=lambda name: _place(getattr(module, name)))


def _place(thing: Any) -> tuple[bool, str, int]:
    """Base classes first, then by file and line."""
    base = not thing.__module__.endswith(".base")
    return base, thing.__module__, inspect.getsourcelines(thing)[1]


def _entry(path: str, thing: Any) -> list[str]:
    if not inspect.isclass(thing):
        return [f".. autofunction:: {path}", ""]
    return [f".. autoclass:: {path}", "   :members:", ""]


def _title(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def described(name: str) -> str:
    """A method's own entry, for the page of its family."""
    members = "   :members: published\n" if "published" in vars(ALL[name]) else ""
    return f"```{{eval-rst}}\n.. autoclass:: posteriori.methods.{name}\n{members}```"
