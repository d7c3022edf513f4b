"""BibTeX entries of the papers that a run stands on, from ``references.bib`` beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).with_name("references.bib")


@cache
def bibliography() -> dict[str, str]:
    """Every entry by its key."""
    entries = re.split(r"(?m)^(?=@)", BIBLIOGRAPHY.read_text(encoding="utf-8"))
    return {key[1]: entry.strip() for entry in entries if (key := re.match(r"@\w+\{(\w+),", entry))}


def bibtex(keys: Iterable[str]) -> str:
    """The entries of ``keys``, one a line; a comment for a key of the user's own."""
    known = bibliography()
    return "\n".join(known.get(key, f"% {key}: not among the library's references") for key in keys)
