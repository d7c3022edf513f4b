"""The study of ill-conditioned operators: its operators, its reference by importance, and where a
method counts as broken."""

from __future__ import annotations

import pytest
import torch

from posteriori.evaluation import exact_posterior, sliced_wasserstein
from posteriori.experiments.studies import jensen_figure as figure
from posteriori.experiments.studies import jensen_limits as study


@pytest.mark.parametrize("condition", [1.0, 1e4])
def test_operators_have_the_condition_number_that_they_are_asked_for(condition):
    values = torch.linalg.svdvals(study.conditioned_operator(condition, 3).matrix)
    assert float(values[0]) == pytest.approx(1)
    assert float(values[0] / values[-1]) == pytest.approx(condition, rel=1e-6)


def test_importance_draws_are_those_of_a_posterior_known_in_closed_form():
    """On a broad linear posterior, against exact draws."""
    about = study.truth("linear", 1e4, 0)
    wide = study.Likelihood(about.post.likelihood.y, about.post.likelihood.A, study.Gaussian(1.0))
    post = study.Posterior(about.post.prior, wide)
    drawn, size = study.by_importance(post, 4000, 1, proposals=2**18)
    assert 4e3 < size <= 2**18
    exact = exact_posterior(post)
    floor = sliced_wasserstein(exact.sample(4000, 1), exact.sample(4000, 2), slices=200)
    assert sliced_wasserstein(drawn, exact.sample(4000, 3), slices=200) < 2 * floor
    assert (
        sliced_wasserstein(post.prior.sample(4000, 4), exact.sample(4000, 3), slices=200)
        > 4 * floor
    )


def test_opposite_images_have_the_same_magnitudes_and_the_prior_decides():
    prior, x = study.phase_prior(), study.phase_prior().sample(3, 0)
    A = study.PhaseRetrieval(study.SHAPE)
    torch.testing.assert_close(A(x), A(-x))
    ratio = prior.weights[:2].sum() / prior.weights[2:].sum()
    assert float(ratio) == pytest.approx(1.5)
    assert float((prior.log_prob(x) - prior.log_prob(-x)).abs().max()) > 0.1


def row(method, condition, ratio, outcome="finished"):
    return {
        "problem": "linear",
        "method": method,
        "condition": condition,
        "ratio": ratio,
        "ksd_ratio": ratio,
        "outcome": outcome,
    }


def test_a_method_breaks_at_the_first_condition_number_above_the_threshold_or_with_losses():
    rows = [row("DPS", k, v) for k, v in ((1.0, 1.0), (10.0, 2.9), (100.0, 3.1), (1000.0, 1.0))]
    rows += [
        row("TDS", 1.0, 2.0),
        row("TDS", 10.0, None, "diverged"),
        row("TDS", 100.0, 1.0),
        row("TDS", 1000.0, 1.0),
    ]
    rows += [row("DAPS", k, v) for k in (1.0, 10.0, 100.0, 1000.0) for v in (1.0, 4.0)]
    assert figure.breaks(rows, "DPS") == 100.0
    assert figure.breaks(rows, "TDS") == 10.0
    assert figure.breaks(rows, "DAPS") is None
    assert figure.mean_ratio(rows, "DAPS", 10.0) == pytest.approx(2.0)
    assert "at 10: TDS; at 100: DPS; not up to 1000: DAPS" in figure.where_methods_break(rows)
