"""``posteriori bench images``: every method on two photographs and four problems, as tables and a
contact sheet."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

from posteriori import methods, priors
from posteriori.cli.bench import SAVE_SECONDS
from posteriori.cli.machine import machine_text as machine
from posteriori.cli.resuming import resumable, rows_kept, stored_rows
from posteriori.experiments import Experiment, Row, photographs, run_experiment
from posteriori.extras import require_extra
from posteriori.report.sheet import SheetEntry, contact_sheet
from posteriori.run import read_arrays, write_arrays
from posteriori.storage import write_text


@dataclass(frozen=True)
class PhotographSelection:
    """What to measure; an empty tuple means all. limit: seconds for one row."""

    images: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    side: int = 128
    steps: int = 100
    limit: float | None = None

    def plan(self) -> list[photographs.PhotographCell]:
        """Every row in order. Raises ``ValueError`` as ``photographs.plan_photographs`` does."""
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"the limit is a number of seconds > 0, got {self.limit}")
        images = list(self.images or photographs.PHOTOGRAPHS)
        problems = list(self.problems or photographs.PROBLEMS)
        return list(
            photographs.plan_photographs(
                images, problems, list(self.methods or methods.ALL), self.side, self.steps
            )
        )


class PhotographRows(Experiment[photographs.PhotographCell, Row]):
    """The rows of a selection in ``file``, beside those of other selections, and their pictures."""

    title, save_seconds = "bench", SAVE_SECONDS

    def __init__(self, selection: PhotographSelection, file: Path | None) -> None:
        self.selection, self.file, self.prior = selection, file, priors.photos()
        self.entries: dict[Hashable, Row] = {}
        self.pictures: dict[str, Tensor] = {}

    def plan(self) -> list[photographs.PhotographCell]:
        return self.selection.plan()

    def load(self, plan: list[photographs.PhotographCell]) -> None:
        rows = stored_rows(
            self.file, {*photographs.PhotographCell._fields, "outcome"}, "bench images"
        )
        self.entries |= {
            photographs.PhotographCell(
                **{name: row[name] for name in photographs.PhotographCell._fields}
            ): row
            for row in rows
        }
        if self.file and (beside := self.file.with_suffix(".safetensors")).exists():
            self.pictures = read_arrays(beside)[0]

    def key(self, cell: photographs.PhotographCell) -> Hashable:
        return cell

    def current(self, cell: photographs.PhotographCell) -> bool:
        return photographs.still_current(self.entries[cell])

    def measure(self, cell: photographs.PhotographCell) -> Row:
        row, picture = photographs.measure_photograph(cell, self.prior, self.selection.limit)
        self.pictures.pop(_key(cell), None)
        if picture is not None:
            self.pictures[_key(cell)] = (
                picture.nan_to_num().clamp(0, 1).mul(255).round().to(torch.uint8)
            )
        return row

    def save(self) -> None:
        if self.file:
            write_text(self.file, json.dumps(list(self.entries.values()), indent=0))
            write_arrays(self.file.with_suffix(".safetensors"), self.pictures)


def bench_photographs(
    selection: PhotographSelection, file: Path | None, out: Path, progress: bool
) -> None:
    """Measure what ``file`` does not hold yet; print the tables; write the sheet ``out``, and with
    ``file`` the rows, the pictures beside them (.safetensors, 8 bits) and the tables (.md)."""
    if out.suffix.lower() != ".png":
        raise ValueError(f"the contact sheet is a .png file, got {out}")
    require_extra(
        "experiments", "bench images, whose photographs are those of scikit-image,", "skimage"
    )
    about = PhotographRows(selection, file)
    if photographs.lpips_missing():
        print(photographs.lpips_missing(), file=sys.stderr)
    with resumable(lambda: rows_kept(len(about.entries), file)):
        plan = run_experiment(about, progress=progress)
    table = photographs.photograph_tables([about.entries[cell] for cell in plan])
    print(table, end="")
    width, height = contact_sheet(out, *_sheet(plan, about.entries, about.pictures), plan[0].side)
    print(f"\nContact sheet: {out} ({width} x {height})")
    if file:
        head = f"`posteriori {shlex.join(sys.argv[1:])}`, {date.today().isoformat()}"
        write_text(
            file.with_suffix(".md"),
            f"# Methods on photographs\n\n{head}\n\n{table}\n```\n{machine()}\n```\n",
        )


def _key(cell: photographs.PhotographCell) -> str:
    return "/".join(map(str, cell))


def _sheet(
    plan: list[photographs.PhotographCell],
    have: Mapping[Hashable, Row],
    pictures: dict[str, Tensor],
) -> tuple[list[str], list[tuple[str, list[SheetEntry]]]]:
    """Heads and rows: a row per method; for each photograph the truth, then measurement and sample
    of each problem."""
    images, problems, names = (
        list(dict.fromkeys(part)) for part in zip(*(cell[:3] for cell in plan), strict=True)
    )
    heads = [
        head
        for image in images
        for head in (
            f"truth\n{image}",
            *(f"{what}\n{p}" for p in problems for what in ("measured", "sample")),
        )
    ]
    rows = []
    for name in names:
        entries: list[SheetEntry] = []
        for image in images:
            scenes = [photographs.scene(image, problem, plan[0].side) for problem in problems]
            entries.append((scenes[0].truth, ""))
            for problem, about in zip(problems, scenes, strict=True):
                cell = photographs.PhotographCell(image, problem, name, plan[0].side, plan[0].steps)
                entries += [(about.shown, ""), _entry(have[cell], pictures.get(_key(cell)))]
        rows.append((name, entries))
    return heads, rows


def _entry(row: Row, picture: Tensor | None) -> SheetEntry:
    score = "" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
    if row["outcome"] != "finished":
        score = (
            f"{row['outcome']} {score}"
            if picture is not None
            else f"{row['outcome']}: {row['reason']}"
        )
    return (None, score or "no picture kept") if picture is None else (picture.float() / 255, score)
