"""The scoreboard's tables, in Markdown and on a page: means with their intervals, medians, paired
differences, costs."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from statistics import median

import torch

from posteriori.experiments import Row
from posteriori.experiments.scoreboard import REFERENCES
from posteriori.report.page import STYLE

Group = tuple[str, str, int]
USES = (
    "uses: score = denoiser calls alone; Jacobian = products with its Jacobian as well; "
    "draws = also images of the prior, uncounted; mixture = the prior's closed form"
)


def tables(rows: list[Row]) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, lines) for every bed, schedule, number of steps and metric, and of the ranking
    one the paired differences."""
    out = []
    for group in dict.fromkeys((r["bed"], r["schedule"], r["steps"]) for r in rows):
        part = [r for r in rows if (r["bed"], r["schedule"], r["steps"]) == group]
        metric = part[0]["metric"]
        title = f"{group[0]}, {group[1]} schedule, {group[2]} steps"
        out.append(
            (
                f"{title}, {metric}: mean +- 95 % interval (median)",
                *_lines(part, [r["value"] for r in part], True),
            )
        )
        for extra in dict.fromkeys(
            name for r in part for name in r.get("all", {}) if name != metric
        ):
            values = [r.get("all", {}).get(extra) for r in part]
            out.append(
                (f"{title}, {extra}: mean +- 95 % interval (median)", *_lines(part, values, False))
            )
        for name in ("mean_error", "variance_ratio"):
            if any(name in r for r in part):
                out.append(
                    (
                        f"{title}, {name.replace('_', ' ')}",
                        *_lines(part, [r.get(name) for r in part], False),
                    )
                )
        if max(r["seed"] for r in part) > 0:
            out.append(
                (
                    f"{title}, {metric}: paired difference to the best method, "
                    "mean +- 95 % interval",
                    *_differences(part),
                )
            )
    return out


def board_markdown(rows: list[Row]) -> str:
    """All tables as Markdown."""
    out = [USES + ".", ""]
    for title, head, lines in tables(rows):
        out += [f"**{title}**", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        out += ["| " + " | ".join(line) + " |" for line in lines] + [""]
    return "\n".join(out).strip() + "\n"


def board_page(rows: list[Row], command: str, machine: str, pictures: list[Path]) -> str:
    """One self-contained page: what was run, why explicit methods plateau, pictures
    (PNG files, taken in), the tables."""
    parts = [
        "<h1>Scoreboard</h1>",
        '<p class="lead">Methods on posteriors known in closed form. '
        f"<code>{html.escape(command)}</code></p>",
    ]
    said = plateau(rows)
    if said:
        parts += ["<h2>Why explicit methods plateau</h2>", f"<p>{html.escape(said)}</p>"]
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(
            f"<h2>Error against cost, {picture.stem}</h2>"
            f'<img style="width:100%" alt="" src="data:image/png;base64,{data}">'
        )
    parts.append(
        f"<p>{html.escape(USES)}. Smaller is better; every table has its own floor and oracle.</p>"
    )
    for title, head, lines in tables(rows):
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in line) + "</tr>" for line in lines
        )
        heading = "".join(f"<th>{html.escape(h)}</th>" for h in head)
        parts += [
            f"<h2>{html.escape(title)}</h2>",
            f'<div class="scroll"><table><tr>{heading}</tr>{cells}</table></div>',
        ]
    body = (
        "\n".join(parts)
        + f"<details><summary>Machine</summary><pre>{html.escape(machine)}</pre></details>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Scoreboard</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )


def plateau(rows: list[Row]) -> str | None:
    """Three sentences with the numbers of these rows; None when they do not hold MMPS and oracle at
    two numbers of steps on gmm25."""
    mine = [
        r
        for r in rows
        if r["bed"] == "gmm25" and r["schedule"] == "original" and r["value"] is not None
    ]
    counts = sorted({r["steps"] for r in mine})
    cell = next(iter(dict.fromkeys(r["cell"] for r in mine)), None)

    def mean(method: str, steps: int) -> float | None:
        values = [
            r["value"]
            for r in mine
            if (r["method"], r["steps"], r["cell"]) == (method, steps, cell)
        ]
        return sum(values) / len(values) if values else None

    numbers = [mean(name, steps) for name in ("MMPS", "oracle", "floor") for steps in counts]
    if len(counts) < 2 or any(n is None for n in numbers):
        return None
    low, high = counts[0], counts[-1]
    return (
        f"On GMM-25 ({cell}) the best covariance that a Gaussian can have "
        f"(MMPS, the exact Jacobian) scores {mean('MMPS', low):.2f} with "
        f"{low} steps and {mean('MMPS', high):.2f} with {high}, while the exact conditional score "
        f"on the same grids goes from {mean('oracle', low):.2f} to {mean('oracle', high):.2f} "
        f"with a floor of {mean('floor', high):.2f}: what is left is bias, not discretisation. "
        "At noise levels where the modes still overlap, p(x0 | x) has several of them, "
        "and an explicit method puts one Gaussian in its place, so that the likelihood of x, "
        "and with it the weight each mode receives, is wrong just where it is decided. "
        "Below those levels no step carries mass from one mode to another, "
        "so neither more steps nor a better local covariance repairs it; "
        "weights do, which is what sequential Monte Carlo adds."
    )


def _lines(
    part: list[Row], values: list[float | None], costs: bool
) -> tuple[list[str], list[list[str]]]:
    cells = list(dict.fromkeys(r["cell"] for r in part))
    lines = []
    for name in dict.fromkeys(r["method"] for r in part):
        pairs = [(r, v) for r, v in zip(part, values, strict=True) if r["method"] == name]
        line = [name, *(_entry([(r, v) for r, v in pairs if r["cell"] == cell]) for cell in cells)]
        if costs:
            uses = next(
                (r["uses"] for r, _ in pairs if r["denoiser"] is not None), pairs[0][0]["uses"]
            )
            line += [
                uses,
                ", ".join(_most([r for r, _ in pairs], kind) for kind in ("denoiser", "vjp")),
            ]
        lines.append(line)
    return ["method", *cells, *(("uses", "denoiser, VJP") if costs else ())], lines


def _differences(part: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Each method's value less that of the best one (by mean, among methods without a lost seed),
    seed by seed."""
    cells = list(dict.fromkeys(r["cell"] for r in part))
    by = {(r["method"], r["cell"], r["seed"]): r["value"] for r in part}
    seeds = sorted({r["seed"] for r in part})
    names = [name for name in dict.fromkeys(r["method"] for r in part) if name not in REFERENCES]

    def series(name: str, cell: str) -> list[float | None]:
        return [by.get((name, cell, seed)) for seed in seeds]

    best: dict[str, str] = {}
    for cell in cells:
        whole = {
            name: sum(v for v in series(name, cell) if v is not None)
            for name in names
            if None not in series(name, cell)
        }
        best[cell] = min(whole, key=whole.__getitem__, default="")
    lines = []
    for name in names:
        line = [name]
        for cell in cells:
            pairs = zip(series(name, cell), series(best[cell], cell), strict=True)
            gaps = [a - b for a, b in pairs if a is not None and b is not None]
            line.append("best" if name == best[cell] else _interval(gaps))
        lines.append(line)
    return ["method", *cells], lines


def _interval(values: list[float]) -> str:
    v = torch.tensor(values, dtype=torch.float64)
    return (
        f"{float(v.mean()):.3g} +- {1.96 * float(v.std()) / len(v) ** 0.5:.2g}"
        if len(v) > 1
        else "-"
    )


def _most(rows: list[Row], kind: str) -> str:
    """The largest count of calls; a run that was lost as a whole has none."""
    return f"{max((r[kind] for r in rows if r[kind] is not None), default=float('nan')):g}".replace(
        "nan", "-"
    )


def _entry(pairs: list[tuple[Row, float | None]]) -> str:
    if not pairs:
        return "-"
    lost = [r["outcome"] for r, value in pairs if value is None and "outcome" in r]
    if lost:
        return f"{lost[0]}, {len(lost)} of {len(pairs)}" if len(pairs) > 1 else lost[0]
    values = [value for _, value in pairs if value is not None]
    if len(values) < 2:
        return f"{values[0]:.3g}" if values else "-"
    v = torch.tensor(values, dtype=torch.float64)
    # Of an even number of values torch.median takes the lower of the two in the middle.
    return (
        f"{float(v.mean()):.3g} +- {1.96 * float(v.std()) / len(v) ** 0.5:.2g} "
        f"({median(values):.3g})"
    )
