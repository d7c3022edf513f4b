"""DPS with its guidance swept over three decades: what it does to the error and to the spread, and
which value is right."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, NullLocator

from posteriori.experiments import Row
from posteriori.experiments.studies.base import Study
from posteriori.experiments.studies.guidance_sweep import (
    BED_SAMPLES,
    BED_SHAPES,
    COLUMNS,
    LEVEL,
    PUBLISHED,
    SWEEP_PROBLEMS,
    as_printed,
    mean_score,
    sweep,
    sweep_measure,
    sweep_plan,
)

_COLOURS = {"published": "#d55e00", "bounded": "#0072b2", "exact": "#222222"}
HALO = [withStroke(linewidth=2.5, foreground="white")]


def _draw(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(7, 9.9), layout="constrained")
    axes = figure.subplots(3, 2)
    for column, problem in enumerate(SWEEP_PROBLEMS):
        for place, bed in zip(axes[:2, column], BED_SHAPES, strict=True):
            _trade(place, rows, bed, problem)
        place = axes[2, column]
        for bed, style in (("mixture", "-"), ("photograph", "--")):
            for weighting in ("published", "bounded"):
                points = sweep(rows, bed, problem, weighting)
                values = [mean_score(group, "coverage") for group in points.values()]
                place.plot(
                    [*points], values, style, marker="o", ms=3, lw=1.5, color=_COLOURS[weighting]
                )
        place.axhline(LEVEL, color=_COLOURS["exact"], lw=0.8)
        place.axvline(PUBLISHED, color=_COLOURS["published"], lw=0.8, ls=":")
        place.axvline(1.0, color=_COLOURS["bounded"], lw=0.8, ls=":")
        place.set(xscale="log", ylim=(0, 1.03), xlabel="guidance (no unit)")
        place.set_title(f"{LEVEL:.0%} intervals, {problem}", fontsize=10)
        place.xaxis.set_major_formatter("{x:g}")
    for place, label in zip(
        axes[:, 0],
        ("error of the mean, of [0, 1]", "error of the mean, of [0, 1]", "share covered"),
        strict=True,
    ):
        place.set_ylabel(label)
    for place in axes.flat:
        place.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=_legend(), loc="outside lower center", ncols=2, fontsize=8.5, frameon=False
    )
    return figure


def _trade(place: Axes, rows: list[Row], bed: str, problem: str) -> None:
    """Error against spread, one line for each weighting from weak to strong guidance."""
    for weighting, offset in (("published", (6, 5)), ("bounded", (6, -11))):
        groups = sweep(rows, bed, problem, weighting)
        at = {
            g: (mean_score(group, "spread"), mean_score(group, "error"))
            for g, group in groups.items()
        }
        marks = {PUBLISHED: "*", as_printed(bed): "D"} if weighting == "published" else {1.0: "s"}
        place.plot(*zip(*at.values(), strict=True), "o-", ms=2.5, lw=1.3, color=_COLOURS[weighting])
        for guidance, point in at.items():
            if guidance in marks:
                place.plot(
                    *point,
                    marks[guidance],
                    ms=11 if guidance == PUBLISHED else 6,
                    color=_COLOURS[weighting],
                )
            if guidance in marks or guidance in (next(iter(at)), next(reversed(at))):
                place.annotate(
                    f"{guidance:.3g}",
                    point,
                    xytext=offset,
                    textcoords="offset points",
                    fontsize=8,
                    color=_COLOURS[weighting],
                    path_effects=HALO,
                )
    for group in sweep(rows, bed, problem, "exact").values():
        place.plot(
            mean_score(group, "spread"),
            mean_score(group, "error"),
            "P",
            ms=8,
            color=_COLOURS["exact"],
            zorder=5,
        )
    ends = torch.tensor([1e-3, 1.0])
    place.set(xscale="log", yscale="log")
    place.margins(0.15)
    place.autoscale_view()
    place.autoscale(False)
    place.plot(ends, ends * math.sqrt(1 + 1 / BED_SAMPLES[bed]), color="#888888", lw=0.8, ls="--")
    place.set_title(f"{bed}, {problem}", fontsize=10)
    place.set_xlabel("spread of the samples, of [0, 1]")
    for axis, (low, high) in ((place.xaxis, place.get_xlim()), (place.yaxis, place.get_ylim())):
        ticks = (0.02, 0.05, 0.1, 0.2, 0.5) if high < 15 * low else (0.003, 0.01, 0.03, 0.1, 0.3, 1)
        axis.set_major_locator(FixedLocator([v for v in ticks if low <= v <= high]))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _legend() -> list[Line2D]:
    published, bounded, grey = _COLOURS["published"], _COLOURS["bounded"], "#888888"
    return [
        Line2D([], [], color=published, marker="o", ms=3, label="published weighting"),
        Line2D(
            [],
            [],
            color=published,
            marker="*",
            ms=10,
            ls="",
            label="0.3, converted to the image size",
        ),
        Line2D([], [], color=published, marker="D", ms=6, ls="", label="0.3 as printed"),
        Line2D([], [], color=bounded, marker="o", ms=3, label="bounded weighting"),
        Line2D([], [], color=bounded, marker="s", ms=6, ls="", label="1, as derived"),
        Line2D(
            [],
            [],
            color=_COLOURS["exact"],
            marker="P",
            ms=7,
            ls="",
            label="exact draws of the posterior",
        ),
        Line2D([], [], color=grey, ls="--", lw=0.8, label="error = what the spread predicts"),
        Line2D([], [], color="#444444", ls="--", label="bottom row: photograph (mixture: solid)"),
    ]


def right_width(rows: list[Row], problem: str, weighting: str) -> float | None:
    """The guidance, coming from weak ones, at which samples on the mixture are as wide as exact
    ones; None where they never are.

    Between two guidances of the sweep log spread is a straight line of log guidance.
    """
    goal = math.log(mean_score(sweep(rows, "mixture", problem, "exact")[None], "spread"))
    groups = sweep(rows, "mixture", problem, weighting)
    points = [
        (math.log(g), math.log(mean_score(group, "spread")))
        for g, group in groups.items()
        if g is not None
    ]
    for (g0, s0), (g1, s1) in pairwise(points):
        if s0 >= goal > s1:
            return math.exp(g0 + (g1 - g0) * (s0 - goal) / (s0 - s1))
    return None


def _findings(rows: list[Row]) -> tuple[str, str, str]:
    return _principled(rows), _published(rows), _trade_off(rows)


def _principled(rows: list[Row]) -> str:
    parts = []
    for problem in SWEEP_PROBLEMS:
        least = mean_score(sweep(rows, "mixture", problem, "exact")[None], "distance")
        times = {
            g: mean_score(group, "distance") / least
            for g, group in sweep(rows, "mixture", problem, "bounded").items()
        }
        best, right = min(times, key=lambda g: times[g]), right_width(rows, problem, "bounded")
        width = (
            "samples are as wide as exact ones at no guidance of the sweep"
            if right is None
            else f"that is so at {right:.2g}"
        )
        least_at = (
            "the least of the sweep"
            if best == 1.0
            else f"while the least of the sweep is {times[best]:.1f}, at {best:.3g}"
        )
        parts.append(
            f"for {problem} {width}, and at 1 the sliced Wasserstein distance "
            f"to the posterior is {times[1.0]:.1f} times that of exact draws, {least_at}"
        )
    return (
        "With the bounded weighting the guidance 1, which the noise level and the prior's width "
        f"prescribe, should make samples as wide as exact ones. On the mixture, {'; '.join(parts)}."
    )


def _published(rows: list[Row]) -> str:
    parts = []
    for problem in SWEEP_PROBLEMS:
        group = sweep(rows, "mixture", problem, "published")[PUBLISHED]
        exact = sweep(rows, "mixture", problem, "exact")[None]
        ratio = mean_score(group, "spread") / mean_score(exact, "spread")
        right = right_width(rows, problem, "published")
        where = "no guidance of the sweep" if right is None else f"{right:.2g}"
        error = mean_score(group, "error") / mean_score(exact, "error")
        parts.append(
            f"for {problem} samples are as wide as exact ones at {where}, and at {PUBLISHED:g} "
            f"they are {ratio:.1f} times as wide, with {error:.1f} times the error"
        )
    sizes = " and ".join(
        f"{as_printed(bed):.1f} on {shape[1]} x {shape[2]} x {shape[0]} numbers"
        for bed, shape in BED_SHAPES.items()
    )
    return (
        "The published step, on the mixture and in the terms of the paper "
        f"(256 x 256 colour images, 1000 steps): {'; '.join(parts)}. "
        "Its constant means nothing without an image size: "
        f"{PUBLISHED:g} as printed amounts to {sizes}."
    )


def _trade_off(rows: list[Row]) -> str:
    parts = []
    for weighting in ("published", "bounded"):
        groups = sweep(rows, "photograph", "deblurring", weighting)
        best = min(groups, key=lambda g: mean_score(groups[g], "error"))
        weak = next(iter(groups.values()))
        error, spread, covered = (
            mean_score(groups[best], score) for score in ("error", "spread", "coverage")
        )
        parts.append(
            f"{error:.3f} with the {weighting} weighting (guidance {best:.3g}; "
            f"{mean_score(weak, 'error'):.3f} at the weakest guidance), where the spread "
            f"is {spread:.3f} and {covered:.0%} of the pixels lie inside the {LEVEL:.0%} intervals"
        )
    exact = sweep(rows, "mixture", "deblurring", "exact")[None]
    weakest, weak = next(iter(sweep(rows, "mixture", "deblurring", "bounded").items()))
    ratio = mean_score(weak, "error") / mean_score(exact, "error")
    covered = mean_score(weak, "coverage")
    misled = abs(covered - LEVEL) < 0.1 and ratio > 1.5
    verdict = ", so that coverage alone cannot choose the guidance" if misled else ""
    return (
        f"On the photograph the least error of deblurring is {', and '.join(parts)}. "
        f"On the mixture a guidance of {weakest:g} (bounded) "
        f"covers {covered:.0%} with {ratio:.1f} times the error of exact draws{verdict}."
    )


_SETTING = """
Diffusion posterior sampling (Chung et al., 2023), x0 = D(x, sigma), r = y - A x0, J = dD/dx,
ancestral sampling (eta = 1), with two weightings of its guidance. `published`: x' = ancestral step
+ rho J^T A^T r / (||r|| a_sigma a_s), a = 1 / sqrt(1 + sigma^2), from level sigma to s of the
linear-beta DDPM (1e-4 to 0.02). `bounded`: x0 moves by w sigma^2 J^T A^T r / (sigma_y^2 + ||A||^2 c
sigma^2 / (c + sigma^2)), c the prior's largest variance along any direction; w = 1 is the
likelihood of y given x if x0 given x had the widest variance it can have. Levels after Karras et
al. (rho = 7), from the largest to the smallest level of the prior.

The guidance that is swept is w, or rho in the terms of the paper: 256 x 256 images in three
colours, 1000 steps. The published step has the length rho however many pixels share it, and the sum
of the steps counts, so that images of d numbers in N steps are given rho sqrt(d / 196608) 1000 / N
(column `scale`). Published for blur: rho = 0.3; `as printed` is that number, in 1000 steps, given
to the small images as it stands.

Problems: y = A x + noise of standard deviation 0.025 of [0, 1] (0.05 of [-1, 1], the paper's); A is
the identity (denoising) or a circular Gaussian blur of standard deviation 1 pixel (deblurring).
Everything is scored in [0, 1].

Mixture: 8 x 8 images in [-1, 1], four Gaussians of equal weight with means +-0.5 cos(pi (i + 1/2) /
8), i the row or the column, and one covariance: independent orthonormal cosine coefficients (u, v)
with variances proportional to 1 / (1 + u^2 + v^2), 0.25^2 on average. Six truths drawn from the
prior (seeds 0 to 5; two in a quick run), 99 samples of each in 1000 steps
(published; 100 in a quick run) or 100 (bounded), double precision, sigma from 24 to 0.0018. The
exact posterior is a mixture in closed form; scores are averaged over truths (errors and spreads as
root mean squares).

Photograph: a crop of 128 x 128 pixels of scikit-image's astronaut (the face), means over 4 x 4
pixels, so 32 x 32 in three colours; the photograph prior that ships with the package, sigma from 20
to 0.002; 9 samples in 60 steps (8 in a quick run), seed 0. Intervals are those between order
statistics that hold a draw of the same law with probability 80% (10th and 90th of 99, 1st and 9th
of 9). LPIPS is given where its weights are installed (columns `lpips_one` and `lpips_pairs`, empty
otherwise).
"""

STUDY = Study(
    name="guidance-strength",
    question="How strong should the guidance of DPS be, "
    "between an error that is too large and samples that are too much alike?",
    setting="\n\n".join(part.replace("\n", " ") for part in _SETTING.strip().split("\n\n")),
    columns=COLUMNS,
    plan=sweep_plan,
    measure=sweep_measure,
    draw=_draw,
    shows=("bed", "problem", "weighting", "guidance", "error", "spread", "coverage", "outcome"),
    caption=(
        "Upper four panels: error of the samples' mean against the spread of the samples, "
        "along each line from the weakest to the strongest guidance (numbers). "
        "A calibrated sampler lies on the grey line: "
        "right of it samples differ too much, left of it too little. Bottom: "
        "share of the true pixels inside the 80% intervals (coverage) against the guidance; "
        "horizontal the nominal share, dotted the published 0.3 and the derived 1. "
        "Guidances at which samples diverged or went astray (see outcome) are not drawn."
    ),
    findings=_findings,
    limits=(
        "One photograph of 32 x 32 pixels and 9 samples: "
        "its pixels are no independent trials, and the network is no exact prior of it, "
        "so that its coverage mixes the method's errors with the prior's.",
        "The photograph was restored in 60 steps, not in the published 1000: "
        "the conversion keeps the sum of the steps, not their course.",
        "The conversion to other image sizes follows from the length of the step; "
        "images of 256 x 256 pixels, for which 0.3 was chosen, were not run.",
        "Two linear problems at one noise level: "
        "other operators and levels move the guidance that is right.",
    ),
)
