"""One self-contained HTML page from run folders: no script, no external resource, no network call."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posteriori.files import write_text
from posteriori.flags import KEPT
from posteriori.places import told
from posteriori.report.colour import gradient, heat, limits, picture
from posteriori.report.table import HEADINGS, cells
from posteriori.run import Run, read_json

# Points by which 80 % intervals may miss before it is said.
MISS = 5.0
STYLE = """
:root { --ink:#1b1f27; --soft:#5a6372; --line:#dfe3ea; --paper:#fff; --wash:#f5f6f9; --accent:#8a2a5b; }
* { box-sizing: border-box } body { margin:0; background:var(--wash); color:var(--ink); font:16px/1.55 system-ui, sans-serif }
main { max-width:1180px; margin:0 auto; padding:32px 24px 64px } h1 { font-size:28px; margin:0 0 4px; letter-spacing:-.01em }
h2 { font-size:20px; margin:40px 0 12px; padding-top:20px; border-top:1px solid var(--line) } p.lead { color:var(--soft); margin:0 0 20px }
.grid { display:grid; grid-template-columns:repeat(auto-fill,minmax(200px,1fr)); gap:16px } figure { margin:0; background:var(--paper);
border:1px solid var(--line); border-radius:8px; overflow:hidden } figure img { width:100%; display:block; image-rendering:pixelated }
figcaption { padding:8px 12px 10px; font-size:13px; color:var(--soft) } figcaption b { color:var(--ink); font-weight:600 }
.bar { height:8px; border-radius:4px; margin:6px 0 2px } .ends { display:flex; justify-content:space-between; font-size:12px }
table { border-collapse:collapse; width:100%; background:var(--paper); border:1px solid var(--line); border-radius:8px; font-size:14px }
th, td { padding:8px 12px; text-align:right; border-bottom:1px solid var(--line); font-variant-numeric:tabular-nums; white-space:nowrap }
th { color:var(--soft); font-weight:600 } th:first-child, td:first-child { text-align:left } tr:last-child td { border-bottom:0 }
ul.flags { background:#fff6ec; border:1px solid #f0d3ae; border-radius:8px; padding:10px 16px 10px 32px } .scroll { overflow-x:auto }
details { margin-top:14px } summary { cursor:pointer; color:var(--accent); font-size:14px } pre { background:var(--paper);
border:1px solid var(--line); border-radius:8px; padding:12px; overflow:auto; font-size:12px; max-height:360px }
"""


def page(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write ``index.html`` for a run folder, or for a folder whose sub-folders are runs of one problem; returns its path.

    See ``posteriori.report`` for what the folders hold. Raises ``FileNotFoundError`` when there is no complete run.
    """
    folder = Path(folder)
    places = [folder] if (folder / "run.json").exists() else sorted(p.parent for p in folder.glob("*/run.json"))
    if not places:
        raise FileNotFoundError(f"no run in {folder}: neither run.json nor sub-folders that hold one{told(folder)}")
    runs = [(Run.load(place).in_frame(), _summary(place)) for place in places]
    if len(runs) > 1:
        runs.sort(key=lambda pair: -(pair[1].get("psnr_mean") or 0.0))
    first = runs[0][0]
    title = f"{first.config.get('operator', 'measurement')}: posterior samples"
    parts = [
        _lead(title, first),
        '<div class="grid">',
        *_inputs(first, runs[0][1]),
        "</div>",
        "<h2>Methods</h2>",
        _table([s for _, s in runs]),
    ]
    for run, record in runs:
        parts += _section(run, record)
    target = Path(out) if out else folder / "index.html"
    body = "\n".join(parts)
    write_text(
        target,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>",
    )
    return target


def _summary(place: Path) -> dict[str, Any]:
    return read_json(place / "summary.json") if (place / "summary.json").exists() else {}


def _lead(title: str, run: Run) -> str:
    c = run.config
    level = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in c["noise"].items())
    unit = f" for images in {c['range']}" if c["range"] else ""
    inner = c.get("noise_std_in_prior_range")
    other = f"; {inner:g} in the prior's range {c['prior_range']}" if inner is not None and c["prior_range"] else ""
    shown = f" (shown: {list(run.samples.shape[1:])}, the part that was measured)" if "frame" in c else ""
    text = f"{c['prior']} prior, image {c['image_shape']}{shown}, measurement {c['measurement_shape']}. Noise: {level}{unit}{other}."
    return f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(text)}</p>'


def _inputs(run: Run, record: dict[str, Any]) -> list[str]:
    low, high = limits(run.config["range"] or (0.0, 1.0), run.samples.is_complex())
    usual = record.get("baseline") or {"name": "Wiener filter", "psnr": None}
    known = (("measurement", "Measurement"), ("baseline", usual["name"]), ("reference", "Reference"))
    said = {"baseline": "" if usual["psnr"] is None else f"PSNR {usual['psnr']:.2f} dB, "}
    return [
        _figure(picture(run.extras[name], low, high), title, said.get(name, "") + _span(run.extras[name]))
        for name, title in known
        if name in run.extras and run.extras[name].ndim == 3
    ]


def _section(run: Run, record: dict[str, Any]) -> list[str]:
    c = run.config
    parts = [f"<h2>{html.escape(c['method'])}</h2>"]
    if record.get("flags"):
        parts.append('<ul class="flags">' + "".join(f"<li>{html.escape(f)}</li>" for f in record["flags"]) + "</ul>")
    said = _spread(run, record)
    if said:
        parts.append(f'<p class="lead">{html.escape(said)}</p>')
    parts += ['<div class="grid">', *_pictures(run), "</div>"]
    parts.append(f"<details><summary>Configuration, versions, references</summary><pre>{html.escape(_settings(run))}</pre></details>")
    return parts


def _spread(run: Run, record: dict[str, Any]) -> str:
    """What the spread of the samples is worth, in sentences; empty when nothing is known."""
    said, kept, inside = [], record.get("kept"), record.get("inside_80")
    if kept is not None:
        said.append(
            f"Mean standard deviation {record['spread']:.3g}; in these {len(run.config['levels']) - 1} steps a Gaussian as wide keeps "
            f"{100 * kept:.0f} % of its own."
        )
    if inside is not None:
        said.append(
            f"The 80 % intervals of {record['finished']} samples hold {100 * inside:.1f} % of the reference's numbers"
            f"{_miss(inside, kept, record.get('inside_80_room') or 0.0)}."
        )
    return " ".join(said)


def _miss(inside: float, kept: float | None, room: float) -> str:
    """By how many points a share of 80 % is missed and, as far as the steps tell, why; empty within five points, or within ``room``."""
    points = 100 * inside - 80
    if abs(points) <= max(MISS, 100 * room):
        return ""
    said = f", {abs(points):.0f} points too {'few' if points < 0 else 'many'}"
    if kept is None:
        return said
    steps = abs(kept - 1) > KEPT and (kept < 1) == (points < 0)
    cause = "in part for want of steps" if steps else "not for want of steps: the method's approximation, or the prior, is off there"
    return f"{said}, {cause}"


def _pictures(run: Run) -> list[str]:
    x = run.samples.abs() if run.samples.is_complex() else run.samples
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        return [_curve(run)]
    low, high = limits(run.config["range"] or (float(x.min()), float(x.max())), run.samples.is_complex())
    mean = run.mean.abs() if run.mean.is_complex() else run.mean
    parts = [_figure(picture(mean, low, high), "Posterior mean", f"of {len(x)} samples")]
    parts += [_figure(picture(row, low, high), f"Sample {k}", _span(row)) for k, row in enumerate(x[:4])]
    if len(x) > 1:
        spread = _flat(run.std)
        top = float(spread.quantile(0.995)) if spread.numel() < 2**24 else float(spread.max())
        parts.append(_figure(heat(spread, 0.0, top), "Standard deviation", "over samples, root mean square over channels", (0.0, top)))
    if "residual" in run.extras and run.extras["residual"].ndim == 3:
        parts.append(
            _figure(heat(_flat(run.extras["residual"]), 0.0, 3.0), "Residual", "|y - A x| of sample 0 over its noise level", (0.0, 3.0))
        )
    return parts


def _flat(image: Tensor) -> Tensor:
    """(C, H, W) or (H, W) to (H, W): root mean square over channels."""
    return image.abs().square().mean(0).sqrt() if image.ndim == 3 else image.abs()


def _curve(run: Run) -> str:
    """Mean and one standard deviation of a vector, as a drawing."""
    mean, std = (run.mean.abs() if run.mean.is_complex() else run.mean).flatten().double(), run.std.flatten().double()
    keep = torch.linspace(0, len(mean) - 1, min(len(mean), 600)).long()
    mean, std = mean[keep], std[keep]
    low, high = float((mean - std).min()), float((mean + std).max())
    span, width = (high - low) or 1.0, max(len(mean) - 1, 1)

    def points(values: Tensor) -> list[str]:
        return [f"{600 * k / width:.1f},{190 - 180 * (float(v) - low) / span:.1f}" for k, v in enumerate(values)]

    band = " ".join(points(mean + std) + points(mean - std)[::-1])
    drawing = (
        f'<svg viewBox="0 0 600 200" style="width:100%"><polygon points="{band}" fill="#e7c6d6"/>'
        f'<polyline points="{" ".join(points(mean))}" fill="none" stroke="#8a2a5b" stroke-width="1.5"/></svg>'
    )
    caption = f"<b>Posterior mean</b> with one standard deviation; {low:.3g} to {high:.3g}"
    return f'<figure style="grid-column:1/-1">{drawing}<figcaption>{caption}</figcaption></figure>'


def _figure(uri: str, title: str, text: str, bar: tuple[float, float] | None = None) -> str:
    scale = ""
    if bar is not None:
        ends = "".join(f"<span>{value:.3g}</span>" for value in bar)
        scale = f'<div class="bar" style="background:{gradient()}"></div><div class="ends">{ends}</div>'
    name = html.escape(title)
    return f'<figure><img src="{uri}" alt="{name}"><figcaption><b>{name}</b> {html.escape(text)}{scale}</figcaption></figure>'


def _span(image: Tensor) -> str:
    return f"values {float(image.min()):.3g} to {float(image.max()):.3g}"


def _table(records: list[dict[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in HEADINGS)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells(r)) + "</tr>" for r in records if r)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _settings(run: Run) -> str:
    config = {k: v for k, v in run.config.items() if k != "levels"}
    levels = run.config["levels"]
    config["levels"] = f"{len(levels)} from {levels[0]:.4g} to {levels[-2]:.4g}, then 0"
    return json.dumps(config | {"counts": run.counts, "seconds": round(run.seconds, 2), "references": list(run.references)}, indent=1)
