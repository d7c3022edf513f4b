"""The site is gathered without a link that leads nowhere, and is rendered without a warning."""

from __future__ import annotations

import math
import re
from collections import deque
from pathlib import Path

import assembly
import docstrings
import pytest
from reference import REPOSITORY

import posteriori


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assembly.assemble(folder)
    return folder


def linked(page, folder):
    """The pages that a page leads to, in its text and in its lists of pages."""
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s#]+\.(?:md|rst))[^)]*\)", text)
    for toctree in re.findall(r"(?ms)^```\{toctree\}\n(.*?)^```$", text):
        targets += [line for line in toctree.splitlines() if line and not line.startswith(":")]
    targets += re.findall(r"(?m)^   (\w[\w/-]*)$", text) if page.suffix == ".rst" else []
    found = []
    for target in targets:
        place = (page.parent / target).resolve()
        names = [place] if place.suffix in (".md", ".rst") else []
        found += [*names, place.with_name(place.name + ".md"), place.with_name(place.name + ".rst")]
    return [place for place in found if place.is_file() and place.is_relative_to(folder)]


def clicks(folder):
    """How many clicks each page is from the first."""
    start = folder / "index.md"
    told, waiting = {start: 0}, deque([start])
    while waiting:
        page = waiting.popleft()
        for place in linked(page, folder):
            if place not in told:
                told[place] = told[page] + 1
                waiting.append(place)
    return {place.relative_to(folder).as_posix(): count for place, count in told.items()}


def test_every_link_of_a_page_leads_to_a_page_or_a_file(source):
    for page in source.rglob("*.md"):
        text = assembly.CODE.sub("", page.read_text())
        for target in re.findall(r"\]\(([^)\s#]+)", text):
            if "://" not in target and not target.startswith(("gallery/", "../gallery/")):
                assert (page.parent / target).exists(), f"{page.relative_to(source)}: {target}"


def test_a_link_that_leads_nowhere_is_named():
    lost, files = [], set()
    pages = {"guide/a.md": ("", assembly.DOCS / "guide"), "index.md": ("", assembly.DOCS)}
    text = "[x](nowhere.md) [y](../../README.md#files) [z](../index.md) `[c](d)` [p](../../LICENSE)"
    moved = assembly.relinked(text, assembly.DOCS / "guide", "guide/a.md", pages, files, lost)
    assert lost == ["guide/a.md: nowhere.md"]
    assert "[y](../about.md#files) [z](../index.md) `[c](d)` [p](../files/LICENSE)" in moved
    assert files == {REPOSITORY / "LICENSE"}


def test_the_look_ups_are_two_clicks_away(source):
    told = clicks(source)
    page = source / "guide" / "lookups.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 16
    for row in rows:
        links = re.findall(r"\]\(([^)\s#]+)", row.split(" | ")[1])
        assert links, row
        for target in links:
            place = (page.parent / target).resolve().relative_to(source.resolve()).as_posix()
            if not place.startswith("files/"):
                assert told.get(place, math.inf) <= 2, f"{place} is not two clicks away"


def test_tables_stand_where_a_page_asks_for_them(source):
    for page in source.rglob("*.md"):
        assert not assembly.TABLE.search(page.read_text())
    assert "DDRM" in (source / "guide" / "which-method.md").read_text()


def test_what_has_not_changed_is_not_written_again(source):
    page = source / "index.md"
    before = page.stat().st_mtime_ns
    assembly.write(page, page.read_bytes())
    assert page.stat().st_mtime_ns == before


def test_every_room_and_public_name_has_its_place_in_the_api(source):
    top = (source / "api" / "top.rst").read_text()
    for name in set(posteriori.__all__) - set(posteriori.ROOMS):
        assert re.search(rf"(?m)^\.\. auto(class|function):: posteriori\.{name}$", top), name
    for room in posteriori.ROOMS:
        text = (source / "api" / f"{room}.rst").read_text()
        assert f".. py:module:: posteriori.{room}\n" in text
        assert ".. auto" in text, f"{room} has no public name on its page"
    operators = (source / "api" / "operators.rst").read_text()
    assert operators.index("operators.Operator\n") < operators.index("operators.Blur\n")
    assert ".. autoclass:: posteriori.operators.Blur\n" in operators
    assert (
        ".. autofunction:: posteriori.testing.check_operator\n"
        in (source / "api" / "testing.rst").read_text()
    )


def test_words_that_a_setting_takes_are_a_list_below_it():
    text = """A rule.

width: r2; published "wide".
    "matched"  the error
    "wide"     sigma^2, as the
               paper has it
draw: "exact" draws."""
    assert docstrings.rest(text.splitlines()) == [
        "A rule.",
        "",
        "",
        '- **width**: r2; published "wide".',
        "",
        '  - ``"matched"`` the error',
        "",
        '  - ``"wide"`` sigma^2, as the',
        "    paper has it",
        "",
        '- **draw**: "exact" draws.',
        "",
    ]


def test_a_docstring_keeps_its_formulas_and_its_settings():
    text = """A rule: a sentence with a*b, |y| and ``code_``.

    x' = D + |s| z

scale: multiplies g,
    on two lines. Words:
    norm: the published step.
    squared: twice that.
Raises ``ValueError``.

Reference: Somebody, 2023,
    section 1."""
    assert docstrings.rest(text.splitlines()) == [
        r"A rule: a sentence with a\*b, \|y\| and ``code_``.",
        "",
        "::",
        "",
        "        x' = D + |s| z",
        "",
        "",
        "- **scale**: multiplies g,",
        "  on two lines. Words:",
        "",
        "  - **norm**: the published step.",
        "",
        "  - **squared**: twice that.",
        "",
        "Raises ``ValueError``.",
        "",
        "",
        "- **Reference**: Somebody, 2023,",
        "  section 1.",
        "",
    ]


@pytest.mark.slow
def test_the_site_is_rendered_without_a_warning_and_fetches_nothing(tmp_path):
    for name in ("sphinx", "furo", "myst_parser", "sphinx_gallery"):
        pytest.importorskip(name, reason="needs pip install 'posteriori[docs]'")
    import build

    assert build.build(tmp_path) == 0
    html = tmp_path / "html"
    for page in html.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (
                f"{page.name}: {tag}"
            )
    assert len(list(Path(html / "_downloads").rglob("*.ipynb"))) >= 13
