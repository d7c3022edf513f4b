"""Figure and findings of the study ``multimodal``."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posteriori.experiments import Row
from posteriori.experiments.costs import FAMILY_COLOURS, cost

# From the start of a name to the family whose colour it has.
_FAMILIES = {
    "FPS": "smc",
    "TDS": "smc",
    "MomentSMC": "smc",
    "VI": "variational",
    "DPS": "explicit",
    "DAPS": "decoupled",
}
GREY, MARKERS = "#555555", ("o", "s", "^")


def colour(method: str) -> str:
    return next(
        (FAMILY_COLOURS[family] for start, family in _FAMILIES.items() if method.startswith(start)),
        GREY,
    )


def mean_column(
    rows: list[Row], method: str, column: str, separation: float | None = None
) -> float | None:
    """Mean over the finished rows of the mixture (a separation is given) or the digit; None without
    one, or where any was lost."""
    part = "digit" if separation is None else "mixture"
    mine = [
        r for r in rows if (r["part"], r["method"], r["separation"]) == (part, method, separation)
    ]
    if not mine or any(r["outcome"] != "finished" for r in mine):
        return None
    return math.fsum(r[column] for r in mine) / len(mine)


def draw_modes(rows: list[Row]) -> Figure:
    names = list(dict.fromkeys(r["method"] for r in rows))
    figure = Figure(figsize=(10, 0.36 * len(names) + 1.5), layout="constrained")
    axes = figure.subplots(1, 4, sharey=True, width_ratios=(1.35, 1.35, 0.9, 0.9))
    separations = sorted({r["separation"] for r in rows if r["part"] == "mixture"})
    for marker, d in zip(MARKERS, separations, strict=False):
        points = [
            (name, k, mean_column(rows, name, "weight_error", d)) for k, name in enumerate(names)
        ]
        for name, k, value in points:
            if value is not None:
                axes[0].plot(
                    max(value, 0.008),
                    k,
                    marker,
                    ms=6,
                    color=colour(name),
                    mfc="none" if marker == "o" else None,
                )
        axes[0].plot(
            [], [], marker, color=GREY, mfc="none" if marker == "o" else None, ls="", label=f"{d:g}"
        )
    floors = [
        v
        for d in separations
        if (v := mean_column(rows, "exact draws", "weight_error", d)) is not None
    ]
    axes[0].axvline(sum(floors) / len(floors), color=GREY, ls="--", lw=1)
    axes[0].legend(title="separation", fontsize=7, title_fontsize=7, loc="lower left", framealpha=1)
    axes[0].set(xscale="log", xlim=(0.008, 1), xlabel="error of the mode weights", title="mixture")
    axes[0].set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["0.01", "0.03", "0.1", "0.3", "1"])
    axes[0].tick_params(which="minor", bottom=False)
    _completions(axes[1], rows, names)
    for k, name in enumerate(names):
        value = mean_column(rows, name, "diversity")
        if value is not None:
            axes[2].barh(k, value, 0.6, color=colour(name))
        calls = [
            cost(r)
            for r in rows
            if r["method"] == name and r["part"] == "mixture" and r["denoiser"]
        ]
        if calls:
            axes[3].plot(sum(calls) / len(calls), k, "D", ms=5, color=colour(name))
    axes[2].set(xlabel="pair difference, of [0, 1]", title="digit: diversity")
    axes[3].set(xscale="log", xlabel="calls per sample", title="mixture: cost")
    axes[0].set_yticks(range(len(names)), names, fontsize=9)
    axes[0].invert_yaxis()
    for place in axes:
        place.title.set_fontsize(10)
        place.xaxis.label.set_fontsize(9)
        place.tick_params(axis="x", labelsize=8)
        place.grid(axis="y", color="#eeeeee", zorder=0)
        place.set_axisbelow(True)
        place.spines[["top", "right"]].set_visible(False)
    return figure


def _completions(place: Axes, rows: list[Row], names: list[str]) -> None:
    """Shares of completions as stacked bars, or why there are none."""
    for k, name in enumerate(names):
        open_, closed = (mean_column(rows, name, column) for column in ("open", "closed"))
        if open_ is not None and closed is not None:
            chi2 = mean_column(rows, name, "chi2")
            place.barh(k, open_, 0.6, color="#777777")
            place.barh(k, closed, 0.6, open_, color="#cfcfcf")
            place.text(1.03, k, f"{chi2:.2g}", fontsize=8, va="center")
        else:
            lost = [r["outcome"] for r in rows if r["part"] == "digit" and r["method"] == name]
            place.text(
                0.02,
                k,
                lost[0] if lost else "not known" if colour(name) == GREY else "not run",
                fontsize=8,
                va="center",
                color=GREY,
            )
    place.text(1.03, -0.45, "chi2", fontsize=8, va="center")
    place.set(
        xlim=(0, 1.22),
        xticks=(0, 0.5, 1),
        xlabel="share: open dark, closed light",
        title="digit: completions",
    )


def mode_findings(rows: list[Row]) -> tuple[str, str, str]:
    return weights(rows), variational(rows), completions(rows)


def weights(rows: list[Row]) -> str:
    """Who gets the weights right at the largest separation, and who does no better than the
    prior."""
    d = max(r["separation"] for r in rows if r["part"] == "mixture")
    tried = list(dict.fromkeys(r["method"] for r in rows if r["part"] == "mixture"))
    known = {
        name: v for name in tried if (v := mean_column(rows, name, "weight_error", d)) is not None
    }
    floor, prior = known.pop("exact draws"), known.pop("prior draws")
    good = [name for name, v in known.items() if v <= 2 * floor]
    poor = [name for name in ("DPS", "DAPS") if name in known]
    listed = "; ".join(f"{name} {known[name]:.3f}" for name in good) or "none"
    others = (
        " and ".join(f"{name} {known[name]:.2f}" for name in poor) or "no value for DPS and DAPS"
    )
    return (
        f"With modes {d:g} standard deviations apart, "
        f"these are within twice the error of mode weights of as many exact draws ({floor:.3f}): "
        f"{listed}. Draws that ignore the measurement have {prior:.2f}; {others}."
    )


def variational(rows: list[Row]) -> str:
    """How many modes each family finds at each separation."""
    separations = sorted({r["separation"] for r in rows if r["part"] == "mixture"})
    parts = []
    for name in dict.fromkeys(r["method"] for r in rows if r["method"].startswith("VI")):
        found = [
            (d, v) for d in separations if (v := mean_column(rows, name, "found", d)) is not None
        ]
        said = ", ".join(f"{v:.2g} at {d:g}" for d, v in found) or "no fit that finished"
        parts.append(f"{name.removeprefix('VI, ')}: {said}")
    return (
        "Modes found by variational inference, of 4, mean over seeds, "
        f"by separation in standard deviations. {'; '.join(parts)}."
    )


def completions(rows: list[Row]) -> str:
    """One cloud against independent ones, and the others, on the digit."""
    kept = [r for r in rows if r["part"] == "digit" and r["outcome"] == "finished"]
    if not kept:
        return "On the digit 0 methods finished."
    both = [r["method"] for r in kept if r["open"] > 0 and r["closed"] > 0]
    said = "; ".join(
        f"{r['method']} {r['diversity']:.3f} (chi-square {r['chi2']:.2f})"
        for r in sorted(kept, key=lambda r: -r["diversity"])
    )
    absent = sorted(
        {
            f"{r['method']} {r['outcome']}"
            for r in rows
            if r["part"] == "digit" and r["outcome"] != "finished"
        }
    )
    named = f" ({'; '.join(both)})" if both else ""
    lost = f" No samples: {'; '.join(absent)}." if absent else ""
    return (
        f"On the half-hidden digit {len(both)} "
        f"of {len(kept)} methods give both completions among {kept[0]['samples']} samples{named}. "
        f"Pairwise difference in the hidden rows: {said}.{lost}"
    )
