"""200 small problems on workers, one of them killed: the bits of one process, and the speed-up.

    OMP_NUM_THREADS=1 python benchmarks/study.py OUT         all of it, to OUT/results.json
    python benchmarks/study.py OUT --only rounds             the speed-up alone
    python benchmarks/study.py OUT --only write              the study file and its images alone
    python benchmarks/study.py OUT --against FOLDER          compare a folder with OUT/serial

Pictures of strokes under a mask, 100 measurements x 2 methods, by the prior of digits. A round is
one process that draws them; two processes that know nothing of each other and draw half of them
each; and two workers, each on one thread. Rounds are repeated, and of their ratios the medians
told. In the end there are four workers, one of which is killed by SIGKILL in the middle of a cell.
The clocks run from the first cell to the last: what it takes to start a process, a few seconds once
a study, is left out, and each has drawn cells before.

speed-up: seconds of one process over those of two. That of two plain processes is what the machine
gives; two processors of one memory, of which other machines may have a part, need not give 2. The
share of this ceiling that workers reach is what dask leaves. ``others`` is how many processors were
taken by work that is not ours: with more than a few hundredths, ratios say little. Processor
seconds are those of one process over those of both workers, their nannies and the scheduler
together; ``waiting`` is the time that a worker spends between two cells, as its share, files and
their locks included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from posteriori.cells import Cell, cells_of, draw_cell
from posteriori.cli.engines import Engine, cell_elsewhere, spread_cells
from posteriori.problem_file.study import load_study
from posteriori.run import write_json

SIDE, MEASUREMENTS, STEPS = 32, 100, 4  # the steps of a cell, unless --steps says otherwise
STUDY = """prior: digits
operator: {name: mask, keep: 0.5, seed: 0}
noise: {law: gaussian, sigma: 0.1, range: [0, 1]}
measurements: {images: clean/*.npy, seed: 0}
methods: [DPS, DiffPIR]
n: 2
steps: %d
slurm: {cores: 2, memory: 3GB, walltime: "00:30:00", jobs: 1}
"""
COMMAND = [sys.executable, "-c", "from posteriori.cli import main; main()", "run"]


def write_study(folder: Path, measurements: int, steps: int) -> Path:
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
    path.write_text(STUDY % steps)
    return path


def timed(draw: Callable[[], Any], clocks: Callable[[], float]) -> dict[str, float]:
    """Wall and processor seconds, and the processors that other work took meanwhile."""
    wall, processor, all_work = time.perf_counter(), clocks(), busy()
    draw()
    wall, all_work = time.perf_counter() - wall, busy() - all_work
    processor = clocks() - processor
    return {"wall": wall, "processor": processor, "others": (all_work - processor) / wall}


def busy() -> float:
    """Seconds for which a processor of this machine was at work, of all of them together."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def one_process(
    cells: list[Cell], told_to_begin: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    def draw() -> None:
        for cell in cells:
            assert "reason" not in draw_cell(cell)

    for k, cell in enumerate(cells[:2]):
        draw_cell(warm(cell, f"{os.getpid()}-{k}"))
    told_to_begin()
    return timed(draw, time.process_time)


def half(out: Path, measurements: int, steps: int, k: int) -> None:
    """What one of two processes does that know nothing of each other: the cells of every other
    measurement, both methods, once it is told to begin."""
    study = load_study(write_study(out, measurements, steps))
    cells = cells_of(study, [steps] * 2, out / "halves")
    cells = [cell for place, cell in enumerate(cells) if place // 2 % 2 == k]

    def told_to_begin() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    print(json.dumps(one_process(cells, told_to_begin)), flush=True)


def two_processes(out: Path, measurements: int, steps: int) -> dict[str, float]:
    """Each draws half of the cells: what the machine gives, nothing being spent on sharing out."""
    words = [sys.executable, __file__, str(out), "--measurements", str(measurements)]
    words += ["--steps", str(steps), "--half"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pair = [subprocess.Popen([*words, str(k)], **pipes) for k in range(2)]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    began = busy()
    for process in pair:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [json.loads(process.stdout.readline()) for process in pair]
    wall, processor = max(t["wall"] for t in told), sum(t["processor"] for t in told)
    others = (busy() - began - processor) / wall
    for process in pair:
        process.communicate()
    return {"wall": wall, "processor": processor, "others": others}


def two_workers(cells: list[Cell], engine: Engine, logs: Path) -> dict[str, float]:
    ended: list[dict[str, Any]] = []
    with engine.client(logs) as client:
        client.wait_for_workers(2)
        for k, address in enumerate(client.scheduler_info()["workers"]):
            for j, cell in enumerate(cells[:2]):
                to = asdict(warm(cell, f"two{k}-{j}"))
                client.run(cell_elsewhere, to, "", workers=[address])

        def clocks() -> float:
            told = [*client.run(own_clock).values(), *client.run(own_clock, nanny=True).values()]
            return sum(dict([*told, own_clock()]).values())

        own = time.process_time()
        found = timed(
            lambda: spread_cells(client, cells, lambda _, record: ended.append(record)), clocks
        )
        own = time.process_time() - own
    assert not any("reason" in record for record in ended)
    inside = sum(record["elapsed"] for record in ended)
    return found | {
        "scheduler's part": own / found["processor"],
        "waiting": 1 - inside / (2 * found["wall"]),
    }


def own_clock() -> tuple[int, float]:
    """This process and its processor seconds; two nannies may be one process."""
    return os.getpid(), time.process_time()


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


def one_round(
    path: Path, out: Path, engine: Engine, measurements: int, steps: int
) -> dict[str, Any]:
    """One process, two, and two workers, one after the other."""
    for name in ("serial", "halves", "two", "warm"):
        shutil.rmtree(out / name, ignore_errors=True)
    study = load_study(path)
    serial, two = (cells_of(study, [steps] * 2, out / name) for name in ("serial", "two"))
    found: dict[str, Any] = {
        "one process": one_process(serial),
        "two processes": two_processes(out, measurements, steps),
        "two workers": two_workers(two, engine, out / "logs"),
    }
    one = found["one process"]
    for name in ("two processes", "two workers"):
        for clock, what in (("wall", "speed-up"), ("processor", "processor seconds, share")):
            found[name][what] = one[clock] / found[name][clock]
    found["share of the ceiling"] = found["two processes"]["wall"] / found["two workers"]["wall"]
    return found | {"bits": same_bits(out / "serial", out / "two")}


def medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Of the rounds' ratios."""
    return {
        "ceiling": median(r["two processes"]["speed-up"] for r in rounds),
        "speed-up": median(r["two workers"]["speed-up"] for r in rounds),
        "share of the ceiling": median(r["share of the ceiling"] for r in rounds),
        "processor": median(r["two workers"]["processor seconds, share"] for r in rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=("write", "serial", "rounds", "slurm", "four"))
    parser.add_argument("--against", type=Path)
    parser.add_argument("--measurements", type=int, default=MEASUREMENTS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--half", type=int)
    asked = parser.parse_args()
    out = asked.out.resolve()
    if asked.against:
        print(said := same_bits(out / "serial", asked.against))
        raise SystemExit(not said.startswith(f"{2 * asked.measurements} of"))
    warnings.simplefilter("ignore")
    if asked.half is not None:
        half(out, asked.measurements, asked.steps, asked.half)
        return
    path = write_study(out, asked.measurements, asked.steps)
    record = json.loads(kept.read_text()) if (kept := out / "results.json").exists() else {}
    if asked.only == "serial":
        cells = cells_of(load_study(path), [asked.steps] * 2, out / "serial")
        record["serial"] = one_process(cells)
    if asked.only in (None, "rounds", "slurm"):
        jobs = load_study(path).stated.slurm if asked.only == "slurm" else None
        engine, name = (
            Engine(slurm=jobs) if jobs else Engine(workers=2),
            "slurm" if jobs else "dask",
        )
        rounds = record[f"rounds of {name}"] = []
        for _ in range(asked.rounds):
            rounds.append(one_round(path, out, engine, asked.measurements, asked.steps))
            write_json(kept, record | {f"medians of {name}": medians(rounds)})
        record[f"medians of {name}"] = medians(rounds)
    if asked.only in (None, "four"):
        shutil.rmtree(out / "four", ignore_errors=True)
        record["four workers, one killed"] = four_workers_one_killed(path, out / "four")
        record["four workers, one killed"]["bits"] = same_bits(out / "serial", out / "four")
    if asked.only != "write":
        write_json(kept, record)
        print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
