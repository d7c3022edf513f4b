"""Score-ALD: the stationary law of its inner steps, and where it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed
from reference import F64, Fixed

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior
from posteriori.methods import DDIM
from posteriori.noise import Gaussian
from posteriori.operators import matrix
from posteriori.rng import Streams

EYE = torch.eye(6, dtype=F64)
S = torch.tensor(0.3, dtype=F64)


@pytest.mark.parametrize(
    "method", [methods.ScoreALD(), methods.ScoreALD(rate=1.7), methods.ScoreALD.published()]
)
def test_the_inner_steps_are_stationary_at_the_stated_law(method):
    """x <- M x + c + N z read off column by column; the stated mean and covariance are its fixed
    point, for any stable rate."""
    post = bed("general")
    A, like = matrix(post.likelihood.A), post.likelihood
    size = float(torch.linalg.svdvals(A)[0]) ** 2
    w = 1 / (like.std**2 + 0.09 * size) if method.weighting == "widened" else 0.3 / 0.09
    h = method.rate / (1 / 0.09 + w * size)
    L = torch.linalg.inv(post.prior.covariance + 0.09 * EYE) + w * A.T @ A
    zero = torch.zeros(1, 6, dtype=F64)
    c = method.langevin(post, zero, S, Fixed(zero))
    M = (method.langevin(post, EYE, S, Fixed(torch.zeros(6, 6, dtype=F64))) - c).T
    N = (method.langevin(post, zero.expand(6, -1), S, Fixed(EYE)) - c).T
    torch.testing.assert_close(M, EYE - h * L, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(N, (2 * h) ** 0.5 * EYE, rtol=1e-4, atol=1e-9)
    covariance = torch.linalg.inv(L @ (EYE - h * L / 2))
    torch.testing.assert_close(M @ covariance @ M.T + N @ N.T, covariance, rtol=1e-3, atol=1e-5)
    mean = torch.linalg.solve(
        L,
        torch.linalg.solve(post.prior.covariance + 0.09 * EYE, post.prior.mean) + w * A.T @ like.y,
    )
    torch.testing.assert_close(M @ mean + c[0], mean, rtol=1e-3, atol=1e-5)


def test_many_small_steps_reach_the_posterior_and_the_published_weight_does_not():
    """Levels down to 0.04 of the noise, 40 small steps each; mean within the bias left by the
    widened weight and so many steps, 0.16, and six standard errors of 1000 samples."""
    post = bed("white", sigma=0.5)
    exact = exact_posterior(post)
    levels = po.grid.log(13, 3.0, 0.02)
    n = 1000
    errors = {}
    for name, method in (
        ("default", methods.ScoreALD(inner=40, rate=0.2)),
        ("published", replace(methods.ScoreALD.published(), inner=40)),
    ):
        run = po.sample(post, method, n=n, grid=levels, seed=0)
        errors[name] = float(((run.samples.mean(0) - exact.mean) / exact.std).abs().max())
    assert errors["default"] < 0.35
    assert errors["published"] > errors["default"]


def test_without_a_measurement_the_inner_steps_know_the_prior_alone():
    post = bed("general")
    deaf = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e6)))
    blind = po.Posterior(
        post.prior, replace(post.given, y=torch.zeros(4, dtype=F64), noise=Gaussian(1e6))
    )
    x = post.prior.sample(3, 0)
    z = torch.zeros(3, 6, dtype=F64)
    method = methods.ScoreALD()
    one, other = (method.langevin(p, x, S, Fixed(z)) for p in (deaf, blind))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(one, x + 0.5 * (post.prior.denoise(x, S) - x), rtol=1e-6, atol=1e-9)
    assert float((method.langevin(post, x, S, Fixed(z)) - one).abs().max()) > 1e-3


def test_a_level_is_reached_by_an_ancestral_step_and_the_paper_stays_where_it_is():
    post = bed("general")
    x, sigma = post.prior.sample(3, 0), torch.tensor(0.8, dtype=F64)
    for method in (methods.ScoreALD(), methods.ScoreALD.published()):
        ours, _ = method.step(post, x, sigma, S, Streams(2, range(3)))
        rng, expected = Streams(2, range(3)), x
        if method.transition is not None:
            w = float(S**2 / sigma**2)
            expected = (
                (1 - w) * post.prior.denoise(x, sigma)
                + w * x
                + 0.3 * (1 - w) ** 0.5 * rng.normal(x)
            )
        for _ in range(method.inner):
            expected = method.langevin(post, expected, S, rng)
        torch.testing.assert_close(ours, expected)


def test_few_levels_leave_no_noise_of_the_level_above():
    """An image that is known to be 0, and told so by nothing but the prior: what is left of it at
    the last level is the noise there."""
    prior = po.priors.Gaussian(torch.zeros(40, dtype=F64), 1e-8)
    post = po.Posterior(
        prior,
        po.Likelihood(torch.zeros(40, dtype=F64), po.operators.Identity((40,)), Gaussian(1e6)),
    )
    levels, sizes = po.grid.karras(8, 20.0, 0.002), {}
    for name, transition in (("default", DDIM(1.0)), ("none", None)):
        seen = []
        watch = [lambda k, s, rows, info, seen=seen: seen.append((float(s), float(rows.std())))]
        po.sample(
            post, methods.ScoreALD(transition=transition), n=100, grid=levels, seed=0, watch=watch
        )
        sizes[name] = max(std / s for s, std in seen if s > 0)
    # A rate of 0.5 alone leaves a variance of 4/3.
    assert sizes["default"] < 1.25
    assert sizes["none"] > 1.5


def test_refused_settings():
    for settings in ({"inner": 0}, {"rate": 2.0}, {"weight": 0.0}):
        with pytest.raises(ValueError, match="ScoreALD"):
            methods.ScoreALD(**settings)
