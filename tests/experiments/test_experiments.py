"""The one loop of experiments: what is stored is kept, what is measured is saved, also when it ends
before its time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import posteriori
from posteriori.experiments import Experiment, run_experiment


class Squares(Experiment[int, int]):
    """The squares of four numbers; a negative one has none. ``written``: what each saving held."""

    title = "squares"

    def __init__(self, cells, stored=(), save_seconds=0.0, stale=()):
        self.cells, self.stored, self.stale = cells, dict(stored), stale
        self.save_seconds = save_seconds
        self.entries, self.measured, self.written = {}, [], []

    def plan(self):
        return self.cells

    def load(self, plan):
        self.entries |= self.stored

    def key(self, cell):
        return f"{cell}"

    def current(self, cell):
        return cell not in self.stale

    def measure(self, cell):
        self.measured.append(cell)
        if cell == 7:
            raise KeyboardInterrupt
        return None if cell < 0 else cell * cell

    def save(self):
        self.written.append(dict(self.entries))


def test_stored_cells_are_kept_and_stale_ones_measured_again_in_their_place():
    squares = Squares([1, 2, 3], {"2": 4, "9": 81, "3": -1}, stale=[3])
    assert run_experiment(squares) == [1, 2, 3]
    assert squares.measured == [1, 3]
    assert list(squares.entries.items()) == [("2", 4), ("9", 81), ("3", 9), ("1", 1)]
    assert squares.written[-1] == squares.entries


def test_a_cell_that_cannot_be_measured_has_no_entry_and_stops_nothing():
    squares = Squares([-1, 2])
    run_experiment(squares)
    assert squares.entries == {"2": 4}


@pytest.mark.parametrize(("patience", "savings"), [(0.0, 2), (3600.0, 1)])
def test_an_interruption_keeps_what_was_measured(patience, savings):
    squares = Squares([1, 2, 7, 3], save_seconds=patience)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(squares)
    assert squares.written[-1] == {"1": 1, "2": 4}
    assert len(squares.written) == savings
    nothing = Squares([7])
    with pytest.raises(KeyboardInterrupt):
        run_experiment(nothing)
    assert nothing.written == [], "a file without a cell was written"


def test_no_other_module_loops_over_missing_cells():
    """Scoreboard, photographs and studies hand their cells to the one runner."""
    root = Path(posteriori.__file__).parent
    users = {"cli/bench.py", "cli/bench_images.py", "experiments/studies/record.py"}
    for name in users:
        tree = ast.parse((root / name).read_text())
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "run_experiment" in called
        assert "tqdm" not in called
