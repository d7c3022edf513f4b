"""``posteriori bench images``: every method on two photographs and four problems, as tables and a contact sheet."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from posteriori import methods, priors
from posteriori.cli.bench import SAVE_SECONDS
from posteriori.cli.machine import text as machine
from posteriori.cli.resuming import read_rows, resumable, rows_kept
from posteriori.evaluation import gallery
from posteriori.extras import require_extra
from posteriori.files import write_text
from posteriori.report.sheet import Entry, contact_sheet
from posteriori.run import read_arrays, write_arrays

Kept = dict[gallery.Cell, gallery.Row]


@dataclass(frozen=True)
class Selection:
    """What to measure; an empty tuple means all. limit: seconds for one row."""

    images: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    side: int = 128
    steps: int = 100
    limit: float | None = None

    def plan(self) -> list[gallery.Cell]:
        """Every row in order. Raises ``ValueError`` as ``gallery.plan`` does."""
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"the limit is a number of seconds > 0, got {self.limit}")
        images, problems = list(self.images or gallery.PHOTOGRAPHS), list(self.problems or gallery.PROBLEMS)
        return list(gallery.plan(images, problems, list(self.methods or methods.ALL), self.side, self.steps))


def run(selection: Selection, file: Path | None, out: Path, progress: bool) -> None:
    """Measure what ``file`` does not hold yet; print the tables; write the sheet ``out``, and with ``file`` the rows, the pictures beside
    them (.safetensors, 8 bits) and the tables (.md)."""
    plan, prior = selection.plan(), priors.photos()
    if out.suffix.lower() != ".png":
        raise ValueError(f"the contact sheet is a .png file, got {out}")
    require_extra("experiments", "bench images, whose photographs are those of scikit-image,", "skimage")
    have, pictures = _stored(file)
    if gallery.lpips_missing():
        print(gallery.lpips_missing(), file=sys.stderr)
    saved = time.monotonic()
    missing = [cell for cell in plan if cell not in have or not gallery.current(have[cell])]
    with resumable(lambda: rows_kept(len(have), file)), _written(file, have, pictures):
        for cell in tqdm(missing, disable=not progress, file=sys.stderr, desc="bench"):
            have[cell], picture = gallery.measure(cell, prior, selection.limit)
            pictures.pop(_key(cell), None)
            if picture is not None:
                pictures[_key(cell)] = picture.nan_to_num().clamp(0, 1).mul(255).round().to(torch.uint8)
            if file and time.monotonic() - saved > SAVE_SECONDS:
                _save(file, have, pictures)
                saved = time.monotonic()
    table = gallery.table([have[cell] for cell in plan])
    print(table, end="")
    width, height = contact_sheet(out, *_sheet(plan, have, pictures), plan[0].side)
    print(f"\nContact sheet: {out} ({width} x {height})")
    if file:
        head = f"`posteriori {shlex.join(sys.argv[1:])}`, {date.today().isoformat()}"
        write_text(file.with_suffix(".md"), f"# Methods on photographs\n\n{head}\n\n{table}\n```\n{machine()}\n```\n")


@contextmanager
def _written(file: Path | None, have: Kept, pictures: dict[str, Tensor]) -> Iterator[None]:
    """Keep rows and pictures also when measuring them ends before its time."""
    try:
        yield
    finally:
        if file:
            _save(file, have, pictures)


def _stored(file: Path | None) -> tuple[Kept, dict[str, Tensor]]:
    """The rows of a file, and the pictures beside it. Raises ``ValueError`` for a file of other rows."""
    if file is None or not file.exists():
        return {}, {}
    rows = read_rows(file)
    if any(not row.keys() >= {*gallery.Cell._fields, "outcome"} for row in rows):
        raise ValueError(f"{file} holds other rows than those of `bench images`; choose another file with --json")
    beside = file.with_suffix(".safetensors")
    pictures = read_arrays(beside)[0] if beside.exists() else {}
    return {gallery.Cell(**{name: row[name] for name in gallery.Cell._fields}): row for row in rows}, pictures


def _save(file: Path, have: Kept, pictures: dict[str, Tensor]) -> None:
    write_text(file, json.dumps(list(have.values()), indent=0))
    write_arrays(file.with_suffix(".safetensors"), pictures)


def _key(cell: gallery.Cell) -> str:
    return "/".join(map(str, cell))


def _sheet(plan: list[gallery.Cell], have: Kept, pictures: dict[str, Tensor]) -> tuple[list[str], list[tuple[str, list[Entry]]]]:
    """Heads and rows: a row per method; for each photograph the truth, then measurement and sample of each problem."""
    images, problems, names = (list(dict.fromkeys(part)) for part in zip(*(cell[:3] for cell in plan), strict=True))
    heads = [
        head for image in images for head in (f"truth\n{image}", *(f"{what}\n{p}" for p in problems for what in ("measured", "sample")))
    ]
    rows = []
    for name in names:
        entries: list[Entry] = []
        for image in images:
            scenes = [gallery.scene(image, problem, plan[0].side) for problem in problems]
            entries.append((scenes[0].truth, ""))
            for problem, about in zip(problems, scenes, strict=True):
                cell = gallery.Cell(image, problem, name, plan[0].side, plan[0].steps)
                entries += [(about.shown, ""), _entry(have[cell], pictures.get(_key(cell)))]
        rows.append((name, entries))
    return heads, rows


def _entry(row: gallery.Row, picture: Tensor | None) -> Entry:
    score = "" if row["psnr"] is None else f"{row['psnr']:.1f} dB"
    if row["outcome"] != "finished":
        score = f"{row['outcome']} {score}" if picture is not None else f"{row['outcome']}: {row['reason']}"
    return (None, score or "no picture kept") if picture is None else (picture.float() / 255, score)
