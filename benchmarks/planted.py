"""Do the tests see? Single faults are planted in a copy of this repository, one at a time, and the
tests of their room are run.

    python benchmarks/planted.py [--only PATTERN ...] [--list] [--jobs N] [--store FILE]

``planted.toml`` holds the faults: file, a text that occurs in it exactly once, the text put in its
place, and why that is wrong; and the rooms: which tests belong to which files. A fault is caught
when a test fails. Every selection of tests must pass without a fault, or nothing would follow from
its failure.

Nothing is planted here: the copy lies in a temporary folder. Exit code 1 below 95 % caught, 2 when
a fault cannot be planted any more.
"""

from __future__ import annotations

import argparse
import compileall
import fnmatch
import importlib
import json
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Once for all runs of pytest: they take longer to import than most tests to run.
for name in (
    "torch",
    "hypothesis",
    "_hypothesis_pytestplugin",
    "xdist",
    "scipy.sparse",
    "pydantic",
    "yaml",
    "PIL.Image",
    "tifffile",
):
    importlib.import_module(name)

HERE = Path(__file__).resolve().parent
SHARE = 0.95
STORE = HERE.parent / "docs" / "results" / "planted.jsonl"
PARTS = ("posteriori", "tests", "benchmarks", "configs", "docs", "examples")


@dataclass(frozen=True)
class Fault:
    name: str
    file: str
    old: str
    new: str
    why: str
    reason: str = ""  # why no test sees it, where that is known

    def planted(self, text: str) -> str:
        """The file with the fault in it. Raises ``ValueError`` when it is not the file that the
        fault was written for."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(
                f"{self.name}: the text occurs {count} times in {self.file}, "
                f"exactly once is needed: {self.old[:80]!r}"
            )
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(
                f"{self.name}: {self.file} is no Python any more, which any test would see: {error}"
            ) from None
        return changed


def tests_of(file: str, rooms: dict[str, str]) -> list[str]:
    """The selections of tests for a file, those that are nearest to it first."""
    names = sorted((name for name in rooms if file.startswith(name)), key=len, reverse=True)
    if not names:
        raise ValueError(f"{file} lies in no room of planted.toml")
    return [rooms[name] for name in names]


def copied(root: Path, target: Path) -> None:
    for name in PARTS:
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (*root.glob("*.toml"), *root.glob("*.md"), root / "Makefile"):
        shutil.copy(file, target)
    # Compiled files that are known by the content of their source: by its time and size the last
    # fault might stay.
    compileall.compile_dir(
        target, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
    )


def ends(selection: str, tree: Path) -> int:
    """pytest's exit code on a selection of tests, in the copy: 0 all pass, 1 one fails, 2 they
    cannot even be collected."""
    child = os.fork()
    if child == 0:
        # A child of its own: nothing of the package has been imported yet.
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ["PYTHONPATH"] = str(tree)
        with Path(os.devnull).open("w") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
            os._exit(
                int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *shlex.split(selection)]))
            )
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1, 2):
        raise ValueError(
            f"pytest ends with {code} on {selection!r}: no test of that name, or a wrong option"
        )
    return code


class Judge:
    """Runs selections in one copy; remembers which of them pass without a fault."""

    def __init__(self, tree: Path, rooms: dict[str, str]) -> None:
        self.tree, self.rooms = tree, rooms
        self.sound: set[str] = set()

    def check(self, selection: str) -> None:
        if selection not in self.sound and ends(selection, self.tree):
            raise ValueError(f"{selection}: a test fails without any fault")
        self.sound.add(selection)

    def caught(self, fault: Fault) -> str:
        """The selection that saw the fault; empty when none did."""
        place = self.tree / fault.file
        whole = place.read_text()
        for selection in tests_of(fault.file, self.rooms):
            self.check(selection)
            place.write_text(fault.planted(whole))
            try:
                if ends(selection, self.tree):
                    return selection
            finally:
                place.write_text(whole)
        return ""


def page(faults: list[Fault], by: dict[str, str]) -> str:
    """The results as Markdown."""
    run = [f for f in faults if f.name in by]
    lost, seen = [f for f in run if not by[f.name]], sum(bool(by[f.name]) for f in run)
    lines = [
        "# Planted faults",
        "",
        f"Repeat: `python benchmarks/planted.py --jobs 2 --store {STORE.relative_to(HERE.parent)}`",
        "",
    ]
    lines += [
        f"{seen} of {len(run)} single faults ({100 * seen / len(run):.1f} %) "
        "make a test of their room fail.",
        "",
    ]
    lines += [
        "A row is the result of the last time that its fault was planted; "
        "tests are those nearest to the file that saw it.",
        "",
    ]
    if lost:
        lines += [
            "Not caught:",
            "",
            *(
                f"- **{f.name}** (`{f.file}`): {f.why}. {f.reason or 'No test sees it.'}"
                for f in lost
            ),
            "",
        ]
    lines += ["| fault | file | what is wrong | caught by |", "|---|---|---|---|"]
    cells = [
        (
            f.name,
            f"`{f.file.removeprefix('posteriori/')}`",
            f.why,
            f"`{by[f.name]}`" if by[f.name] else "no test",
        )
        for f in run
    ]
    for cell in cells:
        lines.append("| " + " | ".join(part.replace("|", "\\|") for part in cell) + " |")
    return "\n".join(lines) + "\n"


def chosen(faults: Iterable[dict[str, Any]], patterns: list[str]) -> list[Fault]:
    made = [Fault(**fault) for fault in faults]
    names = [fault.name for fault in made]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two faults have one name: {next(n for n in names if names.count(n) > 1)}"
        )
    return [
        f
        for f in made
        if any(fnmatch.fnmatch(text, p) for p in patterns for text in (f.name, f.file))
    ]


def stale(faults: list[Fault], rooms: dict[str, str]) -> list[str]:
    """What is said of faults that cannot be planted any more."""
    out = []
    for fault in faults:
        try:
            fault.planted((HERE.parent / fault.file).read_text())
            tests_of(fault.file, rooms)
        except (ValueError, OSError) as error:
            out.append(str(error))
    return out


def plant(faults: list[Fault], rooms: dict[str, str], store: Path | None) -> dict[str, str]:
    """Name -> the selection of tests that saw the fault, empty where none did; each is appended to
    ``store`` at once."""
    by = {}
    with tempfile.TemporaryDirectory() as folder:
        copied(HERE.parent, Path(folder))
        judge = Judge(Path(folder), rooms)
        for fault in faults:
            began = time.perf_counter()
            by[fault.name] = judge.caught(fault)
            said = (
                f"{'caught' if by[fault.name] else 'MISSED':<7} "
                f"{time.perf_counter() - began:5.0f} s  {fault.name:<60}"
            )
            print(said, by[fault.name] or fault.reason, flush=True)
            if store is not None:
                with store.open("a") as file:
                    file.write(json.dumps({"fault": fault.name, "by": by[fault.name]}) + "\n")
    return by


def kept(store: Path) -> dict[str, str]:
    """What a store holds, the last word on each fault."""
    lines = store.read_text().splitlines() if store.exists() else []
    return {entry["fault"]: entry["by"] for entry in map(json.loads, lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="faults whose name or file matches one of these",
    )
    parser.add_argument(
        "--list", action="store_true", help="check that every fault can be planted, run nothing"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes, each with a copy of its own"
    )
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="every N-th fault from the K-th on"
    )
    parser.add_argument(
        "--store",
        type=Path,
        help="keep the results in this file (one line each, new ones count), and its page as .md",
    )
    options = parser.parse_args()
    content = tomllib.loads((HERE / "planted.toml").read_text())
    everything, faults = chosen(content["fault"], ["*"]), chosen(content["fault"], options.only)
    wrong = stale(faults, content["rooms"])
    if wrong or options.list:
        print("\n".join(wrong or [f"{fault.name:<60} {fault.file}" for fault in faults]))
        return 2 if wrong else 0
    part, parts = map(int, options.part.split("/"))
    if options.jobs > 1:
        command = [
            sys.executable,
            __file__,
            "--only",
            *options.only,
            *(["--store", str(options.store)] if options.store else []),
        ]
        crew = [
            subprocess.Popen([*command, "--part", f"{k + 1}/{options.jobs}"])
            for k in range(options.jobs)
        ]
        codes = [worker.wait() for worker in crew]
        by = kept(options.store) if options.store else {}
        failed = max(codes)
    else:
        by = plant(faults[part - 1 :: parts], content["rooms"], options.store)
        failed = 0 if sum(map(bool, by.values())) >= SHARE * len(by) else 1
    if options.store and parts == 1:
        by = {
            f.name: seen
            for f in everything
            if (seen := kept(options.store).get(f.name)) is not None
        }
        options.store.write_text(
            "".join(json.dumps({"fault": name, "by": seen}) + "\n" for name, seen in by.items())
        )
        options.store.with_suffix(".md").write_text(page(everything, by))
        failed = 0 if sum(map(bool, by.values())) >= SHARE * len(by) else 1
    print(f"{sum(map(bool, by.values()))} of {len(by)} caught")
    return failed


if __name__ == "__main__":
    sys.exit(main())
