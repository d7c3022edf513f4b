"""Methods over many measurements: means with intervals, and differences to the first method; as
Markdown, CSV and LaTeX.

The interval of a mean over m measurements is Student's, mean +- t_{0.975, m - 1} s / sqrt(m): for
numbers that are Gaussian over measurements it holds their true mean in 95 % of studies. All methods
see the same measurements. So a difference is that of pairs, over the measurements for which both
methods have the number: what makes a measurement hard for both cancels.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class _Score(NamedTuple):
    """A number of a cell: its key, heading, unit and decimals."""

    key: str
    heading: str
    decimals: int


SCORES = (
    _Score("psnr_mean", "PSNR mean, dB", 2),
    _Score("psnr_sample", "PSNR one, dB", 2),
    _Score("ssim_mean", "SSIM mean", 3),
    _Score("ssim_sample", "SSIM one", 3),
    _Score("lpips", "LPIPS one", 3),
    _Score("crps", "CRPS", 4),
    _Score("inside_50", "In 50 %", 3),
    _Score("inside_80", "In 80 %", 3),
    _Score("inside_95", "In 95 %", 3),
    _Score("chi2_samples", "chi2", 3),
    _Score("network", "Calls", 1),
    _Score("seconds", "Seconds", 2),
)
ABOUT = (
    "Means over measurements +- the half width of their 95 % interval by Student's t. "
    "Differences are those of pairs, over the measurements that both methods have. "
    "PSNR mean and SSIM mean are those of the mean of the samples, one of a single sample; "
    "in 50 % is the share of the reference within the 50 % intervals of the samples; "
    "calls are passes through the network a sample, denoiser calls and vector-Jacobian products; "
    "planned calls, where their number is limited, those counted for the first measurement; "
    "seconds are those of all samples of a measurement, on one thread."
)


@dataclass(frozen=True)
class MeanInterval:
    """A mean of ``count`` numbers; half is infinite where one number tells no interval."""

    mean: float
    half: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanInterval | None:
        """Of numbers; None without any."""
        from scipy.special import stdtrit

        m = len(values)
        if m == 0:
            return None
        mean = math.fsum(values) / m
        if m == 1:
            return cls(mean, math.inf, 1)
        variance = math.fsum((v - mean) ** 2 for v in values) / (m - 1)
        return cls(mean, float(stdtrit(m - 1, 0.975)) * math.sqrt(variance / m), m)

    def text(self, decimals: int, sign: str = "") -> str:
        """ "24.31 +- 0.52"."""
        shown = f"{self.mean:{sign}.{decimals}f}"
        return shown if math.isinf(self.half) else f"{shown} +- {self.half:.{decimals}f}"


@dataclass(frozen=True)
class MethodCells:
    """One method: for each measurement its numbers, or ``reason``. planned: the passes that
    were foreseen."""

    label: str
    steps: int
    planned: float | None
    cells: Mapping[str, Mapping[str, Any]]

    def values(self, key: str) -> dict[str, float]:
        """A number of every measurement that has it."""
        found = {name: cell.get(key) for name, cell in self.cells.items()}
        return {name: float(v) for name, v in found.items() if v is not None}

    def mean(self, key: str) -> MeanInterval | None:
        return MeanInterval.of(list(self.values(key).values()))

    def difference(self, other: MethodCells, key: str) -> MeanInterval | None:
        """The mean of this method's number minus the other's, measurement by measurement."""
        mine, theirs = self.values(key), other.values(key)
        return MeanInterval.of([mine[name] - theirs[name] for name in mine if name in theirs])

    @property
    def failed(self) -> dict[str, str]:
        """Why a measurement has no numbers."""
        return {name: cell["reason"] for name, cell in self.cells.items() if "reason" in cell}


def _shown(methods: Sequence[MethodCells]) -> list[_Score]:
    return [score for score in SCORES if any(m.values(score.key) for m in methods)]


def _tables(methods: Sequence[MethodCells]) -> list[list[list[str]]]:
    """The rows of both tables; the second where there is something to subtract."""
    shown = _shown(methods)
    foreseen = any(m.planned is not None for m in methods)
    head = ["Method", "Cells", "Steps", *(["Planned calls"] if foreseen else [])]
    head += [score.heading for score in shown]
    means = [head]
    for m in methods:
        done = f"{len(m.cells) - len(m.failed)} of {len(m.cells)}"
        numbers = [(m.mean(score.key), score.decimals) for score in shown]
        means.append(
            [
                m.label,
                done,
                str(m.steps),
                *(["-" if m.planned is None else f"{m.planned:g}"] if foreseen else []),
                *("-" if v is None else v.text(d) for v, d in numbers),
            ]
        )
    if len(methods) < 2 or not shown:
        return [means]
    apart = [[f"Minus {methods[0].label}", "Pairs", *(score.heading for score in shown)]]
    for m in methods[1:]:
        pairs = [m.difference(methods[0], score.key) for score in shown]
        count = max((v.count for v in pairs if v is not None), default=0)
        numbers = [(v, score.decimals) for v, score in zip(pairs, shown, strict=True)]
        apart.append(
            [m.label, str(count), *("-" if v is None else v.text(d, "+") for v, d in numbers)]
        )
    return [means, apart]


def means_markdown(methods: Sequence[MethodCells]) -> str:
    """Both tables, padded so that they read as plain text; below them why cells failed."""
    parts = ["\n".join(_padded(rows)) for rows in _tables(methods)]
    reasons = [
        f"- {m.label}, {name}: {' '.join(why.split())}"
        for m in methods
        for name, why in m.failed.items()
    ]
    return "\n\n".join([*parts, ABOUT, *(["\n".join(reasons)] if reasons else [])])


def _padded(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        (name, *numbers), (first, *others) = row, widths
        right = [cell.rjust(w) for cell, w in zip(numbers, others, strict=True)]
        lines.append(f"| {' | '.join([name.ljust(first), *right])} |")
    marks = [f"{'-' * (w + 1)}{':' if k else '-'}" for k, w in enumerate(widths)]
    return [lines[0], f"|{'|'.join(marks)}|", *lines[1:]]


def means_csv(methods: Sequence[MethodCells]) -> str:
    """One row for each method and number, in full precision; empty fields where there is none."""
    head = ["method", "number", "mean", "low", "high", "measurements"]
    head += ["difference", "difference_low", "difference_high", "pairs"]
    rows: list[list[Any]] = [head]
    for m in methods:
        for score in _shown(methods):
            pair = None if m is methods[0] else m.difference(methods[0], score.key)
            rows.append([m.label, score.key, *_ends(m.mean(score.key)), *_ends(pair)])
    return _csv(rows)


def cells_csv(methods: Sequence[MethodCells]) -> str:
    """One row for each cell."""
    keys = [score.key for score in SCORES]
    rows: list[list[Any]] = [["measurement", "method", "steps", *keys, "reason"]]
    for name in methods[0].cells:
        for m in methods:
            cell = m.cells[name]
            numbers = ["" if cell.get(key) is None else cell[key] for key in keys]
            reason = " ".join(cell.get("reason", "").split())
            rows.append([name, m.label, m.steps, *numbers, reason])
    return _csv(rows)


def means_latex(methods: Sequence[MethodCells]) -> str:
    """Both tables as plain ``tabular``, which needs no package: a column a method, as all numbers
    side by side are wider than a page. No label begins a row, whose end would take a bracket or a
    star as its argument. pdflatex prints Latin letters alone; labels with others need lualatex or
    xelatex."""
    parts = []
    for table in _tables(methods):
        rows = list(zip(*table, strict=True))
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
        parts.append(
            "\n".join(
                [
                    rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
                    r"\hline",
                    lines[0],
                    r"\hline",
                    *lines[1:],
                    r"\hline",
                    r"\end{tabular}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


_TEX = {sign: "\\" + sign for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


def _tex(text: str) -> str:
    mean, apart, half = text.partition(" +- ")
    if apart:
        return rf"${mean} \pm {half}$"
    number = text.removeprefix("+").removeprefix("-").replace(".", "", 1).isdigit()
    return f"${text}$" if number else "".join(_TEX.get(sign, sign) for sign in text)


def _ends(found: MeanInterval | None) -> list[Any]:
    if found is None:
        return ["", "", "", 0]
    if math.isinf(found.half):
        return [found.mean, "", "", found.count]
    return [found.mean, found.mean - found.half, found.mean + found.half, found.count]


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
