"""The figure of the study ``explicit-accuracy``, and the means over its rows that figure and
findings share."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posteriori.experiments import Row

# One colour for two variants of a method, drawn through and dashed.
_PAIRS = ("#d55e00", "#009e73", "#a0569b", "#0072b2")
LOOKS = [(colour, style) for colour in _PAIRS for style in ("-", "--")]
PARTS = ("denoiser", "vjp", "solve")


def draw_accuracy(rows: list[Row]) -> Figure:
    picture = Figure(figsize=(9.2, 7.8), layout="constrained")
    grid = picture.add_gridspec(2, 2, height_ratios=(1.15, 1))
    _draw_errors(picture.add_subplot(grid[0, :]), rows)
    photos = [r for r in rows if r["part"] == "photo"]
    left = picture.add_subplot(grid[1, 0])
    _draw_photos(left, picture.add_subplot(grid[1, 1], sharey=left), photos)
    return picture


def _draw_errors(axes: Axes, rows: list[Row]) -> None:
    sigmas = sorted({r["sigma"] for r in rows if r["sigma"] is not None})
    names = [name for name in dict.fromkeys(r["method"] for r in rows) if name != "no guidance"]
    for name, (colour, style) in zip(names, LOOKS, strict=True):
        points = [
            (sigma, value)
            for sigma in sigmas
            if (value := error_ratio(rows, name, sigma)) is not None
        ]
        # Open marks around full ones: of two lines that coincide both are seen.
        size, face = (3.5, colour) if style == "-" else (7.0, "none")
        x, y = [p[0] for p in points], [p[1] for p in points]
        axes.plot(
            x, y, style, marker="o", ms=size, markerfacecolor=face, lw=1.6, color=colour, label=name
        )
    axes.axhline(1.0, color="#777777", ls=":", label="no guidance")
    axes.set(
        xscale="log", yscale="log", ylim=(1e-4, 20), xlabel="noise level sigma (data in [-1, 1])"
    )
    axes.set_ylabel("RMS error to E[x0 | x, y],\nas a ratio to that of no guidance")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_photos(left: Axes, right: Axes, photos: list[Row]) -> None:
    names = list(dict.fromkeys(r["method"] for r in photos))
    for name, marker, color in zip(
        dict.fromkeys(r["photo"] for r in photos), "os", (_PAIRS[3], _PAIRS[0]), strict=False
    ):
        mine = [r for r in photos if r["photo"] == name and r["psnr"] is not None]
        left.scatter(
            [r["psnr"] for r in mine],
            [names.index(r["method"]) for r in mine],
            marker=marker,
            s=34,
            label=name,
            color=color,
        )
    for part, marker, label, color in zip(
        PARTS,
        "os^",
        ("denoiser", "VJPs", "solve and rest"),
        (_PAIRS[3], _PAIRS[0], _PAIRS[1]),
        strict=True,
    ):
        means = [(mean(photos, name, f"{part}_seconds"), k) for k, name in enumerate(names)]
        kept = [(1000 * seconds, k) for seconds, k in means if seconds is not None]
        right.scatter(
            [p[0] for p in kept],
            [p[1] for p in kept],
            marker=marker,
            s=34,
            label=label,
            color=color,
        )
    for k, name in enumerate(names):
        lost = sum(r["method"] == name and r["psnr"] is None for r in photos)
        if lost:
            left.annotate(
                f"diverged ({lost})",
                (0.02, k),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                color="#555",
            )
    left.set(ylim=(len(names) - 0.5, -0.5), xlabel="PSNR on photographs (dB)")
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.margins(x=0.1)
    right.tick_params(labelleft=False)
    right.set(xscale="log", xlabel="time of a step (ms)")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(
            fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False
        )
        axes.spines[["top", "right"]].set_visible(False)


def error(rows: list[Row], name: str, sigma: float) -> float | None:
    """RMS error over seeds, None where one of them was not finite."""
    mine = [
        r["error"]
        for r in rows
        if r["part"] == "mixture" and r["method"] == name and r["sigma"] == sigma
    ]
    return None if not mine or None in mine else math.sqrt(sum(v**2 for v in mine) / len(mine))


def error_ratio(rows: list[Row], name: str, sigma: float) -> float | None:
    """The error of a method over that of no guidance."""
    own, without = error(rows, name, sigma), error(rows, "no guidance", sigma)
    return None if own is None or not without else own / without


def mean(rows: list[Row], name: str, column: str) -> float | None:
    mine = [r[column] for r in rows if r["method"] == name and r[column] is not None]
    return sum(mine) / len(mine) if mine else None
