"""A study as text: everything comes from the study and its record, so that a page can be written
again from the stored file alone.

A record, NAME.json:

    study, quick, command   what was asked
    columns                 name -> meaning
    machines                versions and hardware, one text for each machine that measured
    cells                   in the order of the plan, each {"cell": ..., "rows": [...],
                            "date": ..., "seconds": ..., "machine": index}
"""

from __future__ import annotations

import base64
import csv
import html
import io
import re
from typing import Any

from posteriori.experiments import Row
from posteriori.experiments.studies.base import Study
from posteriori.experiments.studies.contract import check_findings
from posteriori.report.page import STYLE

StudyRecord = dict[str, Any]
QUICK = (
    "This is the quick run: fewer cells, for a look at how the study works. "
    "Its numbers are not the study's."
)


def rows_of(record: StudyRecord) -> list[Row]:
    """All rows in the order of the plan."""
    return [row for entry in record["cells"] for row in entry["rows"]]


def data(study: Study, record: StudyRecord) -> str:
    """The rows as CSV: the first line names the columns, an empty field is a value that does not
    exist."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(study.columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of(record))
    return out.getvalue()


def caption(study: Study) -> str:
    """The caption, and the columns from which the figure is drawn."""
    return (
        f"{study.caption.strip()} Drawn "
        f"from the columns {', '.join(f'`{name}`' for name in study.shows)} of {study.name}.csv."
    )


def when(record: StudyRecord) -> str:
    """Date or dates, how much was measured and how long it took."""
    dates = sorted({entry["date"] for entry in record["cells"]})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    seconds = sum(entry["seconds"] for entry in record["cells"])
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
    return f"{days}; {len(record['cells'])} cells, {len(rows_of(record))} rows, {took} of measuring"


def machines(record: StudyRecord) -> list[str]:
    """Of each machine that measured cells, versions and hardware."""
    return [record["machines"][k] for k in sorted({entry["machine"] for entry in record["cells"]})]


def study_section(study: Study, record: StudyRecord) -> str:
    """The section NAME.md."""
    found = check_findings(study, rows_of(record))
    out = [f"# {study.question}", *([f"**{QUICK}**"] if record["quick"] else [])]
    out.append("\n".join(f"{k}. {text}" for k, text in enumerate(found, 1)))
    out += [
        f"![{study.question}]({study.name}.png)",
        f"*{caption(study)}*",
        "## Setting",
        study.setting.strip(),
    ]
    out += ["## What this study cannot say", "\n".join(f"- {text}" for text in study.limits)]
    meanings = [f"| `{name}` | {_cell(meaning)} |" for name, meaning in study.columns.items()]
    out += [
        "## Columns",
        f"Of {study.name}.csv, one line a row:",
        "\n".join(["| column | meaning |", "|---|---|", *meanings]),
    ]
    out += ["## Repeat it", f"```\n{record['command']}\n```", f"Measured {when(record)}, on:"]
    return "\n\n".join([*out, *(f"```\n{text}\n```" for text in machines(record))]) + "\n"


def study_page(study: Study, record: StudyRecord, picture: bytes) -> str:
    """The same on one self-contained page, with the figure (PNG) and all rows in it."""
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    found = "".join(f"<li>{_inline(text)}</li>" for text in check_findings(study, rows_of(record)))
    meanings = "".join(
        f"<tr><td><code>{html.escape(c)}</code></td><td>{_inline(m)}</td></tr>"
        for c, m in study.columns.items()
    )
    parts = [
        f"<h1>{html.escape(study.question)}</h1>",
        f'<p class="lead">Study <code>{study.name}</code>, {when(record)}.</p>',
        f'<ul class="flags"><li>{QUICK}</li></ul>' if record["quick"] else "",
        f'<ol class="text">{found}</ol>',
        f'<figure><img src="{uri}" alt="{html.escape(study.question)}">'
        f"<figcaption>{_inline(caption(study))}</figcaption></figure>",
        "<h2>Setting</h2>",
        *(f'<p class="text">{_inline(part)}</p>' for part in study.setting.strip().split("\n\n")),
        "<h2>What this study cannot say</h2>",
        f'<ul class="text">{"".join(f"<li>{_inline(text)}</li>" for text in study.limits)}</ul>',
        "<h2>Columns</h2>",
        '<div class="scroll"><table class="words"><tr><th>column</th><th>meaning</th></tr>'
        f"{meanings}</table></div>",
        f"<h2>Repeat it</h2><pre>{html.escape(record['command'])}</pre>",
        *(f"<pre>{html.escape(text)}</pre>" for text in machines(record)),
        "<details><summary>All rows</summary>"
        f"<pre>{html.escape(data(study, record))}</pre></details>",
    ]
    style = STYLE + (
        "figure img { image-rendering:auto } .text { max-width:78ch } "
        ".words td { text-align:left; white-space:normal }"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(study.name)}</title><style>{style}</style></head>"
        f"<body><main>{chr(10).join(parts)}</main></body></html>"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
