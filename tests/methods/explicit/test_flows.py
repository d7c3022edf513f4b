"""Methods of flows: their rules written out in the coordinates of their papers, and the theorems of
each."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed, full_gaussian, phases, picture
from reference import F64, Given, draw, drive, flat, images, law, level, moved

import posteriori as po
from posteriori import methods
from posteriori.evaluation import oracle
from posteriori.methods.courses import flow as flow_levels
from posteriori.methods.data_steps.descent import Conjugate
from posteriori.methods.flow_time import along, flow_time
from posteriori.methods.transitions import DDIM
from posteriori.rng import Streams

EULER = methods.Unconditional(DDIM(0.0))
FLOW = methods.FlowDPS(fresh=0.0)


def times(steps):
    """Times of a rectified flow from 0.999 down to 0, and the levels t / (1 - t)."""
    t = torch.cat([torch.linspace(0.999, 0.01, steps, dtype=F64), torch.zeros(1, dtype=F64)])
    return t, t / (1 - t)


def velocity(prior, z, t):
    """noise - x0 of a straight path at z = (1 - t) x0 + t noise."""
    x = z / (1 - t)
    sigma = t / (1 - t)
    x0 = prior.denoise(x, sigma)
    return (x - x0) / sigma - x0


def euler(prior, z, t):
    for now, later in pairwise(t):
        z = z + (later - now) * velocity(prior, z, now)
    return z


@pytest.mark.parametrize(
    "method",
    [
        replace(FLOW, scale=0.0),
        replace(FLOW, inner_steps=0),
        replace(FLOW, weight=0.0),
        methods.FlowChef(scale=0.0),
        methods.FlowChef("squared", scale=0.0),
        replace(methods.FlowDPS.published(scale=0.0), fresh=0.0),
    ],
)
def test_without_a_step_towards_the_data_each_is_eulers_rule_on_the_flow(method):
    post = bed("general")
    t, sigmas = times(12)
    x = images(post, sigmas[0])
    for sigma, s in pairwise(sigmas):
        x, _ = method.step(post, x, sigma, s, Streams(0, range(3)))
    want = euler(post.prior, images(post, sigmas[0]) * (1 - t[0]), t)
    torch.testing.assert_close(x, want, rtol=1e-9, atol=1e-9)


def test_a_published_step_of_flowdps_is_the_papers_in_its_own_coordinates():
    """z' = (1 - t') ((1 - t) D + t u) + t' (sqrt(t') N + sqrt(1 - t') noise), u three steps down
    the gradient of ||y - A u||."""
    post, like, scale = bed("general"), bed("general").likelihood, 0.03
    t, later = level(0.7), level(0.4)
    sigma, s = t / (1 - t), later / (1 - later)
    z = draw(3, 6, seed=2)
    noise = draw(3, 6, seed=3)
    ours, _ = methods.FlowDPS.published(scale).step(post, z / (1 - t), sigma, s, Given(noise))
    u = velocity(post.prior, z, t)
    x0, x1 = z - t * u, z + (1 - t) * u
    near = x0.clone()
    for _ in range(3):
        leaf = near.requires_grad_()
        (slope,) = torch.autograd.grad(like.residual(leaf).norm(dim=1).sum(), leaf)
        near = (near - scale * slope).detach()
    clean = (1 - t) * x0 + t * near
    want = (1 - later) * clean + later * (later.sqrt() * x1 + (1 - later).sqrt() * noise)
    torch.testing.assert_close((1 - later) * ours, want)


@pytest.mark.parametrize(("steps", "ratio"), [(28, 0.7089), (100, 0.7091), (1000, 0.6568)])
def test_the_published_noise_of_flowdps_loses_variance(steps, ratio):
    """From pure noise, at equal distances in time, a white prior of unit variance and no data; by a
    recursion for the variance of one number, and by the method itself."""
    post = flat(po.Posterior(po.priors.Gaussian(torch.zeros(2, dtype=F64), 1.0), bed_of(2)))
    method = methods.FlowDPS(fresh=(0.0, 1.0))
    t = torch.linspace(1, 0, steps + 1, dtype=F64)
    t[0] = 1 - 1e-9
    v, mean, covariance = 1.0, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64) / (1 - t[0]) ** 2
    for now, later in pairwise(t.tolist()):
        whole = (1 - now) ** 2 + now**2
        clean, noise = (1 - now) / whole, now / whole
        v = ((1 - later) * clean + later * later**0.5 * noise) ** 2 * v + later**2 * (1 - later)
        sigma, s = level(now / (1 - now)), level(later / (1 - later))
        if steps < 1000:
            mean, covariance = moved(
                lambda x, rng, sigma=sigma, s=s: method.step(post, x, sigma, s, rng)[0],
                mean,
                covariance,
            )
    assert v == pytest.approx(ratio, abs=5e-4)
    if steps < 1000:
        torch.testing.assert_close(covariance, v * torch.eye(2, dtype=F64), rtol=1e-6, atol=1e-6)


def bed_of(d):
    A = po.operators.Identity((d,))
    return po.Likelihood(torch.zeros(d, dtype=F64), A, po.noise.Gaussian(1.0))


def test_ancestral_noise_keeps_the_prior_where_the_published_share_does_not():
    post = flat(bed("general"))
    want = post.prior.covariance.trace()
    kept, lost = (
        float(law(post, methods.FlowDPS(fresh=fresh), 200)[1].trace() / want)
        for fresh in ("ancestral", (0.0, 1.0))
    )
    assert kept > 0.95
    assert lost < 0.8


def test_flowdps_goes_to_the_denoiser_given_y_and_no_further():
    """u after many steps is DiffPIR's proximal image, and after one that of its gradient."""
    post, sigma = bed("general"), level(0.8)
    x = images(post, sigma)
    x0 = post.prior.denoise(x, sigma)
    far = methods.FlowDPS(inner_steps=4000).towards(post, x0, sigma)
    torch.testing.assert_close(
        far,
        methods.DiffPIR(data="proximal", width="matched").denoise(post, x, sigma),
        rtol=1e-4,
        atol=1e-4,
    )
    near = methods.FlowDPS(inner_steps=1).towards(post, x0, sigma)
    torch.testing.assert_close(near, methods.DiffPIR(data="gradient").denoise(post, x, sigma))


def test_flowchef_is_the_papers_step_with_the_gradient_of_the_mean_squared_error():
    """z' = z + u dt - eta dL/dD, dL/dD = -2 / n A^T r by autograd of the loss at a free D."""
    post, eta = bed("general"), 0.6
    like, t, later = post.likelihood, level(0.7), level(0.4)
    z = draw(3, 6, seed=2)
    u = velocity(post.prior, z, t)
    leaf = (z - t * u).detach().requires_grad_()
    (slope,) = torch.autograd.grad(like.residual(leaf).square().mean(1).sum(), leaf)
    torch.testing.assert_close(slope, like.A.adjoint(like.residual(leaf.detach())) * (-2 / 4))
    want = z + (later - t) * u - eta * slope
    ours, _ = methods.FlowChef("squared", 2 * eta / 4).step(
        post, z / (1 - t), t / (1 - t), later / (1 - later), Streams(0, range(3))
    )
    torch.testing.assert_close((1 - later) * ours, want)


def test_a_bounded_step_of_flowchef_is_a_gradient_step_of_diffpir():
    flow = DDIM(0.0)
    for make in (lambda: bed("general"), phases):
        post, sigma, s = make(), level(0.8), level(0.5)
        x = images(post, sigma)
        ours, _ = methods.FlowChef().step(post, x, sigma, s, Streams(0, range(3)))
        theirs, _ = methods.DiffPIR(data="gradient", transition=flow).step(
            post, x, sigma, s, Streams(0, range(3))
        )
        torch.testing.assert_close(ours, theirs)


def test_the_control_of_one_step_is_the_cheapest_that_meets_the_data():
    """c of least t ||c||^2 - lam log p(y | D + t c), by its normal equations in c."""
    post, lam = bed("general"), 0.7
    like, t = post.likelihood, level(0.6)
    sigma = t / (1 - t)
    x = images(post, sigma)
    x0, A = post.prior.denoise(x, sigma), po.operators.matrix(like.A)
    eye = torch.eye(6, dtype=F64)
    control = torch.linalg.solve(
        2 * t * eye + lam * t**2 * A.T @ A / like.std**2,
        (lam * t * (like.y - x0 @ A.T) @ A / like.std**2).T,
    ).T
    ours = methods.MPCFlow("horizon", lam).denoise(post, x, sigma)
    torch.testing.assert_close(ours, x0 + t * control, rtol=1e-7, atol=1e-7)


def test_a_matched_control_is_the_conditional_denoiser_of_a_white_prior():
    post, sigma = bed("white"), level(0.7)
    x = images(post, sigma)
    ours = methods.MPCFlow().denoise(post, x, sigma)
    torch.testing.assert_close(ours, oracle(post).prior.denoise(x, sigma), rtol=1e-8, atol=1e-8)


def test_a_curved_measurement_is_met_by_descent():
    """The objective falls with every further step of the descent, and its slope with it."""
    post, sigma = phases(), level(0.05)
    x = images(post, sigma)
    x0, r2 = post.prior.denoise(x, sigma), post.prior.know().error(sigma)

    def cost(u):
        return (u - x0).square().flatten(1).sum(1) / (2 * r2) - post.likelihood.log_prob(u)

    costs = [
        cost(methods.MPCFlow(inner_steps=n, descent=Conjugate()).denoise(post, x, sigma))
        for n in (1, 10, 300)
    ]
    assert bool((costs[0] < cost(x0)).all())
    assert bool((costs[1] < costs[0]).all())
    leaf = (
        methods.MPCFlow(inner_steps=300, descent=Conjugate())
        .denoise(post, x, sigma)
        .requires_grad_()
    )
    start = x0.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cost(leaf).sum(), leaf)
    (first,) = torch.autograd.grad(cost(start).sum(), start)
    assert float(slope.norm()) < 1e-2 * float(first.norm())


@pytest.mark.parametrize("gamma", [0, 1])
def test_flower_is_daps_with_the_exact_gaussian_draw(gamma):
    """Flower in its own coordinates, t = 1 data: the destination, the Gaussian posterior of a
    destination of variance (1 - t)^2 / (t^2 + (1 - t)^2), its mean or a draw by perturbing, and
    z' = t' x1 + (1 - t') noise."""
    post, steps = bed("general"), 6
    like, A = post.likelihood, po.operators.matrix(post.likelihood.A)
    t = torch.linspace(0.05, 1, steps + 1, dtype=F64)
    sigmas = (1 - t) / t
    rng = Streams(3, range(2))
    z = t[0] * (images(post, sigmas[0], rows=2))
    for now, later in pairwise(t):
        destination = z - (1 - now) * velocity(post.prior, z, 1 - now)
        nu2 = (1 - now) ** 2 / (now**2 + (1 - now) ** 2)
        y = like.y.expand(2, -1)
        if gamma:
            destination = destination + nu2.sqrt() * rng.normal(destination)
            y = y - like.std * rng.normal(y)
        clean = torch.linalg.solve(
            torch.eye(6, dtype=F64) / nu2 + A.T @ A / like.std**2,
            (destination / nu2 + y @ A / like.std**2).T,
        ).T
        z = later * clean + ((1 - later) * rng.normal(clean) if later < 1 else 0)
    ours, _ = drive_from(post, methods.DAPS.flower(gamma=gamma), sigmas)
    torch.testing.assert_close(ours, z, rtol=1e-8, atol=1e-8)


def drive_from(post, method, sigmas):
    rng, x = Streams(3, range(2)), images(post, sigmas[0], rows=2)
    with torch.no_grad():
        for sigma, s in pairwise(sigmas):
            x, info = method.step(post, x, sigma, s, rng)
    return x, info


def test_flower_without_draws_halves_the_variance_and_with_them_keeps_it():
    post = bed("white")
    exact = po.evaluation.exact_posterior(post).covariance.trace()
    kept, lost = (
        float(law(post, methods.DAPS.flower(gamma=gamma), 150)[1].trace() / exact)
        for gamma in (1, 0)
    )
    assert kept == pytest.approx(1, abs=0.02)
    assert 0.4 < lost < 0.55


def test_levels_of_a_flow_are_equally_far_apart_in_its_time():
    prior = full_gaussian()
    levels = flow_levels()(prior, 9)
    t = levels / (1 + levels)
    torch.testing.assert_close(t.diff(), (-t[0] / 9).expand(9))
    assert float(levels[0]) == pytest.approx(prior.sigma_max)
    shifted = flow_levels(4.0)(prior, 9)
    u = shifted / (1 + shifted)
    torch.testing.assert_close((u / (4 - 3 * u)).diff(), (-(u[0] / (4 - 3 * u[0])) / 9).expand(9))
    many = flow_levels()(prior, 5000)
    assert bool((many.diff() < 0).all())
    assert float(many[-2]) >= prior.sigma_min
    assert float(many[-1]) == 0
    # of images in [0, 1] the same times are at half the levels
    wide, narrow = picture().prior, po.priors.Gaussian(torch.zeros(1, dtype=F64), 0.1, range=(0, 1))
    assert flow_time(wide, 0.6) == pytest.approx(flow_time(narrow, 0.3))


def test_a_setting_along_the_time_is_linear_between_noise_and_data():
    assert along(0.3, 0.9) == 0.3
    assert along((1.0, 0.2), 1.0) == 1.0
    assert along((1.0, 0.2), 0.0) == pytest.approx(0.2)
    assert along((1.0, 0.2), 0.25) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="weight"):
        methods.FlowDPS(weight=(1.0, 2.0))
    with pytest.raises(ValueError, match="fresh"):
        methods.FlowDPS(fresh="half")


def test_a_squared_step_needs_one_denoiser_and_runs_stay_finite_at_published_settings():
    with pytest.raises(ValueError, match="second denoised image"):
        methods.FlowChef("squared", transition=methods.Heun())
    state, _ = drive(
        picture(), methods.FlowDPS.published(0.1), 2, flow_levels(4.0)(picture().prior, 6)
    )
    assert bool(state.isfinite().all())
