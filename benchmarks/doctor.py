"""What the doctor says of sound problems, and of problems with one planted fault.

    python benchmarks/doctor.py                    every problem that doctor.json does not hold yet
    python benchmarks/doctor.py --only PATTERN     of these the ones whose names hold PATTERN
    python benchmarks/doctor.py --write            docs/results/doctor.md from doctor.json as well

Problems are those of tests/setups.py, and the files under examples/. Each is kept in
docs/results/doctor.json when it is done; what is to be measured again is taken out there.
PATTERN: several with commas.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from functools import cache
from pathlib import Path

from posteriori import doctor, problem_file
from posteriori.examination import examine
from posteriori.likelihood import Posterior

HERE = Path(__file__).resolve().parents[1]
KEPT = HERE / "docs/results/doctor.json"
sys.path.insert(0, str(HERE / "tests"))
from setups import PLANTED, SOUND  # noqa: E402

# Of one prior the lines are the same in each of its problems.
examine.prior_findings = cache(examine.prior_findings)
# Lines that are judged, not told.
LINES = (
    *("adjoint", "norm", "spectrum", "tweedie", "symmetry", "idempotence", "samples"),
    *("range", "noise", "axes", "fit", "world", "cost", "methods"),
)
# What each line compares, its limit, and where that is from.
LIMITS = (
    (
        "adjoint",
        "Re<A x, u> and Re<x, A^H u> on random and on constant probes; of an A that is not linear "
        "a slope and difference quotients",
        "rounding: 1e-3 in single, 1e-6 in double precision; slopes 1e-3 in double precision",
    ),
    (
        "norm",
        "the norm of A by Lanczos's method, and the largest singular value that is claimed",
        "claimed within 2 %, as 30 iterations tell; outside 1e-4 to 1e4 a warning",
    ),
    (
        "spectrum",
        "U s V^H x and A x, V V^H x and x",
        "rounding, as above",
    ),
    (
        "tweedie",
        "the squared error of D on its own draws and sigma^2 tr J, at 0.05 to 2 standard "
        "deviations of the prior",
        "ratio 0.67 to 1.8, and 4 standard errors: 1.0 to 1.5 on the priors that ship; wrong "
        "ones leave it at some level",
    ),
    (
        "symmetry",
        "J v and J^T v on one draw, over J v",
        "below 1.2: 0.08 to 0.64 on the priors that ship, sqrt(2) for an unrelated J",
    ),
    (
        "idempotence",
        "how far D moves its draws at sigma_min",
        "below 3 sigma_min: 0.02 to 0.9 on the priors that ship",
    ),
    (
        "samples",
        "outer per cents and variance of the draws",
        "40 % of the range beyond its ends, a warning from 15 % on: 5 % on the priors that ship; "
        "variance within a factor of 4, else a warning",
    ),
    (
        "range",
        "96 % of the values of a regularised linear estimate; the norm of y",
        "20 % of the range beyond its ends; no larger than images whose every number lies there "
        "can measure",
    ),
    (
        "noise",
        "the smallest level that y shows: in directions no image reaches, in differences of "
        "neighbours",
        "stated at most 2 times larger, and 4 standard errors; what is over 3 times larger is "
        "noise if a restoration for the stated level is unsound and one for the level seen is "
        "sound; where y shows nothing, a restoration leaves at least 0.32 of the level",
    ),
    (
        "axes",
        "r^H (c A A^H + s2)^-1 r of the orientations of y; the denoising error of those of the "
        "image at 4 standard deviations",
        "2 and 1.5 times better than its own: 1.0 on sound problems",
    ),
    (
        "fit",
        "r^H (c A A^H + sigma^2)^-1 r / m of a restoration in 8 steps, c the variance of the prior",
        "1.4, and 4 standard errors: at most 1.3 on sound problems, 1.9 with a "
        "centre of rotation off by half a pixel",
    ),
    (
        "world",
        "the squared error of D on the restoration, drawn towards y, and sigma^2 tr J; and the "
        "error on images of the prior, where that was measured; at 0.3 to 1 standard deviations",
        "3 and 6 times, and 4 standard errors: at most 1.7 and 1.8 on sound images, 4.3 and 2.5 "
        "on beds of 8 and 80 numbers; 13 to 19 times the usual error under a prior "
        "of another domain",
    ),
)
SHOWN = {"pass": "", "warn": "warn", "fail": "**fail**", "skip": "-"}


def from_file(path: Path) -> tuple[Posterior, dict]:
    task = problem_file.load(path).build()
    how = {"method": task.method, "n": task.settings["n"], "steps": task.settings["steps"]}
    return task.posterior, how


def problems():
    """Name, the line that it must trip ("" for none), and what makes posterior and arguments."""
    for name, (line, make) in PLANTED.items():
        yield name, line, lambda make=make: (make(), {})
    for name, make in SOUND.items():
        yield name, "", lambda make=make: (make(), {})
    for path in sorted((HERE / "examples").glob("*/*.yaml")):
        if path.parent.name != "training" and path.stem not in ("measured", "checkpoint"):
            yield str(path.relative_to(HERE)), "", lambda path=path: from_file(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    for name, line, make in problems():
        held = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        if name in held or not any(part in name for part in asked.only.split(",")):
            continue
        post, how = make()
        began = time.process_time()
        found = doctor(post, **how)
        record = {"line": line, "cpu_seconds": round(time.process_time() - began, 1)}
        record["findings"] = {f.name: [f.verdict, f.value] for f in found.findings}
        KEPT.write_text(json.dumps(held | {name: record}, indent=1) + "\n")
        failed = [f"{f.name}: {f.value}" for f in found.findings if f.verdict in ("fail", "warn")]
        print(f"{name} [{line}] {record['cpu_seconds']} s: {failed or 'sound'}", flush=True)
    if asked.write:
        (HERE / "docs/results/doctor.md").write_text(page(json.loads(KEPT.read_text())))


def page(held: dict) -> str:
    order = [name for name, _, _ in problems() if name in held]
    faults = [name for name in order if held[name]["line"]]
    sound = [name for name in order if not held[name]["line"]]
    right = sum(_failed(held[name]) == [held[name]["line"]] for name in faults)
    alarms = [name for name in sound if _failed(held[name])]
    seconds = sorted(held[name]["cpu_seconds"] for name in order)
    return "\n".join(
        [
            "# The doctor: what it sees, and how often it is wrong",
            "",
            "`python benchmarks/doctor.py --write`. Every problem is one of tests/setups.py or a "
            "file under examples/. A blank cell passed, a dash was not judged:",
            "it stands on a line that failed, or there is nothing to judge.",
            "",
            f"{right} of {len(faults)} planted faults trip their line and no other. "
            f"{len(alarms)} of {len(sound)} sound problems have a line that fails"
            f"{': ' + ', '.join(alarms) if alarms else ''}.",
            f"0 of {len(sound)} is less than {100 * 3 / len(sound):.0f} % with 95 % confidence."
            if not alarms
            else "",
            f"A problem takes {seconds[0]:.1f} to {seconds[-1]:.1f} seconds of one thread; a prior "
            "is examined once for all its problems.",
            "",
            "| line | what is compared | limit, and where it is from |",
            "|---|---|---|",
            *[f"| {name} | {what} | {limit} |" for name, what, limit in LIMITS],
            "",
            "## Planted faults",
            "",
            *_table(held, faults),
            "",
            "## Sound problems",
            "",
            *_table(held, sound),
            "",
            "## Numbers",
            "",
            "Of sound problems, what each line found:",
            "",
            *[
                f"- {name}: "
                + "; ".join(
                    f"{line} {held[name]['findings'][line][1]}"
                    for line in ("tweedie", "noise", "fit", "world", "axes")
                    if held[name]["findings"][line][0] != "skip"
                )
                for name in sound
            ],
            "",
        ]
    )


def _failed(record: dict) -> list[str]:
    return [line for line, (verdict, _) in record["findings"].items() if verdict == "fail"]


def _table(held: dict, names: list[str]) -> list[str]:
    out = ["| problem | " + " | ".join(LINES) + " |", "|---" * (len(LINES) + 1) + "|"]
    for name in names:
        found = held[name]["findings"]
        cells = [SHOWN[found[line][0]] if line in found else "-" for line in LINES]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return out


if __name__ == "__main__":
    main()
