"""Priors learned from measurements alone: expectation maximisation in the Gaussian family against
its closed form, with samples, with means in their place, and in training runs that stop."""

from __future__ import annotations

import itertools

import pytest
import torch

import posteriori as po
from posteriori.evaluation import exact_posterior
from posteriori.training import em
from posteriori.training.gaussian_family import fit_gaussian

F64 = torch.float64
MEAN = torch.tensor([0.5, -0.3, 1.0], dtype=F64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.7, 0.0], [-0.5, 0.3, 0.6]], dtype=F64)
STD = 0.1
START = po.priors.Gaussian(torch.zeros(3, dtype=F64), 1.0)


def measured(count, seed=0):
    """Two of three numbers of each image, by three masks."""
    g = torch.Generator().manual_seed(seed)
    x = MEAN + torch.randn(count, 3, generator=g, dtype=F64) @ ROOT.T
    masks = [po.operators.Mask(torch.arange(3) != k) for k in range(3)]
    noise = po.noise.Gaussian(STD)
    likes = []
    for i in range(count):
        A = masks[i % 3]
        y = A(x[i : i + 1])[0] + STD * torch.randn(2, generator=g, dtype=F64)
        likes.append(po.Likelihood(y, A, noise))
    return likes


def test_the_log_likelihood_rises_to_that_of_the_truth():
    likes = measured(3000)
    fit = fit_gaussian(likes, START, iterations=40)
    told = fit.log_likelihood
    assert len(told) == 41
    for before, after in itertools.pairwise(told):
        assert after >= before - 1e-9 * abs(before)
    truth = po.priors.Gaussian(MEAN, ROOT @ ROOT.T)
    assert told[-1] > fit_gaussian(likes, truth, iterations=0).log_likelihood[0]
    # Standard errors of at most 0.023 and 0.04: 2000 measurements of each number, 1000 of a pair.
    assert float((fit.prior.mean - MEAN).abs().max()) < 5 * 0.023
    assert float((fit.prior.covariance - ROOT @ ROOT.T).abs().max()) < 5 * 0.04


def test_the_log_likelihood_and_an_iteration_are_those_of_the_exact_posteriors():
    likes = measured(12)
    exact = [exact_posterior(po.Posterior(START, like)) for like in likes]
    fit = fit_gaussian(likes, START, iterations=1)
    assert fit.log_likelihood[0] == pytest.approx(sum(e.log_evidence for e in exact), rel=1e-10)
    centres = torch.stack([e.mean.flatten() for e in exact])
    torch.testing.assert_close(centres, means(START, likes), rtol=1e-9, atol=1e-9)
    covariance = torch.stack([e.covariance for e in exact]).mean(0) + centres.T.cov(correction=0)
    torch.testing.assert_close(fit.prior.mean, centres.mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fit.prior.covariance, covariance, rtol=1e-9, atol=1e-9)


def test_a_lap_of_samples_is_an_iteration_of_the_closed_form():
    """From the closed form's own limit, at five standard errors of its moments."""
    likes = measured(1500)
    fit = fit_gaussian(likes, START, iterations=40).prior
    after = fit_gaussian(likes, fit, iterations=1).prior
    prior, images = next(
        em.laps(fit, likes, em.gaussian, po.methods.MMPS(iterations=3), steps=24, seed=1)
    )
    assert images.shape == (1500, 3)
    scale = after.covariance.diagonal()
    assert float(((prior.mean - after.mean) / (scale / 1500).sqrt()).abs().max()) < 5
    gap = (prior.covariance - after.covariance).abs() / torch.outer(scale, scale).sqrt()
    assert float(gap.max()) < 5 * (2 / 1500) ** 0.5


def test_each_lap_and_each_measurement_draws_with_noise_of_its_own():
    likes = measured(2) * 2
    course = em.laps(START, likes, lambda images, prior: prior, po.methods.MMPS(), steps=4, seed=7)
    (_, first), (_, second) = itertools.islice(course, 2)
    assert len({float(v) for v in torch.cat([first, second])[:, 0]}) == 8
    again = em.expectation(START, likes, po.methods.MMPS(), steps=4, seed=11)
    assert torch.equal(again, second)


def smallest(prior):
    return float(torch.linalg.eigvalsh(prior.covariance)[0])


def means(prior, likes):
    """E[x_i | y_i] under a Gaussian, (N, 3)."""
    rows = []
    for like in likes:
        seen = like.A.order[:2]
        within = prior.covariance[seen][:, seen] + STD**2 * torch.eye(2, dtype=F64)
        gain = prior.covariance[:, seen] @ torch.linalg.inv(within)
        rows.append(prior.mean + gain @ (like.y - prior.mean[seen]))
    return torch.stack(rows)


def test_means_in_place_of_samples_lose_the_covariance():
    """The control: its smallest eigenvalue falls lap by lap to nothing, that of samples stays."""
    likes, prior, seen = measured(150), START, [smallest(START)]
    for _ in range(11):
        prior = em.gaussian(means(prior, likes), prior)
        seen.append(smallest(prior))
    assert all(after < before for before, after in itertools.pairwise(seen[:6]))
    assert seen[-1] < 1e-3 * smallest(po.priors.Gaussian(MEAN, ROOT @ ROOT.T))
    course = em.laps(START, likes, em.gaussian, po.methods.MMPS(iterations=3), steps=12)
    sampled = [prior for prior, _ in itertools.islice(course, 8)][-1]
    assert smallest(sampled) > 0.5 * smallest(po.priors.Gaussian(MEAN, ROOT @ ROOT.T))


def test_measurements_that_tell_no_gaussian_are_refused():
    likes = measured(3)
    with pytest.raises(ValueError, match="no measurement to learn from"):
        fit_gaussian([], START)
    big = po.priors.Gaussian(torch.zeros(2049, dtype=F64), 1.0)
    with pytest.raises(ValueError, match="2049 numbers has too large a covariance"):
        fit_gaussian(likes, big)
    silent = po.Likelihood(likes[0].y, likes[0].A, po.noise.Gaussian(0.0))
    with pytest.raises(ValueError, match="measurements with noise"):
        fit_gaussian([silent], START)
