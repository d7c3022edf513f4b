"""DSG's sphere, and Peng et al.'s scalar covariance, against their formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, phases
from reference import F64, images

import posteriori as po
from posteriori import methods
from posteriori.evaluation import affine_probe, exact_posterior, gaussian_kl
from posteriori.methods import DDIM, Heun
from posteriori.noise import Gaussian
from posteriori.rng import Streams

SIGMA, S = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)
STD = 0.6 * (1 - 0.36 / 0.81) ** 0.5


def parts(post, x):
    """mu, the ancestral draw, and the unit descent direction of ||y - A D|| by automatic
    differentiation."""
    x0 = post.prior.denoise(x, SIGMA)
    mean = x0 + (0.36 - STD**2) ** 0.5 * (x - x0) / 0.9
    free, _ = methods.Unconditional(DDIM(1.0)).step(post, x, SIGMA, S, Streams(0, range(len(x))))
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        (post.likelihood.y - post.likelihood.A(post.prior.denoise(leaf, SIGMA)))
        .flatten(1)
        .norm(dim=1)
        .sum(),
        leaf,
    )
    return (
        mean,
        free - mean,
        -gradient / gradient.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1)),
    )


def length(v):
    return v.flatten(1).norm(dim=1)


@pytest.mark.parametrize("make", [bed, phases])
@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_dsg_is_the_papers_step_on_the_sphere(make, rate):
    post = make()
    x = images(post, SIGMA)
    out, _ = methods.DSG(rate).step(post, x, SIGMA, S, Streams(0, range(3)))
    mean, draw, down = parts(post, x)
    radius = STD * x[0].numel() ** 0.5
    torch.testing.assert_close(length(out - mean), torch.full((3,), radius, dtype=F64))
    mixed = (1 - rate) * draw + rate * radius * down
    torch.testing.assert_close(
        out,
        mean + radius * mixed / length(mixed).view(-1, *[1] * (x.ndim - 1)),
        rtol=1e-6,
        atol=1e-9,
    )


def test_dsg_does_not_know_the_scale_of_the_loss_and_a_zero_residual_leaves_the_draw():
    post = bed()
    x = images(post, SIGMA)
    louder = po.Posterior(post.prior, replace(post.given, noise=Gaussian(3.0)))
    one, other = (
        methods.DSG().step(p, x, SIGMA, S, Streams(0, range(3)))[0] for p in (post, louder)
    )
    assert torch.equal(one, other)
    fitted = po.Posterior(
        post.prior, replace(post.given, y=post.likelihood.A(post.prior.denoise(x[:1], SIGMA))[0])
    )
    still, _ = methods.DSG(0.5).step(fitted, x[:1], SIGMA, S, Streams(0, [0]))
    mean, draw, _ = parts(post, x[:1])
    torch.testing.assert_close(still, mean + STD * 6**0.5 * draw / length(draw)[:, None])


def test_dsg_draws_complex_images_on_the_sphere_of_twice_as_many_numbers():
    post = complex_picture()
    x = torch.randn(
        2, *post.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)
    )
    out, _ = methods.DSG(0.0).step(post, x, SIGMA, S, Streams(0, range(2)))
    x0 = post.prior.denoise(x, SIGMA)
    mean = x0 + (0.36 - STD**2) ** 0.5 * (x - x0) / 0.9
    torch.testing.assert_close(
        length(out - mean), torch.full((2,), STD * (2 * x[0].numel()) ** 0.5, dtype=F64)
    )


def test_dsg_lowers_the_residual_of_an_unguided_run_and_is_no_posterior_sampler():
    post = bed()
    kept = {
        name: po.sample(post, m, n=200, steps=50, seed=0).samples
        for name, m in (("free", methods.Unconditional()), ("DSG", methods.DSG()))
    }
    chi2 = {name: float(post.given.chi2(x).mean()) for name, x in kept.items()}
    assert chi2["DSG"] < 0.5 * chi2["free"]
    exact = exact_posterior(post)
    distance = po.evaluation.sliced_wasserstein(kept["DSG"], exact.sample(200, seed=1), slices=200)
    floor, spread = po.evaluation.floor(exact, 200, slices=200)
    assert distance > floor + 5 * spread


def test_refused_settings():
    for settings in ({"rate": 1.5}, {"rate": -0.1}, {"eta": 0.0}):
        with pytest.raises(ValueError, match="DSG"):
            methods.DSG(**settings)
    with pytest.raises(ValueError, match="Peng.type is 'III'"):
        methods.Peng("III")


@pytest.mark.parametrize("transition", [DDIM(1.0), Heun()])
@pytest.mark.parametrize("kind", ["I", "II"])
def test_peng_is_the_exact_sampler_for_a_white_prior_and_only_there(kind, transition):
    """The output law of a whole run against that of the exact conditional denoiser on the same grid
    from the same start."""
    for name, same in (("white", True), ("general", False)):
        post = bed(name)
        levels = po.grid.karras(40, post.prior.sigma_max, post.prior.sigma_min)
        ours = affine_probe(post, methods.Peng(kind, transition), 40, levels)
        exact = affine_probe(
            po.evaluation.oracle(post), methods.Unconditional(transition), 40, levels
        )
        gap = max(float((a - b).abs().max()) for a, b in zip(ours, exact, strict=True))
        assert (gap < 1e-9) is same, gap
        if not same:
            assert float(gaussian_kl(*ours, *exact)) > 0.01


def test_the_types_agree_for_a_white_prior_and_differ_otherwise():
    for kind, same in (("white", True), ("general", False)):
        post = bed(kind)
        x = images(post, SIGMA)
        one, two = (methods.Peng(t).denoise(post, x, SIGMA) for t in ("I", "II"))
        assert (float((one - two).abs().max()) < 1e-10) is same


def test_peng_is_the_formula_with_the_mean_posterior_variance():
    post = bed("general")
    x, like = images(post, SIGMA), post.likelihood
    A, C = po.operators.matrix(like.A), post.prior.covariance
    J = C @ torch.linalg.inv(C + 0.81 * torch.eye(6, dtype=F64))
    r2 = float(0.81 * J.trace() / 6)
    x0 = post.prior.denoise(x, SIGMA)
    v = (
        (like.y - x0 @ A.T)
        @ torch.linalg.inv(r2 * A @ A.T + like.std**2 * torch.eye(4, dtype=F64))
        @ A
    )
    torch.testing.assert_close(methods.Peng("I").denoise(post, x, SIGMA), x0 + 0.81 * v @ J)
    torch.testing.assert_close(methods.Peng("II").denoise(post, x, SIGMA), x0 + r2 * v)
    # The proximal step of DiffPIR with lam = 1 is the same estimate; type II moves in the range of
    # A^T only, type I does not.
    torch.testing.assert_close(
        methods.Peng("II").denoise(post, x, SIGMA), methods.DiffPIR().denoise(post, x, SIGMA)
    )
    null = torch.eye(6, dtype=F64) - torch.linalg.pinv(A) @ A
    assert float(((methods.Peng("II").denoise(post, x, SIGMA) - x0) @ null).abs().max()) < 1e-10
    assert float(((methods.Peng("I").denoise(post, x, SIGMA) - x0) @ null).abs().max()) > 1e-3


def test_type_two_needs_no_back_propagation():
    post = bed()
    assert po.sample(post, methods.Peng("II"), n=1, steps=3).counts["vjp"] == 0
    assert po.sample(post, methods.Peng("I"), n=1, steps=3).counts["vjp"] == 3


def test_the_authors_take_the_variance_of_pigdm_from_a_level_on():
    """From the level on, in units of half the range, the estimate is PiGDM's with variance 1."""
    post = bed("general")
    method = methods.Peng("I", covariance="analytic", pigdm_above=0.85)
    x = images(post, SIGMA)
    theirs = methods.PiGDM(variance=1.0).denoise(post, x, SIGMA)
    torch.testing.assert_close(method.denoise(post, x, SIGMA), theirs)
    below = SIGMA * 0.9
    torch.testing.assert_close(
        method.denoise(post, x, below),
        methods.Peng("I", covariance="analytic").denoise(post, x, below),
    )
    assert float((method.denoise(post, x, below) - theirs).abs().max()) > 1e-3


def test_estimates_are_clipped_to_the_range_of_a_prior_that_has_one():
    post = bed("general")
    x = images(post, SIGMA)
    free = methods.Peng("I").denoise(post, x, SIGMA)
    limits = (float(free.min()) + 0.1, float(free.max()) - 0.1)
    prior = po.priors.Gaussian(post.prior.mean, post.prior.covariance, range=limits)
    ranged = po.Posterior(
        prior, po.Likelihood(post.likelihood.y, post.likelihood.A, post.given.noise, range=limits)
    )
    clipped = methods.Peng("I", clip=True).denoise(ranged, x, SIGMA)
    torch.testing.assert_close(clipped, free.clamp(*limits))
    assert torch.equal(methods.Peng("I", clip=True).denoise(post, x, SIGMA), free)
    assert methods.Peng.published().pigdm_above == 0.2
    assert methods.Peng.published().clip
