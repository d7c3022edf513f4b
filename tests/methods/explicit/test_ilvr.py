"""ILVR against its formula, above and below the level where it lets go."""

from __future__ import annotations

import pytest
import torch
from cases import bed
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.noise import Gaussian
from posteriori.operators import matrix
from posteriori.rng import Streams

SIGMA, S = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)


def coarse():
    """8x8 images of a correlated Gaussian prior, of which box averages of 2x2 are known."""
    prior = po.priors.Gaussian(torch.zeros(1, 8, 8, dtype=F64), torch.eye(64, dtype=F64) + 0.5)
    A = po.operators.Downsample((1, 8, 8), 2).double()
    return po.Posterior(prior, po.Likelihood(A(prior.sample(1, 3))[0], A, Gaussian(0.0)))


@pytest.mark.parametrize("make", [bed, coarse])
def test_the_projected_part_is_that_of_the_noised_reference_at_the_new_level(make):
    post = make()
    x = post.prior.start(
        torch.randn(3, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(1)), SIGMA
    )
    out, _ = methods.ILVR(noise="ignored").step(post, x, SIGMA, S, Streams(4, range(3)))
    rng = Streams(4, range(3))
    free, _ = methods.Unconditional().step(post, x, SIGMA, S, rng)
    z = rng.normal(x).flatten(1)
    A = matrix(post.likelihood.A)
    P = torch.linalg.pinv(A) @ A
    reference = torch.linalg.pinv(A) @ post.likelihood.y.flatten()
    torch.testing.assert_close(out.flatten(1) @ P, reference + 0.6 * z @ P, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        out.flatten(1) - out.flatten(1) @ P,
        free.flatten(1) - free.flatten(1) @ P,
        rtol=1e-7,
        atol=1e-9,
    )


def test_below_the_level_it_is_the_free_sampler_bit_for_bit():
    post = coarse()
    x = post.prior.start(
        torch.randn(3, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(1)), SIGMA
    )
    for method, s in ((methods.ILVR(until=0.6), S), (methods.ILVR(), torch.tensor(0.0, dtype=F64))):
        free, _ = methods.Unconditional().step(post, x, SIGMA, s, Streams(4, range(3)))
        assert torch.equal(method.step(post, x, SIGMA, s, Streams(4, range(3)))[0], free)


def test_the_later_it_lets_go_the_closer_the_coarse_content():
    post = coarse()
    misfit = [
        float(
            post.likelihood.residual(
                po.sample(post, methods.ILVR(until), n=20, steps=60, seed=0).samples
            )
            .square()
            .mean()
        )
        for until in (1e6, 0.5, 0.0)
    ]
    assert misfit[0] > 2 * misfit[1] > 4 * misfit[2], misfit


def test_a_negative_level_is_refused():
    with pytest.raises(ValueError, match="ILVR.until: expected a number >= 0"):
        methods.ILVR(until=-1.0)
