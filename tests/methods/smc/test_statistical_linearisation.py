"""What a curved measurement says, against the moments of a square known in closed form; and the
bootstrap filter that listens to it."""

from __future__ import annotations

import math

import pytest
import torch
from cases import bed, complex_picture, phases
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.experiments.bed_scores import variance_difference
from posteriori.methods.smc.statistical_linearisation import SEED, log_says
from posteriori.noise import Gaussian
from posteriori.rng import Streams
from posteriori.tasks.bipsda import Squares, bipsda
from posteriori.tasks.references import reference_samples


def test_the_moments_are_those_of_a_square():
    """y = x^2 + N(0, 0.5^2), x ~ N(D, r2): mean D^2 + r2, variance 4 D^2 r2 + 2 r2^2 + 0.25."""
    prior = po.priors.Gaussian(torch.zeros(1, dtype=F64), 1.0)
    like = po.Likelihood(
        torch.tensor([1.3], dtype=F64), Squares(torch.ones(1, 1, dtype=F64)), Gaussian(0.5)
    )
    x0, sigma = torch.tensor([[-1.0], [0.0], [0.7]], dtype=F64), torch.tensor(0.8, dtype=F64)
    r2 = prior.know().max_variance(sigma)
    variance = 4 * x0**2 * r2 + 2 * r2**2 + 0.25
    wanted = (
        -0.5 * (1.3 - x0**2 - r2).square() / variance - 0.5 * (2 * math.pi * variance).log()
    ).flatten()
    torch.testing.assert_close(
        log_says(po.Posterior(prior, like), x0, sigma, 20000), wanted, rtol=0, atol=0.05
    )
    torch.testing.assert_close(
        log_says(po.Posterior(prior, like), -x0, sigma, 64),
        log_says(po.Posterior(prior, like), x0, sigma, 64),
    )


@pytest.mark.parametrize("draws", [2, 400])
def test_both_inverses_are_the_dense_gaussian(draws):
    """More draws than numbers of y, and fewer; complex measurements count both of their parts."""
    for make in (bed, phases, complex_picture):
        post, sigma = make(), torch.tensor(0.5, dtype=F64)
        complex_ = post.prior.complex
        x0 = torch.zeros(2, *post.shape, dtype=torch.complex128 if complex_ else F64) + 0.1
        ours = log_says(post, x0, sigma, draws)
        assert ours.shape == (2,)
        assert ours.dtype == F64
        torch.testing.assert_close(ours[0], ours[1])
        if make is bed and draws == 400:  # y given D is Gaussian: A D, sigma_y^2 I + r2 A A^T
            A, y = po.operators.matrix(post.likelihood.A), post.likelihood.y
            V = (
                post.likelihood.std**2 * torch.eye(4, dtype=F64)
                + post.prior.know().max_variance(sigma) * A @ A.T
            )
            exact = torch.distributions.MultivariateNormal(A @ x0[0], V).log_prob(y)
            assert float(ours[0] - exact) == pytest.approx(0, abs=1.0)


def test_the_filter_keeps_the_modes_of_squared_measurements():
    """p(y | D) at D for all that x0 may be gives up all but one of them: a variance error above
    70."""
    problem = bipsda("phase", 0, "extended")
    levels = po.grid.log(100, problem.sigma_max, problem.sigma_min)
    run = po.sample(problem.posterior, methods.Bootstrap(particles=2000), n=2000, grid=levels)
    assert variance_difference(run.samples, reference_samples(problem, 2000, 1)) < 12
    with pytest.raises(ValueError, match="draws come in pairs"):
        methods.Bootstrap(draws=3)


def test_two_draws_on_either_side_spread_by_what_one_of_them_is_off():
    """A linear A and one pair D +- sqrt(r2) z: cov = r2 (A z)(A z)^T, the mean over both draws,
    whose own mean is D and not estimated."""
    post, sigma = bed(), torch.tensor(0.5, dtype=F64)
    A, y = po.operators.matrix(post.likelihood.A), post.likelihood.y
    x0 = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    az = A @ Streams(SEED, [0]).normal(torch.zeros(1, 6, dtype=F64))[0]
    V = 0.01 * torch.eye(4, dtype=F64) + post.prior.know().max_variance(sigma) * torch.outer(az, az)
    wanted = torch.distributions.MultivariateNormal(x0 @ A.T, V).log_prob(y)
    torch.testing.assert_close(log_says(post, x0, sigma, 2), wanted)
