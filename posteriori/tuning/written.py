"""The chosen method as a new problem file, and the search as a table and a picture."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from posteriori.problem_file.file import load
from posteriori.storage import write_text
from posteriori.tuning.outcome import Tuning, tuning_table
from posteriori.tuning.scores import SCORE_NAMES

FIRST_LINE = "# The problem of {name}, its method chosen by `posteriori tune`."


def tuned_place(problem: Path) -> Path:
    """Beside the problem file, where the paths in it mean the same. Raises ``ValueError`` where
    another file is there."""
    place = problem.with_name(f"{problem.stem}.tuned.yaml")
    if place.exists() and not place.read_text().startswith(FIRST_LINE.format(name=problem.name)):
        raise ValueError(
            f"{place} is no file that `posteriori tune` wrote for {problem.name}; move it away"
        )
    return place


def write_tuned(problem: Path, found: Tuning) -> Path:
    """Write the problem with the chosen method, steps and grid; every other key is as it was. Where
    the choice comes from is in comments. Returns the place."""
    place, raw = tuned_place(problem), load(problem).raw
    assert found.choice is not None  # it is asked before
    entry = dict(found.choice.candidate.raw)
    steps, grid = entry.pop("steps", None), entry.pop("grid", None)
    changed = {
        key: value
        for key, value in raw.items()
        if key not in ("method", "methods", "steps", "grid")
    }
    changed["method"] = entry if len(entry) > 1 else entry["name"]
    if found.choice.candidate.method.group > 1:
        changed.pop("antithetic", None)  # which clouds of particles do not come in
    changed |= {} if steps is None else {"steps": steps}
    changed |= {} if grid is None else {"grid": grid}
    # In the order of the file; what it did not state comes last.
    ordered = {key: changed[key] for key in [*raw, *changed] if key in changed}
    lines = [FIRST_LINE.format(name=problem.name), *_provenance(found)]
    text = "\n".join(lines) + "\n" + yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)
    write_text(place, text)
    load(place)
    return place


def _provenance(found: Tuning) -> list[str]:
    said = f"by its {SCORE_NAMES[found.metric]} on truths drawn from the prior, seed {found.seed}"
    sentences = [f"{said}, {found.n} samples each", *found.sentences()]
    return [f"# {line[:300]}" for line in sentences]


def write_search(out: Path, found: Tuning) -> list[str]:
    """tuning.md, outcome.json and, with matplotlib, front.png in a folder; sentences about them."""
    table = tuning_table(found.scored, found.metric)
    write_text(out / "tuning.md", "\n".join([table, "", *found.sentences()]) + "\n")
    write_text(out / "outcome.json", json.dumps(found.record(), indent=1))
    if not found.scored:
        return [f"table: {out}/tuning.md"]
    if find_spec("matplotlib") is None:
        return [
            f"table: {out}/tuning.md; its picture needs matplotlib: "
            "pip install 'posteriori[experiments]'"
        ]
    draw_front(found).savefig(out / "front.png", dpi=150)
    return [f"table: {out}/tuning.md; picture: {out}/front.png"]


def draw_front(found: Tuning) -> Any:
    """Score against calls a sample: every candidate, those on the front named and joined."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    place = figure.subplots()
    rest = [one for one in found.scored if not one.front]
    front = sorted((one for one in found.scored if one.front), key=lambda one: one.calls)
    place.errorbar(
        [max(one.calls, 1) for one in rest],
        [one.score for one in rest],
        yerr=[one.error for one in rest],
        fmt="o",
        ms=4,
        color="#999999",
        lw=0.8,
    )
    place.errorbar(
        [max(one.calls, 1) for one in front],
        [one.score for one in front],
        yerr=[one.error for one in front],
        fmt="o-",
        ms=6,
        color="#1b5e8c",
        lw=1.4,
    )
    for one in front:
        place.annotate(
            one.label,
            (max(one.calls, 1), one.score),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    place.set_xscale("log")
    better = "more" if found.metric == "psnr" else "less"
    place.set_xlabel("passes through the network a sample")
    place.set_ylabel(f"{SCORE_NAMES[found.metric]} ({better} is better)")
    place.spines[["top", "right"]].set_visible(False)
    return figure
