"""One bar, or one series of lines, for a whole run."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
import torch

import posteriori as po
from posteriori import progress
from posteriori.noise import Gaussian


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def walk(total, seconds_each, first=0):
    clock = Clock()
    bar = progress.Progress("DPS", total, shown=True, terminal=False, clock=clock)
    for done in range(first, total + 1):
        bar.at(done)
        clock.now += seconds_each
    bar.close()


def test_lines_come_at_tenths_and_not_too_often(capsys):
    walk(1000, 1.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "DPS: 100 % after 1000 s"
    tenths = [
        line for line in lines if any(line.startswith(f"DPS: {k} % ") for k in range(10, 100, 10))
    ]
    assert len(tenths) == 9
    assert "DPS: 10 % after 100 s, about 900 s left" in lines
    assert len(lines) <= 1000 / progress.LATE + 11, (
        "between tenths a sign of life at each half minute"
    )
    walk(1000, 0.001)
    assert capsys.readouterr().err.splitlines() == ["DPS: 100 % after 1 s"], (
        "a short run says that it is done, no more"
    )


def test_a_resumed_run_counts_what_it_did_itself(capsys):
    walk(100, 10.0, first=80)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "DPS: 100 % after 200 s"
    assert "DPS: 90 % after 100 s, about 100 s left" in lines


def test_nothing_is_shown_unless_asked_for(capsys):
    bar = progress.Progress("DPS", 10, shown=False)
    bar.at(10)
    bar.close()
    assert capsys.readouterr().err == ""


def test_a_terminal_sees_one_bar_that_may_go_back(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    bar = progress.Progress("DPS", 40, shown=True)
    for done in (0, 16, 8, 24, 40):
        bar.at(done)
    bar.close()
    assert screen.getvalue().count("\n") == 1, "one line, drawn over"
    assert "40/40" in screen.getvalue()


@pytest.mark.parametrize(("n", "batch"), [(5, 2), (4, 4), (3, 1)])
def test_a_run_of_several_batches_has_one_bar(monkeypatch, n, batch):
    made, seen = [], []

    class Watched(progress.Progress):
        def __init__(self, name, total, shown):
            made.append(total)
            super().__init__(name, total, False)

        def at(self, done):
            seen.append(done)

    monkeypatch.setitem(po.sample.__globals__, "Bar", Watched)
    prior = po.priors.Gaussian(torch.zeros(6, dtype=torch.float64), 0.5)
    post = po.Posterior(
        prior,
        po.Likelihood(
            torch.zeros(6, dtype=torch.float64),
            po.operators.Dense(torch.eye(6).double()),
            Gaussian(0.1),
        ),
    )
    po.sample(post, po.methods.MMPS(), n=n, batch=batch, steps=4)
    assert made == [4 * n]
    assert seen[0] == 0
    assert seen[-1] == 4 * n
    assert all(b >= a for a, b in pairwise(seen))


def test_a_function_is_told_where_a_run_is_and_no_line_is_printed(capsys):
    told = []
    prior = po.priors.Gaussian(torch.zeros(2), 1.0)
    post = po.Posterior(
        prior, po.Likelihood(torch.zeros(2), po.operators.Identity((2,)), Gaussian(0.1))
    )
    po.sample(
        post, po.methods.MMPS(), n=3, steps=4, batch=2,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [
        (0, 12),
        (2, 12),
        (4, 12),
        (6, 12),
        (8, 12),
        (9, 12),
        (10, 12),
        (11, 12),
        (12, 12),
    ]
    assert capsys.readouterr().err == ""
