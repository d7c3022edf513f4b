"""The second-order ancestral step: the variance that a first-order one loses, against closed forms
and quadrature."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from cases import bed, complex_picture, picture
from reference import F64, law, level

import posteriori as po
from posteriori import evaluation as ev
from posteriori import grid, methods
from posteriori.evaluation.probe import Injected
from posteriori.methods import DDIM, Midpoint
from posteriori.methods.base import method_settings
from posteriori.rng import Streams

ANCESTRAL = DDIM(1.0)


def noise_of_a_step(transition, ratio, J):
    """The standard deviation of x' given x = 0 at s = 1, sigma = ratio, along axes on which the
    denoiser is J times x at sigma."""
    sigma = level(ratio)
    v = sigma**2 * J / (1 - J)
    unit = Injected(lambda first, size: torch.ones(1, size, dtype=F64), 0.5)
    return transition(
        lambda x, at: x * v / (v + at**2),
        torch.zeros(1, len(J), dtype=F64),
        sigma,
        level(1.0),
        unit,
    )[0].abs()


@pytest.mark.parametrize("ratio", [1.05, 1.5, 2.0, 4.0])
def test_the_noise_of_one_step_is_never_below_that_of_a_gaussian_and_equals_it_at_both_ends(ratio):
    """x_s given x_sigma has the variance s^2 p + p^2 sigma^2 J, p = 1 - s^2 / sigma^2; an ancestral
    step has its first term alone."""
    J = torch.cat(
        [level(1e-9)[None], torch.linspace(0.01, 0.99, 99, dtype=F64), level(1 - 1e-9)[None]]
    )
    p = 1 - ratio**-2
    true = (p + p**2 * ratio**2 * J).sqrt()
    factor = noise_of_a_step(Midpoint(), ratio, J) / true
    q, c = (ratio**2 - 1) * J, 1 / (2 * (1 + ratio))
    torch.testing.assert_close(
        factor, (1 + q / 2 / (1 + c * q)) / (1 + q).sqrt(), rtol=1e-12, atol=0
    )
    assert float(factor.min()) > 1 - 1e-9
    torch.testing.assert_close(factor[[0, -1]], torch.ones(2, dtype=F64), rtol=1e-7, atol=0)
    assert float(factor.max()) < 1 + {1.05: 1e-5, 1.5: 0.0025, 2.0: 0.012, 4.0: 0.09}[ratio]
    plain = noise_of_a_step(ANCESTRAL, ratio, J)
    torch.testing.assert_close(plain.square(), torch.full_like(J, p), rtol=1e-12, atol=0)


def kept(post, transition, steps, exact, top, bottom, rho=7.0):
    """The trace of the exact covariance of a run of MMPS, in parts of what it should be."""
    method = methods.MMPS(iterations=8, rtol=1e-14, transition=transition)
    _, covariance = law(post, method, steps, grid.karras(steps, top, bottom, rho))
    return float(covariance.trace() / exact.trace())


def test_the_variance_of_a_run_converges_with_the_third_order_and_from_above():
    """Of the prior, and of the posterior by its exact denoiser; levels go on until nothing is left
    to lose."""
    post = bed()
    exact = ev.exact_posterior(post).covariance
    for given, covariance in ((post, post.prior.covariance), (ev.oracle(post), exact)):
        over, under = {}, {}
        for steps in (16, 32, 64):
            levels = grid.karras(steps, post.prior.sigma_max, 1e-6 * post.prior.sigma_max, rho=30.0)
            for transition, out in ((Midpoint(), over), (ANCESTRAL, under)):
                found = law(given, methods.Unconditional(transition), steps, levels)[1]
                out[steps] = float(found.trace() / covariance.trace()) - 1
        assert min(over.values()) > 0 > max(under.values())
        assert np.log2(over[16] / over[32]) == pytest.approx(3, abs=0.3)
        assert np.log2(over[32] / over[64]) == pytest.approx(3, abs=0.2)
        assert np.log2(under[32] / under[64]) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize(("steps", "most"), [(5, 0.30), (8, 0.05), (16, 0.01)])
def test_moment_matching_keeps_the_posterior_covariance_that_twice_as_many_ancestral_steps_lose(
    steps, most
):
    """Against the closed form; twice as many ancestral steps cost as many calls."""
    post = bed()
    exact = ev.exact_posterior(post).covariance
    ours, theirs = (
        kept(post, t, n, exact, 10.0, 0.01)
        for t, n in ((Midpoint(), steps), (ANCESTRAL, 2 * steps))
    )
    assert abs(ours - 1) < most
    assert 1 - theirs > 2 * abs(ours - 1)
    assert 1 - theirs > 0.15


def test_complex_images_keep_their_variance():
    post = complex_picture()
    for transition, low, high in ((Midpoint(), 0.99, 1.08), (ANCESTRAL, 0.3, 0.7)):
        blind = po.Posterior(
            post.prior,
            replace(post.likelihood, noise=po.noise.ComplexGaussian(sigma_per_channel=1e6)),
        )
        _, covariance = ev.affine_probe(
            blind, methods.Unconditional(transition), 8, grid.karras(8, 20.0, 0.02)
        )
        assert low < float(covariance.diagonal().mean()) / 0.5 < high


def moments(x, levels, transition):
    """Mean and variance of a step from x (1-d mixture), by Gauss-Hermite quadrature over its random
    number; and those of x_s given x."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    w = torch.from_numpy(weights / weights.sum())
    prior = po.priors.GaussianMixture(
        torch.tensor([0.4, 0.6], dtype=F64), torch.tensor([[-1.0], [0.8]], dtype=F64), 0.3
    )
    sigma, s = levels
    z = Injected(lambda first, size: torch.from_numpy(nodes)[:, None], 0.5)
    out = transition(prior.denoise, torch.full((len(nodes), 1), x, dtype=F64), sigma, s, z)[:, 0]
    mean = (w * out).sum()
    # x_s = (1 - k) x0 + k x + s sqrt(1 - k) z, k = s^2 / sigma^2, with x0 drawn given x;
    # Var(x0 | x) = sigma^2 dD/dx.
    x0, pull = prior.linearize(torch.tensor([[x]], dtype=F64), sigma)
    k = s**2 / sigma**2
    true = (
        (1 - k) * x0 + k * x,
        (1 - k) ** 2 * sigma**2 * pull(torch.ones(1, 1, dtype=F64)) + s**2 * (1 - k),
    )
    return abs(float(mean - true[0])), abs(float((w * (out - mean) ** 2).sum() - true[1]))


@pytest.mark.parametrize("x", [-0.7, 0.1, 1.2])
def test_mean_and_variance_of_a_step_on_a_mixture_err_by_the_third_power_of_its_length(x):
    """Hence a run by the second; the variance of an ancestral step errs by the second power, its
    mean not at all."""
    steps = [(level(0.9), level(0.9 * (1 - h))) for h in (0.1, 0.05, 0.025)]
    mean, variance = zip(*(moments(x, pair, Midpoint()) for pair in steps), strict=True)
    for errors in (mean, variance):
        assert all(np.log2(a / b) > 2.7 for a, b in pairwise(errors)), errors
    plain_mean, plain = zip(*(moments(x, pair, ANCESTRAL) for pair in steps), strict=True)
    assert max(plain_mean) < 1e-12
    assert np.log2(plain[1] / plain[2]) == pytest.approx(2, abs=0.1)
    assert variance[0] < 0.2 * plain[0]


@pytest.mark.parametrize("make", [bed, picture, complex_picture])
def test_rows_do_not_depend_on_the_batch_and_the_last_step_is_the_denoised_image(make):
    post, method = make(), methods.MMPS()
    assert method.transition == Midpoint()
    whole = po.sample(post, method, n=5, steps=4, seed=1)
    torch.testing.assert_close(
        po.sample(post, method, n=5, steps=4, seed=1, batch=2).samples,
        whole.samples,
        rtol=1e-9,
        atol=1e-9,
    )
    assert whole.counts["denoiser"] == 2 * 4 - 1
    x = post.prior.start(Streams(0, [0]).normal(whole.samples[:1]), level(0.3))
    last, _ = method.step(post, x, level(0.3), level(0.0), Streams(0, [0]))
    torch.testing.assert_close(last, method.denoise(post, x, level(0.3)), rtol=0, atol=0)


@pytest.mark.parametrize(
    "method",
    [methods.DPS(), methods.FreeDoM(repeats=1), methods.PiGDM(), methods.TMPD(), methods.DiffPIR()],
)
def test_every_guided_denoiser_is_asked_again_at_the_second_place(method):
    """Guidance at the second place as well: the step is that of the rule applied to D_y as a
    function."""
    post, x = bed(), Streams(3, [0, 1]).normal(torch.zeros(2, 6, dtype=F64))
    sigma, s = level(0.8), level(0.4)
    for transition in (Midpoint(), methods.Heun()):
        setting = replace(method, transition=transition)
        ours, _ = setting.step(post, x, sigma, s, Streams(0, [0, 1]))
        rule = transition(
            lambda image, at, m=setting: m.denoise(post, image, at), x, sigma, s, Streams(0, [0, 1])
        )
        torch.testing.assert_close(ours, rule, rtol=1e-12, atol=1e-12)
        once, _ = method.step(post, x, sigma, s, Streams(0, [0, 1]))
        assert float((ours - once).abs().max()) > 1e-4


@pytest.mark.parametrize("transition", [Midpoint(), methods.Heun()])
@pytest.mark.parametrize(
    "make",
    [
        lambda t: methods.DPS("norm", transition=t),
        lambda t: methods.DPS("squared", transition=t),
        lambda t: methods.DPS("poisson", transition=t),
        lambda t: methods.MCG("norm", transition=t),
        lambda t: methods.PiGDM("paper", transition=t),
        lambda t: methods.FreeDoM("relative", transition=t),
        lambda t: methods.DDS(direction="network", transition=t),
    ],
)
def test_a_step_after_the_transition_refuses_a_second_denoised_image(make, transition):
    with pytest.raises(
        ValueError, match=f"{type(transition).__name__} asks for a second denoised image"
    ):
        make(transition)
    make(ANCESTRAL)


def test_two_transitions_without_settings_are_two_runs(tmp_path):
    assert method_settings(methods.PiGDM(transition=methods.Heun())) != method_settings(
        methods.PiGDM(transition=Midpoint())
    )
    post = bed()
    po.sample(post, methods.PiGDM(transition=methods.Heun()), n=1, steps=3, folder=tmp_path)
    with pytest.raises(ValueError, match="Midpoint"):
        po.sample(
            post, methods.PiGDM(transition=Midpoint()), n=1, steps=3, folder=tmp_path, resume=True
        )
