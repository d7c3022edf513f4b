"""200 small problems on workers, one of them killed: the bits of one process, and the speed-up.

    OMP_NUM_THREADS=1 python benchmarks/study.py OUT         all three, to OUT/results.json
    python benchmarks/study.py OUT --only write              the study file and its images alone
    python benchmarks/study.py OUT --against FOLDER          compare a folder with OUT/serial

Pictures of strokes under a mask, 100 measurements x 2 methods, by the prior of digits. One process
draws them; then two workers, each on one thread; then four, one of which is killed by SIGKILL in
the middle of a cell. The clock of the first two runs from the first cell to the last: what it takes
to start a worker, a few seconds once a study, is left out, and each has drawn a cell before.

speed-up: seconds of one process over those of two workers. On processors that other work takes,
wall time says little. So beside it stands the ratio of processor seconds: of one process, over
those of both workers and of the scheduler together. Two workers on two processors that are theirs
have a speed-up of twice that ratio, as far as neither waits: ``waiting`` is the time that a worker
spends between two cells, as its share, which wall time shows even there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from posteriori.cells import Cell, cells_of, draw_cell
from posteriori.cli.engines import cell_elsewhere, spread_cells
from posteriori.cli.workers import client_of
from posteriori.problem_file.study import load_study
from posteriori.run import write_json

SIDE, MEASUREMENTS, STEPS = 32, 100, 4
STUDY = f"""prior: digits
operator: {{name: mask, keep: 0.5, seed: 0}}
noise: {{law: gaussian, sigma: 0.1, range: [0, 1]}}
measurements: {{images: clean/*.npy, seed: 0}}
methods: [DPS, DiffPIR]
n: 2
steps: {STEPS}
slurm: {{cores: 2, memory: 2GB, walltime: "00:30:00", jobs: 1}}
"""
COMMAND = [sys.executable, "-c", "from posteriori.cli import main; main()", "run"]


def write_study(folder: Path, measurements: int) -> Path:
    """The study file, and clean pictures of two strokes each."""
    (folder / "clean").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for k in range(measurements):
        picture = Image.new("L", (SIDE, SIDE))
        for _ in range(2):
            ends = [tuple(map(int, random.integers(6, SIDE - 6, 2))) for _ in range(2)]
            ImageDraw.Draw(picture).line(ends, fill=255, width=3)
        image = np.asarray(picture, dtype=np.float32)[None] / 255
        np.save(folder / "clean" / f"strokes{k:03d}.npy", image)
    path = folder / "study.yaml"
    path.write_text(STUDY)
    return path


def timed(draw: Callable[[], Any], clocks: Callable[[], float]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, processor = time.perf_counter(), clocks()
    draw()
    return time.perf_counter() - wall, clocks() - processor


def serial(cells: list[Cell]) -> dict[str, float]:
    def draw() -> None:
        for cell in cells:
            assert "reason" not in draw_cell(cell)

    draw_cell(warm(cells[0], "serial"))
    wall, processor = timed(draw, time.process_time)
    return {"wall": wall, "processor": processor}


def two_workers(cells: list[Cell]) -> dict[str, float]:
    ended: list[dict[str, Any]] = []
    with client_of(2, None, threads=1) as client:
        for k, address in enumerate(client.scheduler_info()["workers"]):
            client.run(cell_elsewhere, asdict(warm(cells[0], f"two{k}")), "", workers=[address])

        def clocks() -> float:
            return sum(client.run(time.process_time).values()) + time.process_time()

        own = time.process_time()
        wall, processor = timed(
            lambda: spread_cells(client, cells, lambda _, record: ended.append(record)), clocks
        )
        own = time.process_time() - own
    assert not any("reason" in record for record in ended)
    inside = sum(record["elapsed"] for record in ended)
    shares = {"scheduler's part": own / processor, "waiting": 1 - inside / (2 * wall)}
    return {"wall": wall, "processor": processor} | shares


def four_workers_one_killed(path: Path, out: Path) -> dict[str, Any]:
    words = [*COMMAND, str(path), "--out", str(out), "--workers", "4", "--quiet"]
    began = time.perf_counter()
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    killed = None
    while killed is None and run.poll() is None:
        done = len(list(out.glob("cells/*/*/summary.json")))
        for lock in out.glob("cells/*/*/.cell.lock") if done > MEASUREMENTS else ():
            pid = lock.read_text().removeprefix("pid ")
            if pid and (lock.parent / "run.json").exists():
                os.kill(int(pid), signal.SIGKILL)
                killed = {"cell": "/".join(lock.parts[-3:-1]), "complete by then": done}
                break
        time.sleep(0.02)
    code = run.wait()
    return {"killed": killed, "exit code": code, "wall": time.perf_counter() - began}


def warm(cell: Cell, name: str) -> Cell:
    return replace(cell, place=str(Path(cell.place).parents[3] / "warm" / name))


def same_bits(a: Path, b: Path) -> str:
    places = sorted(p.relative_to(a) for p in a.glob("cells/*/*/samples.safetensors"))
    equal = 0
    for place in places:
        if (b / place).exists():
            one, other = load_file(a / place), load_file(b / place)
            equal += all(torch.equal(one[name], other[name]) for name in ("samples", "log_w"))
    return f"{equal} of {len(places)} cells have the same bits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=("write", "serial", "two", "four"))
    parser.add_argument("--against", type=Path)
    parser.add_argument("--measurements", type=int, default=MEASUREMENTS)
    asked = parser.parse_args()
    out = asked.out.resolve()
    if asked.against:
        print(said := same_bits(out / "serial", asked.against))
        raise SystemExit(not said.startswith(f"{2 * asked.measurements} of"))
    warnings.simplefilter("ignore")
    path = write_study(out, asked.measurements)
    study = load_study(path)
    record = json.loads(kept.read_text()) if (kept := out / "results.json").exists() else {}

    def cells(name: str) -> list[Cell]:
        return cells_of(study, [STEPS] * 2, out / name)

    if asked.only in (None, "serial"):
        record["serial"] = serial(cells("serial"))
    if asked.only in (None, "two"):
        record["two workers"] = two_workers(cells("two"))
        record["two workers"]["bits"] = same_bits(out / "serial", out / "two")
    if asked.only in (None, "four"):
        record["four workers, one killed"] = four_workers_one_killed(path, out / "four")
        record["four workers, one killed"]["bits"] = same_bits(out / "serial", out / "four")
    if {"serial", "two workers"} <= record.keys():
        one, two = record["serial"], record["two workers"]
        record["speed-up by wall time"] = one["wall"] / two["wall"]
        record["processor seconds, one process over two workers"] = (
            one["processor"] / two["processor"]
        )
    if asked.only != "write":
        write_json(kept, record)
        print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
