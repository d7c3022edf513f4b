"""Methods to be compared, as a list: of a problem file, or as one writes it on a command line.

    methods: [MMPS, {name: DPS, scale: 0.5}, {name: DPS, preset: published},
              {name: DDRM, steps: 20}]
    MMPS,DPS(scale=0.5),DPS(published),DDRM(steps=20),DiffPIR(transition=DDIM(eta=0.5))

Beside the settings of a method an entry may state its own ``steps`` and ``grid``. The same method
in two settings is two entries, told apart by what is written.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from posteriori import grid as grids
from posteriori.methods import Method
from posteriori.problem_file import own
from posteriori.problem_file.method import named_method
from posteriori.settings import Count

_STEPS: TypeAdapter[int] = TypeAdapter(Count)
CALL = re.compile(r"(?P<name>[^\s(){}\[\],=]+)\s*\((?P<inside>.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """label: as it is shown, "DPS(scale=0.5)". steps, grid: its own, None for those of the
    problem."""

    label: str
    method: Method[Any]
    steps: int | None = None
    grid: grids.GridName | None = None

    @property
    def folder(self) -> str:
        """The label as the name of a folder and, of a method of the user's own, the beginning of
        the digest of its file."""
        code = own.code(self.method)
        return re.sub(r"[^\w.=-]+", "_", self.label).strip("_") + (f"-{code[:8]}" if code else "")


def entries(raws: Sequence[Any], context: Mapping[str, Any] | None = None) -> tuple[Entry, ...]:
    """The methods of a list. context: as for ``method.named_method``.

    Raises ``ValueError`` naming an entry that is none, or is written twice.
    """
    found = tuple(_entry(raw, context) for raw in raws)
    places: dict[str, str] = {}
    for item in found:
        if item.folder in places:
            raise ValueError(
                f"methods: {item.label} and {places[item.folder]} are one; "
                "tell them apart by a setting, or leave one out"
            )
        places[item.folder] = item.label
    return found


def _entry(raw: Any, context: Mapping[str, Any] | None) -> Entry:
    given = {"name": raw} if isinstance(raw, str) else raw
    if not isinstance(given, dict) or "name" not in given:
        raise ValueError(f"methods: expected a name, or a mapping with a name, got {raw!r}")
    steps, grid = given.get("steps"), given.get("grid")
    if grid is not None and grid not in typing.get_args(grids.GridName):
        raise ValueError(
            f"methods: {given['name']}: unknown grid {grid!r}; choose 'karras', 'log' or 'ddpm'"
        )
    try:
        steps = None if steps is None else _STEPS.validate_python(steps)
    except ValidationError:
        raise ValueError(
            f"methods: {given['name']}: steps must be an integer >= 1, got {steps!r}"
        ) from None
    settings = {k: v for k, v in given.items() if k not in ("steps", "grid")}
    return Entry(
        label(given),
        named_method(settings, context),
        steps,
        typing.cast("grids.GridName | None", grid),
    )


def label(raw: Any) -> str:
    """An entry as it is written on a command line."""
    if not isinstance(raw, dict):
        return f"{raw:g}" if isinstance(raw, float) else str(raw)
    parts = [str(v) if k == "preset" else f"{k}={label(v)}" for k, v in raw.items() if k != "name"]
    return f"{raw['name']}({', '.join(parts)})" if parts else str(raw["name"])


def read_entries(texts: Iterable[str]) -> list[Any]:
    """The entries of a command line, as a file has them: "DPS(scale=0.5),MMPS" in one word or
    several.

    Raises ``ValueError`` for brackets that do not match, and what is no setting.
    """
    return [_value(part, top=True) for part in _parted(",".join(texts))]


def _parted(text: str) -> list[str]:
    """The parts between commas that stand in no bracket."""
    depth, parts = 0, [""]
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            break
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    if depth:
        raise ValueError(
            f"{text!r}: the brackets do not match; write for example DPS(scale=0.5),MMPS"
        )
    return [part.strip() for part in parts if part.strip()]


def _value(text: str, top: bool = False) -> Any:
    """A value: a name with settings in brackets becomes a mapping, all else is read as YAML reads
    it."""
    call = CALL.fullmatch(text)
    if call is None:
        return text if top else yaml.safe_load(text)
    out: dict[str, Any] = {"name": call["name"]}
    for part in _parted(call["inside"]):
        key, equals, value = part.partition("=")
        if not equals:
            if part != "published":
                raise ValueError(
                    f"{text}: {part!r} is no setting; "
                    "write it as name=value, as in DPS(scale=0.5), or the preset 'published'"
                )
            key, value = "preset", part
        out[key.strip()] = _value(value.strip())
    return out
