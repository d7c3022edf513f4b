"""Methods side by side on one problem: a table as text, and a page with pictures. Where a method
did not finish, its row has the reason."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from posteriori.measurements.pictures import heat, uri
from posteriori.measurements.pictures import image as picture
from posteriori.report import figures
from posteriori.report.page import document
from posteriori.run import Run
from posteriori.storage import write_text

# Heading, key of a summary, format.
COLUMNS = (
    ("Steps", "steps", "d"),
    ("Seconds", "seconds", ".1f"),
    ("Denoiser", "denoiser", ".4g"),
    ("VJP", "vjp", ".4g"),
    ("chi2", "chi2_samples", ".3f"),
    ("Spread", "spread", ".3g"),
    ("PSNR one, dB", "psnr_sample", ".2f"),
    ("PSNR mean, dB", "psnr_mean", ".2f"),
    ("SSIM one", "ssim_sample", ".3f"),
    ("SSIM mean", "ssim_mean", ".3f"),
    ("log p(y)", "log_evidence", ".2f"),
    ("Flags", "flagged", "d"),
)
# A page with a hundred large pictures is none: of each method the mean, so many samples and the
# standard deviation.
SHOWN = 2


@dataclass(frozen=True)
class ComparedRow:
    """One method: its label, what it came to (``numbers`` by the keys of ``COLUMNS``), sentences,
    or why it did not finish."""

    label: str
    numbers: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    reason: str | None = None
    run: Run | None = None

    @classmethod
    def of(cls, label: str, run: Run, record: dict[str, Any]) -> ComparedRow:
        """From a run and its summary."""
        extra = {
            "steps": len(run.config["levels"]) - 1,
            "log_evidence": run.log_evidence,
            "flagged": len(record["flags"]),
        }
        return cls(
            label,
            record | {kind: run.counts[kind] for kind in ("denoiser", "vjp")} | extra,
            tuple(record["flags"]),
            None,
            run,
        )


def _used(rows: Sequence[ComparedRow]) -> list[tuple[str, str, str]]:
    """The columns in which any row has a number."""
    return [
        column for column in COLUMNS if any(row.numbers.get(column[1]) is not None for row in rows)
    ]


def _cells(row: ComparedRow, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    values = [(row.numbers.get(key), form) for _, key, form in columns]
    return [row.label, *("-" if value is None else format(value, form) for value, form in values)]


def _outcomes(rows: Sequence[ComparedRow]) -> list[str] | None:
    """The last cells of the rows, where any has a reason to state."""
    return [row.reason or "" for row in rows] if any(row.reason for row in rows) else None


def comparison_table(rows: Sequence[ComparedRow]) -> str:
    """A Markdown table, padded so that it reads as plain text; below it the flags, by method."""
    columns = _used(rows)
    lines = [["Method", *(head for head, *_ in columns)], *(_cells(row, columns) for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns) + 1)]
    ends = _outcomes(rows)
    padded = []
    for line in lines:
        (name, *numbers), (first, *others) = line, widths
        right = [cell.rjust(w) for cell, w in zip(numbers, others, strict=True)]
        padded.append(f"| {' | '.join([name.ljust(first), *right])} |")
    rule = (
        "|"
        + "|".join("-" * (w + 1) + ":" if k else "-" * (w + 2) for k, w in enumerate(widths))
        + "|"
    )
    table = [padded[0], rule, *padded[1:]]
    if ends is not None:
        table = [
            f"{line} {end} |" for line, end in zip(table, ["Outcome", "---", *ends], strict=True)
        ]
    notes = [f"{row.label}: {said}" for row in rows for said in row.flags]
    return "\n".join([*table, *([""] if notes else []), *notes])


def write_comparison(folder: Path, rows: Sequence[ComparedRow], title: str) -> Path:
    """Write ``folder/index.html``, which needs no other file; returns its path."""
    columns = _used(rows)
    ends = _outcomes(rows)
    heads = ["Method", *(head for head, *_ in columns), *(["Outcome"] if ends else [])]
    lines = [_cells(row, columns) + ([ends[k]] if ends else []) for k, row in enumerate(rows)]
    head = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in line)}</tr>" for line in lines
    )
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
    ]
    for row in rows:
        if row.flags:
            said = "".join(f"<li>{html.escape(flag)}</li>" for flag in row.flags)
            parts.append(f'<h2>{html.escape(row.label)}</h2><ul class="flags">{said}</ul>')
    finished = [row for row in rows if row.run is not None]
    if finished:
        parts += ["<h2>Side by side</h2>", '<div class="scroll">', _pictures(finished), "</div>"]
    style = (
        "td figure { width:210px } td.name { vertical-align:middle } "
        "td:last-child { white-space:normal }"
    )
    place = folder / "index.html"
    write_text(place, document(title, parts, style=style))
    return place


def _pictures(rows: Sequence[ComparedRow]) -> str:
    """One row of pictures a method, all on one grey scale, and the standard deviations on one of
    their own."""
    runs = [row.run for row in rows if row.run is not None]
    inputs = [
        f"<td>{shown}</td>"
        for shown in (
            *figures.measured_figures(runs[0]),
            *figures.compared(runs[0], rows[0].numbers),
        )
    ]
    top = max((float(_flat(run.std).max()) for run in runs if len(run.samples) > 1), default=0.0)
    lines = [f'<tr><td class="name">given</td>{"".join(inputs)}</tr>'] if any(inputs) else []
    for row in rows:
        if row.run is None:
            continue
        x = row.run
        cells = (
            [_cell(_planes(x.mean), f"Mean of {len(x.samples)}", runs)]
            if len(x.samples) > 1
            else []
        )
        cells += [
            _cell(_planes(one), f"Sample {k}", runs) for k, one in enumerate(x.samples[:SHOWN])
        ]
        if len(x.samples) > 1 and _planes(x.std) is not None:
            cells.append(
                _framed(
                    uri(heat(_flat(x.std), 0.0, top or 1.0)), f"Standard deviation, to {top:.3g}"
                )
            )
        lines.append(f'<tr><td class="name">{html.escape(row.label)}</td>{"".join(cells)}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _cell(image: Tensor | None, title: str, runs: Sequence[Run]) -> str:
    """A picture in the range of the images, or from their smallest to their largest number."""
    if image is None:
        return ""
    ends = [(float(_real(r.samples).min()), float(_real(r.samples).max())) for r in runs]
    low, high = runs[0].config["range"] or (
        min(low for low, _ in ends),
        max(high for _, high in ends),
    )
    return _framed(uri(picture(image, low, high)), title)


def _framed(uri: str, title: str) -> str:
    name = html.escape(title)
    box = (
        f'<label class="zoom"><input type="checkbox" aria-label="enlarge: {name}">'
        f'<img src="{uri}" alt="{name}"></label>'
    )
    return f"<td><figure>{box}<figcaption>{name}</figcaption></figure></td>"


def _real(x: Tensor) -> Tensor:
    return x.abs() if x.is_complex() else x


def _planes(x: Tensor) -> Tensor | None:
    """A picture (C, h, w), grey or in colours; None for what is none."""
    x = _real(x)
    x = x[None] if x.ndim == 2 else x
    return x if x.ndim == 3 and x.shape[0] in (1, 3) else None


def _flat(x: Tensor) -> Tensor:
    """(h, w): root mean square over channels."""
    x = _real(x)
    return x.square().mean(0).sqrt() if x.ndim == 3 else x
