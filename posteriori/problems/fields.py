"""What a value in a problem file may look like, and what is said when it does not.

YAML reads ``1e-4`` as text and ``true`` as a number for a lenient reader: the first is taken as the number it is, the second refused.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator


def suggestion(word: Any, known: Iterable[str]) -> str:
    """'did you mean ...?' with the nearest known name where there is a near one, and all of them."""
    names = list(known)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    start = f"did you mean {lower[near[0]]!r}? " if near else ""
    return f"{start}Known: {', '.join(names)}"


class Part(BaseModel):
    """A mapping whose keys are the fields; an unknown key is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def known(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise ValueError(f"expected a mapping with {', '.join(cls.model_fields)}, got {raw!r}")
        for key in raw:
            if key not in cls.model_fields:
                raise ValueError(f"unknown setting {key!r}; {suggestion(key, cls.model_fields)}")
        return raw


def number(value: Any) -> float:
    """A finite number, also one that YAML left as text (1e-4)."""
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise ValueError(f"expected a finite number, got {value!r}")
    return result


def whole(value: Any) -> int:
    """An integer; neither true nor 3.0 nor '3'."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {value!r}")
    return value


def _beside(path: Path, info: ValidationInfo) -> Path:
    return (info.context or {}).get("folder", Path()) / path


Number = Annotated[float, BeforeValidator(number)]
Positive = Annotated[float, BeforeValidator(number), Field(gt=0)]
Whole = Annotated[int, BeforeValidator(whole)]
Count = Annotated[int, BeforeValidator(whole), Field(ge=1)]
Seed = Annotated[int, BeforeValidator(whole), Field(ge=0)]
File = Annotated[Path, AfterValidator(_beside)]  # relative paths start at the folder of the problem file


def _increasing(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError(f"expected [lowest, highest] with lowest < highest, got {list(pair)}")
    return pair


Range = Annotated[tuple[Number, Number], AfterValidator(_increasing)]


def told(error: ValidationError, raw: Any) -> list[str]:
    """The errors of a problem file, one sentence each, with the field in dots."""
    return [f"{_place(item['loc'], raw)}: {_sentence(item)}" for item in error.errors()]


def _place(loc: tuple[Any, ...], raw: Any) -> str:
    """The path of a field. Pydantic inserts the chosen member of a union, which is no key of the file."""
    names: list[str] = []
    node: Any = raw
    for part in loc:
        if (isinstance(node, dict) and part in node) or (isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)):
            node = node[part]
        elif not isinstance(node, dict) or part in (node.get("name"), node.get("law")):
            continue
        else:
            node = None
        names.append(str(part))
    return ".".join(names) or "the file"


def _sentence(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return "this setting is required"
    if kind == "union_tag_not_found":
        return f"say which by the key {context['discriminator']}"
    if kind == "union_tag_invalid":
        names = [name.strip(" '") for name in context["expected_tags"].split(",")]
        return f"unknown name {context['tag']!r}; {suggestion(context['tag'], names)}"
    if kind == "literal_error":
        names = [name.strip(" '") for name in context["expected"].replace(" or ", ",").split(",")]
        return f"got {item['input']!r}; {suggestion(item['input'], names)}"
    text = item["msg"].removeprefix("Value error, ")
    return text if kind == "value_error" else f"{text[:1].lower()}{text[1:]}, got {item['input']!r}"
