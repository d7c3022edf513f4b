"""Scores of an ensemble against closed forms."""

import math

import pytest
import torch
from reference import draw

from posteriori.evaluation.ensembles import crps, energy_score, spread_skill

F64 = torch.float64


def test_the_crps_is_the_mean_over_pairs_of_two_different_members():
    x, t = draw(7, 2, 3), draw(2, 3, seed=1)
    far = (x - t).abs().mean()
    pairs = (x[:, None] - x).abs().sum((0, 1)) / (7 * 6)
    assert crps(x, t) == pytest.approx(float(far - 0.5 * pairs.mean()), rel=1e-12)
    assert crps(t.expand(4, 2, 3), t) == 0.0
    assert crps(t.expand(4, 2, 3) + 0.5, t) == pytest.approx(0.5)


def test_of_a_gaussian_the_crps_is_its_closed_form_for_any_number_of_members():
    """At x: w (2 Phi(w) - 1) + 2 phi(w) - 1 / sqrt(pi), over 40000 ensembles of 3 within 4.5
    standard errors."""
    x, n = draw(3, 40000), 40000
    for w in (0.0, 1.3):
        each = torch.tensor([w], dtype=F64).expand(n)
        wanted = w * math.erf(w / 2**0.5) + 2 * math.exp(-(w**2) / 2) / (2 * math.pi) ** 0.5
        assert crps(x, each) == pytest.approx(wanted - math.pi**-0.5, abs=4.5 * 0.6 / n**0.5)


def test_the_energy_score_is_the_mean_over_pairs_of_whole_images():
    """Of one number it is the CRPS; and it sees members that are right number by number only."""
    x, t = draw(5, 2, 3), draw(2, 3, seed=1)
    far = (x - t).flatten(1).norm(dim=1).mean()
    pairs = torch.cdist(x.flatten(1), x.flatten(1)).sum() / (5 * 4)
    assert energy_score(x, t) == pytest.approx(float(far - 0.5 * pairs) / 6**0.5, rel=1e-12)
    assert energy_score(x[:, :1, :1], t[:1, :1]) == pytest.approx(crps(x[:, :1, :1], t[:1, :1]))
    assert energy_score(t.expand(4, 2, 3) + 0.5, t) == pytest.approx(0.5)
    # Pairs of equal numbers, forecast as such or as independent ones: the same CRPS.
    total = {"tied": 0.0, "apart": 0.0}
    for k in range(400):
        truth = draw(1, seed=k).expand(2)
        total["tied"] += energy_score(draw(30, 1, seed=1000 + k).expand(30, 2), truth)
        total["apart"] += energy_score(draw(30, 2, seed=1000 + k), truth)
    assert total["tied"] < total["apart"] - 5


def test_spread_and_skill_agree_where_the_truth_is_one_of_the_members():
    x = draw(6, 50000)
    assert spread_skill(x[:5], x[5]) == pytest.approx(1.0, abs=4.5 / 50000**0.5)
    assert spread_skill(0.5 * x[:5], x[5]) < 0.6
    with pytest.raises(ValueError, match="n >= 2"):
        crps(x[:1], x[0])
    with pytest.raises(ValueError, match="truth"):
        spread_skill(x, x[0, :4])
    with pytest.raises(ValueError, match="n >= 2"):
        energy_score(x[:1], x[0])
