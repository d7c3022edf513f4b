"""Error against cost: one panel for each cell, one line for each method from few to many steps."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from posteriori.experiments import Row
from posteriori.experiments.scoreboard import REFERENCES
from posteriori.storage import write_bytes

# One colour for each family, dark enough for lines on white and apart for the colour-blind
# (after Okabe and Ito).
FAMILY_COLOURS = {
    "smc": "#0072b2",
    "explicit": "#d55e00",
    "decoupled": "#009e73",
    "variational": "#a0569b",
}
VJP = 2.0


def cost(row: Row) -> float:
    """Calls per sample in units of one denoiser call; a vector-Jacobian product counts two."""
    return float(row["denoiser"] + VJP * row["vjp"])


def chosen(rows: list[Row], families: dict[str, str]) -> list[str]:
    """Every sequential Monte Carlo method, and of each other family the one with the lowest mean
    over the rows that were not lost."""
    totals: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] in families and row["value"] is not None:
            totals.setdefault(row["method"], []).append(row["value"] / max(row["floor"], 1e-12))
    out = [name for name in totals if families[name] == "smc"]
    for family in FAMILY_COLOURS:
        mine = {name: v for name, v in totals.items() if families[name] == family != "smc"}
        longest = max(map(len, mine.values()), default=0)
        means = {name: sum(v) / len(v) for name, v in mine.items() if len(v) == longest}
        out += [min(means, key=means.__getitem__)] if means else []
    return out


def cost_figure(rows: list[Row], families: dict[str, str], path: Path, schedule: str) -> Path:
    """Write a picture (the suffix of ``path`` says of which kind) of the gmm25 rows of one
    schedule; returns ``path``.

    families: the family of each method's name. x: calls per sample (a vector-Jacobian product
    counts two); y: mean sliced Wasserstein distance over seeds. Dashed: the floor, two exact sets.
    Raises ``ValueError`` when there is no such row.
    """
    from matplotlib.figure import Figure

    mine = [r for r in rows if r["bed"] == "gmm25" and r["schedule"] == schedule]
    cells, names = list(dict.fromkeys(r["cell"] for r in mine)), chosen(mine, families)
    if not cells or not names:
        raise ValueError(f"no rows of gmm25 with the {schedule} schedule to draw")
    columns = min(3, len(cells))
    lines = -(-len(cells) // columns)
    picture = Figure(figsize=(4.2 * columns, 3.3 * lines + 0.6), layout="constrained")
    axes = picture.subplots(lines, columns, squeeze=False, sharex=True)
    for place, cell in zip(axes.flat, cells, strict=False):
        part = [r for r in mine if r["cell"] == cell]
        for name in names:
            points = _points([r for r in part if r["method"] == name])
            if points:
                strong = families[name] == "smc"
                place.plot(
                    *zip(*points, strict=True),
                    "o-",
                    ms=4,
                    lw=2 if strong else 1.2,
                    color=FAMILY_COLOURS[families[name]],
                )
                place.annotate(
                    name,
                    points[-1],
                    xytext=(4, 0),
                    textcoords="offset points",
                    fontsize=7,
                    va="center",
                )
        floors = [r["floor"] for r in part]
        place.axhline(sum(floors) / len(floors), color="#555", ls="--", lw=1)
        place.set(xscale="log", yscale="log", title=f"d, d_y = {cell}")
        place.margins(x=0.25)
        place.spines[["top", "right"]].set_visible(False)
    for place in axes.flat[len(cells) :]:
        place.set_visible(False)
    picture.supxlabel("calls per sample (a vector-Jacobian product counts two)", fontsize=9)
    picture.supylabel("mean SW1", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    picture.savefig(content, format=path.suffix.removeprefix(".") or "png", dpi=130)
    write_bytes(path, content.getvalue())
    return path


def _points(rows: list[Row]) -> list[tuple[float, float]]:
    """(mean cost, mean value) for each number of steps, without the rows that name a reference or
    were lost."""
    out = []
    for steps in sorted({r["steps"] for r in rows}):
        kept = [
            r
            for r in rows
            if r["steps"] == steps and r["value"] is not None and r["method"] not in REFERENCES
        ]
        if kept:
            out.append(
                (sum(map(cost, kept)) / len(kept), sum(r["value"] for r in kept) / len(kept))
            )
    return out
