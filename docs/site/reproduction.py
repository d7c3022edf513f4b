"""What papers report beside the rows of the scoreboard: docs/site/published_figures.yaml against
docs/results/exact.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import yaml

SITE = Path(__file__).parent
RESULTS = SITE.parent / "results"
# How uncertain a paper's figure is taken to be, as a share of it, where it prints no spread.
ALIKE = 0.1
READINGS = ("same", "better", "worse")


class Figure(NamedTuple):
    """A mean, half of its 95 % interval (None where unknown), and of how many problems."""

    mean: float
    half: float | None = None
    count: int | None = None

    def __str__(self) -> str:
        told = f"{self.mean:.3g}"
        if self.half is not None:
            told += f" ± {self.half:.1g}" if self.half > 1e-9 * abs(self.mean) else " ± 0"
        elif self.count == 2:
            told += f" (of {self.count})"
        return told


class Entry(NamedTuple):
    """One figure of a paper and ours, each with what exact samples score there, and what either has
    beyond it where that is compared."""

    method: str
    cell: str
    score: str
    paper: Figure
    paper_exact: Figure
    ours: Figure
    ours_exact: Figure
    beyond: tuple[Figure, Figure] | None = None


def experiments() -> list[dict[str, Any]]:
    """The list of docs/site/published_figures.yaml."""
    return list(yaml.safe_load((SITE / "published_figures.yaml").read_text(encoding="utf-8")))


def board_rows() -> list[dict[str, Any]]:
    """The rows of the scoreboard that have a value."""
    rows = json.loads((RESULTS / "exact.json").read_text(encoding="utf-8"))
    return [row for row in rows if row["value"] is not None]


def figure(values: list[float]) -> Figure:
    """Mean, and 1.96 standard errors where there are at least three values."""
    half = 1.96 * stdev(values) / len(values) ** 0.5 if len(values) > 2 else None
    return Figure(fmean(values), half, len(values))


def over(value: float, exact: float) -> float:
    """What a kernel Stein discrepancy has beyond that of exact samples: the square of N samples'
    is that of their law, and the same trace over N for any N samples."""
    return max(value**2 - exact**2, 0.0) ** 0.5


def measured(told: dict[str, Any], rows: list[dict[str, Any]]) -> dict[tuple[str, ...], list[Any]]:
    """Our values by method, cell and score, a problem each."""
    values: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        if all(row[key] == value for key, value in told["at"].items()):
            for score in told["scores"]:
                place = (row["method"], row["cell"], score)
                values.setdefault(place, []).append(row.get("all", row)[score])
    return values


def entries(told: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[Entry]:
    """Every figure of an experiment that was measured here too, with what it is compared by."""
    ours = measured(told, rows)
    for method, cells in told.get("paper", {}).items():
        for cell, scores in cells.items():
            for score, paper in scores.items():
                values = ours.get((method, cell, score))
                if values:
                    exact = Figure(*told["exact"][cell][score])
                    drawn = ours.get(("floor", cell, score))
                    floor = figure(drawn) if drawn else exact
                    beyond = None
                    if told["scores"][score]["compare"] == "over":
                        mine = figure([over(value, floor.mean) for value in values])
                        beyond = (Figure(over(paper[0], exact.mean)), mine)
                    place = (method, cell, score)
                    yield Entry(*place, Figure(*paper), exact, figure(values), floor, beyond)


def reading(entry: Entry, told: dict[str, Any]) -> str:
    """ "same" where the two differ by no more than their 95 % intervals (a paper without intervals
    is given ``ALIKE`` of its figure), else "better" or "worse", by how ``compare`` says:

    value   the smaller
    over    the smaller, of what is beyond exact samples
    exact   the nearer to what exact samples score
    """
    compare = told["scores"][entry.score]["compare"]
    paper, ours = entry.beyond or (entry.paper, entry.ours)
    theirs = ALIKE * paper.mean if paper.half is None else paper.half
    apart = ours.mean - paper.mean
    if compare == "exact":
        apart += entry.paper_exact.mean - entry.ours_exact.mean
    if abs(apart) <= ((ours.half or 0.0) ** 2 + theirs**2) ** 0.5:
        return "same"
    if compare == "exact":
        off = abs(entry.paper.mean - entry.paper_exact.mean)
        return "better" if abs(entry.ours.mean - entry.ours_exact.mean) < off else "worse"
    return "better" if apart < 0 else "worse"


def shown(entry: Entry, told: dict[str, Any]) -> str:
    """An entry of a table: theirs, ours, the reading."""
    theirs, ours = str(entry.paper), str(entry.ours)
    if entry.beyond:
        theirs += f" ({entry.beyond[0]} over)"
        ours += f" ({entry.beyond[1]} over)"
    return f"{theirs}; **{ours}**; {reading(entry, told)}"


def command(told: dict[str, Any]) -> str:
    """What measures ours again."""
    at = told["at"]
    return f"`posteriori bench exact --bed {at['bed']} --steps {at['steps']}`"


def about(told: dict[str, Any]) -> str:
    """Title of an experiment, where its figures are from, what differs, the command."""
    title, what = (text[0].upper() + text[1:].strip() for text in (told["title"], told["what"]))
    return (
        f"## {title}\n\n{what}.\n\n"
        f"- the figures beside ours: {told['source']}; read {told['read']}\n"
        f"- what differs: {told['differs'].strip()}\n- ours again: {command(told)}"
    )


def section(told: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """One experiment whose figures are compared; nothing where none of them was measured."""
    found = list(entries(told, rows))
    places = dict.fromkeys((entry.cell, entry.score) for entry in found)
    columns = [(c, s) for c in told["cells"] for s in told["scores"] if (c, s) in places]
    heads = [f"{told['cells'][c]}: {told['scores'][s]['name']}" for c, s in columns]
    floors = {(e.cell, e.score): f"{e.paper_exact}; **{e.ours_exact}**" for e in found}
    lines = [
        "| method | " + " | ".join(heads) + " | why |",
        "|---" * (len(heads) + 2) + "|",
        "| exact samples | " + " | ".join(floors[place] for place in columns) + " | |",
    ]
    for method in told["paper"]:
        mine = {(e.cell, e.score): shown(e, told) for e in found if e.method == method}
        if mine:
            texts = " | ".join(mine.get(place, "-") for place in columns)
            lines.append(f"| {method} | {texts} | {told['why'][method]} |")
    return "\n\n".join([about(told), "\n".join(lines)]) if found else ""


def beside(told: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """One experiment of another draw: a paper's figures, then ours, uncompared."""
    lines = [
        "| | " + " | ".join(score["name"] for score in told["scores"].values()) + " |",
        "|---" + "|---:" * len(told["scores"]) + "|",
    ]
    for name, figures in told["beside"].items():
        lines.append(f"| {name} | " + " | ".join(f"{figures[s]:g}" for s in told["scores"]) + " |")
    ours = measured(told, rows)
    for method in dict.fromkeys(name for name, _, _ in ours):
        values = [figure(ours[method, cell, s]) for cell in told["cells"] for s in told["scores"]]
        name = "exact samples" if method == "floor" else method
        lines.append(f"| **{name}** | " + " | ".join(f"**{value}**" for value in values) + " |")
    return "\n\n".join([about(told), "\n".join(lines)])


def twenty_calls() -> str:
    """EPS's claim about calls, beside the page that measured it."""
    text = (RESULTS / "twenty.md").read_text(encoding="utf-8")
    lines = [
        "## Calls that EPS needs",
        "",
        "- the claim: quality levels off at about 20 calls of the network (Mammadov et al., Exact "
        "Posterior Score Estimation, 2026; read on the authors' page). Its FIDs are of networks "
        "trained on faces and ImageNet, to which ours has no counterpart",
        "- ours: CRPS of four samples of twelve photographs; "
        "[the whole table](../results/twenty.md)",
        "- ours again: `python benchmarks/twenty.py`, as that page has it",
        "",
        "| problem | 9 calls | 19 calls | 39 calls | reading |",
        "|---|---:|---:|---:|---|",
    ]
    for problem, table in re.findall(r"(?ms)^\*\*(\w+)\*\*.*?\n\n(.*?)(?:\n\n|\Z)", text):
        crps = dict(re.findall(r"(?m)^\| EPS (\d+) \| [^|]+ \| [^|]+ \| ([^|]+) \|", table))
        if len(crps) == 3:
            told = " | ".join(crps.values())
            some, many = float(crps["20"]), float(crps["40"])
            flat = "same" if abs(some - many) <= ALIKE / 2 * many else "it still changes"
            lines.append(f"| {problem} | {told} | {flat} from 19 to 39 |")
    return "\n".join(lines)


def overview(rows: list[dict[str, Any]]) -> str:
    """How many figures of each experiment ours agree with, are better or are worse."""
    lines = [
        "| experiment | figures from | compared | same | better | worse | command |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for told in (one for one in experiments() if "paper" in one):
        read = [reading(entry, told) for entry in entries(told, rows)]
        counts = " | ".join(str(read.count(word)) for word in READINGS)
        lines.append(
            f"| {told['title']} | {told['source']} | {len(read)} | {counts} | {command(told)} |"
        )
    return "\n".join(lines)


def reproduction() -> str:
    """The overview, and a section for each experiment."""
    rows = board_rows()
    parts = [
        beside(told, rows) if "beside" in told else section(told, rows) for told in experiments()
    ]
    return "\n\n".join([overview(rows), *filter(None, parts), twenty_calls()])
