"""The mathematics of the study explicit-accuracy."""

from __future__ import annotations

import time

import pytest
import torch

from posteriori.evaluation.exact import exact_posterior
from posteriori.experiments.studies.explicit_accuracy import (
    GUIDED_METHODS,
    MIXTURE_SIDE,
    _mixture,
    _operator,
    estimate,
)
from posteriori.experiments.timing import timed
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.explicit.mmps import MMPS
from posteriori.methods.unconditional import Unconditional
from posteriori.noise import Gaussian
from posteriori.priors.mixture import Gaussian as GaussianPrior


def problem():
    """A Gaussian prior with the covariance of the study's third component, and a draw at
    sigma = 0.7."""
    g = torch.Generator().manual_seed(0)
    shape = (1, MIXTURE_SIDE, MIXTURE_SIDE)
    prior = GaussianPrior(_mixture().means[2].view(shape), _mixture().covariances[2])
    A = _operator(1, MIXTURE_SIDE)
    y = A(prior.sample(1, 0))[0] + 0.1 * torch.randn(A.out_shape, generator=g, dtype=torch.float64)
    return Posterior(prior, Likelihood(y, A, Gaussian(0.1))), prior.sample(
        4, 1
    ) + 0.7 * torch.randn(4, *shape, generator=g, dtype=torch.float64)


def test_the_estimate_read_off_a_step_is_the_conditional_mean_where_the_method_is_exact():
    post, x = problem()
    exact = exact_posterior(post).denoise(x, 0.7)
    found = estimate(post, MMPS(iterations=16, rtol=1e-12), x, 0.7)
    assert (found - exact).abs().max() < 1e-8
    for name in ("DPS bounded", "moments by row sums"):
        assert (estimate(post, GUIDED_METHODS[name], x, 0.7) - exact).abs().max() > 1e-4


def test_without_guidance_it_is_the_denoiser():
    post, x = problem()
    level = torch.tensor(0.7, dtype=torch.float64)
    torch.testing.assert_close(
        estimate(post, Unconditional(), x, 0.7),
        post.prior.denoise(x, level),
        rtol=1e-10,
        atol=1e-10,
    )


def test_the_mixture_is_what_the_setting_says():
    prior = _mixture()
    variances = prior.covariances.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(
        variances, torch.logspace(-2.5, -1, 8, dtype=torch.float64)[:, None].expand_as(variances)
    )
    assert float(prior.means.std()) == pytest.approx(0.4, rel=0.3)


def test_seconds_go_to_the_part_that_took_them(monkeypatch):
    post, x = problem()

    def linearize(x, sigma):
        time.sleep(0.05)
        return x, lambda u: (time.sleep(0.1), u)[1]

    monkeypatch.setattr(post.prior, "linearize", linearize)
    twin, spent = timed(post.prior)
    x0, pull = twin.linearize(x, torch.tensor(1.0))
    assert x0 is x
    assert pull(x) is x
    assert pull(x) is x
    assert 0.05 <= spent["denoiser"] < 0.1
    assert 0.2 <= spent["vjp"] < 0.3
