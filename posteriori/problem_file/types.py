"""What a value in a problem file may look like, and what is said when it does not.

Numbers and words are those of ``posteriori.settings``: YAML reads ``1e-4`` as text, which is taken
as the number it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from posteriori.settings import Count, Natural, Number, Positive, Whole, suggestion


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


def _beside(path: Path, info: ValidationInfo) -> Path:
    return (info.context or {}).get("folder", Path()) / path


Seed = Natural
# Relative paths start at the folder of the problem file
File = Annotated[Path, AfterValidator(_beside)]

__all__ = [
    "Count",
    "File",
    "Natural",
    "Number",
    "Part",
    "Positive",
    "RisingPair",
    "Seed",
    "Whole",
    "suggestion",
    "validation_sentences",
]


# What may stand in the place of a number that nobody knows.
_UNKNOWN = {"sigma": "; where nobody knows it, sigma: estimate takes it from the measurement"}


def _increasing(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] < pair[1]:
        raise ValueError(f"expected [lowest, highest] with lowest < highest, got {list(pair)}")
    return pair


RisingPair = Annotated[tuple[Number, Number], AfterValidator(_increasing)]


def validation_sentences(error: ValidationError, raw: Any) -> list[str]:
    """The errors of a problem file, one sentence each, with the field in dots."""
    return [f"{_place(item['loc'], raw)}: {_sentence(item)}" for item in error.errors()]


def _place(loc: tuple[Any, ...], raw: Any) -> str:
    """The path of a field. Pydantic inserts the chosen member of a union, which is no key of the
    file."""
    names: list[str] = []
    node: Any = raw
    for part in loc:
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)
        ):
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
        return f"this setting is required{_UNKNOWN.get(item['loc'][-1], '')}"
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
