"""Replacement of the measured part: ScoreSDE, MCG and RePaint against their formulas and the known
size of their bias."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed, complex_picture, phases, picture
from reference import F64, images, law

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior
from posteriori.methods import DDIM
from posteriori.noise import Gaussian
from posteriori.rng import Streams

SIGMA, S = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)
ALL = {"ScoreSDE": methods.ScoreSDE(), "MCG": methods.MCG(), "RePaint": methods.RePaint(3)}
ALL |= {
    "ScoreSDE published": methods.ScoreSDE.published(),
    "MCG published": methods.MCG.published(),
}


class Silent:
    """Every random number is 0: the output of an affine sampler is then its mean."""

    def normal(self, like):
        return torch.zeros_like(like)


def pair(rho, sigma=0.0):
    """Two numbers of variance 1 and correlation rho; the first is measured to be 1."""
    prior = po.priors.Gaussian(
        torch.zeros(2, dtype=F64), torch.tensor([[1, rho], [rho, 1]], dtype=F64)
    )
    A = po.operators.Mask(torch.tensor([True, False]))
    return po.Posterior(prior, po.Likelihood(torch.ones(1, dtype=F64), A, Gaussian(sigma)))


def mean(post, method, steps):
    x = torch.zeros(1, *post.shape, dtype=F64)
    with torch.no_grad():
        for sigma, s in pairwise(po.grid.karras(steps, 80.0, 0.002)):
            x, _ = method.step(post, x, sigma, s, Silent())
    return x[0]


def noiseless(post, seed=5):
    """The same problem with y = A x exactly."""
    given = post.given
    x = (
        torch.complex(*post.prior.pairs.sample(1, seed).unbind(1))
        if post.prior.complex
        else post.prior.sample(1, seed)
    )
    law = replace(given.noise, **{"sigma_per_channel" if post.prior.complex else "sigma": 0.0})
    return po.Posterior(post.prior, replace(given, y=given.A(post.to_given(x))[0], noise=law))


def hard(method):
    """The same method with y taken as noiseless."""
    return replace(method, noise="ignored")


def replaced(post, x, s, z):
    """(I - A^+ A) x + A^+ (y + s A z) with dense matrices."""
    A = po.operators.matrix(post.likelihood.A)
    P = torch.linalg.pinv(A) @ A
    return x - x @ P.T + (torch.linalg.pinv(A) @ post.likelihood.y) + float(s) * z @ P.T


def ancestral(x, x0, sigma, s, z):
    """q(x_s | x_sigma, x0) = N((1 - w) x0 + w x, s^2 (1 - w)), w = s^2 / sigma^2."""
    w = float(s**2 / sigma**2)
    return (1 - w) * x0 + w * x + float(s) * (1 - w) ** 0.5 * z


def test_scoresde_is_its_formula():
    post = bed()
    x = images(post, SIGMA)
    ours, _ = hard(methods.ScoreSDE()).step(post, x, SIGMA, S, Streams(4, range(3)))
    rng = Streams(4, range(3))
    moved = ancestral(x, post.prior.denoise(x, SIGMA), SIGMA, S, rng.normal(x))
    expected = replaced(post, moved, S, rng.normal(x))
    torch.testing.assert_close(ours, expected)
    half, _ = hard(methods.ScoreSDE(lam=0.5)).step(post, x, SIGMA, S, Streams(4, range(3)))
    torch.testing.assert_close(half, 0.5 * (moved + expected))


def test_the_correction_of_scoresde_is_langevin_with_the_step_size_of_each_row():
    post, snr = bed(), 0.3
    x = images(post, SIGMA)
    ours, _ = hard(methods.ScoreSDE(corrections=1, snr=snr)).step(
        post, x, SIGMA, S, Streams(4, range(3))
    )
    rng = Streams(4, range(3))
    x, _ = hard(methods.ScoreSDE()).step(post, x, SIGMA, S, rng)
    z, C = rng.normal(x), post.prior.covariance + 0.36 * torch.eye(6, dtype=F64)
    fresh = rng.normal(x)
    for k in range(3):
        score = torch.linalg.solve(C, post.prior.mean - x[k])
        h = 2 * (snr * z[k].norm() / score.norm()) ** 2
        moved = x[k] + h * score + (2 * h).sqrt() * z[k]
        torch.testing.assert_close(ours[k], replaced(post, moved[None], S, fresh[k : k + 1])[0])


def test_mcg_takes_the_gradient_at_sigma_and_replaces_at_s():
    """x'_vp = DDPM(x_vp) - scale grad_{x_vp} ||y - A D|| in VP coordinates, then the measured part
    at the level of x', not of x."""
    post, scale = bed(), 0.7
    a, a_s = ((1 + v**2).rsqrt() for v in (SIGMA, S))
    x = images(post, SIGMA)
    ours, _ = hard(methods.MCG("norm", scale)).step(post, x, SIGMA, S, Streams(4, range(3)))
    rng = Streams(4, range(3))
    z, fresh = rng.normal(x), rng.normal(x)
    for k in range(3):
        leaf = (a * x[k : k + 1]).requires_grad_()
        x0 = post.prior.denoise(leaf / a, SIGMA)
        (gradient,) = torch.autograd.grad((post.likelihood.y - post.likelihood.A(x0)).norm(), leaf)
        with torch.no_grad():
            moved = a_s * ancestral(x[k : k + 1], x0, SIGMA, S, z[k]) - scale * gradient
            torch.testing.assert_close(ours[k : k + 1], replaced(post, moved / a_s, S, fresh[k]))
            assert (
                float((ours[k] - replaced(post, moved / a_s, SIGMA, fresh[k])[0]).abs().max())
                > 1e-2
            )


def test_repaint_walks_up_and_down_between_two_levels():
    post = bed()
    x = images(post, SIGMA)
    ours, _ = hard(methods.RePaint(2)).step(post, x, SIGMA, S, Streams(4, range(3)))
    rng = Streams(4, range(3))
    for walk in range(2):
        x = ancestral(x, post.prior.denoise(x, SIGMA), SIGMA, S, rng.normal(x))
        x = replaced(post, x, S, rng.normal(x))
        if walk == 0:
            x = x + float((SIGMA**2 - S**2).sqrt()) * rng.normal(x)
    torch.testing.assert_close(ours, x)


def test_without_their_additions_all_are_scoresde_and_that_is_the_prior():
    post = bed()
    run = po.sample(post, methods.ScoreSDE(), n=3, steps=6).samples
    assert torch.equal(run, po.sample(post, methods.RePaint(1), n=3, steps=6).samples)
    torch.testing.assert_close(run, po.sample(post, methods.MCG(scale=0.0), n=3, steps=6).samples)
    assert not torch.allclose(run, po.sample(post, methods.MCG(), n=3, steps=6).samples)
    for transition in (DDIM(0.0), DDIM(1.0), methods.Heun()):
        free = po.sample(post, methods.Unconditional(transition), n=3, steps=6).samples
        assert torch.equal(
            free,
            po.sample(post, methods.ScoreSDE(lam=0.0, transition=transition), n=3, steps=6).samples,
        )


def test_where_nothing_is_measured_the_law_is_that_of_the_prior_sampler():
    prior = bed().prior
    A = po.operators.Null(prior.shape)
    post = po.Posterior(prior, po.Likelihood(torch.zeros(1, dtype=F64), A, Gaussian(0.0)))
    theirs = law(post, methods.Unconditional(), 8)
    for method in (methods.ScoreSDE(), methods.MCG()):
        for a, b in zip(law(post, method, 8), theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["dense", "picture", "coils", "super-resolution", "blur"])
@pytest.mark.parametrize("name", ALL)
def test_a_noiseless_measurement_is_met(name, kind):
    white = po.priors.Gaussian(torch.zeros(1, 9, 12, dtype=F64), 0.5)
    if kind in ("super-resolution", "blur"):
        small = po.operators.Downsample((1, 9, 12), 3, kind="bicubic").double()
        # Without a closed form: the pseudo-inverse is iterative.
        A = (
            small
            if kind == "super-resolution"
            else po.operators.Blur(po.operators.gaussian_kernel(0.7).double(), (1, 9, 12), "zero")
        )
        post = po.Posterior(white, po.Likelihood(A(white.sample(1, 0))[0], A, Gaussian(0.0)))
    else:
        post = noiseless({"dense": bed, "picture": picture, "coils": complex_picture}[kind]())
    run = po.sample(post, ALL[name], n=2, steps=5)
    for x in run.samples:
        residual = post.given.residual(x[None])
        assert (
            float(residual.abs().square().sum().sqrt() / post.given.y.abs().square().sum().sqrt())
            <= 1e-5
        )


@pytest.mark.parametrize(("rho", "bias"), [(0.5, 0.267), (0.9, 0.625)])
def test_replacement_alone_follows_the_measurement_too_little(rho, bias):
    """Known values of E[x2 | x1 = 1] for this sampler, where the posterior has rho."""
    x = mean(pair(rho), methods.ScoreSDE(), 1000)
    assert float(x[0]) == pytest.approx(1.0, abs=1e-12)
    assert float(x[1]) == pytest.approx(bias, abs=5e-4)
    guided = mean(pair(rho), methods.MCG(), 300)
    assert bias + 0.1 < float(guided[1]) < rho


def test_replacement_alone_leaves_too_much_variance():
    """.309 for correlation .9 in the limit of many steps, where the posterior has .19."""
    variance = [
        float(law(pair(0.9), methods.ScoreSDE(), n, po.grid.karras(n, 80.0, 0.002))[1][1, 1])
        for n in (150, 300)
    ]
    # Ancestral sampling loses a variance of order 1 / steps.
    assert 2 * variance[1] - variance[0] == pytest.approx(0.309, abs=2e-3)


WALKS = {(0.5, 1): 0.264, (0.5, 3): 0.388, (0.5, 10): 0.462}
WALKS |= {(0.9, 1): 0.618, (0.9, 3): 0.812, (0.9, 10): 0.879, (0.9, 50): 0.896}


@pytest.mark.parametrize(
    ("rho", "repeats"),
    [pytest.param(*walk, marks=[pytest.mark.slow] * (walk[1] == 50)) for walk in WALKS],
)
def test_repeated_walks_remove_the_bias(rho, repeats):
    assert float(mean(pair(rho), methods.RePaint(repeats), 200)[1]) == pytest.approx(
        WALKS[rho, repeats], abs=6e-4
    )


@pytest.mark.parametrize("name", ["ScoreSDE", "MCG", "RePaint"])
def test_exact_for_independent_blocks_and_not_otherwise(name):
    """A diagonal covariance and a mask, a white one and any A; with the correlated bed the same
    test fails."""
    mask = po.operators.Mask(torch.tensor([True, False, True, False]))
    diagonal = po.priors.Gaussian(
        torch.ones(4, dtype=F64), torch.tensor([0.4, 0.7, 1.0, 1.5], dtype=F64)
    )
    apart = po.Posterior(
        diagonal, po.Likelihood(torch.tensor([2.0, -1.0], dtype=F64), mask, Gaussian(0.0))
    )
    for post, exact in (
        (apart, True),
        (noiseless(bed("white")), True),
        (noiseless(bed("general")), False),
    ):
        reference = exact_posterior(
            po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e-6)))
        )
        levels = po.grid.karras(60, post.prior.sigma_max, post.prior.sigma_min)
        wrong = law(post, ALL[name], 60, levels)
        free = law(post, methods.Unconditional(), 60, levels)
        # The unmeasured part has the law that the sampler gives the prior there: what is left is
        # its own O(1 / steps).
        slack = 1.2 * float((free[1] - post.prior.covariance).abs().max()) + 5e-3
        gap = float((wrong[0] - reference.mean).abs().max())
        spread = float((wrong[1] - reference.covariance).abs().max())
        assert (gap < 0.02) is exact, gap
        assert not exact or spread < slack, (spread, slack)


def test_wrong_settings_and_problems_are_refused():
    for make in (
        lambda: methods.ScoreSDE(lam=1.5),
        lambda: methods.ScoreSDE(corrections=-1),
        lambda: methods.ScoreSDE(snr=0.0),
        lambda: methods.MCG(scale=float("inf")),
        lambda: methods.RePaint(0),
    ):
        with pytest.raises(ValueError, match="got"):
            make()
    for method in ALL.values():
        assert "PhaseRetrieval is not linear" in str(method.refuses(phases()))


def test_a_row_at_the_mode_of_the_prior_has_no_correction():
    post = pair(0.5)
    post = po.Posterior(post.prior, replace(post.given, y=torch.zeros(1, dtype=F64)))
    x, _ = methods.ScoreSDE.published().step(post, torch.zeros(1, 2, dtype=F64), SIGMA, S, Silent())
    assert torch.equal(x, torch.zeros(1, 2, dtype=F64))
