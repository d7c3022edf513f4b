"""A y of more numbers than the image: what is told of it by as many as the image has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed
from reference import F64

import posteriori as po
from posteriori.evaluation import exact_posterior
from posteriori.methods import TDS, MomentSMC
from posteriori.methods.smc.sufficient import fewer, fewest
from posteriori.methods.smc.twists import view


def many(m=600):
    """A Gaussian prior in R^6 seen through m numbers."""
    post, g = bed("general"), torch.Generator().manual_seed(0)
    A = po.operators.Dense(torch.randn(m, 6, dtype=F64, generator=g) / m**0.5)
    y = A(post.prior.sample(1, 3))[0] + 0.1 * torch.randn(m, dtype=F64, generator=g)
    return po.Posterior(post.prior, replace(post.given, y=y, A=A))


def test_six_numbers_say_of_the_image_what_six_hundred_do():
    post = many()
    told, rest = fewer(post)
    assert told.likelihood.y.shape == (6,)
    x = torch.randn(5, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        told.likelihood.log_prob(x) + rest, post.likelihood.log_prob(x), rtol=1e-10, atol=0
    )
    sigma = torch.tensor(0.8, dtype=F64)
    one, other = (view(each, x, sigma, "moments") for each in (told, post))
    torch.testing.assert_close(one.log_p + rest, other.log_p, rtol=1e-9, atol=0)
    torch.testing.assert_close(one.gradient, other.gradient, rtol=1e-7, atol=1e-9)
    assert fewest(many(20)) == 20
    assert fewer(many(20)).rest == 0


@pytest.mark.parametrize("method", [MomentSMC(64, pilot=16), TDS(512, "moments")], ids=["M", "T"])
def test_methods_with_a_covariance_take_them_and_know_the_evidence(method):
    post = many()
    assert method.refuses(post) is None
    run = po.sample(post, method, n=512, grid=po.grid.log(30, 8.0, 0.05), seed=1)
    exact = exact_posterior(post)
    # The chain of TDS lacks some of the prior's variance at 30 levels, MomentSMC's does not.
    near = 0.1 if isinstance(method, MomentSMC) else 1.0
    assert run.log_evidence == pytest.approx(exact.log_evidence, abs=near)
    z = (run.samples.mean(0) - exact.mean).abs() / exact.std
    assert float(z.max()) < (5 / 512**0.5 if isinstance(method, MomentSMC) else 0.5)
