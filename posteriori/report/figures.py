"""The pictures of a page: each in a stated scale, all of a run side by side, and each as large as
the window after a click."""

from __future__ import annotations

import html
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from posteriori.measurements.pictures import (
    channel_rms,
    gradient,
    heat,
    image,
    picture_limits,
    pictured,
    top,
    uri,
)
from posteriori.run import Run

Span = tuple[float, float]
SAMPLES_SHOWN = 4
# A picture of the scene whose numbers lie outside the range of images more often than this is shown
# in a scale of its own.
OUTSIDE = 0.25
# Decades of a k-space that are shown below its largest magnitude.
DECADES = 5.0


def picture_scale(run: Run) -> Span:
    """The values of black and white of all pictures of the scene: the stated range, else what the
    samples span (magnitudes from 0)."""
    if run.config["range"]:
        return picture_limits(run.config["range"], magnitudes(run))
    shown = [planes for row in run.samples[:SAMPLES_SHOWN] if (planes := pictured(row)) is not None]
    values = torch.stack(shown) if shown else run.samples.real
    return (0.0 if magnitudes(run) else float(values.min())), top(values, 0.999)


def shown_scene(run: Run) -> Run:
    """What a measurement is shown beside: of several parts the first picture, else the run."""
    parts = run.parts.values()
    return next((part for part in parts if pictured(part.mean) is not None), run)


def magnitudes(run: Run) -> bool:
    """Whether images are shown by their magnitude: complex ones, and two channels that are real and
    imaginary part."""
    return run.samples.is_complex() or (run.samples.ndim == 4 and run.samples.shape[1] == 2)


def measured_figures(run: Run) -> list[str]:
    """What was measured: the picture or the map that y is, k-space by its magnitude, and the
    back-projection where that says more."""
    out, extras = [], run.extras
    if "measurement" in extras:
        out.append(_measurement(extras["measurement"], run))
    if "kspace" in extras:
        logs = (extras["kspace"] / top(extras["kspace"], 1.0)).log10().clamp(min=-DECADES)
        ends = (
            f"{top(extras['kspace'], 1.0):.3g}, every step of the scale a factor of 10; "
            "light blue was not measured"
        )
        out.append(
            figure(
                uri(heat(logs, -DECADES, 0.0)),
                "Measured k-space",
                f"log10 of its magnitude over {ends}",
                (-DECADES, 0.0),
            )
        )
    if "backprojection" in extras:
        back = extras["backprojection"]
        low, high = min(0.0, float(back.min())), top(back, 0.999)
        name = "what was measured, sent back by the transpose of the operator; black"
        out.append(
            figure(
                uri(image(back, low, high)),
                "Back-projection",
                f"{name} is {low:.3g}, white {high:.3g}",
            )
        )
    return out


def _measurement(y: Tensor, run: Run) -> str:
    low, high = picture_scale(run)
    stored, y = y.shape[-2:], in_place(y, run)
    seen = y[~y.isnan()]
    hidden = "; light blue was not measured" if len(seen) < y.numel() else ""
    size = f"{stored[0]} x {stored[1]}, {span(y)}{hidden}"
    if same_scene(y, run) and in_scale(y, (low, high)):
        return figure(uri(image(y, low, high)), "Measurement", size)
    ends = float(seen.min()), float(seen.max())
    if len(y) == 1:
        return figure(uri(heat(y[0], *ends)), "Measurement", f"in its own unit; {size}", ends)
    return figure(
        uri(image(y, *ends)),
        "Measurement",
        f"in its own unit, black {ends[0]:.3g}, white {ends[1]:.3g}; {size}",
    )


def in_place(y: Tensor, run: Run) -> Tensor:
    """A measurement whose border is cut off on all sides, as by a blur without a boundary, in the
    frame of the image: NaN around it."""
    sides = (
        [a - b for a, b in zip(run.samples.shape[-2:], y.shape[-2:], strict=True)]
        if run.samples.ndim == 4
        else [0, 0]
    )
    if (
        sides[0] != sides[1]
        or not 0 < sides[0] < run.samples.shape[-2] / 2
        or len(y) not in (1, run.samples.shape[1])
    ):
        return y
    before, after = sides[0] // 2, sides[0] - sides[0] // 2
    return pad(y, (before, after, before, after), value=math.nan)


def in_scale(y: Tensor, ends: Span) -> bool:
    """Whether most numbers of y lie between black and white of the images, or not far from it."""
    seen = y[~y.isnan()]
    room = 0.1 * (ends[1] - ends[0])
    return float(((seen < ends[0] - room) | (seen > ends[1] + room)).double().mean()) <= OUTSIDE


def same_scene(y: Tensor, run: Run) -> bool:
    """Whether y shows the scene as the image does: as many colours, and sides in nearly the same
    proportion."""
    shape = run.samples.shape[1:]
    if len(shape) != 3 or len(y) not in (1, shape[0]):
        return False
    return abs(math.log(y.shape[1] * shape[2] / (y.shape[2] * shape[1]))) < 0.05


def drawn_figures(run: Run, name: str = "") -> list[str]:
    """Mean, standard deviation and samples; for what is no picture the mean as a curve. Of several
    parts those of each, by ``name``."""
    if run.parts:
        return [f for key, part in run.parts.items() for f in drawn_figures(part, f"{key}: ")]
    mean = pictured(run.mean)
    if mean is None:
        return [curve(run, name)]
    low, high = picture_scale(run)
    parts = [
        figure(
            uri(image(mean, low, high)),
            f"{name}Mean",
            f"of {len(run.samples)} sample{'s' if len(run.samples) > 1 else ''}",
        )
    ]
    if len(run.samples) > 1:
        spread = channel_rms(run.std)
        end = top(spread)
        said = (
            "root mean square over channels; "
            f"0.5 % of the pixels lie above the scale, at most {float(spread.max()):.3g}"
        )
        parts.append(
            figure(uri(heat(spread, 0.0, end)), f"{name}Standard deviation", said, (0.0, end))
        )
    for k, row in enumerate(run.samples[:SAMPLES_SHOWN]):
        planes = pictured(row)
        if planes is not None:
            parts.append(figure(uri(image(planes, low, high)), f"{name}Sample {k}", span(planes)))
    return parts


def compared(run: Run, record: dict[str, Any], part: str = "") -> list[str]:
    """The true image and another estimate where they are known."""
    if run.parts:
        parts = run.parts.items()
        return [one for key, inner in parts for one in compared(inner, record, f"{key}: ")]
    low, high = picture_scale(run)
    usual = record.get("baseline") or {"name": "Wiener filter", "psnr": None}
    said = {"baseline": "" if usual["psnr"] is None else f"PSNR {usual['psnr']:.2f} dB, "}
    out = []
    for name, title in (("reference", "Reference"), ("baseline", usual["name"])):
        planes = pictured(run.extras[name]) if name in run.extras else None
        if planes is not None:
            out.append(
                figure(
                    uri(image(planes, low, high)), part + title, said.get(name, "") + span(planes)
                )
            )
    return out


def residual_figures(run: Run) -> list[str]:
    """What sample 0 leaves of y, in standard deviations of the noise."""
    r = run.extras.get("residual")
    if r is None or r.ndim not in (2, 3) or min(r.shape[-2:]) < 2:
        return []
    picture = uri(heat(channel_rms(r), 0.0, 3.0))
    text = "|y - A x| of sample 0 over its noise level; of noise about 1"
    return [figure(picture, "Residual", text, (0.0, 3.0))]


def figure(source: str, title: str, text: str, bar: Span | None = None) -> str:
    """A picture with its caption; a click, or the space key, shows it as large as the window. No
    script: a hidden box is ticked."""
    below = ""
    if bar is not None:
        ends = "".join(f"<span>{value:.3g}</span>" for value in bar)
        below = (
            f'<div class="bar" style="background:{gradient()}"></div><div class="ends">{ends}</div>'
        )
    name = html.escape(title)
    return (
        f'<figure><label class="zoom"><input type="checkbox" aria-label="enlarge: {name}">'
        f'<img src="{source}" alt="{name}"></label>'
        f"<figcaption><b>{name}</b> {html.escape(text)}{below}</figcaption></figure>"
    )


def span(x: Tensor) -> str:
    seen = x[~x.isnan()]
    return f"values {float(seen.min()):.3g} to {float(seen.max()):.3g}"


def curve(run: Run, name: str = "") -> str:
    """Mean and one standard deviation of a vector, as a drawing."""
    mean = (run.mean.abs() if run.mean.is_complex() else run.mean).flatten().double()
    std = run.std.flatten().double()
    keep = torch.linspace(0, len(mean) - 1, min(len(mean), 600)).long()
    mean, std = mean[keep], std[keep]
    low, high = float((mean - std).min()), float((mean + std).max())
    room, width = (high - low) or 1.0, max(len(mean) - 1, 1)

    def points(values: Tensor) -> list[str]:
        return [
            f"{600 * k / width:.1f},{190 - 180 * (float(v) - low) / room:.1f}"
            for k, v in enumerate(values)
        ]

    band = " ".join(points(mean + std) + points(mean - std)[::-1])
    drawing = (
        f'<svg viewBox="0 0 600 200" style="width:100%"><polygon points="{band}" fill="#e7c6d6"/>'
        f'<polyline points="{" ".join(points(mean))}" fill="none" '
        'stroke="#8a2a5b" stroke-width="1.5"/></svg>'
    )
    caption = f"<b>{html.escape(name)}Mean</b> with one standard deviation; {low:.3g} to {high:.3g}"
    return f'<figure style="grid-column:1/-1">{drawing}<figcaption>{caption}</figcaption></figure>'


def legend(run: Run) -> str:
    """One sentence on the scale that all pictures of the scene share; empty where there is none."""
    if run.parts:
        scales = [(name, *picture_scale(part)) for name, part in run.parts.items()]
        ends = [f"{name} black is {low:.3g}, white is {high:.3g}" for name, low, high in scales]
        return (
            f"Each part has a scale of its own: {'; '.join(ends)}. "
            "A click enlarges a picture, another brings it back."
        )
    if pictured(run.mean) is None:
        return ""
    low, high = picture_scale(run)
    what = "Magnitudes" if magnitudes(run) else "Pictures of the scene"
    return (
        f"{what} share one scale: black is {low:.3g}, white is {high:.3g}. "
        "A click enlarges a picture, another brings it back."
    )
