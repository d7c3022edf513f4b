"""The picture of error against cost shows the methods that it says it shows, at the right
places."""

from __future__ import annotations

import pytest
from PIL import Image

from posteriori.experiments import costs

FAMILIES = {"TDS": "smc", "MMPS": "explicit", "DPS": "explicit", "DAPS": "decoupled"}


def row(method, steps, value, seed=0, denoiser=10, vjp=0):
    return {
        "bed": "gmm25", "cell": "8,1", "schedule": "original", "steps": steps, "method": method,
        "seed": seed, "value": value, "floor": 0.1, "denoiser": denoiser, "vjp": vjp,
    }  # fmt: skip


def test_the_best_of_each_family_and_all_of_sequential_monte_carlo_are_drawn(tmp_path):
    rows = [
        row("TDS", 20, 3.0),
        row("MMPS", 20, 2.0),
        row("DPS", 20, 1.0),
        row("DAPS", 20, 4.0),
        row("floor", 20, 0.1),
    ]
    assert costs.chosen(rows, FAMILIES) == ["TDS", "DPS", "DAPS"]
    # A method that lost a seed cannot be the best of its family.
    rows += [
        row(name, 20, value, seed=1)
        for name, value in (("TDS", 3.0), ("MMPS", 2.0), ("DPS", None), ("DAPS", 4.0))
    ]
    assert costs.chosen(rows, FAMILIES) == ["TDS", "MMPS", "DAPS"]
    path = costs.cost_figure(rows, FAMILIES, tmp_path / "new" / "costs.png", "original")
    assert Image.open(path).size[0] > 300
    with pytest.raises(ValueError, match="extended"):
        costs.cost_figure(rows, FAMILIES, tmp_path / "x.png", "extended")


def test_a_point_is_the_mean_cost_and_error_and_a_product_counts_two():
    rows = [
        row("TDS", 20, 1.0, denoiser=20, vjp=30),
        row("TDS", 20, 3.0, seed=1, denoiser=20, vjp=40),
        row("TDS", 100, 0.5, denoiser=100),
    ]
    assert costs._points(rows) == [(90.0, 2.0), (100.0, 0.5)]
