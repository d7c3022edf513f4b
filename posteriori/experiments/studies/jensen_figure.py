"""Figure and findings of the study ``jensen-limits``."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from posteriori.experiments import Row
from posteriori.experiments.costs import FAMILY_COLOURS

# A method breaks where its distance to the posterior is more than this many times that of exact
# draws.
BROKEN = 3.0
_FAMILIES = {
    "DPS plain": "explicit",
    "DPS": "explicit",
    "PiGDM": "explicit",
    "PiGDM c=1": "explicit",
    "MMPS": "explicit",
    "DAPS": "decoupled",
    "PnPDM": "decoupled",
    "TDS": "smc",
    "MomentSMC": "smc",
    "Bootstrap": "smc",
}
STYLES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v")


def mean_ratio(
    rows: list[Row], method: str, condition: float | None, column: str = "ratio"
) -> float | None:
    """Geometric mean over seeds (condition None: of the phases); None without a row, or where a
    method lost samples or refused."""
    mine = [r for r in rows if (r["method"], r["condition"]) == (method, condition)]
    if not mine or any(r["outcome"] != "finished" for r in mine):
        return None
    return math.exp(math.fsum(math.log(r[column]) for r in mine) / len(mine))


def names(rows: list[Row], problem: str) -> list[str]:
    return list(dict.fromkeys(r["method"] for r in rows if r["problem"] == problem))


def conditions(rows: list[Row]) -> list[float]:
    return sorted({r["condition"] for r in rows if r["problem"] == "linear"})


def breaks(rows: list[Row], method: str) -> float | None:
    """The first condition number at which a method counts as broken; None when it never does."""
    return next(
        (k for k in conditions(rows) if (v := mean_ratio(rows, method, k)) is None or v > BROKEN),
        None,
    )


def _look(method: str) -> dict[str, object]:
    """Colour of the family; line and marker tell its members apart."""
    rank = [m for m in _FAMILIES if _FAMILIES[m] == _FAMILIES[method]].index(method)
    return {"color": FAMILY_COLOURS[_FAMILIES[method]], "ls": STYLES[rank], "marker": MARKERS[rank]}


def draw_ratios(rows: list[Row]) -> Figure:
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 0.85))
    for place, column in zip(axes[:2], ("ratio", "ksd_ratio"), strict=True):
        for method in names(rows, "linear"):
            points = [
                (k, v)
                for k in conditions(rows)
                if (v := mean_ratio(rows, method, k, column)) is not None
            ]
            if points:
                place.plot(
                    *zip(*points, strict=True),
                    lw=1.5,
                    ms=5,
                    mfc="white",
                    label=method,
                    **_look(method),
                )
        place.set(xscale="log", yscale="log", xlabel="condition number of the operator")
    axes[0].set(
        ylabel="distance to the posterior / that of exact draws", title="sliced Wasserstein"
    )
    axes[1].set(ylabel="discrepancy / that of exact draws", title="kernel Stein")
    axes[0].axhline(BROKEN, color="#555555", ls=":", lw=1)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=5,
        fontsize=8,
        frameon=False,
        handlelength=3.5,
    )
    _phases(axes[2], rows)
    for place in axes:
        place.title.set_fontsize(10)
        place.spines[["top", "right"]].set_visible(False)
    for place in axes[:2]:
        place.axhline(1.0, color="#555555", ls="--", lw=1)
        _plain_ticks(place.yaxis)
    _plain_ticks(axes[2].xaxis)
    return figure


def _plain_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 and so on in place of powers of ten, as far as the data go."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(NullLocator())


def _phases(place: Axes, rows: list[Row]) -> None:
    """Both ratios of each method, or why there are none."""
    known = names(rows, "phase")
    for k, method in enumerate(known):
        colour = FAMILY_COLOURS[_FAMILIES[method]]
        distance, stein = (
            mean_ratio(rows, method, None, column) for column in ("ratio", "ksd_ratio")
        )
        if distance is None or stein is None:
            outcome = next(
                r["outcome"]
                for r in rows
                if r["problem"] == "phase" and r["method"] == method and r["outcome"] != "finished"
            )
            place.text(1.15, k, outcome, fontsize=8, va="center", color="#555555")
        else:
            place.plot(distance, k, "o", color=colour, ms=7)
            place.plot(stein, k, "o", color=colour, mfc="white", ms=7)
    place.axvline(1.0, color="#555555", ls="--", lw=1)
    place.axvline(BROKEN, color="#555555", ls=":", lw=1)
    place.set_yticks(range(len(known)), known, fontsize=9)
    place.invert_yaxis()
    place.set(xscale="log", xlabel="value / that of exact draws", title="Fourier phase retrieval")


def ratio_findings(rows: list[Row]) -> tuple[str, str, str]:
    return where_methods_break(rows), worst(rows), phases(rows)


def where_methods_break(rows: list[Row]) -> str:
    """At which condition number each method breaks."""
    at: dict[float, list[str]] = {}
    for method in names(rows, "linear"):
        at.setdefault(breaks(rows, method) or math.inf, []).append(method)
    parts = [
        (
            f"{f'at {k:g}' if k < math.inf else f'not up to {conditions(rows)[-1]:g}'}: "
            f"{', '.join(who)}"
        )
        for k, who in sorted(at.items())
    ]
    said = "; ".join(parts)
    return (
        f"First condition number at which the distance exceeds {BROKEN:g} times "
        f"that of exact draws, or samples are lost: {said}."
    )


def worst(rows: list[Row]) -> str:
    """The families side by side at the worst condition number."""
    k = conditions(rows)[-1]
    parts = []
    for family, title in (
        ("explicit", "likelihood approximations"),
        ("decoupled", "decoupled"),
        ("smc", "sequential Monte Carlo"),
    ):
        values = {
            m: v
            for m in names(rows, "linear")
            if _FAMILIES[m] == family and (v := mean_ratio(rows, m, k)) is not None
        }
        steins = [v for m in values if (v := mean_ratio(rows, m, k, "ksd_ratio")) is not None]
        if values:
            listed = ", ".join(f"{m} {v:.1f}" for m, v in values.items())
            parts.append(
                f"{title}: "
                f"{listed} (kernel Stein discrepancy {min(steins):.1f} to {max(steins):.1f})"
            )
    return f"At condition number {k:g}, in multiples of exact draws: {'; '.join(parts)}."


def phases(rows: list[Row]) -> str:
    values = {m: v for m in names(rows, "phase") if (v := mean_ratio(rows, m, None)) is not None}
    if not values:
        return "On Fourier phase retrieval 0 methods finished."
    others = [
        r
        for r in rows
        if r["problem"] == "phase" and r["method"] not in values and r["outcome"] != "finished"
    ]
    absent = [f"{r['method']} {r['outcome']}" for r in others]
    listed = ", ".join(f"{m} {v:.1f}" for m, v in sorted(values.items(), key=lambda item: item[1]))
    whole = [m for m, v in values.items() if v <= BROKEN]
    return (
        f"On Fourier phase retrieval the distance in multiples of exact draws is {listed}; "
        f"at most {BROKEN:g}: {', '.join(whole) or 'no method'}. "
        f"Not treated or lost: {', '.join(dict.fromkeys(absent)) or 'none'}."
    )
