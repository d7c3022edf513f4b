"""What the pages of the site tell from the code and from measured results, so that no number is
typed twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import api_pages
import guide_tables
import reproduction

from posteriori.citations import bibliography
from posteriori.cli.listing import COLUMNS, METRICS, SHARED_OUT, _scores
from posteriori.methods import ALL, METHODS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
# Folders that pages link to, and get a list of their files.
LISTED = ("examples/own", "examples/problems", "examples/training", "findings")


@cache
def scores() -> list[dict[str, Any]]:
    """The rows of the scoreboard that the method table shows."""
    rows = json.loads((DOCS / "results" / "exact.json").read_text(encoding="utf-8"))
    return [r for r in rows if (r["bed"], r["cell"], r["schedule"], r["steps"]) in COLUMNS]


def pages() -> dict[str, str]:
    """Generated pages that stand on no written one."""
    made = {"findings.md": findings(), "decisions/index.md": decisions()}
    return made | {
        f"files/{folder}.md": listing(folder) for folder in LISTED if folder != "findings"
    }


def head(script: Path) -> tuple[str, str]:
    """The first sentence of a finding's head, and the rest of it."""
    lines = []
    for line in script.read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    first, _, rest = "\n".join(lines).partition("\n\n")
    return first, rest


def findings() -> str:
    """Surprises of other libraries and formats, from the heads of the scripts that show them."""
    out = [
        "# Findings about other libraries and formats",
        "",
        "Each is a script that installs the named versions, shows the surprise, and exits with 0 "
        "while it is there, with 1 when it has changed.",
        "",
    ]
    for script in sorted((REPOSITORY / "findings").glob("*.sh")):
        title, text = head(script)
        out += [f"## {title}", "", text, "", f"[{script.name}](../findings/{script.name})", ""]
    return "\n".join(out)


def decisions() -> str:
    """The decision records, by number."""
    out = [
        "# Decisions",
        "",
        "What is not obvious from the code, a page each.",
        "",
        "```{toctree}",
        ":maxdepth: 1",
        "",
    ]
    out += [file.stem for file in sorted((DOCS / "decisions").glob("0*.md"))]
    return "\n".join([*out, "```"]) + "\n"


def listing(folder: str) -> str:
    """The files of a folder of examples, to download."""
    up = "../" * (folder.count("/") + 2)
    files = [
        f for f in sorted((REPOSITORY / folder).iterdir()) if f.is_file() and f.name != "net.pt"
    ]
    lines = [f"- [{file.name}]({up}{folder}/{file.name})" for file in files]
    return "\n".join(["---", "orphan: true", "---", f"# {folder}", "", *lines]) + "\n"


def bib(key: str) -> str:
    """One entry of the bibliography as a line: authors, title, where, year."""
    entry = bibliography().get(key)
    if entry is None:
        return key
    told = dict(re.findall(r"(\w+)=\{((?:[^{}]|\{[^{}]*\})*)\}", entry))
    authors = [name.split(",")[0].strip() for name in told.get("author", "").split(" and ")]
    several = authors[0] + " et al." if len(authors) > 3 else ", ".join(authors)
    where = ", ".join(
        told[word] for word in ("journal", "booktitle", "year", "note") if word in told
    )
    return re.sub(r"[{}\\]", "", f"{several}, *{told.get('title', key)}*, {where}")


def family(name: str) -> str:
    """The methods of one family: what each declares, its scores, its docstring."""
    out: list[str] = []
    for method in (m for m in METHODS if m.family == name):
        title = method.__name__
        out += [f"## {title}", "", f"{bib(method.reference)} (`{method.reference}`).", ""]
        needs = ", ".join(sorted(method.needs)) or "nothing beyond y and A"
        claims = "; ".join(sorted(method.claims)) or "nothing"
        out += [
            f"- needs: {needs}",
            f"- cost per step: {method.cost}",
            f"- claims, tested: {claims}",
        ]
        ours = {title, f"{title} {SHARED_OUT}"}
        rows = [row for row in scores() if row["method"] in ours]
        told = [
            f"{METRICS[bed]} {bed} {cell}, {schedule}, {steps} steps: {score}"
            for bed, cell, schedule, steps in COLUMNS
            if (score := _scores(rows, (bed, cell, schedule, steps), title)) != "-"
        ]
        out += [f"- [scoreboard](../methods.md): {'; '.join(told)}"] if told else []
        out += ["", api_pages.described(title), ""]
    return "\n".join(out)


def family_links() -> str:
    """Every method with the page of its family."""
    groups: dict[str, list[str]] = {}
    for method in METHODS:
        groups.setdefault(method.family, []).append(method.__name__)
    lines = ["| family | methods |", "|---|---|"]
    for name, methods in groups.items():
        links = ", ".join(f"[{m}]({name}.md#{m.lower()})" for m in methods)
        lines.append(f"| [{name}]({name}.md) | {links} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[], str]] = {
    "family-links": family_links,
    "by-kind": guide_tables.by_kind,
    "by-wish": guide_tables.by_wish,
    "by-price": guide_tables.by_price,
    "coverage-findings": guide_tables.coverage_findings,
    "coverage": guide_tables.coverage_table,
    "reproduction": reproduction.reproduction,
    **{
        f"errors-{name}": (lambda name=name: guide_tables.errors(name))
        for name in ("explicit", "decoupled", "variational", "smc")
    },
    **{
        f"failure-{name}": (lambda name=name: guide_tables.failure(name))
        for name in ("over-guided", "collapsed", "off-range", "drifting-kernel", "hallucinated")
    },
    **{
        f"methods-{name}": (lambda name=name: family(name))
        for name in dict.fromkeys(m.family for m in ALL.values())
    },
}
