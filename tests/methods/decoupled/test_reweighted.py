"""Noise of unknown precisions: the Gibbs sampler against quadrature, and outliers that are left
out."""

from __future__ import annotations

import pytest
import torch
from cases import bed
from reference import F64, draw

import posteriori as po
from posteriori import methods, noise, operators, priors
from posteriori.evaluation import exact_posterior
from posteriori.methods.decoupled.reweighted import weighed
from posteriori.operators.base import solve

RHO = 0.3


def stepped(post, method, n, steps):
    """The rows of a run at levels just above RHO, before the last step."""
    levels = torch.cat([torch.linspace(1.001, 1, steps, dtype=F64) * RHO, torch.zeros(1)])
    seen = {}
    run = po.sample(
        post, method, n=n, grid=levels, watch=[lambda k, s, rows, info: seen.update({k: rows})]
    )
    return seen[steps - 2], run


@pytest.mark.parametrize(
    "law",
    [
        noise.Laplace(0.4),
        noise.StudentT(0.3, 3),
        noise.Outliers(0.2, 0.3, -4.0, 4.0),
        noise.UnknownGaussian(0.3, 2),
    ],
    ids=lambda law: type(law).__name__,
)
def test_drawn_precisions_make_the_posterior_of_the_law(law):
    """Three numbers y = x + e, one far out, x of a mixture: the rows have the law
    (p * N(0, rho^2))(x) p(y | x), by quadrature; each tenth of it holds a tenth of 1500 rows, to
    five standard errors."""
    prior = priors.GaussianMixture(
        torch.tensor([0.4, 0.6], dtype=F64),
        torch.tensor([[-1.0], [0.8]], dtype=F64),
        torch.tensor([[[0.2]], [[0.1]]], dtype=F64),
    )
    y = torch.tensor([0.1, 0.4, 2.5], dtype=F64)
    post = po.Posterior(prior, po.Likelihood(y, operators.Dense(torch.ones(3, 1, dtype=F64)), law))
    method = methods.Reweighted(methods.PnPDM(prior="exact", floor=RHO))
    rows, run = stepped(post, method, 1500, 25)
    x = torch.linspace(-4, 4, 8001, dtype=F64)[:, None]
    wide = priors.GaussianMixture(
        prior.weights, prior.means, prior.covariances + RHO**2 * torch.eye(1, dtype=F64)
    )
    density = (wide.log_prob(x) + post.given.log_prob(x)).softmax(0).cumsum(0)
    edges = x[torch.searchsorted(density, torch.arange(0.1, 0.95, 0.1, dtype=F64)), 0]
    share = torch.bincount(torch.bucketize(rows[:, 0], edges), minlength=10) / len(rows)
    assert float((share - 0.1).abs().max()) < 5 * (0.09 / 1500) ** 0.5
    assert run.trace["weight"].shape == (25, 1500)


def test_weights_of_rows_are_operators_of_rows():
    """Each row as if its weights were those of all."""
    post, w = bed(), 0.1 + draw(3, 4).abs()
    every = weighed(post, w)
    b, x = draw(3, 4, seed=1), draw(3, 6, seed=2)
    together = solve(every.likelihood.linear, b, 0.7, 0.3)
    for k in range(3):
        own = weighed(post, w[k : k + 1]).likelihood
        torch.testing.assert_close(together[k : k + 1], solve(own.linear, b[k : k + 1], 0.7, 0.3))
        torch.testing.assert_close(
            every.likelihood.log_prob(x)[k : k + 1], own.log_prob(x[k : k + 1])
        )


@pytest.mark.parametrize("weights", ["drawn", "expected"])
def test_under_gaussian_noise_it_is_the_method_within(weights):
    post = bed()
    for inner in (methods.PnPDM(), methods.DiffPIR()):
        ours, theirs = (
            po.sample(post, m, n=2, steps=4) for m in (methods.Reweighted(inner, weights), inner)
        )
        torch.testing.assert_close(ours.samples, theirs.samples, rtol=0, atol=0)


@pytest.mark.parametrize(
    "law", [noise.Huber(0.05), noise.StudentT(0.05, 3), noise.Outliers(0.05, 0.1, -9.0, 9.0)]
)
def test_outliers_are_left_out_with_expected_weights(law):
    """60 numbers of 6 unknowns, six of them lost: the error is near that of the exact posterior of
    the other 54, and far below that of Gaussian noise."""
    prior = priors.Gaussian(torch.zeros(6, dtype=F64), 1.0, range=(-1, 1))
    A, x = operators.Dense(draw(60, 6, seed=1)), 0.5 + prior.sample(1, 4) / 2
    y = A(x)[0] + 0.05 * draw(60, seed=2)
    y[::10] = 8.0
    kept = torch.arange(60) % 10 != 0
    sound = po.Likelihood(
        y[kept], operators.Dense(A.matrix[kept]), noise.Gaussian(0.05), range=(0, 1)
    )
    best = exact_posterior(po.Posterior(prior, sound)).mean
    gaussian = po.Likelihood(y, A, noise.Gaussian(0.05), range=(0, 1))
    told = po.Likelihood(y, A, law, range=(0, 1))
    method = methods.Reweighted(methods.DiffPIR(), "expected")
    found = po.sample(po.Posterior(prior, told), method, n=16, steps=20).mean
    spoilt = exact_posterior(po.Posterior(prior, gaussian)).mean
    assert float((found - best).norm()) < 0.1 * float((spoilt - best).norm())


def test_what_it_cannot_take_is_refused_by_name():
    given, one = bed().given, methods.Reweighted()
    A = operators.Dense(torch.eye(6, dtype=F64).abs())

    def post(law, A=given.A, y=given.y):
        return po.Posterior(bed().prior, po.Likelihood(y, A, law))

    assert "Poisson noise is not Gaussian at given precisions" in one.refuses(
        post(noise.Poisson(50.0), A, torch.ones(6, dtype=F64))
    )
    curved = operators.wrap(lambda x: x.square(), (6,))
    assert "linear" in one.refuses(post(noise.Laplace(0.1), curved, torch.ones(6, dtype=F64)))
    for inner in (methods.EPS(), methods.DDRM()):  # at other precisions A has no closed form
        said = methods.Reweighted(inner).refuses(post(noise.Laplace(0.1)))
        assert f"{type(inner).__name__}: " in said or "closed-form spectrum" in said
        assert methods.Reweighted(inner).refuses(post(noise.Gaussian(0.1))) is None
    clouds = methods.Reweighted(methods.TDS(particles=4))
    assert "rows of TDS do not stand alone" in clouds.refuses(post(noise.Laplace(0.1)))
    assert "Reweighted" in methods.DiffPIR().refuses(post(noise.Laplace(0.1)))
    assert "Reweighted" not in methods.DiffPIR().refuses(
        post(noise.Poisson(50.0), A, torch.ones(6, dtype=F64))
    )
