"""The pages of the site: their code runs, their links lead somewhere, and what they tell from the
code is there."""

from __future__ import annotations

import re
import sys
import types

import pytest
from PIL import Image
from reference import REPOSITORY

DOCS = REPOSITORY / "docs"
BLOCK = re.compile(r"(?ms)^```python\n(.*?)^```$")
# The page on pipelines needs weights, and has a test of its own.
ELSEWHERE = {"docs/latent.md"}
# What a reader waits for, and a test does not.
SHORTER = {"README.md": ("MMPS(), n=4, steps=16, seed", "MMPS(), n=4, steps=2, seed")}


def pages_with_code():
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    names = [
        page.relative_to(REPOSITORY).as_posix() for page in pages if BLOCK.search(page.read_text())
    ]
    return [name for name in names if name not in ELSEWHERE]


@pytest.mark.parametrize("name", pages_with_code())
def test_every_block_of_a_page_runs_in_order(name, tmp_path, monkeypatch, capsys):
    with Image.open(REPOSITORY / "examples" / "problems" / "photo-sharp.png") as photo:
        photo.convert("RGB").crop((40, 40, 56, 56)).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    page = types.ModuleType("page")  # where dataclasses of a page look for their names
    monkeypatch.setitem(sys.modules, "page", page)
    text = (REPOSITORY / name).read_text()
    if name in SHORTER:
        assert text.count(SHORTER[name][0]) == 1
        text = text.replace(*SHORTER[name])
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], name, "exec"), vars(page))
