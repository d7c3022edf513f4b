"""The project's docstrings, which are plain text, as reStructuredText.

Three things are told apart, as a reader of ``help()`` tells them apart:

    a paragraph            lines at the margin; the first block always
    a formula or example   a block of its own that is indented: kept as it is
    settings               "name: text", with what belongs to it indented below: a nested list
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

ITEM = re.compile(
    r"(?P<term>[A-Za-z][\w ,.()*^\[\]/+|=<>-]{0,44}): (?P<text>\S.*)$|(?P<alone>[A-Z][\w ]{0,30}):$"
)
BULLET = re.compile(r"[-*] (?P<text>\S.*)$")
CODE = re.compile(r"``.+?``|`[^`\n]+`")
UNDERLINE = re.compile(r"-{3,}$")
# A value of a setting, set apart from what it means: "auto"   the default.
CHOICE = re.compile(r'(?P<word>"[^"]+") {2,}(?P<text>\S.*)')


def rest(lines: Iterable[str]) -> list[str]:
    """The lines of a docstring, without its common indentation, as reStructuredText."""
    out: list[str] = []
    for number, block in enumerate(blocks(lines)):
        if number == 0:
            out += [*(escaped(line.strip()) for line in block), ""]
        elif all(line.startswith("    ") for line in block):
            out += ["::", "", *("    " + line for line in block), ""]
        else:
            out += [*_prose(block), ""]
    return out


def blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines that stand together. Of two indented blocks with an empty line in between the second
    continues the first."""
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line.rstrip())
        elif block:
            yield block
            block = []


def _prose(block: list[str]) -> list[str]:
    """A paragraph, or a list of settings with what comes before it."""
    out: list[str] = []
    open_items: list[tuple[int, int]] = []  # (indentation in the docstring, in the output)
    for line in block:
        text = line.strip()
        depth = len(line) - len(line.lstrip())
        if UNDERLINE.fullmatch(text) and out:
            out[-1] = f"**{out[-1].strip()}**"
            out.append("")
            continue
        choice = CHOICE.match(text)
        if choice and open_items:
            while len(open_items) > 1 and open_items[-1][0] >= depth:
                open_items.pop()
            indent = open_items[-1][1] + 2
            open_items.append((depth, indent))
            entry = f"- ``{choice['word']}`` {escaped(choice['text'])}"
            out += ["", " " * indent + entry]
            continue
        item, bullet = ITEM.match(text), BULLET.match(text)
        starts = bullet or (item and (not out or open_items or depth == 0))
        if starts and (item is None or _is_setting(item, block)):
            while open_items and open_items[-1][0] >= depth:
                open_items.pop()
            indent = open_items[-1][1] + 2 if open_items else 0
            open_items.append((depth, indent))
            out += ["", " " * indent + "- " + _label(item, bullet)]
            continue
        while open_items and open_items[-1][0] >= depth and depth == 0:
            open_items.pop()
            if not open_items:
                out.append("")
        out.append(" " * (open_items[-1][1] + 2 if open_items else 0) + escaped(text))
    return out


def _is_setting(item: re.Match[str], block: list[str]) -> bool:
    """Whether "a: b" is a list entry and no sentence with a colon: its term is short, or what
    belongs to it is indented."""
    term = item["term"] or item["alone"]
    return len(term.split()) <= 4 or any(line.startswith("    ") for line in block[1:])


def _label(item: re.Match[str] | None, bullet: re.Match[str] | None) -> str:
    if bullet:
        return escaped(bullet["text"])
    assert item
    if item["alone"]:
        return f"**{escaped(item['alone'])}**"
    return f"**{escaped(item['term'])}**: {escaped(item['text'])}"


def escaped(text: str) -> str:
    """Text whose stars, bars and underscores are what they are; code stays code."""
    out, end = [], 0
    for code in CODE.finditer(text):
        out += [_plain(text[end : code.start()]), "``" + code[0].strip("`") + "``"]
        end = code.end()
    return "".join([*out, _plain(text[end:])])


def _plain(text: str) -> str:
    return re.sub(r"([\\*|_`])", r"\\\1", text)
