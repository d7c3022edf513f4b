"""Guidance through a pseudo-inverse: the noiseless limit for linear operators, and what it does for
JPEG."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed, phases
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.noise import Gaussian
from posteriori.rng import Streams

METHOD = methods.PiGDM(weighting="pseudo-inverse")


def jpeg(quality=30):
    """Grey 16x16 images of a smooth Gaussian prior in [-1, 1], seen as JPEG coefficients of the
    image in [0, 1]."""
    place = (
        torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"), -1)
        .view(256, 2)
        .double()
    )
    covariance = 0.1 * torch.exp(-torch.cdist(place, place).square() / 18) + 1e-3 * torch.eye(
        256, dtype=F64
    )
    prior = po.priors.Gaussian(torch.zeros(1, 16, 16, dtype=F64), covariance, range=(-1, 1))
    A = po.operators.JPEG((1, 16, 16), quality)
    x = (prior.sample(1, 5) + 1) / 2
    return po.Posterior(prior, po.Likelihood(A(x)[0], A, Gaussian(0.0), range=(0, 1))), x


def test_it_is_the_noiseless_limit_of_the_score_for_a_linear_operator():
    post = bed()
    silent = po.Posterior(post.prior, replace(post.given, noise=Gaussian(0.0)))
    for level in (3.0, 0.4):
        sigma = torch.tensor(level, dtype=F64)
        x = post.prior.start(
            torch.randn(4, 6, dtype=F64, generator=torch.Generator().manual_seed(0)), sigma
        )
        torch.testing.assert_close(
            METHOD.denoise(silent, x, sigma),
            methods.PiGDM().denoise(silent, x, sigma),
            rtol=1e-8,
            atol=1e-8,
        )
        near = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e-5)))
        torch.testing.assert_close(
            METHOD.denoise(silent, x, sigma),
            methods.PiGDM().denoise(near, x, sigma),
            rtol=1e-4,
            atol=1e-4,
        )


def test_jpeg_is_guided_in_the_users_range_by_the_papers_rule():
    post, _ = jpeg()
    sigma = torch.tensor(0.4, dtype=F64)
    x = post.prior.start(
        torch.randn(2, 1, 16, 16, dtype=F64, generator=torch.Generator().manual_seed(0)), sigma
    )
    A, r2 = post.given.A, post.prior.know().max_variance(sigma)
    leaf = x.clone().requires_grad_()
    x0 = post.prior.denoise(leaf, sigma)
    gap = 2 * (A.pseudo_inverse(post.given.y[None]) - A.pseudo_inverse(A((x0.detach() + 1) / 2)))
    (g,) = torch.autograd.grad((x0 * gap).sum(), leaf)
    torch.testing.assert_close(METHOD.denoise(post, x, sigma), x0.detach() + 0.16 / r2 * g)


def test_jpeg_samples_are_closer_to_the_photograph_than_its_decoded_file():
    post, x = jpeg(quality=15)
    decoded = post.given.A.pseudo_inverse(post.given.y[None])
    run = po.sample(post, METHOD, n=16, steps=60, seed=0)
    error = {"decoded": decoded, "mean": run.mean[None], "prior": torch.full_like(x, 0.5)}
    error = {name: float((image - x).square().mean()) for name, image in error.items()}
    assert error["mean"] < error["decoded"] < error["prior"], error


def test_the_published_step_is_the_papers_in_its_own_coordinates():
    """x'_vp = DDPM(x_vp) + sqrt(abar) r^2 g, g = (y - A D)^T (r^2 A A^T + sigma_y^2 I)^-1 A
    dD/dx_vp, r^2 = 1 - abar."""
    post = bed()
    A, y, std = po.operators.matrix(post.likelihood.A), post.likelihood.y, post.likelihood.std
    for level, lower in ((2.0, 0.7), (0.5, 0.4)):
        sigma, s = torch.tensor(level, dtype=F64), torch.tensor(lower, dtype=F64)
        a, a_s = ((1 + v**2).rsqrt() for v in (sigma, s))
        x = post.prior.start(
            torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(0)), sigma
        )
        leaf, r2 = (a * x).requires_grad_(), 1 - a**2
        x0 = post.prior.denoise(leaf / a, sigma)
        weighed = torch.linalg.solve(
            r2 * A @ A.T + std**2 * torch.eye(len(y), dtype=F64), (y - x0 @ A.T).detach().T
        ).T
        (g,) = torch.autograd.grad((x0 @ A.T * weighed).sum(), leaf)
        printed, coded = (
            m.step(post, x, sigma, s, Streams(4, range(3)))[0]
            for m in (methods.PiGDM("paper"), methods.PiGDM.published())
        )
        free, _ = methods.Unconditional(methods.DDIM(1.0)).step(
            post, x, sigma, s, Streams(4, range(3))
        )
        torch.testing.assert_close(a_s * printed, a_s * free + a * r2 * g, rtol=1e-9, atol=1e-9)
        # The authors' code has a_s as well
        torch.testing.assert_close(a_s * coded, a_s * free + a * a_s * r2 * g, rtol=1e-9, atol=1e-9)


def test_an_operator_without_a_pseudo_inverse_is_refused():
    assert "PhaseRetrieval has none" in str(METHOD.refuses(phases()))
    with pytest.raises(TypeError, match="has none"):
        po.operators.PhaseRetrieval((1, 3, 4)).pseudo_inverse(torch.zeros(1, 1))
    assert METHOD.refuses(jpeg()[0]) is None
    assert "JPEG is not linear" in str(methods.PiGDM().refuses(jpeg()[0]))
