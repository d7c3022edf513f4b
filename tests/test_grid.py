"""Every list of noise levels against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posteriori import grid


def test_karras_levels_are_linear_in_the_seventh_root_and_meet_both_ends():
    levels = grid.karras(5, 80.0, 0.002).numpy()
    roots = 80 ** (1 / 7) + np.arange(5) / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(levels, [*roots**7, 0.0], rtol=1e-12)
    assert levels[0] == pytest.approx(80, rel=1e-12)
    assert levels[4] == pytest.approx(0.002, rel=1e-12)


def test_logarithmic_levels_have_one_ratio():
    levels = grid.log(4, 27.0, 1.0)
    torch.testing.assert_close(
        levels, torch.tensor([27.0, 9.0, 3.0, 1.0, 0.0], dtype=torch.float64)
    )


def test_ddpm_levels_are_those_of_a_linear_chain_the_noisiest_first():
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    sigmas = np.sqrt((1 - abar) / abar)
    np.testing.assert_allclose(grid.ddpm(1000).numpy(), [*sigmas[::-1], 0.0], rtol=1e-9)
    np.testing.assert_allclose(grid.ddpm(4).numpy(), [*sigmas[[999, 666, 333, 0]], 0.0], rtol=1e-9)
    np.testing.assert_allclose(grid.ddpm(1).numpy(), [sigmas[999], 0.0], rtol=1e-9)


def test_a_grid_of_one_step_starts_at_the_top():
    for name in ("karras", "log"):
        assert grid.make(name, 1, 12.0, 0.1).tolist() == pytest.approx([12.0, 0.0])


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([1.0, 2.0, 0.0], "strictly decreasing"),
        ([2.0, 1.0], "strictly decreasing"),
        ([float("nan"), 1.0, 0.0], "strictly decreasing"),
        ([float("inf"), 1.0, 0.0], r"got inf down to 1"),
        ([1e200, 1.0, 0.0], r"got 1e\+200 down to 1"),
        ([1.0, 1e-170, 0.0], r"got 1 down to 1e-170"),
    ],
)
def test_levels_that_no_run_can_visit_are_refused(levels, said):
    with pytest.raises(ValueError, match=said):
        grid.make(torch.tensor(levels, dtype=torch.float64), 1, 80.0, 0.002)
