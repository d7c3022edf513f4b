"""The source tree of the site: the pages of ``docs/``, the pages at the top of the repository, the
generated ones, and copies of the files that pages link to.

A link of a page leads to another page, to a copy of a file of the repository, or out. A link that
leads nowhere is an error here, before anything is rendered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import api_pages
import tables

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
# Pages outside docs/ and where they are in the site.
TOP = {
    "README.md": "about.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
TABLE = re.compile(r"(?m)^<!-- table: ([\w-]+) -->$")
CODE = re.compile(r"(?ms)^```.*?^```$|`[^`\n]+`")


def assemble(out: Path) -> list[Path]:
    """Write the source tree; returns its pages. Raises ``ValueError`` for links that lead
    nowhere."""
    pages = {**written(), **generated()}
    lost: list[str] = []
    files: set[Path] = set()
    for place, (text, at) in pages.items():
        if place.endswith(".md"):
            text = TABLE.sub(lambda found: tables.TABLES[found[1]](), text)
            text = relinked(text, at, place, pages, files, lost) + children(place, pages)
        write(out / place, text.encode())
    if lost:
        raise ValueError("links that lead nowhere:\n" + "\n".join(lost))
    for file in files:
        write(out / _copy_of(file), file.read_bytes())
    kept = {out / place for place in (*pages, *map(_copy_of, files))}
    for stale in out.rglob("*"):
        if stale.is_file() and stale not in kept and not stale.is_relative_to(out / "gallery"):
            stale.unlink()
    return [out / place for place in pages]


def write(target: Path, content: bytes) -> None:
    """Write a file unless it is there, so that what has not changed is not rendered again."""
    if not target.is_file() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def children(place: str, pages: dict[str, tuple[str, Path]]) -> str:
    """The pages of a folder, listed below the README that introduces them."""
    if not place.endswith("/README.md"):
        return ""
    folder = place.removesuffix("README.md")
    names = [name.removeprefix(folder) for name in sorted(pages) if name.startswith(folder)]
    rows = [name.removesuffix(".md") for name in names if name not in ("README.md", "index.md")]
    return "\n".join(["\n```{toctree}", ":hidden:", "", *rows, "```", ""])


def written() -> dict[str, tuple[str, Path]]:
    """Pages that people wrote: their place in the site, their text, and the folder that their links
    start from."""
    found = {place: REPOSITORY / name for name, place in TOP.items()}
    for file in sorted(DOCS.rglob("*.md")):
        found[file.relative_to(DOCS).as_posix()] = file
    return {place: (file.read_text(encoding="utf-8"), file.parent) for place, file in found.items()}


def generated() -> dict[str, tuple[str, Path]]:
    """Pages made of the code. Their links start from their place in the site."""
    return {
        place: (text, DOCS / Path(place).parent)
        for make in (api_pages.pages, tables.pages)
        for place, text in make().items()
    }


def relinked(
    text: str,
    at: Path,
    place: str,
    pages: dict[str, tuple[str, Path]],
    files: set[Path],
    lost: list[str],
) -> str:
    """The text with its links as they are from ``place``; ``files`` gains what must be copied,
    ``lost`` the links that lead nowhere."""

    def moved(found: re.Match[str]) -> str:
        target, anchor = found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = Path(os.path.normpath(at / target))
        there = _page(path, pages)
        if there is None and path.is_file() and path.is_relative_to(REPOSITORY):
            files.add(path)
            there = _copy_of(path)
        if there is None:
            lost.append(f"{place}: {target}")
            return found[0]
        near = os.path.relpath(there, Path(place).parent).replace(os.sep, "/")
        return f"{found[1]}{near}{anchor}{found[4]}"

    return _outside_code(text, lambda prose: LINK.sub(moved, prose))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    out, end = [], 0
    for code in CODE.finditer(text):
        out += [change(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*out, change(text[end:])])


def _page(path: Path, pages: dict[str, tuple[str, Path]]) -> str | None:
    """The page that a file or a folder of the repository is in the site."""
    for root, names in ((DOCS, pages), (REPOSITORY, TOP)):
        if not path.is_relative_to(root):
            continue
        name = path.relative_to(root).as_posix()
        for candidate in (name, f"{name}/README.md", f"{name}/index.md"):
            if candidate in names:
                return TOP[candidate] if names is TOP else candidate
    if path.is_relative_to(REPOSITORY):
        name = f"files/{path.relative_to(REPOSITORY).as_posix()}.md"
        if name in pages:
            return name
        gallery = REPOSITORY / "examples" / "gallery"
        if path.parent == gallery and path.is_file():
            return f"gallery/{path.stem}.rst"
        if path == gallery:
            return "gallery/index.rst"
    return None


def _copy_of(file: Path) -> str:
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    return "files/" + file.relative_to(REPOSITORY).as_posix()
