"""MomentSMC and its parts: exact on Gaussian priors whatever the steps, unbiased evidence, levels
where modes part, even noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed, full_gaussian, phases
from reference import F64

import posteriori as po
from posteriori.evaluation import exact_posterior, sliced_wasserstein
from posteriori.methods import MomentSMC
from posteriori.methods.smc import particles
from posteriori.methods.smc.moments.adaptive_levels import bends
from posteriori.rng import Streams
from posteriori.tasks import beds


def test_with_a_gaussian_prior_no_step_changes_a_weight_and_few_steps_are_exact():
    post, steps = bed("general"), 4
    grid = po.grid.log(steps, 40.0, 2.0)
    run = po.sample(post, MomentSMC(particles=4000, share=0.0), n=4000, grid=grid, seed=1)
    exact = exact_posterior(post)
    # The share of effective particles is set by the start alone.
    assert float((run.trace["ess"][1:] - run.trace["ess"][:1]).abs().max()) < 1e-6
    # ESS / N near 1: plain standard errors. The evidence varies by the spread of the first twist
    # only.
    z = (run.samples.mean(0) - exact.mean).abs() / (exact.std / 4000**0.5)
    assert float(z.max()) < 4.5
    L = torch.linalg.cholesky(exact.covariance)
    white = torch.linalg.solve_triangular(L, (run.samples - exact.mean).T, upper=False)
    # A sample covariance of white numbers is off by sqrt(2 / n) on the diagonal and by 1 / sqrt(n)
    # elsewhere.
    assert float((white.cov() - torch.eye(6, dtype=F64)).abs().max()) < 4.5 * (2 / 4000) ** 0.5
    assert run.log_evidence == pytest.approx(exact.log_evidence, abs=0.05)


def test_evidence_is_unbiased_with_four_particles():
    post = bed("general", sigma=0.3)
    # A narrow start makes the first weights vary, so that bias would show.
    clouds_of_four = po.sample(
        post, MomentSMC(particles=4), n=4 * 600, grid=po.grid.log(3, 6.0, 1.0), seed=2
    )
    ratio = []
    method = MomentSMC(particles=4)
    rng = Streams(5, range(600), 4)
    x = post.prior.start(rng.normal(torch.zeros(2400, 6, dtype=F64)), torch.tensor(6.0, dtype=F64))
    state = method.init(post, x, rng)
    levels = po.grid.log(3, 6.0, 1.0)
    for sigma, s in pairwise(levels):
        state, _ = method.step(post, state, sigma, s, rng)
    ratio = (method.log_evidence(post, state) - exact_posterior(post).log_evidence).exp()
    error = float(ratio.std()) / 600**0.5
    assert abs(float(ratio.mean()) - 1) < 4 * error
    assert error < 0.05
    assert clouds_of_four.log_evidence == pytest.approx(
        exact_posterior(post).log_evidence, abs=5 * error
    )


def test_masses_of_many_modes_and_evidence_are_right():
    problem = beds.gmm25(8, 1, 103, "extended")
    run = po.sample(problem.posterior, MomentSMC(particles=1000), n=1000, steps=60, batch=1000)
    exact = exact_posterior(problem.posterior)
    truth = exact.sample(1000, 1)
    floor = sliced_wasserstein(exact.sample(1000, 2), truth)
    assert sliced_wasserstein(run.samples, truth) < 2.5 * floor
    assert run.log_evidence == pytest.approx(exact.log_evidence, abs=0.2)
    masses = torch.cdist(run.samples, exact.mixture.means).argmin(1).bincount(minlength=25) / 1000
    assert float((masses - exact.mixture.weights).abs().max()) < 0.06


def two_modes(apart):
    means = torch.tensor([[-apart / 2, 0.0], [apart / 2, 0.0]], dtype=F64)
    prior = po.priors.GaussianMixture(torch.ones(2, dtype=F64), means, 1.0)
    A = po.operators.Dense(torch.tensor([[0.0, 1.0]], dtype=F64))
    return po.Posterior(prior, po.Likelihood(torch.zeros(1, dtype=F64), A, po.noise.Gaussian(0.5)))


def test_the_pilot_sees_nothing_in_a_gaussian_and_finds_where_modes_part():
    method = MomentSMC(particles=32, share=0.0)
    smooth = po.Posterior(full_gaussian(), bed("general").likelihood)
    fine = po.grid.log(24, 100.0, 0.05)
    assert float(bends(smooth, method, fine).max()) < 1e-5
    post = two_modes(40.0)
    levels = MomentSMC().levels(post, 20)[:-1]
    assert bool((levels[1:] < levels[:-1]).all())
    inside = (levels > 2) & (levels < 40)
    assert int(inside.sum()) >= 12
    # Far below the distance of the modes p(x0 | x) is Gaussian: the last draw starts from there.
    assert float(levels[-1]) > 2
    wide = MomentSMC().levels(two_modes(400.0), 20)[:-1]
    assert float(wide.log().median() - levels.log().median()) == pytest.approx(
        torch.tensor(10.0).log().item(), abs=0.5
    )


def test_all_samples_are_distinct_and_as_wide_as_the_posterior():
    """The last draw starts where it parts the copies of a particle, after the last resampling."""
    post = two_modes(20.0)
    run = po.sample(post, MomentSMC(particles=500), n=500, steps=20)
    assert len(run.samples.unique(dim=0)) == 500
    across = run.samples[:, 0] - 10 * run.samples[:, 0].sign()
    assert abs(float(across.var()) - 1) < 4 * (2 / 500) ** 0.5


def test_a_run_uses_its_own_levels_counts_the_pilot_and_repeats_it():
    post = two_modes(20.0)
    run = po.sample(post, MomentSMC(particles=64), n=64, steps=10)
    assert run.config["grid"] == "the method's own"
    assert run.config["levels"] == MomentSMC(particles=64).levels(post, 10).tolist()
    plain = po.sample(
        post, MomentSMC(particles=64), n=64, grid=torch.tensor(run.config["levels"], dtype=F64)
    )
    assert torch.equal(plain.samples, run.samples)
    assert run.counts["denoiser"] > plain.counts["denoiser"] >= 10
    assert run.counts["vjp"] > plain.counts["vjp"]


def test_even_noise_is_normal_for_each_particle_and_hardly_moves_a_mean():
    groups, n, d = 400, 64, 3
    rng = Streams(3, range(groups), n)
    z = rng.normal(torch.zeros(groups * n, d, dtype=F64))
    axis = torch.nn.functional.normalize(
        torch.randn(groups, d, dtype=F64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    along = torch.randn(groups * n, dtype=F64, generator=torch.Generator().manual_seed(1))
    out = particles.spread_evenly(z, axis, along, 2, rng).view(groups, n, d)
    part = torch.einsum("gnd,gd->gn", out, axis)
    # One particle over many clouds is standard normal; a cloud's mean hardly varies, where
    # independent numbers vary by 1 / sqrt(n).
    for k in (0, 31, 63):
        assert abs(float(part[:, k].mean())) < 4 / groups**0.5
        assert abs(float(part[:, k].var()) - 1) < 4 * (2 / groups) ** 0.5
    assert float(part.mean(1).std()) < 0.3 / n**0.5
    rest = out - part[..., None] * axis[:, None]
    before = z.view(groups, n, d)
    before = before - torch.einsum("gnd,gd->gn", before, axis)[..., None] * axis[:, None]
    torch.testing.assert_close(rest, before)
    # Neighbours in the order draw different numbers: so does each half of the cloud as a whole.
    order = along.view(groups, n).argsort(1)
    half = part.gather(1, order)[:, : n // 2]
    assert float(half.mean(1).std()) < 0.4 / (n // 2) ** 0.5


def test_it_refuses_what_it_has_no_covariance_for():
    assert "noise level is 0" in MomentSMC().refuses(bed("general", sigma=0.0))
    assert "not linear" in MomentSMC().refuses(phases())
    many = po.operators.Dense(torch.zeros(600, 600, dtype=F64))
    prior = po.priors.Gaussian(torch.zeros(600, dtype=F64), 1.0)
    given = bed("general").given
    big = po.Posterior(prior, replace(given, y=torch.zeros(600, dtype=F64), A=many))
    assert "600 numbers of y" in MomentSMC().refuses(big)


def many_numbers(d=40, m=10):
    """A Gaussian prior of variances over two decades, ten sharp measurements."""
    g = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(d, d, dtype=F64, generator=g))[0]
    prior = po.priors.Gaussian(
        torch.zeros(d, dtype=F64), (axes * torch.logspace(0, -2, d, dtype=F64)) @ axes.T
    )
    A = po.operators.Dense(torch.randn(m, d, dtype=F64, generator=g))
    y = A(prior.sample(1, seed=1))[0] + 0.1 * torch.randn(m, dtype=F64, generator=g)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.1)))


@pytest.mark.parametrize("steps", [2, 3])
def test_a_gaussian_posterior_is_exact_in_as_few_steps_as_one_likes(steps, recwarn):
    """Levels of 4 and 0.01, between which a solve takes 30 iterations; variances along all axes are
    those of 512 exact samples."""
    post = many_numbers()
    exact = exact_posterior(post)
    run = po.sample(post, MomentSMC(64, pilot=16), n=512, steps=steps)
    assert run.log_evidence == pytest.approx(exact.log_evidence, abs=0.1)
    L = torch.linalg.cholesky(exact.covariance)
    white = torch.linalg.solve_triangular(L, (run.samples - exact.mean).T, upper=False)
    # (1 -+ sqrt(40 / 512))^2 = 0.52 and 1.64, and what 64 particles share.
    values = torch.linalg.eigvalsh(torch.cov(white))
    assert float(values[0]) > 0.4
    assert float(values[-1]) < 2.0
    assert not any("solves of a step" in str(w.message) for w in recwarn)


def test_solves_that_are_stopped_early_are_said():
    with pytest.warns(UserWarning, match="solves of a step have stopped early"):
        po.sample(many_numbers(), MomentSMC(16, pilot=8, solves=4), n=16, steps=2)
