"""The study of several modes: its exact weights, and what it counts as a completion."""

from __future__ import annotations

import pytest
import torch

from posteriori.evaluation import exact_posterior
from posteriori.experiments.studies import multimodal


@pytest.mark.parametrize("separation", [1.0, 4.0, 16.0])
def test_the_weights_of_quadrants_are_those_of_exact_draws(separation):
    post = multimodal.four_modes(separation)
    drawn = multimodal.quadrant(exact_posterior(post).sample(100_000, 3))
    shares = torch.bincount(drawn, minlength=4).double() / len(drawn)
    weights = multimodal.mode_masses(post)
    assert float(weights.sum()) == pytest.approx(1)
    assert float((shares - weights).abs().max()) < 0.006
    # Where modes overlap, a component's weight is not its quadrant's.
    if separation == 1.0:
        assert float((exact_posterior(post).mixture.weights - weights).abs().max()) > 0.02


def test_a_quadrant_is_the_component_whose_mean_lies_in_it():
    post = multimodal.four_modes(16.0)
    assert multimodal.quadrant(post.prior.means).tolist() == [0, 1, 2, 3]
    assert multimodal.quadrant(exact_posterior(post).mixture.means).tolist() == [0, 1, 2, 3]


def test_enclosed_regions_are_counted_as_drawn():
    x = torch.zeros(5, 1, 16, 16)
    x[1, 0, 3:10, 3:10] = 1.0  # a ring
    x[1, 0, 5:8, 5:8] = 0.0
    x[2] = x[1]
    x[2, 0, 3:6, 6] = 0.0  # the ring is cut
    x[3] = x[1]
    x[3, 0, 9:16, 3:12] = 1.0  # a second one, at the border
    x[3, 0, 11:14, 6:9] = 0.0
    x[4, 0, 3:10, 3:10] = 1.0  # a speck of two pixels is no region
    x[4, 0, 5, 5:7] = 0.0
    assert multimodal.regions(x).tolist() == [0, 1, 0, 2, 0]


def test_scores_of_collapsed_and_of_exact_draws():
    post = multimodal.four_modes(16.0)
    good = multimodal.mixture_scores(exact_posterior(post).sample(256, 1), post)
    assert good["found"] == 4
    assert good["weight_error"] < 0.12
    assert good["diversity"] == pytest.approx(1, abs=0.1)
    lost = multimodal.mixture_scores(torch.full((256, 4), 8.0) + 0.01 * torch.randn(256, 4), post)
    assert lost["found"] == 1
    assert lost["weight_error"] == pytest.approx(
        1 - float(multimodal.mode_masses(post)[3]), abs=1e-5
    )
    assert lost["diversity"] < 0.01
