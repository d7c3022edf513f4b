"""RED-diff and MGPS against their formulas, and RED-diff's fixed point on a Gaussian prior in
closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, picture
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.evaluation import affine_probe, exact_posterior
from posteriori.noise import Gaussian
from posteriori.operators import matrix
from posteriori.priors.base import Prior
from posteriori.rng import Streams

EYE = torch.eye(6, dtype=F64)
ROOT = math.sqrt
WEIGHTS = {
    "kl": lambda s: 1 / s,
    "linear": lambda s: s,
    "sqrt": ROOT,
    "square": lambda s: s * s,
    "power2over3": lambda s: math.exp(2 / 3 * math.log(s)),
    "log": lambda s: math.log(s + 1),
    "trunc_linear": lambda s: min(s, 1),
    "const": lambda s: 1,
}


class Fixed:
    """Hands out prescribed normal draws, in turn."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def normal(self, like):
        return self.draws.pop(0).expand(like.shape)


def fixed_levels(post, method, sigma, mu, z):
    level = torch.tensor(sigma, dtype=F64)
    state = method.init(post, mu, None)._replace(mu=mu)
    return method.step(post, state, level, level / 2, Fixed(z))[0].mu


@pytest.mark.parametrize("weighting", WEIGHTS)
def test_the_step_is_the_papers_gradient_for_every_weighting(weighting):
    """g = w (eps_hat - e) + v A^T (A mu - y), in VP coordinates as printed; the Newton step is H^-1
    g, Adam's first step sign(g)."""
    post, lam = bed("general"), 0.7
    A, y, std = matrix(post.likelihood.A), post.likelihood.y, post.likelihood.std
    for sigma in (0.4, 2.5):
        mu, e = (
            torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(k)) for k in (1, 2)
        )
        a = 1 / ROOT(1 + sigma**2)
        s = a * sigma
        x0 = post.prior.denoise((a * mu + s * e) / a, torch.tensor(sigma, dtype=F64))
        eps_hat = (a * mu + s * e - a * x0) / s
        w = lam * WEIGHTS[weighting](s / a)
        for data, v in (("precision", std**-2), ("one", 1.0)):
            g = w * (eps_hat - e) + v * (mu @ A.T - y) @ A
            newton = fixed_levels(
                post, methods.REDDiff(weighting, data, lam=lam, rate=0.4), sigma, mu, e
            )
            H = w / sigma * EYE + v * A.T @ A
            torch.testing.assert_close(
                newton, mu - 0.4 * torch.linalg.solve(H, g.T).T, rtol=1e-8, atol=1e-8
            )
            adam = fixed_levels(
                post, methods.REDDiff(weighting, data, "adam", lam, 0.1), sigma, mu, e
            )
            torch.testing.assert_close(adam, mu - 0.1 * g / (g.abs() + 1e-8), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("weighting", ["kl", "linear", "log"])
def test_the_fixed_point_on_a_gaussian_prior(weighting):
    """E_z[mu - D(mu + sigma z)] = sigma^2 (C + sigma^2)^-1 (mu - m), so E[g] = 0 at
    (v A^T A + R)(mu - m) = v A^T (y - A m)."""
    post, sigma = bed("general"), 0.8
    A = matrix(post.likelihood.A)
    y = post.likelihood.y
    m = post.prior.mean
    v = post.likelihood.std**-2
    R = (
        0.7
        * WEIGHTS[weighting](sigma)
        * sigma
        * torch.linalg.inv(post.prior.covariance + sigma**2 * EYE)
    )
    stated = m + torch.linalg.solve(v * A.T @ A + R, v * A.T @ (y - A @ m))
    method = methods.REDDiff(weighting, lam=0.7)
    zero = torch.zeros(1, 6, dtype=F64)
    c = fixed_levels(post, method, sigma, zero, zero)
    M = (fixed_levels(post, method, sigma, EYE, zero) - c).T
    torch.testing.assert_close(torch.linalg.solve(EYE - M, c[0]), stated, rtol=1e-7, atol=1e-7)
    # And by running it with fresh noise: the mean of many rows, within four standard errors.
    mu, rng = torch.zeros(2000, 6, dtype=F64), Streams(0, range(2000))
    for _ in range(80):
        mu = fixed_levels(post, method, sigma, mu, rng.normal(mu))
    assert float(((mu.mean(0) - stated).abs() / (mu.std(0) / 2000**0.5)).max()) < 4


def test_the_mean_tends_to_the_posteriors_and_the_spread_collapses():
    post = bed("general")
    exact = exact_posterior(post)
    gaps = []
    for steps in (50, 300):
        mean, covariance = affine_probe(post, methods.REDDiff(), steps)
        gaps.append(float(((mean - exact.mean) / exact.std).abs().max()))
        assert float(covariance.trace() / exact.covariance.trace()) < 0.2
    assert gaps[1] < 0.25
    assert gaps[1] < gaps[0] / 2
    deaf = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e6)))
    _, left = affine_probe(deaf, methods.REDDiff(rate=0.3), 300)
    # Stated: about rate / 2.
    assert 0.08 < float(left.trace() / post.prior.covariance.trace()) < 0.17


class NoGraph(Prior):
    """Refuses to be evaluated with autograd on, and to be differentiated."""

    def __init__(self, inner):
        super().__init__(
            inner.shape,
            variance=inner.variance,
            sigma_max=inner.sigma_max,
            sigma_min=inner.sigma_min,
        )
        self.inner = inner

    def denoise(self, x, sigma):
        assert not torch.is_grad_enabled()
        return self.inner.denoise(x, sigma)

    def linearize(self, x, sigma):
        raise AssertionError("differentiated through the denoiser")


def test_red_diff_builds_no_graph_and_its_rows_do_not_meet():
    post = bed("general")
    for method in (methods.REDDiff(), methods.REDDiff.published()):
        without = po.Posterior(NoGraph(post.prior), post.given)
        run = po.sample(without, method, n=4, steps=6)
        assert run.counts["vjp"] == 0
        assert run.counts["denoiser"] == 6
        alone = po.sample(without, method, n=4, steps=6, batch=1)
        torch.testing.assert_close(run.samples, alone.samples, rtol=1e-9, atol=1e-9)


def test_the_published_red_diff_does_not_look_at_the_noise_and_the_default_does():
    post = bed("general")
    louder = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1.0)))
    for method, same in ((methods.REDDiff.published(), True), (methods.REDDiff(), False)):
        one, other = (po.sample(p, method, n=1, steps=10).samples for p in (post, louder))
        assert torch.equal(one, other) is same


def test_the_published_optimiser_is_adam_with_the_papers_decays():
    """Several steps against torch's Adam of betas 0.9 and 0.99: the first one alone is the sign of
    the gradient for any of them."""
    post, method = bed("general"), methods.REDDiff("linear", "one", "adam", 0.7, 0.1)
    A, y = matrix(post.likelihood.A), post.likelihood.y
    mu = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    state = method.init(post, mu, None)._replace(mu=mu)
    theirs = mu.clone().requires_grad_()
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    for k, sigma in enumerate((3.0, 1.0, 0.4, 0.2, 0.1)):
        level = torch.tensor(sigma, dtype=F64)
        e = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(k))
        with torch.no_grad():
            x0 = post.prior.denoise(theirs + sigma * e, level)
            theirs.grad = 0.7 * (theirs - x0) + (theirs @ A.T - y) @ A
        adam.step()
        state, _ = method.step(post, state, level, level / 2, Fixed(e))
        torch.testing.assert_close(state.mu, theirs.detach(), rtol=1e-9, atol=1e-9)


def test_the_published_start_is_the_damped_pseudo_inverse():
    """A^T (A A^T + (0.03 ||A||)^2 I)^-1 y: a singular value of 0.05 beside 1.5 is damped, one of
    0.3 hardly."""
    post = bed("general")
    A, y = matrix(post.likelihood.A), post.likelihood.y
    d = 0.03 * torch.linalg.matrix_norm(A, 2)
    want = A.T @ torch.linalg.solve(A @ A.T + d**2 * torch.eye(len(y), dtype=F64), y)
    mu = methods.REDDiff.published().init(post, torch.ones(2, 6, dtype=F64), None).mu
    torch.testing.assert_close(mu, want.expand(2, 6), rtol=1e-6, atol=1e-9)
    centre = methods.REDDiff().init(post, torch.ones(2, 6, dtype=F64), None).mu
    torch.testing.assert_close(centre, post.prior.mean.expand(2, 6), rtol=0, atol=1e-15)


def test_behind_a_nonlinear_face_a_multiple_of_the_identity_has_the_same_newton_step():
    """H = lam w / sigma + v ||A||^2 is exact for A = 2 I, whose norm the power iterations find at
    once."""
    prior = bed("general").prior
    A = po.operators.Dense(2 * EYE)
    plain = po.Posterior(
        prior, po.Likelihood(torch.linspace(-1, 2, 6, dtype=F64), A, Gaussian(0.2))
    )
    hidden = po.Posterior(prior, replace(plain.given, A=po.operators.Affine(A, 1.0, 0.0)))
    mu, e = (
        torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(k)) for k in (1, 2)
    )
    for method in (
        methods.REDDiff(),
        methods.REDDiff("linear", lam=0.7),
        methods.REDDiff(data="one"),
    ):
        ours, theirs = (fixed_levels(post, method, 0.4, mu, e) for post in (hidden, plain))
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_refused_settings():
    for wrong in ({"lam": 0.0}, {"rate": 2.0}, {"weighting": "cubic"}):
        with pytest.raises(ValueError, match="REDDiff"):
            methods.REDDiff(**wrong)
    for wrong in ({"inner": 0}, {"midpoint": 0.0}, {"lr": 0.0}):
        with pytest.raises(ValueError, match="MGPS"):
            methods.MGPS(**wrong)
    silent = po.Posterior(bed().prior, replace(bed().given, noise=Gaussian(0.0)))
    assert "noise level is 0" in str(methods.REDDiff().refuses(silent))
    assert "noise level is 0" in str(methods.MGPS.published().refuses(silent))


# MGPS


def test_without_a_measurement_mgps_takes_the_ancestral_step_whatever_the_midpoint():
    post = bed("general")
    deaf = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e9)))
    theirs = affine_probe(deaf, methods.Unconditional(), 8)
    for midpoint in (0.3, 0.9):
        ours = affine_probe(
            deaf, methods.MGPS(inner=1, midpoint=midpoint, width="ddpm"), 8, rtol=1e-5
        )
        torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-5)


def selecting():
    prior = po.priors.Gaussian(torch.full((6,), 0.3, dtype=F64), 0.8)
    A = po.operators.Dense(EYE[[0, 2, 3, 5]])
    return po.Posterior(
        prior, po.Likelihood(torch.tensor([1.0, -0.5, 0.2, 2.0], dtype=F64), A, Gaussian(0.3))
    )


@pytest.mark.parametrize("midpoint", [0.4, 1.0])
def test_one_fitted_step_is_the_exact_conditional_for_a_white_prior(midpoint):
    """x_s | x_sigma, y of the joint Gaussian of (x0, x_s, x_sigma), y seen through x0; mean and
    variance from 40000 draws."""
    post, n = selecting(), 40000
    sigma, s = torch.tensor(0.9, dtype=F64), torch.tensor(0.5, dtype=F64)
    x = torch.tensor([1.2, 0.1, -0.4, 0.9, 2.0, -1.0], dtype=F64)
    out, _ = methods.MGPS(inner=1, midpoint=midpoint).step(
        post, x.expand(n, -1).clone(), sigma, s, Streams(0, range(n))
    )
    seen = torch.zeros(6, dtype=F64)
    seen[[0, 2, 3, 5]] = 1.0
    y = torch.zeros(6, dtype=F64).index_put((torch.tensor([0, 2, 3, 5]),), post.likelihood.y)
    precision = 1 / 0.8 + seen / 0.09
    mean0, c = (0.3 / 0.8 + y / 0.09 * seen) / precision, 1 / precision
    gain = (c + s**2) / (c + sigma**2)
    mean, variance = mean0 + gain * (x - mean0), (c + s**2) * (1 - gain)
    assert float(((out.mean(0) - mean).abs() / (variance / n).sqrt()).max()) < 4
    assert float((out.var(0) / variance - 1).abs().max()) < 4 * (2 / n) ** 0.5


def test_one_adam_step_moves_by_the_learning_rate_along_the_gradient_of_the_elbo():
    post = bed("general")
    A, y, std = matrix(post.likelihood.A), post.likelihood.y, post.likelihood.std
    tau = torch.tensor(0.5, dtype=F64)
    m, z = (
        torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(k)) for k in (1, 2)
    )
    mu = m.clone().requires_grad_()
    log_std = torch.full_like(m, 0.5 * math.log(0.2)).requires_grad_()
    x0 = post.prior.denoise(mu + log_std.exp() * z, tau)
    kl = ((mu - m) ** 2 + (2 * log_std).exp()).sum() / 0.4 - log_std.sum()
    loss = kl + (y - x0 @ A.T).square().sum() / (2 * std**2)
    g, h = torch.autograd.grad(loss, (mu, log_std))
    ours, spread = methods.MGPS.published(inner=1, lr=0.03).by_adam(
        post, m, 0.2, tau, torch.ones(3, dtype=F64), Fixed(z)
    )
    torch.testing.assert_close(
        ours, m - 0.03 * 1.25**0.5 * g / (g.abs() + 1e-8), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        spread.log(), log_std.detach() - 0.03 * h / (h.abs() + 1e-8), rtol=1e-6, atol=1e-6
    )


def test_the_adam_fit_follows_the_gradient_for_complex_images_too():
    """A complex number is two real ones, each of variance std^2: KL and misfit written out,
    differentiated by autograd."""
    post = complex_picture()
    tau = torch.tensor(0.5, dtype=F64)
    m, z = (
        torch.randn(2, 6, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(k))
        for k in (1, 2)
    )
    mu = torch.view_as_real(m).clone().requires_grad_()
    log_std = torch.full((2, 6, 5), 0.5 * math.log(0.2), dtype=F64).requires_grad_()
    x0 = post.prior.denoise(torch.view_as_complex(mu) + log_std.exp() * z, tau)
    kl = (
        (mu - torch.view_as_real(m)).square().sum() + 2 * (2 * log_std).exp().sum()
    ) / 0.4 - 2 * log_std.sum()
    loss = kl + torch.view_as_real(post.likelihood.y - post.likelihood.A(x0)).square().sum() / (
        2 * post.likelihood.std**2
    )
    g, h = torch.autograd.grad(loss, (mu, log_std))
    g = torch.view_as_complex(g)
    ours, spread = methods.MGPS.published(inner=1, lr=0.03).by_adam(
        post, m, 0.2, tau, torch.ones(len(m), dtype=F64), Fixed(z)
    )
    torch.testing.assert_close(
        ours, m - 0.03 * 1.25**0.5 * g / (g.abs() + 1e-8), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        spread.log(), log_std.detach() - 0.03 * h / (h.abs() + 1e-8), rtol=1e-6, atol=1e-6
    )


def test_the_midpoint_in_level_and_in_time():
    s = torch.tensor(1.7, dtype=F64)
    assert float(methods.MGPS(midpoint=0.5).level(s)) == pytest.approx(0.85)
    time = torch.tensor(0.6, dtype=F64)
    levels = [(0.1 * t + 9.95 * t**2).expm1().sqrt() for t in (time, time / 2)]
    assert float(methods.MGPS.published().level(levels[0])) == pytest.approx(float(levels[1]))


def test_mgps_is_near_the_posterior_and_more_inner_steps_help():
    post = bed("general")
    exact = exact_posterior(post)
    gaps = []
    for method in (methods.MGPS(inner=1), methods.MGPS(inner=3)):
        run = po.sample(post, method, n=800, steps=40)
        gaps.append(float(po.evaluation.sliced_wasserstein(run.samples, exact.sample(800, seed=1))))
    assert gaps[1] < gaps[0]
    assert gaps[1] < 0.25
    assert bool(po.sample(picture(), methods.MGPS(), n=3, steps=10).samples.isfinite().all())


@pytest.mark.parametrize("spacing", ["level", "time"])
def test_the_midpoint_stays_above_the_priors_lowest_level(spacing):
    """And at that level itself it is s: the step is then a draw of the fit, without a bridge."""
    method, low = methods.MGPS(spacing=spacing), 0.1
    for s in (0.1, 0.12, 0.15):
        assert float(method.level(torch.tensor(s, dtype=F64), low)) == pytest.approx(0.1, rel=1e-12)
    assert torch.equal(
        method.level(torch.tensor(3.0, dtype=F64), low), method.level(torch.tensor(3.0, dtype=F64))
    )
    assert float(method.level(torch.tensor(0.01, dtype=F64), low)) == pytest.approx(0.01, rel=1e-12)


def complex_pixels():
    """Complex white images, of which a unitary transform measures every frequency: the Hessian of
    log p(y | D(x)) is -j^2 / sigma_y^2 I."""
    prior = po.priors.ComplexImages(po.priors.Gaussian(torch.zeros(2, 4, 4, dtype=F64), 0.5))
    A = po.operators.MaskedFourier(torch.ones(4, 4, dtype=torch.bool), (4, 4))
    y = torch.randn(16, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.ComplexGaussian(sigma_per_channel=0.3)))


@pytest.mark.parametrize("inner", [1, 3])
def test_the_bend_of_a_complex_likelihood_is_its_curvature(inner):
    """The random signs are complex numbers of modulus 1, which must cancel:
    1 / std^2 = 1 / p + j^2 / sigma_y^2, whatever their phase."""
    post, tau, p = complex_pixels(), torch.tensor(0.4, dtype=F64), 0.2
    m = torch.randn(3, 4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    j = 0.5 / (0.5 + 0.16)
    _, std = methods.MGPS(inner=inner, width="ddpm").by_curvature(
        post, m, p, tau, torch.ones(len(m), dtype=F64), Streams(0, range(3))
    )
    torch.testing.assert_close(
        std, torch.full((3, 4, 4), (1 / p + j**2 / 0.09) ** -0.5, dtype=F64), rtol=1e-9, atol=0
    )


def test_adams_bend_of_a_complex_likelihood_does_not_know_the_phase_of_its_draw():
    """At the mode, where the slope at a draw is -h times its distance: the width shrinks for every
    phase, by the learning rate."""
    post, tau = complex_pixels(), torch.tensor(0.4, dtype=F64)
    mode = (0.66 / 0.5) * post.likelihood.linear.adjoint(post.likelihood.y[None])
    for angle in (0.0, 0.8, 1.6, 3.0):
        z = torch.full_like(mode, 1.0) * torch.polar(
            torch.tensor(1.0, dtype=F64), torch.tensor(angle, dtype=F64)
        )
        _, std = methods.MGPS.published(inner=1, lr=0.03).by_adam(
            post, mode, 0.2, tau, torch.ones(len(mode), dtype=F64), Fixed(z)
        )
        torch.testing.assert_close(
            std.log(), torch.full_like(std, 0.5 * math.log(0.2) - 0.03), rtol=1e-6, atol=1e-6
        )
