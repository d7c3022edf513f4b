"""A sampler's exact output law on Gaussian priors, against closed forms and known rates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from reference import F64, draw

import posteriori as po
from posteriori import evaluation as ev
from posteriori import grid
from posteriori.methods import DAPS, DDIM, DPS, MMPS, ConstantFraction, Heun, PiGDM, Unconditional
from posteriori.methods.base import Method


def posterior(d=4, m=2, covariance=None):
    M = draw(d, d, seed=1)
    covariance = M @ M.T / d + 0.2 * torch.eye(d, dtype=F64) if covariance is None else covariance
    prior = po.priors.Gaussian(draw(d, seed=2), covariance)
    return po.Posterior(
        prior,
        po.Likelihood(
            draw(m, seed=4), po.operators.Dense(draw(m, d, seed=3)), po.noise.Gaussian(0.3)
        ),
    )


def test_it_agrees_with_monte_carlo():
    post = posterior()
    mean, covariance = ev.affine_probe(post, PiGDM(), 12)
    x = po.sample(post, PiGDM(), n=20_000, steps=12, seed=0).samples
    assert float((x.mean(0) - mean).norm() / covariance.trace().sqrt()) < 0.02
    torch.testing.assert_close(
        torch.cov(x.T), covariance, rtol=0, atol=0.03 * float(covariance.trace())
    )


@pytest.mark.parametrize("transition", [DDIM(eta=0.0), DDIM(eta=1.0), Heun()])
def test_mmps_is_the_exact_conditional_denoiser(transition):
    post = posterior()
    mmps = ev.affine_probe(post, MMPS(iterations=10, rtol=1e-14, transition=transition), 15)
    exact = ev.affine_probe(ev.oracle(post), Unconditional(transition), 15)
    for a, b in zip(mmps, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_pigdm_is_exact_for_a_white_prior_and_only_there():
    white = posterior(covariance=torch.tensor(0.7, dtype=F64))
    coloured = posterior()
    for post, same in ((white, True), (coloured, False)):
        pigdm = ev.affine_probe(post, PiGDM(), 15)
        exact = ev.affine_probe(ev.oracle(post), Unconditional(), 15)
        assert torch.allclose(pigdm[1], exact[1], atol=1e-9) == same
        assert torch.allclose(pigdm[0], exact[0], atol=1e-9) == same


def test_the_exact_conditional_sampler_tends_to_the_posterior():
    post = posterior()
    exact = ev.exact_posterior(post)
    kl = [
        ev.gaussian_kl(*ev.affine_probe(post, MMPS(10, 1e-14), steps), exact.mean, exact.covariance)
        for steps in (5, 10)
    ]
    assert kl[1] < 0.02
    assert kl[1] < kl[0] / 3


@pytest.mark.parametrize(("transition", "order"), [(DDIM(eta=0.0), 1), (Heun(), 2)])
def test_the_covariance_error_falls_at_the_order_of_the_transition(transition, order):
    post = posterior()
    C, top = post.prior.covariance, post.prior.sigma_max
    errors = []
    for steps in (40, 80, 160):
        _, covariance = ev.affine_probe(
            post, Unconditional(transition), steps, grid.karras(steps, top, 1e-4)
        )
        errors.append(float((covariance - C).norm() / C.norm()))
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(2**order, rel=0.15)


def test_a_constant_fraction_of_fresh_noise_halves_the_covariance():
    prior = po.priors.Gaussian(torch.zeros(2, dtype=F64), torch.tensor([0.5, 2.0], dtype=F64))
    post = po.Posterior(prior, posterior(d=2).given)

    def ratio(zeta, steps):
        _, covariance = ev.affine_probe(
            post,
            Unconditional(ConstantFraction(zeta)),
            steps,
            grid.karras(steps, prior.sigma_max, 1e-3),
        )
        return float(covariance.trace() / prior.covariance.trace())

    assert ratio(1.0, 1000) == pytest.approx(0.5, rel=0.01)
    assert ratio(1.0, 20) < 0.45
    assert ratio(0.0, 1000) == pytest.approx(1.0, rel=0.02)


def test_daps_with_exact_draws_has_the_posterior_covariance_at_any_number_of_steps():
    post = posterior()
    mean, covariance = ev.affine_probe(
        post, DAPS(draw="exact"), 3, torch.tensor([1e4, 3.0, 0.5, 0.0], dtype=torch.float64)
    )
    exact = ev.exact_posterior(post)
    torch.testing.assert_close(covariance, exact.covariance, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(mean, exact.mean, rtol=1e-8, atol=1e-8)


@dataclass(frozen=True)
class Odd(Method[torch.Tensor]):
    """Breaks one rule of the probe."""

    rule: str = "clamp"
    reference = "none"
    family = "test"
    cost = "1 denoiser"

    @property
    def group(self):
        return 2 if self.rule == "group" else 1

    def step(self, post, state, sigma, s, rng):
        out = post.prior.denoise(state, sigma) + s * rng.normal(state)
        if self.rule == "uniform":
            out = out + rng.uniform(1)
        if self.rule == "diverge":
            out = out / 0
        return out.clamp(-1.5, 1.5) if self.rule == "clamp" else out, {}

    def weights(self, post, state):
        return torch.full((len(state),), 1.0 if self.rule == "weights" else 0.0, dtype=F64)


def test_what_is_not_affine_is_refused():
    post = posterior()
    for method in (Odd("clamp"), Odd("uniform"), DPS.published(), MMPS(iterations=1)):
        with pytest.raises(
            ev.NotAffineError, match=f"{type(method).__name__} is not an affine map"
        ):
            ev.affine_probe(post, method, 5)
    with pytest.raises(ValueError, match="groups of 2"):
        ev.affine_probe(post, Odd("group"), 5)
    with pytest.raises(ValueError, match="weighs them"):
        ev.affine_probe(post, Odd("weights"), 5)
    with pytest.raises(FloatingPointError, match="diverged"):
        ev.affine_probe(post, Odd("diverge"), 5)
    mixture = po.priors.GaussianMixture(torch.ones(2, dtype=F64), draw(2, 4), 0.5)
    with pytest.raises(ev.NotAffineError):
        ev.affine_probe(po.Posterior(mixture, post.given), PiGDM(), 5)


def test_single_precision_is_refused():
    prior = po.priors.Gaussian(torch.zeros(3), 1.0)
    likelihood = po.Likelihood(
        torch.ones(1), po.operators.Dense(torch.ones(1, 3)), po.noise.Gaussian(0.1)
    )
    with pytest.raises(ValueError, match=r"float64, y is torch\.float32"):
        ev.affine_probe(po.Posterior(prior, likelihood), PiGDM(), 5)


def test_many_random_numbers_are_probed_piece_by_piece():
    """3900 columns of 300 numbers are more than one piece holds: independent pixels must have the
    law of one of them."""
    laws = []
    for d in (1, 300):
        prior = po.priors.Gaussian(torch.full((d,), 0.3, dtype=torch.float64), 0.8)
        flat = po.Likelihood(
            torch.zeros(1, dtype=torch.float64), po.operators.Null((d,)), po.noise.Gaussian(1.0)
        )
        laws.append(ev.affine_probe(po.Posterior(prior, flat), po.methods.Unconditional(), 12))
    (m, v), (mean, covariance) = laws
    torch.testing.assert_close(mean, m.expand(300))
    torch.testing.assert_close(covariance, v * torch.eye(300, dtype=torch.float64))
