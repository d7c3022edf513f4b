"""DC-PnPDP: its fixed point for a Gaussian prior, its parent without the dual, and the noise that
fills up what a residual lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed
from reference import F64, Fixed, draw, level

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior
from posteriori.methods.decoupled.dcpnpdp import FLOOR, Coupled, missing

# No noise, and data steps that have converged: the steps are those of ADMM.
STILL = methods.DCPnPDP(noise="none", iterations=40, rtol=1e-14)


def settled(post, method, sigma, steps=3000):
    """The state to which steps at one level tend."""
    state = method.init(post, torch.zeros(1, *post.shape, dtype=F64), None)
    for _ in range(steps):
        state, _ = method.step(post, state, sigma, sigma, None)
    return state


def close(found, wanted, tolerance=1e-7):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("sigma", "lam"),
    [
        (0.3, 1.0),
        pytest.param(0.3, 4.0, marks=pytest.mark.slow),
        pytest.param(1.0, 1.0, marks=pytest.mark.slow),
        pytest.param(1.0, 4.0, marks=pytest.mark.slow),
    ],
)
def test_the_fixed_point_is_the_maximum_of_the_posterior(sigma, lam):
    """Of p(x) p(y | x)^(1 / lam): with lam the noise of y counts as larger."""
    post = bed()
    v, u = settled(post, replace(STILL, lam=lam), level(sigma))
    given = post.given
    wider = po.Posterior(post.prior, replace(given, noise=po.noise.Gaussian(lam**0.5 * given.std)))
    close(v[0], exact_posterior(wider).mean)
    slope = torch.linalg.solve(post.prior.covariance, v[0] - post.prior.mean)
    close(u[0], sigma**2 * slope)


def test_a_rescaled_dual_stays_at_its_fixed_point_from_level_to_level():
    post = bed()
    state = settled(post, STILL, level(1.0))
    best, lower = exact_posterior(post).mean, level(0.4)

    def next_image(dual):
        method = replace(STILL, dual=dual)
        moved, _ = method.step(post, state, level(1.0), lower, None)
        return method.step(post, moved, lower, lower, None)[0].v[0]

    close(next_image("rescaled"), best)
    assert float((next_image("kept") - best).abs().max()) > 1e-2


def test_without_its_dual_it_is_diffpir_whose_noise_is_all_fresh():
    """DiffPIR's step from sigma to s, followed by its denoiser, is a step at s from D(x, sigma)."""
    post, x, z = bed(), draw(3, 6, seed=1), draw(3, 6, seed=2)
    sigma, s = level(1.5), level(0.6)
    parent = methods.DiffPIR(
        lam=1.5**2 / 0.6**2, width="sigma", transition=methods.ConstantFraction(zeta=1.0)
    )
    noisy, _ = parent.step(post, x, sigma, s, Fixed(z))
    method = replace(STILL, dual="off", noise="white")
    start = Coupled(post.prior.denoise(x, sigma), torch.zeros_like(x))
    state, _ = method.step(post, start, s, level(0.1), Fixed(z))
    close(state.v, post.prior.denoise(noisy, s))
    assert not state.u.any()


def test_a_data_step_without_noise_projects():
    post, toward = bed(), draw(2, 6, seed=3)
    x = replace(STILL, weighting="noiseless").consistent(post, toward, level(0.5))
    close(post.likelihood.residual(x), torch.zeros(2, 4, dtype=F64), 1e-6)
    closest = po.operators.pinv(post.likelihood.linear, post.likelihood.residual(toward))
    close(x - toward, closest, 1e-6)


def test_noise_fills_up_what_a_residual_lacks():
    """A residual of one pixel has the same power at every frequency, and a wave all of its power at
    seven by seven of them."""
    method, sigma, z = methods.DCPnPDP(), level(0.5), draw(2, 1, 16, 16, seed=4)
    close(method.fresh(torch.zeros_like(z), sigma, Fixed(z)), 0.5 * z)
    dot = torch.zeros_like(z)
    dot[..., 3, 5] = 6.0
    share = 1 - 6.0**2 / (0.25 * 256)
    close(method.fresh(dot, sigma, Fixed(z)), share**0.5 * 0.5 * z)
    close(
        method.fresh(dot.to(torch.complex128), sigma, Fixed(z)),
        (1 - (1 - share) / 2) ** 0.5 * 0.5 * z + 0j,
    )
    wave = torch.cos(torch.arange(16, dtype=F64) * 2 * torch.pi * 5 / 16).expand(1, 1, 16, 16)
    found = missing(wave, sigma)[0, 0]
    height = (256 / 2) ** 2 / 49 / (0.25 * 256)
    assert height > 1
    near = (torch.arange(16)[:, None] - 0 + 3) % 16 <= 6
    at = ((torch.arange(16) - 5 + 3) % 16 <= 6) | ((torch.arange(16) + 5 + 3) % 16 <= 6)
    close(found, torch.where(near & at, FLOOR, 1.0).to(F64))


def test_the_noise_of_a_row_is_its_own():
    gap = torch.stack([draw(1, 8, 8, seed=5), 9 * draw(1, 8, 8, seed=6)])
    close(missing(gap, level(2.0))[:1], missing(gap[:1], level(2.0)), 1e-12)
