"""ReSample, SITCOM, DCDP, DiffPIR's gradient form, and the descents that they share, against closed
forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed, phases, picture
from reference import F64, flat, images, law

import posteriori as po
from posteriori import methods
from posteriori.evaluation import affine_probe
from posteriori.methods import DDIM, ConstantFraction
from posteriori.methods.data_steps.descent import Adam, Conjugate, HeavyBall
from posteriori.methods.data_steps.misfit import misfit, noise_energy
from posteriori.methods.decoupled.resample import stochastic_resample
from posteriori.noise import Gaussian
from posteriori.rng import Streams

SIGMA, S = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)
WALKS = {"heavy ball": HeavyBall(1.02, 0.9), "conjugate": Conjugate(), "gradient": HeavyBall()}


def streams(rows=3):
    return Streams(4, range(rows))


def energy(post, x):
    return post.likelihood.residual(x).flatten(1).square().sum(1)


# Descents.


@pytest.mark.parametrize("name", WALKS)
def test_without_a_floor_the_descent_ends_at_the_projection_of_its_start(name):
    post = bed(m=3)
    x = images(post, SIGMA)
    matrix = po.operators.matrix(post.likelihood.A)
    nearest = x + post.likelihood.residual(x) @ torch.linalg.pinv(matrix).T
    steps = 3 if name == "conjugate" else 1500
    torch.testing.assert_close(
        WALKS[name](misfit(post.likelihood), x, steps, 0.0), nearest, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("name", [*WALKS, "adam"])
@pytest.mark.parametrize("make", [bed, picture])
def test_with_a_floor_every_row_ends_at_the_noise_level_and_one_below_it_stays(name, make):
    post = make()
    floor = post.likelihood.y.numel() * post.likelihood.std**2
    assert noise_energy(post.likelihood) == pytest.approx(floor)
    x = images(post, SIGMA) + 2
    x[2] = po.operators.pinv(post.likelihood.A, post.likelihood.y[None])[0]
    walk = WALKS.get(name, Adam(0.05))
    out = walk(misfit(post.likelihood), x, 4000, floor)
    torch.testing.assert_close(
        energy(post, out)[:2], torch.full((2,), floor, dtype=F64), rtol=1e-6, atol=0
    )
    assert torch.equal(out[2], x[2])


def test_adam_is_the_optimiser_of_torch_without_weight_decay():
    post = bed()
    x = images(post, SIGMA, rows=1)
    leaf = x.clone().requires_grad_()
    theirs = torch.optim.Adam([leaf], lr=0.03)
    for _ in range(7):
        theirs.zero_grad()
        (0.5 * energy(post, leaf).sum()).backward()
        theirs.step()
    torch.testing.assert_close(
        Adam(0.03)(misfit(post.likelihood), x, 7, 0.0), leaf.detach(), rtol=1e-6, atol=1e-6
    )


def test_the_heavy_ball_is_the_momentum_of_torch():
    post = bed()
    x, norm = images(post, SIGMA), po.operators.norm2(post.likelihood.A)
    leaf = x.clone().requires_grad_()
    theirs = torch.optim.SGD([leaf], lr=0.8 / norm**2, momentum=0.7)
    for _ in range(7):
        theirs.zero_grad()
        (0.5 * energy(post, leaf).sum()).backward()
        theirs.step()
    torch.testing.assert_close(
        HeavyBall(0.8, 0.7)(misfit(post.likelihood), x, 7, 0.0), leaf.detach(), rtol=1e-9, atol=1e-9
    )


def test_conjugate_lowers_a_non_linear_misfit_to_the_floor():
    post = phases()
    x = images(post, SIGMA) * 0.3 + 0.5
    out = Conjugate()(misfit(post.likelihood), x, 100, noise_energy(post.likelihood))
    assert bool((energy(post, out) < 0.2 * energy(post, x)).all())
    assert bool((energy(post, out) >= noise_energy(post.likelihood) * 0.9).all())


def test_the_push_forward_of_an_operator_that_rounds_is_that_of_its_smooth_twin():
    A = po.operators.JPEG((1, 16, 8), 50).double()
    like = po.Likelihood(torch.zeros(A.out_shape, dtype=F64), A, Gaussian(0.3))
    g = torch.Generator().manual_seed(0)
    x, d = (torch.rand(2, 1, 16, 8, dtype=F64, generator=g) for _ in range(2))
    value, _, push = misfit(like).f(x)
    smooth = A.surrogate()
    torch.testing.assert_close(push(d), smooth(x + d) - smooth(x))
    assert torch.equal(value, value.round())


def test_measured_curvature_is_the_largest_singular_value():
    fit = misfit(bed().likelihood)
    measured = replace(fit, size=None).curvature(images(bed(), SIGMA))
    assert fit.curvature(images(bed(), SIGMA)).tolist() == pytest.approx([1.5**2] * 3, rel=1e-6)
    torch.testing.assert_close(measured, torch.full((3,), 2.25, dtype=F64), rtol=1e-3, atol=0)


# ReSample.


@pytest.mark.parametrize("v", [0.0, 0.3, 2.0, float("inf")])
def test_resampling_is_the_product_of_the_two_gaussians(v):
    z, x = images(bed(), SIGMA, seed=5), images(bed(), SIGMA, seed=6)
    out = stochastic_resample(z, x, S, v, streams())
    noise = streams().normal(x)
    if v == 0:
        assert torch.equal(out, x)
    elif v == float("inf"):
        torch.testing.assert_close(out, z + 0.6 * noise)
    else:
        precision = 1 / 0.36 + 1 / v
        torch.testing.assert_close(out, (z / 0.36 + x / v) / precision + precision**-0.5 * noise)


def test_resample_is_the_papers_step_in_its_own_coordinates():
    """DDIM, then N((v a z + (1 - abar) x_vp) / (v + 1 - abar), v (1 - abar) / (v + 1 - abar)), with
    the paper's v."""
    post = bed()
    x, method = images(post, SIGMA), methods.ReSample(gamma=3.0)
    (ours, _), _ = method.step(post, method.init(post, x, streams()), SIGMA, S, streams())
    abar, ahead = 1 / (1 + 0.81), 1 / (1 + 0.36)
    x0 = post.prior.denoise(x, SIGMA)
    eps = (abar**0.5 * x - abar**0.5 * x0) / (1 - abar) ** 0.5
    moved = ahead**0.5 * x0 + (1 - ahead) ** 0.5 * eps
    v = 3.0 * (1 - ahead) / (1 - abar) * (1 - abar / ahead)
    z = method.consistent(post, x0, S)
    mean = (v * ahead**0.5 * z + (1 - ahead) * moved) / (v + 1 - ahead)
    drawn = mean + (v * (1 - ahead) / (v + 1 - ahead)) ** 0.5 * streams().normal(x)
    torch.testing.assert_close(ahead**0.5 * ours, drawn)


def test_resample_ends_at_the_noise_level_and_every_row_by_itself():
    post = bed()
    run = po.sample(post, methods.ReSample(), n=20, steps=30)
    assert run.counts["vjp"] == 0
    chi2 = post.given.chi2(run.samples)
    assert float(chi2.max()) < 1 + 1e-6
    assert float(chi2.mean()) > 0.7


def test_the_product_of_gaussians_keeps_a_known_share_of_the_variance():
    """Flat likelihood, D = 0: the noise of x' shrinks from s^2 to s^2 (1 - w + w^2)."""
    prior = po.priors.Gaussian(torch.zeros(4, dtype=F64), 1e-12)
    post = flat(
        po.Posterior(
            prior,
            po.Likelihood(torch.zeros(4, dtype=F64), po.operators.Identity((4,)), Gaussian(1.0)),
        )
    )
    x = 0.9 * torch.randn(20000, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    method = methods.ReSample(gamma=1.5)
    (out, _), _ = method.step(
        post, method.init(post, x, streams()), SIGMA, S, Streams(0, range(20000))
    )
    ratio = 1.5 * (1 - 0.36 / 0.81)
    w = ratio / (1 + ratio)
    assert float(out.var()) == pytest.approx(0.36 * (1 - w + w * w), rel=0.02)


def test_the_guide_of_resample_is_the_published_dps_step_and_its_calendar_is_kept():
    post = bed()
    x = images(post, SIGMA)
    method = methods.ReSample(guide=0.5, every=2, below=0.6)
    state = method.init(post, x, streams())
    first, _ = method.step(post, state, SIGMA, S, streams())
    dps, _ = methods.DPS("norm", 0.5 / 1.81, DDIM(0.0)).step(post, x, SIGMA, S, streams())
    torch.testing.assert_close(first[0], dps)
    second, _ = method.step(post, first, SIGMA, S, streams())
    plain, _ = methods.DPS("norm", 0.5 / 1.81, DDIM(0.0)).step(post, first[0], SIGMA, S, streams())
    assert float((second[0] - plain).abs().max()) > 1e-2
    above, _ = method.step(post, first, SIGMA, torch.tensor(0.7, dtype=F64), streams())
    plain, _ = methods.DPS("norm", 0.5 / 1.81, DDIM(0.0)).step(
        post, first[0], SIGMA, torch.tensor(0.7, dtype=F64), streams()
    )
    torch.testing.assert_close(above[0], plain)
    farther = replace(method, ahead=2).step(post, first, SIGMA, S, streams())[0]
    assert not torch.allclose(farther[0], second[0])


# SITCOM.


@pytest.mark.parametrize("name", ["gradient", "conjugate"])
def test_sitcom_finds_the_nearest_image_whose_denoised_image_explains_y(name):
    post = bed(m=3)
    x, like = images(post, SIGMA), post.likelihood
    C = post.prior.covariance
    AJ = po.operators.matrix(like.A) @ C @ torch.linalg.inv(C + 0.81 * torch.eye(6, dtype=F64))
    nearest = x + like.residual(post.prior.denoise(x, SIGMA)) @ torch.linalg.pinv(AJ).T
    method = methods.SITCOM(
        inner=5000 if name == "gradient" else 4, stop=False, descent=WALKS[name]
    )
    torch.testing.assert_close(method.consistent(post, x, SIGMA), nearest, rtol=1e-8, atol=1e-8)


def test_sitcom_without_descent_or_without_data_is_the_sampler_of_fresh_noise():
    free = methods.Unconditional(ConstantFraction(zeta=1.0))
    for post, method in ((bed(), methods.SITCOM(inner=0)), (flat(bed()), methods.SITCOM())):
        a, b = (po.sample(post, m, n=3, steps=6).samples for m in (method, free))
        assert torch.equal(a, b)
    guided = po.sample(bed(), methods.SITCOM(), n=3, steps=6).samples
    assert not torch.allclose(guided, po.sample(bed(), free, n=3, steps=6).samples)


def test_sitcom_without_descent_keeps_half_of_the_variance():
    post = flat(bed("white"))
    _, covariance = law(post, methods.SITCOM(inner=0), 150)
    assert 0.45 < float(covariance.trace() / post.prior.covariance.trace()) < 0.62


@pytest.mark.parametrize("make", [bed, picture])
def test_sitcom_comes_to_the_noise_level_and_not_below(make):
    post = make()
    x = images(post, SIGMA) + 2
    for method in (methods.SITCOM(inner=200), methods.SITCOM(inner=8000, descent=Adam(0.02))):
        v = method.consistent(post, x, SIGMA)
        chi2 = post.likelihood.chi2(post.prior.denoise(v, SIGMA))
        torch.testing.assert_close(chi2, torch.ones(3, dtype=F64), rtol=0.02, atol=0)


def test_sitcoms_rate_is_that_of_the_variance_preserving_image():
    """One step of Adam moves x / sqrt(1 + sigma^2) by the rate in every number."""
    post = bed()
    x = images(post, SIGMA)
    moved = methods.SITCOM(inner=1, stop=False, descent=Adam(0.02)).consistent(post, x, SIGMA) - x
    torch.testing.assert_close(moved.abs() / 1.81**0.5, torch.full_like(x, 0.02), rtol=1e-4, atol=0)


# DCDP.


def test_dcdp_without_purification_is_least_squares_and_without_data_is_sdedit():
    post = bed(m=3)
    free = methods.DCDP(purify=0, stop=False)
    run = po.sample(post, free, n=2, steps=4)
    matrix = po.operators.matrix(post.likelihood.A)
    nearest = post.prior.mean + torch.linalg.pinv(matrix) @ (
        post.likelihood.y - matrix @ post.prior.mean
    )
    torch.testing.assert_close(run.samples, nearest.expand(2, -1), rtol=1e-8, atol=1e-8)
    assert run.counts["denoiser"] == 0
    edit = methods.DCDP(inner=0, purify=5)
    a, b = (
        po.sample(p, m, n=2, steps=4).samples
        for p, m in ((post, edit), (flat(post), methods.DCDP(purify=5)))
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("purify", [1, 4])
def test_purification_has_sdedits_law(purify):
    """N(mu, sigma^2 P^2) from the prior's mean mu, P the product over the levels of
    (c + (lower / level) sigma_l^2) / (c + sigma_l^2)."""
    post = bed()
    mean, covariance = affine_probe(
        post, methods.DCDP(inner=0, purify=purify), 1, torch.tensor([0.9, 0.0], dtype=F64)
    )
    levels = po.grid.karras(purify, 0.9, post.prior.sigma_min).tolist()
    eye, P = torch.eye(6, dtype=F64), torch.eye(6, dtype=F64)
    for level, lower in pairwise(levels):
        J = post.prior.covariance @ torch.linalg.inv(post.prior.covariance + level**2 * eye)
        P = (J + lower / level * (eye - J)) @ P
    mu = post.prior.mean
    torch.testing.assert_close(mean, mu, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(covariance, 0.81 * P @ P.T, rtol=1e-9, atol=1e-9)


def test_the_sampler_starts_at_the_level_of_the_noise_put_on():
    post, seen = bed(), []

    class Spy(po.priors.Gaussian):
        def denoise(self, x, sigma):
            seen.append((x.clone(), float(sigma)))
            return super().denoise(x, sigma)

    spied = po.Posterior(Spy(post.prior.mean, post.prior.covariance), post.given)
    state = images(post, SIGMA)
    methods.DCDP(inner=0, purify=3).step(spied, state, SIGMA, S, streams())
    assert seen[0][1] == 0.9
    torch.testing.assert_close(seen[0][0], state + 0.9 * streams().normal(state))
    assert [level for _, level in seen] == sorted((level for _, level in seen), reverse=True)
    assert len(seen) == 3


def test_dcdp_fits_to_the_noise_level_and_the_published_one_beyond():
    post = bed(m=3)
    x = images(post, SIGMA) + 2
    assert float(post.likelihood.chi2(methods.DCDP().consistent(post, x)).max()) == pytest.approx(
        1, rel=1e-6
    )
    assert float(post.likelihood.chi2(methods.DCDP.published().consistent(post, x)).max()) < 0.05


# DiffPIR's gradient form.


def test_the_gradient_form_converges_to_the_proximal_one_and_is_it_for_a_tight_frame():
    post = bed()
    x = images(post, SIGMA)
    exact = methods.DiffPIR().denoise(post, x, SIGMA)
    many = methods.DiffPIR(data="gradient", gradient_steps=4000).denoise(post, x, SIGMA)
    torch.testing.assert_close(many, exact, rtol=1e-7, atol=1e-7)
    one = methods.DiffPIR(data="gradient").denoise(post, x, SIGMA)
    assert float((one - exact).abs().max()) > 1e-2
    post = picture()
    x = images(post, SIGMA)
    torch.testing.assert_close(
        methods.DiffPIR(data="gradient").denoise(post, x, SIGMA),
        methods.DiffPIR().denoise(post, x, SIGMA),
    )


def test_a_non_linear_operator_takes_the_gradient_form_by_itself():
    post = phases()
    x = images(post, SIGMA)
    assert methods.DiffPIR().refuses(post) is None
    assert "not linear" in str(methods.DiffPIR(data="proximal").refuses(post))
    x0, like = post.prior.denoise(x, SIGMA), post.likelihood
    guided = methods.DiffPIR().denoise(post, x, SIGMA)
    assert torch.equal(guided, methods.DiffPIR(data="gradient").denoise(post, x, SIGMA))
    r2 = post.prior.know().error(SIGMA)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: like.A(u[None])[0].flatten(), x0[0]
    ).flatten(1)
    top = float(torch.linalg.svdvals(jacobian)[0]) ** 2
    step = r2 * (jacobian.T @ like.residual(x0)[0].flatten()) / (r2 * top + like.std**2)
    torch.testing.assert_close(guided[0].flatten(), x0[0].flatten() + step, rtol=0.02, atol=5e-3)
    assert bool((energy(post, guided) < energy(post, x0)).all())
    flat_post = flat(post)
    torch.testing.assert_close(
        methods.DiffPIR().denoise(flat_post, x, SIGMA), x0, rtol=1e-9, atol=1e-9
    )


def test_what_claims_no_back_propagation_makes_none():
    for post in (bed(), phases()):
        for method in (
            methods.ReSample(),
            methods.DCDP(),
            methods.DiffPIR(),
            methods.DiffPIR(data="gradient"),
        ):
            assert po.sample(post, method, n=1, steps=3).counts["vjp"] == 0
        assert po.sample(post, methods.SITCOM(), n=1, steps=3).counts["vjp"] > 0


def test_the_range_of_the_image_does_not_matter():
    """The same measurement stated for images in [0, 1] and in [-1, 1], to the same samples."""
    post = picture()
    like = post.likelihood
    other = po.Posterior(post.prior, po.Likelihood(like.y, like.A, like.noise, range=(-1, 1)))
    for method in (
        methods.ReSample(),
        methods.SITCOM(),
        methods.DCDP(),
        methods.DiffPIR(data="gradient"),
    ):
        a, b = (po.sample(p, method, n=2, steps=5).samples for p in (post, other))
        torch.testing.assert_close(2 * a - 1, b, rtol=1e-9, atol=1e-9)


def test_refused_settings():
    bad = [
        lambda: methods.ReSample(every=0),
        lambda: methods.SITCOM(inner=-1),
        lambda: methods.DCDP(purify=-1),
        lambda: methods.DiffPIR(gradient_steps=0),
        lambda: HeavyBall(4.0, 0.9),
        lambda: Adam(0.0),
    ]
    for make in bad:
        with pytest.raises(ValueError, match="got"):
            make()
