"""The configuration of a k-diffusion network: what its weights do not say.

A training checkpoint has it under "config", a file for inference in its metadata; older ones have
it in a JSON file of their own. It is read as data: a name in it selects one of the kinds that are
known here and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posteriori.priors.foreign.found import Stated, Weights

TYPES = ("image_v1", "image_transformer_v1", "image_transformer_v2")


class Configuration:
    """Entries of a configuration by name, for the ``kind`` of model that the weights are.

    Raises ``ValueError`` for a configuration of another kind, and where it is none; every question
    raises it for a value that is not of the type expected.
    """

    def __init__(self, content: Any, kind: str, source: str) -> None:
        self.source = source
        model = content.get("model") if isinstance(content, Mapping) else None
        if not isinstance(model, Mapping):
            raise ValueError(
                f"{source} is no configuration of k-diffusion: it has no 'model' of settings"
            )
        named = model.get("type")
        if named != kind:
            raise ValueError(
                f"{source} is the configuration of a network of type {named!r}, and the weights "
                f"are those of {kind!r}: these two do not belong together"
            )
        dataset = content.get("dataset")
        self.model: Mapping[str, Any] = model
        self.dataset: Mapping[str, Any] = dataset if isinstance(dataset, Mapping) else {}

    def number(self, name: str, usual: float | None = None) -> float | None:
        """A number > 0 of the model."""
        value = self.model.get(name, usual)
        if value is not None and (isinstance(value, bool) or not _positive(value)):
            raise ValueError(f"{self.source}: {name} must be a number > 0, got {value!r}")
        return None if value is None else float(value)

    def count(self, name: str) -> int | None:
        """A whole number > 0 of the model."""
        value = self.model.get(name)
        if value is not None and (not isinstance(value, int) or not _positive(value)):
            raise ValueError(f"{self.source}: {name} must be a whole number > 0, got {value!r}")
        return value

    def patch(self) -> int | None:
        """The side of a patch: one number, or two that are the same."""
        value = self.model.get("patch_size")
        sides = value if isinstance(value, list | tuple) else [value, value]
        if value is None:
            return None
        if len(sides) != 2 or not all(isinstance(n, int) and _positive(n) for n in sides):
            raise ValueError(f"{self.source}: patch_size must be two whole numbers, got {value!r}")
        if sides[0] != sides[1]:
            raise ValueError(
                f"{self.source}: patches of {sides[0]} x {sides[1]} pixels are not known here, "
                "only square ones"
            )
        return int(sides[0])

    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that it was trained on."""
        value = self.model.get("input_size")
        if not isinstance(value, list | tuple) or len(value) != 2:
            return None
        return (int(value[0]), int(value[1])) if all(map(_positive, value)) else None

    def drops_classes(self) -> bool:
        """Whether it was at times trained without its class."""
        share = self.dataset.get("cond_dropout_rate", 0.1)
        return not isinstance(share, int | float) or share > 0

    def sights(self, levels: int) -> list[tuple[str, int]]:
        """What a token looks at, and how far, on each level; by default neighbourhoods of 7 x 7,
        and all tokens on the last level."""
        given = self.model.get("self_attns")
        if not given:
            return [("neighborhood", 7)] * (levels - 1) + [("global", 0)]
        if not isinstance(given, list | tuple) or len(given) != levels:
            raise ValueError(
                f"{self.source}: self_attns must be one attention for each of the {levels} levels, "
                f"got {given!r}"
            )
        return [self._sight(entry) for entry in given]

    def _sight(self, entry: Any) -> tuple[str, int]:
        kind = entry.get("type") if isinstance(entry, Mapping) else None
        reaches = {"neighborhood": ("kernel_size", 7), "shifted-window": ("window_size", None)}
        if kind in ("global", "none"):
            return kind, 0
        if kind not in reaches:
            raise ValueError(
                f"{self.source}: unknown attention {entry!r}; known types are global, none, "
                f"{', '.join(reaches)}"
            )
        name, usual = reaches[kind]
        reach = entry.get(name, usual)
        if not isinstance(reach, int) or not _positive(reach):
            raise ValueError(
                f"{self.source}: {name} of {entry!r} must be a whole number > 0, got {reach!r}"
            )
        return kind, reach


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < float("inf")


def configuration(weights: Weights, stated: Stated, kind: str) -> Configuration | None:
    """The stated one, or that of the file; None where there is neither. Raises
    ``FileNotFoundError``, and ``ValueError`` for a file that is no JSON."""
    if stated.config is None:
        content = weights.told.get("config")
        return None if content is None else Configuration(content, kind, weights.source)
    place = Path(stated.config)
    if not place.is_file():
        raise FileNotFoundError(f"no configuration {place}")
    try:
        content = json.loads(place.read_text())
    except ValueError as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    return Configuration(content, kind, str(place))
