"""TMPD, DMPS and LGD-MC against their rules written out, and against the posteriors that they can
and cannot reach."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, mixture, phases, picture
from reference import F64, flat, images, kl, level

import posteriori as po
from posteriori import methods
from posteriori.methods.transitions import DDIM
from posteriori.noise import ComplexGaussian, Gaussian
from posteriori.rng import Streams

FORMS = ("row sum", "diagonal")


def oracle(post, x, sigma):
    exact, _ = (
        post.prior.know()
        .exact("posterior")
        .condition(po.operators.matrix(post.likelihood.A), post.likelihood.y, post.likelihood.std)
    )
    return exact.denoise(x, sigma)


def masked():
    """A mask over independent pixels of unlike variances: A S A^T is diagonal."""
    prior = po.priors.Gaussian(
        torch.linspace(-1, 1, 12, dtype=F64).view(1, 3, 4), torch.linspace(0.2, 2, 12, dtype=F64)
    )
    A = po.operators.Mask(po.operators.random_mask((3, 4), 0.5, 0), (1, 3, 4))
    return po.Posterior(
        prior, po.Likelihood(torch.full(A.out_shape, 0.6, dtype=F64), A, Gaussian(0.1))
    )


@pytest.mark.parametrize("form", FORMS)
def test_tmpd_is_its_rule_written_out(form):
    post = bed("general")
    A, y, C = po.operators.matrix(post.likelihood.A), post.likelihood.y, post.prior.covariance
    for sigma in (5.0, 0.7, 0.05):
        x = images(post, sigma, 4)
        J = C @ torch.linalg.inv(C + sigma**2 * torch.eye(6, dtype=F64))
        M = sigma**2 * A @ J @ A.T
        w = M.sum(1) if form == "row sum" else M.diagonal()
        bound = post.prior.know().max_variance(sigma) * torch.linalg.matrix_norm(A, 2) ** 2
        variance = torch.where(w > 0, w, bound) + 0.1**2
        x0 = post.prior.denoise(x, level(sigma))
        wanted = x0 + sigma**2 * ((y - x0 @ A.T) / variance) @ A @ J
        info = {}
        torch.testing.assert_close(
            methods.TMPD(form).denoise(post, x, level(sigma), info), wanted, rtol=1e-9, atol=1e-9
        )
        assert info["floored"].tolist() == [float((w <= 0).double().mean())] * 4
        # The bed has a measurement with a negative row sum, so that the bound is really tested.
        assert bool((w <= 0).any()) is (form == "row sum")


@pytest.mark.parametrize("form", FORMS)
def test_tmpd_is_exact_where_the_measured_covariance_is_diagonal_and_not_elsewhere(form):
    post, method = masked(), methods.TMPD(form)
    for sigma in (5.0, 0.7, 0.05):
        x = images(post, sigma, 4)
        torch.testing.assert_close(
            method.denoise(post, x, level(sigma)),
            oracle(post, x, level(sigma)),
            rtol=1e-9,
            atol=1e-9,
        )
        moments = methods.MMPS(iterations=64, rtol=1e-13).denoise(post, x, level(sigma))
        torch.testing.assert_close(
            method.denoise(post, x, level(sigma)), moments, rtol=1e-8, atol=1e-8
        )
    assert kl(masked(), method) < 0.05  # what ancestral sampling loses in 150 steps
    assert kl(bed("general"), method) > 1
    assert kl(bed("white"), method) > 1
    assert kl(flat(bed("general")), method) < 0.03


@pytest.mark.parametrize("form", FORMS)
def test_tmpd_on_complex_measurements_is_that_of_twice_as_many_real_ones(form):
    post = complex_picture()
    B = po.operators.matrix(post.likelihood.A, torch.complex128)
    block = torch.cat([torch.cat([B.real, -B.imag], 1), torch.cat([B.imag, B.real], 1)])
    C = torch.full((60,), 0.5, dtype=F64) * torch.linspace(0.5, 2, 60, dtype=F64)
    y = post.likelihood.y.flatten()
    pairs = po.priors.Gaussian(torch.zeros(2, 6, 5, dtype=F64), C)
    ours = po.Posterior(
        po.priors.ComplexImages(pairs),
        replace(post.given, noise=ComplexGaussian(sigma_per_channel=0.2)),
    )
    A = po.operators.Dense(block, (2, 6, 5))
    theirs = po.Posterior(pairs, po.Likelihood(torch.cat([y.real, y.imag]), A, Gaussian(0.2)))
    x = images(theirs, 0.7, 3)
    guided = methods.TMPD(form).denoise(ours, torch.complex(x[:, 0], x[:, 1]), level(0.7))
    wanted = methods.TMPD(form).denoise(theirs, x, level(0.7))
    torch.testing.assert_close(
        torch.stack([guided.real, guided.imag], 1), wanted, rtol=1e-8, atol=1e-8
    )


def test_costs_are_those_stated():
    post, steps = picture(), 3
    m = post.likelihood.y.numel()
    for method, vjps, calls in (
        (methods.TMPD(), 2, 2),
        (methods.TMPD("diagonal"), m + 1, 1),
        (methods.DMPS(), 0, 1),
        (methods.LGDMC(draws=5), 1, 5),
    ):
        counts = po.sample(post, method, n=2, steps=steps).counts
        assert (counts["denoiser"], counts["vjp"], counts["operator"]) == (
            steps,
            vjps * steps,
            calls * steps,
        ), method


def test_dmps_is_the_papers_step_in_its_own_coordinates():
    """x'_vp = DDPM(x_vp) + lambda beta_t / sqrt(1 - beta_t) g / a_t, at the images x_vp = a x."""
    post, scale = bed("general"), 1.75
    sigma, s = level(0.9), level(0.6)
    a, a_s = ((1 + v**2).rsqrt() for v in (sigma, s))
    x = images(post, 0.9, 3)
    ours, _ = methods.DMPS.published().step(post, x, sigma, s, Streams(4, range(3)))
    z = Streams(4, range(3)).normal(x)
    A, y = po.operators.matrix(post.likelihood.A), post.likelihood.y
    x_vp, x0 = a * x, post.prior.denoise(x, sigma)
    g = (
        (y - x_vp @ A.T / a)
        @ torch.linalg.inv(0.1**2 * torch.eye(4, dtype=F64) + (1 - a**2) / a**2 * A @ A.T)
        @ A
    )
    beta = 1 - a**2 / a_s**2
    mean = a_s * beta / (1 - a**2) * x0 + (1 - beta).sqrt() * (1 - a_s**2) / (1 - a**2) * x_vp
    ancestral = mean + (beta * (1 - a_s**2) / (1 - a**2)).sqrt() * z
    torch.testing.assert_close(a_s * ours, ancestral + scale * beta / (1 - beta).sqrt() * g / a)


def test_dmps_is_exact_for_a_flat_prior_and_at_the_end_and_not_elsewhere():
    gaps = []
    for variance in (1e2, 1e4, 1e6):
        prior = po.priors.Gaussian(torch.zeros(6, dtype=F64), variance)
        post = po.Posterior(prior, bed().given)
        x = images(post, 0.7, 4)
        # The images of a wide prior are themselves large: compare with their size.
        gaps.append(
            float(
                (methods.DMPS().denoise(post, x, level(0.7)) - oracle(post, x, level(0.7)))
                .abs()
                .max()
                / x.abs().max()
            )
        )
    assert gaps[0] < 0.1
    assert gaps[1] < 0.03 * gaps[0]
    assert gaps[2] < 0.03 * gaps[1]
    post = bed("general")
    for sigma, small in ((1.0, False), (3e-3, True)):
        x = images(post, sigma, 4)
        for other in (
            oracle(post, x, level(sigma)),
            methods.PiGDM().denoise(post, x, level(sigma)),
        ):
            moved = (other - post.prior.denoise(x, level(sigma))).norm()
            gap = float((methods.DMPS().denoise(post, x, level(sigma)) - other).norm() / moved)
            assert (gap < 1e-2) is small, (sigma, gap)
    assert kl(flat(post), methods.DMPS()) < 0.03
    assert kl(post, methods.DMPS()) > 0.1
    assert kl(bed("white"), methods.DMPS()) > 0.1


def test_dmps_needs_no_noise():
    """The level 0 is the limit of small levels, where A has no small singular value."""
    post, x = masked(), images(masked(), 0.7, 4)
    none, tiny = (
        methods.DMPS().denoise(
            po.Posterior(post.prior, replace(post.given, noise=Gaussian(v))), x, level(0.7)
        )
        for v in (0.0, 1e-6)
    )
    torch.testing.assert_close(none, tiny, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["picture", "mixture", "phases"])
@pytest.mark.parametrize("drawn", [0.25, 1.0])
def test_lgd_is_the_gradient_of_the_log_mean_likelihood(kind, drawn):
    post = {
        "picture": picture,
        "phases": phases,
        "mixture": lambda: po.Posterior(mixture(d=6), bed().given),
    }[kind]()
    A, y, sigma = post.likelihood.A, post.likelihood.y, level(0.7)
    method = methods.LGDMC(draws=6, drawn=drawn)
    x, r2 = images(post, 0.7, 2), post.prior.know().max_variance(0.7)
    if isinstance(A, po.operators.LinearOperator):
        norm2 = torch.linalg.matrix_norm(po.operators.matrix(A), 2) ** 2
    else:
        norm2 = po.operators.norm2(A, post.prior.denoise(x, sigma)) ** 2
    variance = post.likelihood.std**2 + (1 - drawn) * r2 * norm2
    rng = Streams(0, range(2))
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        x0 = post.prior.denoise(leaf, sigma)
        logs = [
            -(y - A(x0 + (drawn * r2) ** 0.5 * rng.normal(x))).square().flatten(1).sum(1)
            / (2 * variance)
            for _ in range(6)
        ]
        (gradient,) = torch.autograd.grad(torch.stack(logs).logsumexp(0).sum(), leaf)
    guided = method.denoise(post, x, sigma, Streams(0, range(2)))
    torch.testing.assert_close(guided, x0.detach() + 0.49 * gradient, rtol=1e-7, atol=1e-7)


def test_lgd_without_draws_is_dps():
    for post in (bed("general"), phases(), picture()):
        x, sigma, s = images(post, 0.7, 4), level(0.7), level(0.0)
        ours, _ = methods.LGDMC(draws=3, drawn=0.0).step(post, x, sigma, s, Streams(0, range(4)))
        torch.testing.assert_close(
            ours, methods.DPS().step(post, x, sigma, s, Streams(0, range(4)))[0]
        )
        sure = copy.copy(post.prior)
        known = replace(sure.know(), max_std=0.0)  # nothing uncertain about x0
        sure.know = lambda known=known: known
        sharp = po.Posterior(sure, post.given)
        ours, _ = methods.LGDMC(draws=1, drawn=1.0).step(sharp, x, sigma, s, Streams(0, range(4)))
        torch.testing.assert_close(
            ours, methods.DPS("likelihood").step(post, x, sigma, s, Streams(0, range(4)))[0]
        )


def test_lgd_with_many_draws_is_pigdm_and_the_mean_of_the_gradients_is_dps():
    """In one dimension, where the weights do not degenerate; the error falls as 1 / sqrt(draws)."""
    prior = po.priors.Gaussian(torch.zeros(1, dtype=F64), 1.0)
    A = po.operators.Dense(torch.tensor([[1.3]], dtype=F64))
    post = po.Posterior(prior, po.Likelihood(torch.tensor([1.1], dtype=F64), A, Gaussian(0.5)))
    x, sigma = torch.full((400, 1), 0.4, dtype=F64), level(0.8)
    target = methods.PiGDM().denoise(post, x[:1], sigma)
    rms = []
    for draws in (20, 80, 320):
        guided = methods.LGDMC(draws, drawn=1.0).denoise(post, x, sigma, Streams(0, range(400)))
        rms.append(float((guided - target).square().mean().sqrt()))
    for many, few in zip(rms[1:], rms[:-1], strict=True):
        assert 1.6 < few / many < 2.6, rms
    sharp = methods.DPS("likelihood").step(post, x[:1], sigma, level(0.0), Streams(0, [0]))[0]
    assert float((sharp - target).abs()) > 10 * rms[-1]


def test_lgd_reports_how_many_draws_count():
    post, x, sigma = bed("general"), images(bed("general"), 0.7, 4), level(0.7)
    many, few = {}, {}
    methods.LGDMC(16).denoise(flat(post), x, sigma, Streams(0, range(4)), many)
    methods.LGDMC(16, drawn=1.0).denoise(
        bed("general", sigma=1e-3), x, sigma, Streams(0, range(4)), few
    )
    torch.testing.assert_close(many["effective_draws"], torch.full((4,), 16.0, dtype=F64))
    torch.testing.assert_close(few["effective_draws"], torch.ones(4, dtype=F64), rtol=0.1, atol=0.1)
    assert kl(flat(post), methods.LGDMC()) < 0.03


@pytest.mark.parametrize(
    "method",
    [
        methods.TMPD(),
        methods.TMPD("diagonal"),
        methods.DMPS(),
        methods.LGDMC(),
        methods.LGDMC.published(),
    ],
)
def test_nothing_measured_gives_the_prior_bit_for_bit(method):
    prior = bed().prior
    A = po.operators.Dense(torch.zeros(2, 6, dtype=F64))
    post = po.Posterior(prior, po.Likelihood(torch.ones(2, dtype=F64), A, Gaussian(0.1)))
    # The deterministic transition: draws of LGD-MC would shift the random numbers of another.
    ours = po.sample(post, replace(method, transition=DDIM(0.0)), n=3, steps=6)
    free = po.sample(post, methods.Unconditional(transition=DDIM(0.0)), n=3, steps=6)
    assert torch.equal(ours.samples, free.samples)


def test_refusals_and_bad_settings():
    for method in (methods.TMPD(), methods.DMPS()):
        assert "PhaseRetrieval is not linear" in str(method.refuses(phases()))
    assert methods.LGDMC().refuses(phases()) is None
    silent = po.Posterior(bed().prior, replace(bed().given, noise=Gaussian(0.0)))
    assert "noise level is 0" in str(methods.TMPD().refuses(silent))
    assert "drawn=1" in str(methods.LGDMC.published().refuses(silent))
    assert methods.DMPS().refuses(silent) is None
    assert methods.LGDMC().refuses(silent) is None
    for make in (
        lambda: methods.DMPS(-1.0),
        lambda: methods.LGDMC(0),
        lambda: methods.LGDMC(drawn=1.5),
    ):
        with pytest.raises(ValueError, match="got"):
            make()
