"""One self-contained HTML page from run folders: no external resource, no network call. Its script
makes the explorer; without one the page is all that stands beside it."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from posteriori.evaluation.summary import completed
from posteriori.likelihood import framed
from posteriori.places import place_description
from posteriori.report import figures, words
from posteriori.report.explorer import LEAST, PAGE, explorer, policy
from posteriori.report.table import HEADINGS, cells
from posteriori.report.volumes import middle_slice
from posteriori.run import Run, read_json
from posteriori.storage import write_text

STYLE = """
:root { color-scheme:light dark; --ink:#1b1f27; --soft:#5a6372; --line:#dfe3ea; --paper:#fff;
  --wash:#f5f6f9; --accent:#8a2a5b; --doubt:#fff6ec; --doubt-line:#f0d3ae }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ef; --soft:#a3acba; --line:#343a46;
  --paper:#1d2129; --wash:#14171d; --accent:#e58bb7; --doubt:#33281a; --doubt-line:#6b5330 } }
* { box-sizing: border-box }
body { margin:0; background:var(--wash); color:var(--ink); font:16px/1.55 system-ui, sans-serif }
main { max-width:1180px; margin:0 auto; padding:32px 24px 64px }
h1 { font-size:28px; margin:0 0 4px; letter-spacing:-.01em }
h2 { font-size:20px; margin:40px 0 12px; padding-top:20px; border-top:1px solid var(--line) }
p.lead { color:var(--soft); margin:0 0 20px }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(176px,1fr)); gap:16px }
figure { margin:0; background:var(--paper); border:1px solid var(--line); border-radius:8px;
  overflow:hidden }
figure img { width:100%; display:block; image-rendering:pixelated }
.zoom { display:block; cursor:zoom-in }
.zoom input { position:absolute; opacity:0; width:1px; height:1px }
.zoom input:focus-visible + img { outline:3px solid var(--accent); outline-offset:-3px }
.zoom input:checked + img { position:fixed; inset:0; width:100vw; height:100vh;
  object-fit:contain; background:rgba(20,22,28,.97); z-index:9; cursor:zoom-out }
figcaption { padding:8px 12px 10px; font-size:13px; color:var(--soft) }
figcaption b { color:var(--ink); font-weight:600 }
.bar { height:8px; border-radius:4px; margin:6px 0 2px }
.ends { display:flex; justify-content:space-between; font-size:12px }
table { border-collapse:collapse; width:100%; background:var(--paper);
  border:1px solid var(--line); border-radius:8px; font-size:14px }
th, td { padding:8px 12px; text-align:right; border-bottom:1px solid var(--line);
  font-variant-numeric:tabular-nums; white-space:nowrap }
th { color:var(--soft); font-weight:600 }
th:first-child, td:first-child { text-align:left }
tr:last-child td { border-bottom:0 }
ul.flags { background:var(--doubt); border:1px solid var(--doubt-line); border-radius:8px;
  padding:10px 16px 10px 32px }
.scroll { overflow-x:auto }
details { margin-top:14px }
summary { cursor:pointer; color:var(--accent); font-size:14px }
pre { background:var(--paper); border:1px solid var(--line); border-radius:8px; padding:12px;
  overflow:auto; font-size:12px; max-height:360px }
"""


def page(
    folder: str | Path, out: str | Path | None = None, reference: Tensor | None = None
) -> Path:
    """Write ``index.html`` for a run folder, or for a folder whose sub-folders are runs of one
    problem; returns its path.

    A folder may come from ``posteriori solve``, from ``sample(folder=)`` or from ``report.save``.
    reference: the true image in the range of the likelihood, to compare samples with that were
    saved without one.
    Raises ``FileNotFoundError`` when there is no complete run, and ``ValueError`` for a reference
    of another shape or range.
    """
    folder = Path(folder)
    places = (
        [folder]
        if (folder / "run.json").exists()
        else sorted(p.parent for p in folder.glob("*/run.json"))
    )
    if not places:
        raise FileNotFoundError(
            f"no run in {folder}: neither run.json nor sub-folders "
            f"that hold one{place_description(folder)}"
        )
    whole = [_read(place, reference) for place in places]
    if len(whole) > 1:
        whole.sort(key=lambda pair: -(pair[1].get("psnr_mean") or 0.0))
    runs = [(middle_slice(run), record) for run, record in whole]
    title = f"{runs[0][0].config.get('operator', 'measurement')}: posterior samples"
    head = [f"<h1>{html.escape(title)}</h1>", _said(words.lead(runs))]
    head += [_said(runs[0][0].config.get("shown", ""))]
    body = _body(runs)
    explored = explorer(whole, max(PAGE - sum(map(len, body)), LEAST))
    target = Path(out) if out else folder / "index.html"
    write_text(target, document(title, [*head, explored, *body], scripted=bool(explored)))
    return target


def document(
    title: str, parts: Sequence[str], *, style: str = "", scripted: bool = False, head: str = ""
) -> str:
    """A page of these parts, which are HTML. scripted: whether the script of the explorer is among
    them; no other would run."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{policy(scripted)}'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">{head}'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head>"
        f"<body><main>{chr(10).join(filter(None, parts))}</main></body></html>"
    )


def _read(place: Path, reference: Tensor | None) -> tuple[Run, dict[str, Any]]:
    """A run in its frame, and its summary."""
    run = Run.load(place).in_frame()
    if isinstance(run.config.get("seed"), list):
        raise ValueError(
            f"{place} holds samples of {len(run.config['seed'])} measurements together; "
            "a page is of one: save each run by itself"
        )
    record = read_json(place / "summary.json") if (place / "summary.json").exists() else {}
    if reference is not None:
        reference = framed(reference, run.config.get("frame"))
        run = replace(run, extras=run.extras | {"reference": reference})
    return run, completed(run, record, reference)


def _body(runs: list[tuple[Run, dict[str, Any]]]) -> list[str]:
    """Pictures first: of one run all side by side, of several what they share and then each of
    them; the table where it compares most."""
    (run, record), records = runs[0], [record for _, record in runs]
    shared = [*figures.measured_figures(figures.shown_scene(run))], [*figures.compared(run, record)]
    if len(runs) == 1:
        grid = [*shared[0], *figures.drawn_figures(run), *shared[1], *figures.residual_figures(run)]
        parts = [*_doubts(record), *_grid(grid), _said(figures.legend(run)), *_notes(run, record)]
        return [*parts, "<h2>Numbers</h2>", _table(records), _about(run)]
    parts = [
        *_grid([*shared[0], *shared[1]]),
        _said(figures.legend(run)),
        "<h2>Methods</h2>",
        _table(records),
    ]
    for run, record in runs:
        parts += [
            f"<h2>{html.escape(run.config['method'])}</h2>",
            _said(f"Its samples: {words.trust(run, record)}."),
            *_doubts(record),
        ]
        parts += [
            *_notes(run, record),
            *_grid([*figures.drawn_figures(run), *figures.residual_figures(run)]),
            _about(run),
        ]
    return parts


def _doubts(record: dict[str, Any]) -> list[str]:
    if not record.get("flags"):
        return []
    return [
        '<ul class="flags">'
        + "".join(f"<li>{html.escape(text)}</li>" for text in record["flags"])
        + "</ul>"
    ]


def _notes(run: Run, record: dict[str, Any]) -> list[str]:
    return [_said(text) for text in (words.known(run), words.spread_in_words(run, record)) if text]


def _grid(pictures: list[str]) -> list[str]:
    return ['<div class="grid">', *pictures, "</div>"] if pictures else []


def _said(text: str) -> str:
    return f'<p class="lead">{html.escape(text)}</p>' if text else ""


def _table(records: list[dict[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in HEADINGS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells(r)) + "</tr>" for r in records
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _about(run: Run) -> str:
    config = {k: v for k, v in run.config.items() if k not in ("levels", "shown")}
    levels = run.config["levels"]
    config["levels"] = f"{len(levels)} from {levels[0]:.4g} to {levels[-2]:.4g}, then 0"
    text = json.dumps(
        config
        | {
            "counts": run.counts,
            "seconds": round(run.seconds, 2),
            "references": list(run.references),
        },
        indent=1,
    )
    return (
        "<details><summary>Configuration, versions, references</summary>"
        f"<pre>{html.escape(text)}</pre><pre>{html.escape(run.bibtex())}</pre></details>"
    )
