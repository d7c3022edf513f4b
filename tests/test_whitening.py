"""Gaussian noise that is not white: methods meet it white, and the posterior is that of its
covariance."""

from __future__ import annotations

import json
import math

import pytest
import torch
from cases import AFFINE, ANY, WHITE, bed, full_gaussian
from reference import F64, draw, law

import posteriori as po
from posteriori import covariances as cov
from posteriori import methods
from posteriori import noise as laws
from posteriori import operators as ops
from posteriori.evaluation import affine_probe, exact_posterior, gaussian_kl
from posteriori.linalg import real_view
from posteriori.rng import Streams


def spd(m, seed=0):
    axes = torch.linalg.qr(draw(m, m, seed=seed))[0]
    return (axes * torch.logspace(-2, 0, m, dtype=F64)) @ axes.T


def waves(H, W, least=0.05):
    power = torch.fft.fft2(draw(H, W, seed=5)).abs().square()
    return cov.FourierNoise(least + power / power.max())


def filtered(m):
    """Of a W that is not symmetric."""
    W = torch.eye(m, dtype=F64) + 0.7 * torch.ones(m, m, dtype=F64).tril(-1)
    back = torch.linalg.inv(W)

    def on(M):
        return lambda e: (e.flatten(1) @ M.T.to(e)).view(e.shape)

    return laws.FilteredGaussian(on(W), on(back))


GREY = (1, 4, 6)
MASK = ops.Mask(ops.random_mask((4, 6), 0.6, 0), GREY)
KSPACE = ops.MaskedFourier(ops.random_mask((4, 6), 0.6, 1), (4, 6)) @ ops.ComplexChannels((2, 4, 6))
# Operator, law, whether the spectrum is known in closed form.
PROBLEMS = {
    "mask, levels": (MASK, laws.CorrelatedGaussian.of_levels(0.05 + draw(14).abs()), True),
    "mask, matrix": (MASK, laws.CorrelatedGaussian(cov.MatrixNoise(spd(14))), True),
    "blur, stationary": (
        ops.Blur(ops.gaussian_kernel(0.7, 3).double(), GREY),
        laws.CorrelatedGaussian(waves(4, 6)),
        True,
    ),
    "blur, levels": (
        ops.Blur(ops.gaussian_kernel(0.7, 3).double(), GREY, boundary="zero"),
        laws.CorrelatedGaussian.of_levels(0.05 + draw(*GREY).abs()),
        False,
    ),
    "block means, stationary": (
        ops.Downsample(GREY, 2).double(),
        laws.CorrelatedGaussian(waves(2, 3)),
        True,
    ),
    "rays, stationary": (
        ops.Radon((4, 6), [0, 30, 100], 0.5).double(),
        laws.CorrelatedGaussian(waves(3, 8)),
        False,
    ),
    "matrix, functions": (ops.Dense(draw(5, 24), GREY), filtered(5), True),
    "k-space, levels": (
        KSPACE,
        laws.CorrelatedGaussian.of_levels(0.05 + draw(14).abs(), complex_numbers=True),
        True,
    ),
}


def problem(name):
    """A posterior with a range, and a measurement of it."""
    A, noise, _ = PROBLEMS[name]
    prior = full_gaussian(shape=A.in_shape)
    # Images of [0, 1] to a prior of [-1, 1]: an image x is 2 x - 1 there.
    prior = po.priors.Gaussian(prior.mean, prior.covariance, range=(-1, 1))
    x = (prior.sample(1, 3) + 1) / 2
    y = noise.sample(A(x), Streams(1, [0]))[0]
    return po.Posterior(prior, po.Likelihood(y, A, noise, range=(0, 1))), x


def dense(law, y):
    """The covariance of the real numbers of y, from what the law draws of unit white noise."""
    real = real_view(y)
    units = torch.eye(real.numel(), dtype=F64).view(-1, *real.shape)
    units = torch.view_as_complex(units) if y.is_complex() else units
    columns = real_view(law.whitening(y).colour(units)).flatten(1)
    return columns.T @ columns


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_law_is_that_of_its_covariance(name):
    _, noise, _ = PROBLEMS[name]
    y = problem(name)[0].given.y
    C = dense(noise, y)
    if isinstance(noise, laws.CorrelatedGaussian):
        channels = 2 if y.is_complex() else 1
        torch.testing.assert_close(
            C[::channels, ::channels], noise.covariance.dense(y.real[None]), rtol=0, atol=1e-12
        )
    clean = draw(3, *real_view(y).shape, seed=8)
    known = torch.distributions.MultivariateNormal(clean.flatten(1), C)
    want = known.log_prob(real_view(y).flatten())
    x = torch.view_as_complex(clean) if y.is_complex() else clean
    torch.testing.assert_close(noise.log_prob(y, x), want, rtol=1e-9, atol=1e-9)
    slope = torch.linalg.solve(C, (real_view(y) - clean).flatten(1).T).T
    torch.testing.assert_close(real_view(noise.score(y, x)).flatten(1), slope, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        noise.variance(y).expand(y.shape).flatten(), C.diagonal()[:: 2 if y.is_complex() else 1]
    )


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_posterior_is_that_of_the_stated_covariance(name):
    """Mean, covariance and evidence against the textbook, with the covariance as a matrix and in
    the units of y."""
    (post, _), (A, noise, closed) = problem(name), PROBLEMS[name]
    C, units = dense(noise, post.given.y), torch.eye(24 * (2 if A is KSPACE else 1), dtype=F64)
    R = real_view(A(units.view(-1, *A.in_shape))).flatten(1).T
    mean, P = (post.prior.mean.flatten() + 1) / 2, post.prior.covariance / 4
    S, gap = R @ P @ R.T + C, real_view(post.given.y).flatten() - R @ mean
    gain = torch.linalg.solve(S, R @ P).T
    exact = exact_posterior(post)
    torch.testing.assert_close(exact.mean.flatten(), mean + gain @ gap, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(exact.covariance, P - gain @ R @ P, rtol=1e-8, atol=1e-8)
    known = torch.distributions.MultivariateNormal(torch.zeros(len(S), dtype=F64), S)
    assert exact.log_evidence == pytest.approx(float(known.log_prob(gap)), rel=1e-8)
    inner = post.likelihood.A.spectrum()
    assert (inner is not None) is closed
    b = draw(2, *real_view(post.given.y).shape, seed=4)
    W = real_view(post.likelihood.A(units.view(-1, *A.in_shape))).flatten(1).T
    wanted = torch.linalg.solve(
        0.7 * W @ W.T + 0.3 * torch.eye(len(W), dtype=F64), b.flatten(1).T
    ).T
    lone = torch.view_as_complex(b) if post.given.y.is_complex() else b
    found = real_view(ops.solve(post.likelihood.A, lone, 0.7, 0.3)).flatten(1)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", PROBLEMS)
def test_densities_and_chi_square_stay_those_of_the_user(name):
    post, x = problem(name)
    u, given, inner = 2 * x - 1, post.given, post.likelihood
    assert float(inner.log_prob(u)) + post.log_volume == pytest.approx(
        float(given.log_prob(x)), rel=1e-9
    )
    error = real_view(given.y - given.A(x)[0]).flatten()
    whole = float(error @ torch.linalg.solve(dense(given.noise, given.y), error)) / len(error)
    assert float(given.chi2(x)) == pytest.approx(whole, rel=1e-8)
    assert float(inner.chi2(u)) == pytest.approx(whole, rel=1e-8)
    pull = inner.A.linearize(u)[1](inner.y[None] - inner.A(u)) / inner.std**2
    torch.testing.assert_close(2 * pull, given.score(x), rtol=1e-8, atol=1e-8)


def correlated(kind):
    """``cases.bed`` with a covariance whose eigenvalues are from 0.005 to 0.05, and the same
    whitened by hand: by the Cholesky factor, which leaves y turned, at the level 1."""
    white, axes = bed(kind), torch.linalg.qr(draw(4, 4, seed=6))[0]
    C = (axes * torch.logspace(-2.3, -1.3, 4, dtype=F64)) @ axes.T
    given, L = white.given, torch.linalg.cholesky(C)
    by_hand = po.Likelihood(
        torch.linalg.solve_triangular(L, given.y[:, None], upper=False)[:, 0],
        ops.Dense(torch.linalg.solve_triangular(L, given.A.matrix, upper=False)),
        laws.Gaussian(1.0),
    )
    stated = po.Likelihood(given.y, given.A, laws.CorrelatedGaussian(cov.MatrixNoise(C)))
    return po.Posterior(white.prior, stated), po.Posterior(white.prior, by_hand)


# The default setting of every class that claims a Gaussian law.
CLAIMING = [
    name
    for name, case in AFFINE.items()
    if WHITE in case.reaches and name == type(case.method).__name__
]


@pytest.mark.parametrize("name", CLAIMING)
def test_methods_have_the_law_of_the_whitened_problem(name):
    """Of every method that claims a Gaussian law, to 1e-8, and that law is the posterior's, as far
    as its steps reach it."""
    case = AFFINE[name]
    post, by_hand = correlated("general" if ANY in case.reaches else "white")
    mean, covariance = law(post, case.method, case.steps)
    other, spread = law(by_hand, case.method, case.steps)
    torch.testing.assert_close(mean, other, rtol=0, atol=1e-8)
    torch.testing.assert_close(covariance, spread, rtol=0, atol=1e-8)
    exact = exact_posterior(post)
    assert float(gaussian_kl(mean, covariance, exact.mean.flatten(), exact.covariance)) < 0.06


def test_exact_draws_give_the_posterior_under_correlated_noise():
    for kind in ("general", "white"):
        post, _ = correlated(kind)
        levels = torch.tensor([1e6, 1.0, 0.0], dtype=F64)
        mean, covariance = affine_probe(post, methods.DAPS(draw="exact"), 2, levels)
        exact = exact_posterior(post)
        torch.testing.assert_close(mean, exact.mean.flatten(), rtol=0, atol=1e-8)
        torch.testing.assert_close(covariance, exact.covariance, rtol=0, atol=1e-8)


def test_white_noise_stated_as_a_covariance_changes_nothing():
    white = bed()
    stated = po.Likelihood(
        white.given.y, white.given.A, laws.CorrelatedGaussian(cov.WhiteNoise(0.01))
    )
    post = po.Posterior(white.prior, stated)
    assert post.likelihood.std == pytest.approx(0.1, rel=1e-12)
    a, b = (po.sample(p, methods.DPS(), n=2, steps=5) for p in (white, post))
    torch.testing.assert_close(a.samples, b.samples, rtol=1e-9, atol=1e-9)
    assert json.loads(json.dumps(b.config))["noise"] == {
        "law": "CorrelatedGaussian",
        "covariance": "one level everywhere",
    }
    assert "covariance=one level everywhere" in repr(post)


def test_a_curved_operator_is_followed_by_the_whitening():
    A = ops.PhaseRetrieval((1, 3, 4))
    prior = po.priors.Gaussian(torch.full((1, 3, 4), 0.5, dtype=F64), 0.1)
    noise = laws.CorrelatedGaussian.of_levels(0.05 + draw(*A.out_shape).abs())
    like = po.Likelihood(A(prior.sample(1, 0))[0], A, noise)
    post, x = po.Posterior(prior, like), prior.sample(3, 1)
    torch.testing.assert_close(post.likelihood.log_prob(x), like.log_prob(x), rtol=1e-9, atol=0)
    assert post.likelihood.std == pytest.approx(
        math.exp(float(noise.covariance.variances.log().mean()) / 2)
    )
    assert methods.MMPS().refuses(post) is None
    assert "linear" in methods.DDRM().refuses(post)


def test_what_is_no_covariance_is_refused_by_name():
    A, y = ops.Identity((1, 4, 6)), torch.zeros(1, 4, 6, dtype=F64)
    for make, words in (
        (lambda: laws.CorrelatedGaussian.of_levels(torch.tensor([1.0, 0.0])), r"1 are not.*\(1,\)"),
        (lambda: laws.CorrelatedGaussian(torch.eye(3)), "got Tensor; of a matrix, MatrixNoise"),
        (lambda: cov.MatrixNoise(draw(3, 3)), "symmetric"),
        (lambda: cov.MatrixNoise(torch.diag(torch.tensor([1.0, -1.0]))), "positive definite"),
        (lambda: cov.FourierNoise.filtered(torch.tensor([[1.0, -1.0]]), (4, 6)), "frequency"),
        (
            lambda: po.Likelihood(y, A, laws.CorrelatedGaussian(cov.MatrixNoise(spd(3)))),
            r"shape \(1, 4, 6\)",
        ),
        (
            lambda: po.Likelihood(y, A, laws.CorrelatedGaussian.of_levels(torch.ones(5, 6))),
            r"shape \(1, 4, 6\)",
        ),
        (
            lambda: po.Likelihood(y, A, laws.FilteredGaussian(lambda e: 2 * e, lambda z: z, 1.0)),
            "inverse",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make()


def test_filtered_white_noise_has_the_covariance_of_the_filter():
    """Twelve numbers, filtered one unit at a time."""
    kernel = torch.tensor([[0.2, 0.5, 0.4]], dtype=F64)
    F = ops.matrix(ops.Blur(kernel / kernel.sum(), (1, 3, 4))) * kernel.sum()
    found = cov.FourierNoise.filtered(kernel, (3, 4), 0.3).dense(torch.zeros(1, 1, 3, 4, dtype=F64))
    torch.testing.assert_close(found, 0.09 * F @ F.T, rtol=0, atol=1e-12)
