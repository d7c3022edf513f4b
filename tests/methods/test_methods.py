"""What each method claims, and what it does not, against posteriors known in closed form."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import AFFINE, ANY, FLAT, SAMPLED, UNSAID, WHITE, bed, full_gaussian, mixture
from reference import F64, flat, law

import posteriori as po
from posteriori import methods
from posteriori.evaluation import affine_probe, exact_posterior, gaussian_kl
from posteriori.methods.base import Method
from posteriori.methods.transitions import DDIM, Heun
from posteriori.noise import Gaussian
from posteriori.rng import Streams

CONVERGED = AFFINE["MMPS"].method


class Oracle:
    """The posterior's own denoiser: E[x0 | x, y]."""

    def __init__(self, post):
        like = post.likelihood
        self.mixture, _ = (
            post.prior.know()
            .exact("posterior")
            .condition(po.operators.matrix(like.A), like.y, like.std)
        )

    def __call__(self, x, sigma):
        return self.mixture.denoise(x, sigma)


BEDS = {
    # claim: the posterior whose exact law the output must reach as steps are added.
    FLAT: lambda: flat(bed("general")),
    WHITE: lambda: bed("white"),
    ANY: lambda: bed("general"),
}
# In 60 steps the exact conditional denoiser itself is at KL 0.02 (ancestral sampling loses O(1/N)
# of the variance).
LIMIT = 0.03


@pytest.mark.parametrize("claim", BEDS)
@pytest.mark.parametrize("name", AFFINE)
def test_claims_both_ways(name, claim):
    """Without Monte Carlo: what a setting reaches it has the law of, and what it does not reach it
    misses by more than a hair."""
    case = AFFINE[name]
    mean, covariance = law(BEDS[claim](), case.method, case.steps)
    exact = exact_posterior(BEDS[claim]())
    # A covariance of less than full rank is infinitely far away.
    known = float(torch.linalg.eigvalsh(covariance)[0]) > 1e-12
    value = (
        float(gaussian_kl(mean, covariance, exact.mean.flatten(), exact.covariance))
        if known
        else float("inf")
    )
    if claim in case.reaches:
        assert value < LIMIT, f"{name} is said to reach '{claim}' but is at KL {value:.3g}"
    else:
        assert value > 2 * LIMIT, (
            f"{name} is said to miss '{claim}' and yet holds it: KL {value:.3g}"
        )


def test_every_law_that_a_class_claims_is_held_by_a_case():
    """Claims are about default settings: the case named as the class has what is claimed and, but
    for ``UNSAID``, nothing else."""
    claimed = {
        (name, claim) for name, cls in methods.ALL.items() for claim in cls.claims & BEDS.keys()
    }
    held = {
        (name, claim)
        for name, case in AFFINE.items()
        if name == type(case.method).__name__
        for claim in case.reaches
    }
    by_samples = {(name, claim) for name, claim in claimed if name in SAMPLED}
    assert held - UNSAID == claimed - by_samples
    assert held >= UNSAID
    assert {name for name, _ in by_samples} == SAMPLED
    # What is not affine is said to be so by the probe, or its rows belong together.
    for name in SAMPLED:
        with pytest.raises((AssertionError, ValueError)):
            affine_probe(bed(), methods.ALL[name](), 2)


@pytest.mark.parametrize("transition", [DDIM(0.0), DDIM(0.5), DDIM(1.0), Heun()])
def test_moment_matching_is_the_exact_conditional_denoiser(transition):
    post = bed("general")
    exact = Oracle(post)
    for sigma in (5.0, 0.7, 0.05):
        level = torch.tensor(sigma, dtype=F64)
        x = post.prior.start(
            torch.randn(5, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(0)),
            level,
        )
        torch.testing.assert_close(
            CONVERGED.denoise(post, x, level), exact(x, level), rtol=1e-8, atol=1e-8
        )
    ours = affine_probe(post, replace(CONVERGED, transition=transition), 12)
    theirs = affine_probe(
        oracle_posterior(post), methods.Unconditional(transition=transition), 12, grid_of(post, 12)
    )
    # Different starts; the steps themselves are compared above
    assert float((ours[1] - theirs[1]).abs().max()) < 0.2


def oracle_posterior(post):
    return po.evaluation.oracle(post)


def grid_of(post, steps):
    return po.grid.karras(steps, post.prior.sigma_max, post.prior.sigma_min)


def test_as_many_iterations_as_measurements_suffice():
    post = bed("general")
    level = torch.tensor(0.7, dtype=F64)
    x = post.prior.start(
        torch.randn(3, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(0)), level
    )
    for precondition in (False, True):
        for solver in ("cg", "gmres"):
            enough = methods.MMPS(
                iterations=4, rtol=1e-13, precondition=precondition, solver=solver
            )
            torch.testing.assert_close(
                enough.denoise(post, x, level), Oracle(post)(x, level), rtol=1e-6, atol=1e-6
            )
    few = methods.MMPS(iterations=1, rtol=1e-13, precondition=False)
    assert float((few.denoise(post, x, level) - Oracle(post)(x, level)).abs().max()) > 1e-3


def test_pigdm_is_exact_for_a_white_prior_and_not_otherwise():
    level = torch.tensor(0.7, dtype=F64)
    for kind, same in (("white", True), ("general", False)):
        post = bed(kind)
        x = post.prior.start(
            torch.randn(4, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(0)),
            level,
        )
        gap = float((methods.PiGDM().denoise(post, x, level) - Oracle(post)(x, level)).abs().max())
        assert (gap < 1e-10) is same


def test_on_a_mixture_moment_matching_is_closer_than_pigdm():
    prior = mixture()
    A = po.operators.Dense(torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(3)))
    post = po.Posterior(prior, po.Likelihood(A(prior.sample(1, 7))[0], A, Gaussian(0.3)))
    level = torch.tensor(0.5, dtype=F64)
    # Points that the posterior itself visits at this level.
    exact = Oracle(post)
    x = exact.mixture.sample(2000, 1) + level * torch.randn(
        2000, 4, dtype=F64, generator=torch.Generator().manual_seed(5)
    )
    error = {
        name: float((method.denoise(post, x, level) - exact(x, level)).square().sum(1).mean())
        for name, method in (("MMPS", CONVERGED), ("PiGDM", methods.PiGDM()))
    }
    assert error["MMPS"] < 0.5 * error["PiGDM"]


@pytest.mark.parametrize(("transition", "order"), [(DDIM(0.0), 1.0), (Heun(), 2.0)])
def test_samplers_have_their_stated_order(transition, order):
    """Covariance error against the exact ODE solution, which for a Gaussian maps
    N(mu, C + sigma_max^2) to N(mu, C)."""
    post = bed("general")
    errors = []
    for steps in (32, 64, 128):
        levels = po.grid.karras(steps, 20.0, 1e-4)
        _, covariance = affine_probe(
            flat(post), methods.Unconditional(transition=transition), steps, levels
        )
        errors.append(float((covariance - post.prior.covariance).norm()))
    slopes = [torch.log2(torch.tensor(a / b)).item() for a, b in pairwise(errors)]
    assert all(slope > order - 0.2 for slope in slopes), slopes
    assert slopes[-1] < order + 0.6


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_daps_with_exact_draws_is_exact_for_any_number_of_steps(steps):
    for post in (bed("general"), bed("white")):
        rest = torch.tensor([1.0, 0.0], dtype=F64)
        if steps > 2:
            rest = po.grid.karras(steps - 1, 3.0, 0.05)
        levels = torch.cat([torch.tensor([1e5], dtype=F64), rest])
        mean, covariance = affine_probe(post, methods.DAPS(draw="exact"), steps, levels)
        exact = exact_posterior(post)
        torch.testing.assert_close(mean, exact.mean, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(covariance, exact.covariance, rtol=1e-7, atol=1e-7)


def test_daps_with_exact_draws_is_exact_on_a_mixture():
    prior = mixture()
    A = po.operators.Dense(torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(3)))
    post = po.Posterior(prior, po.Likelihood(A(prior.sample(1, 7))[0], A, Gaussian(0.5)))
    exact = exact_posterior(post)
    run = po.sample(post, methods.DAPS(draw="exact"), n=2000, steps=3, seed=0)
    distance = po.evaluation.sliced_wasserstein(run.samples, exact.sample(2000, seed=1), slices=200)
    floor, spread = po.evaluation.floor(exact, 2000, slices=200)
    assert distance < floor + 4 * spread


def test_the_published_daps_centre_doubles_the_variance():
    """ODE centre and r = sigma on a Gaussian prior: the end of the ODE already has the prior's
    spread (200 levels, exact inner draw)."""
    post = flat(bed("white"))
    published = methods.DAPS(centre="ode", width="sigma", draw="conditional", ode_steps=60)
    _, covariance = law(post, published, 60)
    ratio = float(covariance.trace() / post.prior.covariance.trace())
    assert 1.7 < ratio < 2.3


def test_the_published_dps_step_is_the_papers_rule_for_every_sample():
    """x'_vp = DDPM(x_vp) - zeta grad_{x_vp} ||y - A D||, written out in VP coordinates with the
    norm of each sample alone."""
    post, scale = bed("general"), 0.3
    sigma, s = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)
    a, a_s = ((1 + v**2).rsqrt() for v in (sigma, s))
    x = post.prior.start(
        torch.randn(3, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(1)), sigma
    )
    ours, _ = methods.DPS.published(scale).step(post, x, sigma, s, Streams(4, range(3)))
    z = Streams(4, range(3)).normal(x)
    for row in range(3):
        leaf = (a * x[row : row + 1]).requires_grad_()
        x0 = post.prior.denoise(leaf / a, sigma)
        (gradient,) = torch.autograd.grad((post.likelihood.y - post.likelihood.A(x0)).norm(), leaf)
        with torch.no_grad():
            abar, abar_s = a**2, a_s**2
            eps = (leaf - a * x0) / (1 - abar).sqrt()
            std = ((1 - abar_s) / (1 - abar) * (1 - abar / abar_s)).sqrt()
            ancestral = a_s * x0 + (1 - abar_s - std**2).sqrt() * eps + std * z[row]
            torch.testing.assert_close(a_s * ours[row : row + 1], ancestral - scale * gradient)


def test_dps_forms_convert_and_a_zero_residual_gives_no_step():
    prior = po.priors.Gaussian(torch.zeros(64, dtype=F64), 1.0)
    A = po.operators.Identity((64,))
    y = torch.randn(64, dtype=F64, generator=torch.Generator().manual_seed(0))
    post = po.Posterior(prior, po.Likelihood(y, A, Gaussian(0.1)))
    sigma, s = torch.tensor(1.0, dtype=F64), torch.tensor(0.5, dtype=F64)
    x = prior.start(
        torch.randn(1, 64, dtype=F64, generator=torch.Generator().manual_seed(1)), sigma
    )
    residual = float((y - prior.denoise(x, sigma)).norm())
    norm, _ = methods.DPS("norm", 0.7).step(post, x, sigma, s, Streams(0, [0]))
    squared, _ = methods.DPS("squared", 0.7 / (2 * residual)).step(
        post, x, sigma, s, Streams(0, [0])
    )
    torch.testing.assert_close(norm, squared, rtol=1e-9, atol=1e-9)
    zero = po.Posterior(prior, po.Likelihood(prior.denoise(x, sigma)[0], A, Gaussian(0.1)))
    for weighting in ("norm", "squared", "bounded", "likelihood"):
        out, _ = methods.DPS(weighting).step(zero, x, sigma, s, Streams(0, [0]))
        free, _ = methods.Unconditional().step(zero, x, sigma, s, Streams(0, [0]))
        torch.testing.assert_close(out, free)


def test_the_likelihood_weight_of_dps_diverges_on_a_coarse_grid_and_the_bounded_one_does_not():
    post = bed("general", sigma=0.02)
    wild = methods.DPS("likelihood")
    with pytest.raises(FloatingPointError):
        po.sample(post, wild, n=2, steps=400, grid=po.grid.karras(400, 1e3, 1e-3))
    assert bool(po.sample(post, methods.DPS(), n=2, steps=10).samples.isfinite().all())


def test_diffpir_moves_only_in_the_range_of_the_adjoint_and_solves_its_proximal_problem():
    post = bed("general")
    A, like = po.operators.matrix(post.likelihood.A), post.likelihood
    sigma = torch.tensor(0.7, dtype=F64)
    x = post.prior.start(
        torch.randn(3, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(1)), sigma
    )
    x0 = post.prior.denoise(x, sigma)
    for width in ("matched", "sigma"):
        method = methods.DiffPIR(lam=2.0, width=width)
        guided = method.denoise(post, x, sigma)
        null = torch.eye(6, dtype=F64) - torch.linalg.pinv(A) @ A
        torch.testing.assert_close((guided - x0) @ null.T, torch.zeros_like(x), atol=1e-10, rtol=0)
        r2 = (post.prior.know().error(sigma) if width == "matched" else 0.49) / 2.0
        optimality = (guided @ A.T - like.y) @ A / like.std**2 + (guided - x0) / r2
        torch.testing.assert_close(optimality, torch.zeros_like(x), atol=1e-8, rtol=0)
    other = methods.PiGDM().denoise(post, x, sigma)
    assert float(((other - x0) @ null.T).abs().max()) > 1e-3


def test_a_method_refuses_what_it_cannot_do():
    from cases import phases

    for method in (methods.PiGDM(), methods.TMPD(), methods.DiffPIR(data="proximal")):
        assert "PhaseRetrieval is not linear" in str(method.refuses(phases()))
    assert methods.DPS().refuses(phases()) is None
    silent = po.Posterior(full_gaussian(), replace(bed().given, noise=Gaussian(0.0)))
    assert "noise level is 0" in str(methods.MMPS().refuses(silent))
    assert methods.PiGDM().refuses(silent) is None


def test_langevin_draws_reach_the_conditional():
    """Mean and variance of the inner draw against the exact Gaussian product, within the stated
    bias of its step."""
    post = bed("white", sigma=0.5)
    sigma, s = torch.tensor(0.6, dtype=F64), torch.tensor(0.0, dtype=F64)
    x = post.prior.start(
        torch.randn(1, *post.shape, dtype=F64, generator=torch.Generator().manual_seed(1)), sigma
    ).expand(4000, -1)
    draws = {}
    for draw in ("conditional", "langevin"):
        draws[draw], _ = methods.DAPS(draw=draw, inner_steps=60).step(
            post, x, sigma, s, Streams(0, range(4000))
        )
    exact, langevin = draws["conditional"], draws["langevin"]
    assert (
        float((exact.mean(0) - langevin.mean(0)).abs().max())
        < 5 * float(exact.std(0).max()) * (2 / 4000) ** 0.5
    )
    ratio = langevin.var(0) / exact.var(0)
    assert float(ratio.min()) > 0.85
    assert float(ratio.max()) < 1.4


def test_the_example_of_the_front_page_runs():
    g = torch.Generator().manual_seed(0)
    weights = torch.ones(3)
    means = 3 * torch.randn(3, 4, generator=g)
    covariances = torch.eye(4).expand(3, 4, 4)
    matrix, y = torch.randn(2, 4, generator=g), torch.randn(2, generator=g)
    prior = po.priors.GaussianMixture(weights, means, covariances)
    A = po.operators.Dense(matrix)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.1)))
    run = po.sample(post, po.methods.MMPS(), n=1000, steps=100, seed=0)
    assert run.samples.shape == (1000, 4)
    assert run.counts["denoiser"] == 2 * 100 - 1
    assert all(status.ok for status in run.status)
    exact = po.evaluation.exact_posterior(post)
    assert exact.mean.shape == (4,)
    assert isinstance(exact.log_evidence, float)
    assert po.evaluation.sliced_wasserstein(run.samples, exact.sample(1000, seed=1)) < 1.0
    assert issubclass(po.methods.MMPS, Method)


@pytest.mark.parametrize("lower", [1.3, 0.4, 0.0])
def test_a_transition_is_its_coefficients_written_out(lower):
    """eta 1: the law of x_s given x0 and x_sigma, of variance s^2 (1 - s^2 / sigma^2); eta and zeta
    share out old and fresh noise."""
    sigma, s = torch.tensor(1.7, dtype=torch.float64), torch.tensor(lower, dtype=torch.float64)
    x, x0, z = (
        torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        for k in range(3)
    )
    noise, beta = (x - x0) / 1.7, lower**2 * (1 - lower**2 / 1.7**2)

    class Given:
        def normal(self, like):
            return z

    def after(transition):
        return transition(lambda x, level: x0, x, sigma, s, Given())

    torch.testing.assert_close(after(DDIM(1.0)), x0 + lower**2 / 1.7**2 * (x - x0) + beta**0.5 * z)
    torch.testing.assert_close(
        after(DDIM(0.6)), x0 + (lower**2 - 0.36 * beta) ** 0.5 * noise + 0.6 * beta**0.5 * z
    )
    torch.testing.assert_close(
        after(methods.ConstantFraction(0.3)), x0 + lower * (0.7**0.5 * noise + 0.3**0.5 * z)
    )
