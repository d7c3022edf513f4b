"""The command line as tests call it, and a problem file for it."""

from __future__ import annotations

import sys

from posteriori.cli import main

COMMAND = [sys.executable, "-c", "from posteriori.cli import main; main()"]
PRIOR = "prior: {gaussian: {mean: 0.5, std: 0.2, shape: [1, 16, 16]}}\n"


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["posteriori", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def problem(folder, measurement, extra="", operator="{name: blur, std: 1}"):
    file = folder / "problem.yaml"
    noise = "noise: {law: gaussian, sigma: 0.05, range: [0, 1]}\n"
    file.write_text(
        PRIOR
        + f"operator: {operator}\n"
        + noise
        + f"measurement: {measurement}\nmethod: MMPS\nn: 3\nsteps: 6\n"
        + extra
    )
    return file
