"""What a YAML file of settings holds: that of a problem, a study, a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from posteriori import places

MERGE = "tag:yaml.org,2002:merge"


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, usually a mapping. Raises ``ValueError`` for one that is not
    YAML, with the line and column, and for a key that one mapping has twice."""
    try:
        return yaml.load(path.read_text(), _OneOfEach)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{path} is not YAML{_kind(path) or _place(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = f": {' '.join(str(error).split())}"
        raise ValueError(f"{path} is not YAML{_kind(path) or said}") from None


class _OneOfEach(yaml.SafeLoader):
    """YAML wants each key of a mapping once; the loader of yaml keeps the last of several."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            if key.value in lines:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} stands twice in one mapping, first in line "
                    f"{lines[key.value]}; keep one of them",
                    problem_mark=key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        return node


def _kind(path: Path) -> str:
    """What a file is that does not claim to be YAML."""
    return "" if path.suffix.lower() in (".yaml", ".yml") else places.place_description(path)


def _place(error: yaml.MarkedYAMLError) -> str:
    mark, begun = error.problem_mark, error.context_mark
    at = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}:"
    since = f" ({error.context}, from line {begun.line + 1})" if error.context and begun else ""
    return f":{at} {error.problem}{since}"
