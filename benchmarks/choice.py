"""Is the method that a problem gets, when its file names none, as good as the best single default?

    python benchmarks/choice.py [--cells CELLS.json] [--write docs/results/choice.md]

Nothing is sampled. Of photographs the CRPS is read from docs/results/twenty.md, with ``--cells``
from the cells of ``benchmarks/twenty.py``, which have standard errors too; on GMM-25, whose
posteriors are known, the sliced Wasserstein distance from docs/results/exact.json, at d = 8, on
the original levels, 20 steps. What is chosen is asked of ``posteriori.problem_file.advice.choose``
for the problems themselves, with ``photos`` and with ``photos(noise_maps=True)``.

The best single default is the method with the lowest mean over the problems of a bed. The page says
of each problem the chosen method's figure, the best single default's and every other, and whether
``advice.CRPS`` has the figures that the results have.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
from twenty import PROBLEMS, operator

import posteriori as po
from posteriori.problem_file import advice
from posteriori.tasks.beds import gmm25

RESULTS = Path(__file__).parents[1] / "docs" / "results"
# Rows of the results that are the defaults of their classes.
PHOTOGRAPHS = {
    "EPS 20": "EPS",
    "MMPS": "MMPS",
    "DAPS": "DAPS",
    "DiffPIR": "DiffPIR",
    "PnPDM": "PnPDM",
    "DDRM": "DDRM",
}
MIXTURES = {"EPS midpoint": "EPS"} | {
    name: name for name in ("MMPS", "DAPS", "DiffPIR", "PnPDM", "DDRM", "DPS", "PiGDM")
}
CELLS = ((8, 1), (8, 2), (8, 4))
# The problems of benchmarks/twenty.py that ``advice.CRPS`` has.
OF_KIND = {
    "a blur": "blur",
    "block means": "means",
    "a mask of single pixels": "random",
    advice.HOLE: "box",
}


class Figure(NamedTuple):
    """A mean and its standard error; NaN where it is not known."""

    mean: float
    error: float = float("nan")

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + (f" +- {self.error:.4f}" if self.error == self.error else "")


Bed = dict[str, dict[str, Figure]]


def pooled(values: list[float]) -> Figure:
    x = torch.tensor(values, dtype=torch.float64)
    return Figure(float(x.mean()), float(x.std() / len(x) ** 0.5))


def of_page(text: str) -> Bed:
    """CRPS by problem and method from the tables of twenty.md."""
    found: Bed = {}
    for problem, body in re.findall(r"(?ms)^\*\*(\w+)\*\*, noise.*?$(.*?)(?=^\*\*|\Z)", text):
        rows = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in body.splitlines()
            if line.startswith("|") and not line.startswith("|---")
        ]
        place = rows[0].index("CRPS")
        found[problem] = {
            PHOTOGRAPHS[row[0]]: Figure(float(row[place]))
            for row in rows[1:]
            if row[0] in PHOTOGRAPHS
        }
    return found


def of_cells(cells: dict[str, dict[str, float]]) -> Bed:
    """The same from cells, on the photographs that every method of a problem has."""
    found: Bed = {}
    for problem in PROBLEMS:
        rows: dict[str, dict[str, float]] = {}
        for key, scores in cells.items():
            file, of, name = key.split("/")
            if of == problem and name in PHOTOGRAPHS:
                rows.setdefault(PHOTOGRAPHS[name], {})[file] = scores["crps"]
        if rows:
            files = sorted(set.intersection(*(set(row) for row in rows.values())))
            found[problem] = {
                name: pooled([row[file] for file in files]) for name, row in rows.items()
            }
    return found


def of_mixtures() -> Bed:
    rows = json.loads((RESULTS / "exact.json").read_text())
    found: Bed = {}
    for d, m in CELLS:
        here = [
            r
            for r in rows
            if (r["bed"], r["cell"], r["schedule"], r["steps"])
            == ("gmm25", f"{d},{m}", "original", 20)
        ]
        found[f"GMM-25, {m} of {d}"] = {
            name: pooled(mine)
            for row, name in MIXTURES.items()
            if (mine := [r["value"] for r in here if r["method"] == row])
        }
    return found


def chosen_on_photographs(prior: po.Prior) -> dict[str, str]:
    names = {}
    for problem, level in PROBLEMS.items():
        A = operator(problem, 64)
        given = po.Likelihood(torch.zeros(A.out_shape), A, po.noise.Gaussian(level), range=(0, 1))
        names[problem] = type(advice.choose(po.Posterior(prior, given)).method).__name__
    return names


def chosen_on_mixtures() -> dict[str, str]:
    return {
        f"GMM-25, {m} of {d}": type(advice.choose(gmm25(d, m, 0).posterior).method).__name__
        for d, m in CELLS
    }


def table(bed: Bed, chosen: dict[str, str], without: tuple[str, ...] = ()) -> list[str]:
    """One line a problem; ``without``: methods that this prior cannot serve."""
    whole = [
        name
        for name in next(iter(bed.values()))
        if name not in without and all(name in row for row in bed.values())
    ]
    single = min(whole, key=lambda name: sum(row[name].mean for row in bed.values()))
    others = [name for name in whole if name != single]
    lines = [
        f"| problem | chosen | its figure | {single}, the best single default "
        f"| {' | '.join(others)} | chosen is |",
        f"|---|---|---:|---:|{'---:|' * len(others)}---|",
    ]
    for problem, row in bed.items():
        mine, best = row[chosen[problem]], row[single]
        gap = mine.mean - best.mean
        said = "the same" if gap == 0 else f"{abs(gap):.4f} {'lower' if gap < 0 else 'HIGHER'}"
        lines.append(
            f"| {problem} | {chosen[problem]} | {mine} | {best} "
            f"| {' | '.join(str(row[name]) for name in others)} | {said} |"
        )
    return [*lines, ""]


def differences(bed: Bed) -> list[str]:
    """Where ``advice.CRPS`` has other figures than the results."""
    lines = []
    for kind, problem in OF_KIND.items():
        for name, stated in advice.CRPS[kind].items():
            found = bed[problem][name].mean
            if abs(found - stated) > 1e-4:
                lines.append(f"advice.CRPS: {kind}, {name}: {stated:.4f}, measured {found:.4f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    photographs = (
        of_cells(json.loads(asked.cells.read_text()))
        if asked.cells
        else of_page((RESULTS / "twenty.md").read_text())
    )
    mixtures = of_mixtures()
    with_maps, without = (
        chosen_on_photographs(prior)
        for prior in (po.priors.photos(noise_maps=True), po.priors.photos())
    )
    lines = [
        "**Photographs, prior `photos(noise_maps=True)`**, CRPS of images in [0, 1]",
        "",
        *table(photographs, with_maps),
        "**Photographs, prior `photos`**, CRPS",
        "",
        *table(photographs, without, ("EPS",)),
        "**GMM-25**, sliced Wasserstein distance from the posterior, 20 seeds",
        "",
        *table(mixtures, chosen_on_mixtures()),
    ]
    text = "\n".join(lines)
    print(text)
    print("\n".join(differences(photographs)) or "advice.CRPS has the figures of the results")
    if asked.write:
        page = asked.write.read_text()
        head = page[: page.index("**Photographs, prior")]
        asked.write.write_text(head + text.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
