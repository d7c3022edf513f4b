"""Photographs that ship with the package, for demonstrations and tests; sources and licences are in
README.txt beside them."""

from __future__ import annotations

from pathlib import Path

COFFEE = Path(__file__).with_name("coffee.png")
