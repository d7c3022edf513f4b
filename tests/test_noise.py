"""Noise with heavy tails against scipy's laws, and the posterior that it leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from posteriori import noise, operators, priors
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods import DAPS, DPS, Bootstrap, DiffPIR, PnPDM
from posteriori.rng import Streams

LAWS = {
    "Laplace": (noise.Laplace(0.3), stats.laplace(scale=0.3)),
    "StudentT": (noise.StudentT(0.3, 4), stats.t(4, scale=0.3)),
}


@pytest.mark.parametrize("name", LAWS)
def test_density_variance_and_draws_are_those_of_scipy(name):
    """Draws by Kolmogorov's distance: below 1.95 / sqrt(n) with probability 0.999."""
    law, known = LAWS[name]
    y, clean = torch.linspace(-3, 3, 50, dtype=torch.float64)[None], torch.zeros(1, 50).double()
    want = torch.from_numpy(known.logpdf(y.numpy()))
    torch.testing.assert_close(law.log_prob_each(y, clean), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.log_prob(y, clean), want.sum(1), rtol=1e-12, atol=1e-12)
    assert float(law.variance(y)) == pytest.approx(known.var(), rel=1e-12)
    drawn = law.sample(torch.zeros(1, 40_000, dtype=torch.float64), Streams(0, [0]))[0]
    assert stats.kstest(drawn.numpy(), known.cdf).statistic < 1.95 / 200
    scaled = law.scaled(-2.0)
    assert float(scaled.variance(y)) == pytest.approx(4 * known.var(), rel=1e-12)
    assert (scaled.scale, type(scaled)) == (0.6, type(law))


def test_students_law_tends_to_the_gaussian():
    """Its log density differs by terms of (e / scale)^4 / freedom."""
    y, clean = torch.linspace(-1, 1, 9, dtype=torch.float64)[None], torch.zeros(1, 9).double()
    far = noise.StudentT(0.5, 10**7).log_prob(y, clean)
    torch.testing.assert_close(far, noise.Gaussian(0.5).log_prob(y, clean), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", LAWS)
def test_the_posterior_of_one_number_is_that_of_quadrature(name):
    """y = 2.5 of x ~ N(0, 1): draws of the prior, weighted by the likelihood, within four standard
    errors of a mean of as many as they count for. Methods that take a density take the law."""
    law, known = LAWS[name]
    one = torch.ones(1, 1, dtype=torch.float64)
    y = torch.tensor([2.5], dtype=torch.float64)
    post = Posterior(
        priors.Gaussian(torch.zeros(1, dtype=torch.float64), 1.0),
        Likelihood(y, operators.Dense(one), law),
    )
    x = np.linspace(-8, 8, 40_001)
    weight = np.exp(-0.5 * x**2) * known.pdf(2.5 - x)
    mean = float((weight * x).sum() / weight.sum())
    spread = float(np.sqrt((weight * (x - mean) ** 2).sum() / weight.sum()))
    drawn = post.prior.sample(20_000, 0)
    w = post.likelihood.log_prob(drawn).softmax(0)
    count = float(1 / w.square().sum())
    assert count > 500
    assert abs(float((w * drawn[:, 0]).sum()) - mean) < 4 * spread / count**0.5
    for method in (Bootstrap(), DAPS(), DPS(), PnPDM()):
        assert method.refuses(post) is None
    assert "Gaussian" in DiffPIR().refuses(post)


def test_bad_settings_are_refused_by_name():
    for make in (lambda: noise.Laplace(0.0), lambda: noise.StudentT(0.1, 2)):
        with pytest.raises(ValueError, match="scale|freedom"):
            make()
    with pytest.raises(TypeError, match="Laplace noise is of real numbers"):
        noise.Laplace(0.1).check_kind(torch.zeros(2, dtype=torch.complex64))
