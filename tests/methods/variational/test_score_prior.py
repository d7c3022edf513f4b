"""Invertible families, the density of a diffusion prior, and score-prior variational inference,
against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, full_gaussian, mixture, phases, picture, two_modes
from reference import F64, draw
from variational import drive, fitted, mass

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior, gaussian_kl
from posteriori.methods.variational.score_prior import fit as fits
from posteriori.methods.variational.score_prior import flows
from posteriori.priors import log_density as densities
from posteriori.rng import Streams

# FAMILIES
# --------------------------------------------------------------------------------------------------

FAMILIES = {
    "diagonal": flows.Diagonal(),
    "low-rank": flows.LowRank(2),
    "low-rank over-complete": flows.LowRank(7),
    "realnvp": flows.RealNVP(6, 8),
    "realnvp odd": flows.RealNVP(5, 8),
}


def member(family, d, G=2):
    """Parameters far from the identity."""
    return 0.5 * draw(G, family.size(d), seed=3)


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_families_invert_and_know_their_jacobian(name, d):
    family = FAMILIES[name]
    params, z = member(family, d), draw(2, 3, d)
    u, log_det = family.push(params, z)
    back, same = family.pull(params, u)
    assert float((back - z).abs().max()) < 1e-9
    torch.testing.assert_close(log_det, same)
    for g in range(2):
        for n in range(3):
            J = torch.autograd.functional.jacobian(
                lambda v: family.push(params[g : g + 1], v[None, None])[0][0, 0], z[g, n]
            )
            assert float(torch.linalg.slogdet(J)[1] - log_det[g, n]) == pytest.approx(0, abs=1e-9)
    assert float((u - z).abs().max()) > 0.1


def test_single_precision_inverts_to_1e_5_and_members_do_not_know_each_other():
    family = flows.RealNVP(8, 32)
    params = family.initial(
        torch.rand(3, family.size(6), generator=torch.Generator().manual_seed(0)), 6
    )
    params = params + 0.05 * draw(*params.shape, dtype=torch.float32)
    z = draw(3, 500, 6, dtype=torch.float32)
    u, _ = family.push(params, z)
    assert float((family.pull(params, u)[0] - z).abs().max()) < 1e-5
    torch.testing.assert_close(family.push(params[1:2], z[1:2])[0], u[1:2])


@pytest.mark.parametrize("name", FAMILIES)
def test_families_start_near_the_identity_and_integrate_to_one(name):
    family = FAMILIES[name]
    start = family.initial(
        torch.rand(1, family.size(2), dtype=F64, generator=torch.Generator().manual_seed(0)), 2
    )
    z = draw(1, 200, 2)
    assert float((family.push(start, z)[0] - z).abs().max()) < 0.2
    params = 0.3 * draw(1, family.size(2), seed=3)
    axis = torch.linspace(-12, 12, 481, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    total = flows.flow_log_density(family, params, grid[None]).exp().sum() * 0.05**2
    assert float(total) == pytest.approx(1.0, abs=2e-3)


def test_low_rank_is_a_diagonal_plus_low_rank_gaussian():
    family, d = flows.LowRank(2), 4
    params = member(family, d, 1)
    J = torch.autograd.functional.jacobian(
        lambda v: family.push(params, v[None, None])[0][0, 0], torch.zeros(d, dtype=F64)
    )
    S = params[0, d : 2 * d].exp()
    rest = J @ J.T / (S[:, None] * S) - torch.eye(d, dtype=F64)
    assert torch.linalg.matrix_rank(rest, rtol=1e-8) == 2
    assert float(torch.linalg.eigvalsh(rest).min()) > -1e-9


def test_refused_families():
    with pytest.raises(ValueError, match="at least 2 numbers"):
        flows.RealNVP().size(1)
    with pytest.raises(ValueError, match="rank"):
        flows.LowRank(0)
    with pytest.raises(ValueError, match="couplings >= 1"):
        flows.RealNVP(0)


# DENSITY OF A PRIOR
# --------------------------------------------------------------------------------------------------


class Blurred(po.priors.GaussianMixture):
    """A mixture that keeps its density to itself."""

    def know(self):
        return replace(super().know(), closed=None)


PRIORS = {
    "white": lambda: po.priors.Gaussian(torch.full((5,), 0.7, dtype=F64), 0.4),
    "gaussian": full_gaussian,
    "mixture": mixture,
    "complex": lambda: po.priors.ComplexImages(full_gaussian(F64, (2, 3))),
}


def images(prior, n=6):
    d = prior.pairs.shape if prior.complex else prior.shape
    x = prior.pairs.sample(n, 1) if prior.complex else prior.sample(n, 1)
    x = x + 0.5 * draw(n, *d, seed=4)
    return torch.view_as_complex(x.movedim(1, -1).contiguous()) if prior.complex else x


@pytest.mark.parametrize("name", PRIORS)
def test_the_ode_density_is_the_analytic_one(name):
    prior = PRIORS[name]()
    x = images(prior)
    exact = prior.know().closed.log_prob(x, prior.sigma_min)
    ours = densities.ode_log_density(prior, x, steps=160, sigma_max=1e3 * prior.max_std)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-4)
    # With the prior's own end, ten times its spread, the Gaussian put there costs a little.
    torch.testing.assert_close(
        densities.ode_log_density(prior, x, steps=60), exact, rtol=0, atol=5e-3
    )


def test_the_ode_has_order_four():
    prior = mixture()
    x, top = images(prior), 1e3 * prior.max_std
    exact = prior.know().closed.log_prob(x, prior.sigma_min)
    errors = [
        float((densities.ode_log_density(prior, x, steps=n, sigma_max=top) - exact).abs().max())
        for n in (80, 160)
    ]
    assert math.log2(errors[0] / errors[1]) > 3


def test_the_trace_by_probes_is_unbiased():
    prior = full_gaussian()
    x = images(prior, 2)
    d = x.shape[1]
    exact = densities.ode_log_density(prior, x, steps=40)
    # The columns of a scaled orthogonal matrix average to the exact trace; signs drawn at random do
    # so on average.
    axes = torch.linalg.qr(draw(d, d))[0].T[:, None] * d**0.5
    torch.testing.assert_close(
        densities.ode_log_density(prior, x, steps=40, probes=axes.expand(-1, 2, -1)),
        exact,
        rtol=0,
        atol=1e-4,
    )
    signs = draw(40, 2, d, seed=8).sign()
    each = torch.stack(
        [densities.ode_log_density(prior, x, steps=12, probes=s[None]) for s in signs]
    )
    error = each.std(0) / len(signs) ** 0.5
    assert bool(
        (
            (each.mean(0) - densities.ode_log_density(prior, x, steps=12)).abs() < 4 * error + 1e-3
        ).all()
    )
    assert float(error.max()) > 1e-3


def test_log_density_takes_the_closed_form_or_integrates():
    known = mixture()
    hidden = Blurred(known.weights, known.means, known.covariances)
    x = images(known)
    assert torch.equal(densities.log_density(known, x), known.log_prob(x))
    torch.testing.assert_close(
        densities.log_density(hidden, x), known.log_prob(x), rtol=0, atol=2e-2
    )
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        densities.ode_log_density(known, x, sigma_min=3.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="nodes >= 1"):
        densities.evidence_bound(known, x, Streams(0, range(6)), nodes=0)


class Cubature:
    """Noise whose rows are +-sqrt(d) times the unit vectors: their mean is the exact one of a
    quadratic."""

    def __init__(self, d):
        self.points = d**0.5 * torch.cat([torch.eye(d, dtype=F64), -torch.eye(d, dtype=F64)])

    def normal(self, like):
        return self.points.repeat(len(like) // len(self.points), 1)

    def uniform(self, count):
        raise AssertionError("not asked for")


def bound(prior, x, **settings):
    d = x.shape[1]
    return (
        densities.evidence_bound(prior, x.repeat_interleave(2 * d, 0), Cubature(d), **settings)
        .view(len(x), -1)
        .mean(1)
    )


def test_the_bound_is_tight_for_the_exact_denoiser():
    for prior, gap in ((PRIORS["white"](), 1e-4), (full_gaussian(), 1e-4)):
        x = images(prior)
        ours = bound(
            prior, x, nodes=48, sigma_min=1e-3 * prior.sigma_min, sigma_max=1e3 * prior.max_std
        )
        assert float((ours - prior.know().closed.log_prob(x)).abs().max()) < gap
    # With the prior's own limits the bound of a white prior stays tight: its first step is a
    # Gaussian decoder.
    white = PRIORS["white"]()
    x = images(white)
    assert float((bound(white, x) - white.know().closed.log_prob(x)).abs().max()) < 2e-3


class Perturbed(po.priors.Gaussian):
    """D + a sigma^2 / (1 + sigma^2): a wrong score."""

    def denoise(self, x, sigma):
        return self.mixture.denoise(x, sigma) + 0.3 * sigma**2 / (1 + sigma**2)


def test_a_wrong_score_has_a_lower_bound_by_its_error():
    """Averaged over x ~ p the gap is int E |D - D_exact|^2 / sigma^2 dt, here d 0.09 int
    sigma^2 / (1 + sigma^2)^2 dt = d 0.09 / 2."""
    right, d = PRIORS["white"](), 5
    wrong = Perturbed(right.mean, 0.4)
    x = right.sample(4000, 5)
    low, high = 1e-3, 1e3
    gaps = bound(right, x, nodes=48, sigma_min=low, sigma_max=high) - bound(
        wrong, x, nodes=48, sigma_min=low, sigma_max=high
    )
    assert float(gaps.mean()) == pytest.approx(
        d * 0.09 / 2, abs=4 * float(gaps.std()) / 4000**0.5 + 1e-4
    )
    assert float(gaps.mean()) > 0.1


def test_even_in_ln_sigma_has_the_same_mean_and_less_variance_than_even_in_time():
    """One level per row: ln sigma uniform, against sigma^2 uniform, the time of the VE process."""
    prior = PRIORS["white"]()
    n, low, high = 600, 0.05, 5.0
    x = prior.sample(1, 2)
    u = torch.rand(2, n, dtype=F64, generator=torch.Generator().manual_seed(0))
    W = math.log(high / low)
    out = []
    for sigma, weight in (
        (low * (W * u[0]).exp(), torch.full((n,), W, dtype=F64)),
        (
            (low**2 + u[1] * (high**2 - low**2)).sqrt(),
            (high**2 - low**2) / (2 * (low**2 + u[1] * (high**2 - low**2))),
        ),
    ):
        values = [densities.denoising(prior, x, draw(1, 5, seed=k), s) for k, s in enumerate(sigma)]
        out.append(torch.cat(values) * weight)
    even, time = out
    error = (even.var() / n + time.var() / n).sqrt()
    assert float((even.mean() - time.mean()).abs()) < 4 * float(error)
    assert float(even.var()) < 0.5 * float(time.var())


def test_the_slope_of_the_bound_is_that_of_autograd():
    prior = mixture()
    x, sigma, z = images(prior), torch.tensor(0.8, dtype=F64), draw(6, 4, seed=2)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(densities.denoising(prior, leaf, z, sigma).sum(), leaf)
    torch.testing.assert_close(densities.denoising_slope(prior, x, z, sigma), g)


# VARIATIONAL INFERENCE
# --------------------------------------------------------------------------------------------------


def test_a_gaussian_family_reaches_the_exact_gaussian_posterior():
    post = bed()
    exact = exact_posterior(post)
    method = methods.ScorePriorVI("low-rank", draws=64, rank=6, rate=2e-2, polish=1500)
    _, info, draws = drive(post, method, 20, n=20000)
    x = draws[0]
    kl = float(gaussian_kl(x.mean(0), torch.cov(x.T), exact.mean, exact.covariance))
    assert kl < 2e-3  # 27 / (2 n) = 7e-4 is the sampling error of 20000 draws
    assert float(info["bound"]) == pytest.approx(exact.log_evidence, abs=1e-3)
    assert float(info["ess"]) > 0.99 * 64
    assert float(info["gap"]) < 0.1


def test_the_diagonal_family_ends_at_the_inverse_of_the_precisions_diagonal():
    """The mean-field solution: too narrow by design, and the gap of its evidence bound is its KL to
    the posterior."""
    post = bed()
    exact = exact_posterior(post)
    state, _, draws = drive(
        post, methods.ScorePriorVI("diagonal", draws=64, rate=2e-2, polish=1500), 20, n=20000
    )
    precision = torch.linalg.inv(exact.covariance)
    variance = 1 / precision.diagonal()
    torch.testing.assert_close(draws[0].var(0), variance, rtol=0.05, atol=0)
    torch.testing.assert_close(draws[0].mean(0), exact.mean, rtol=0, atol=0.05)
    assert float((variance / exact.covariance.diagonal()).min()) < 0.6
    kl = float(gaussian_kl(exact.mean, torch.diag(variance), exact.mean, exact.covariance))
    lost = exact.log_evidence - state.log_w.view(1, -1).mean()
    assert float(lost) == pytest.approx(kl, abs=4 * float(state.log_w.std()) / 8)
    assert kl > 0.3


def test_the_slope_of_the_surrogate_is_the_score_on_average():
    """Over the levels of 2000 updates, and exactly over the noise, for a Gaussian prior: within 0.3
    %, where the end term is 1 %."""
    post = bed("white")
    level = torch.tensor(post.prior.sigma_min, dtype=F64)
    x = post.prior.sample(1, 3).expand(12, -1)
    m, rng = densities.centre(post.prior, x), Cubature(6)
    score, surrogate = (fits.Target(post, level, gradient) for gradient in ("score", "bound"))
    exact = score.slope(x, m, 0, True, 12, rng)[0]
    data = exact - (post.prior.denoise(x, level)[0] - x[0]) / level**2
    mean = torch.stack([surrogate.slope(x, m, k, True, 12, rng).mean(0) for k in range(2000)]).mean(
        0
    )
    assert float((mean - exact).norm() / (exact - data).norm()) < 3e-3


def test_the_surrogate_bound_gives_the_same_fit_as_the_score():
    post = bed()
    exact = exact_posterior(post)
    method = methods.ScorePriorVI("low-rank", "bound", draws=256, rank=6, rate=1e-2, polish=2000)
    _, _, draws = drive(post, method, 20, n=20000)
    assert (
        float(gaussian_kl(draws[0].mean(0), torch.cov(draws[0].T), exact.mean, exact.covariance))
        < 0.1
    )


@pytest.mark.slow
def test_the_flow_finds_the_masses_of_modes_and_says_so():
    """Six deviations apart: nearer ones are found more easily."""
    plain, weighted, truth, log_p, info = fitted(6)
    assert truth == pytest.approx(0.67, abs=0.01)
    # A fit ends where rounding takes it: masses scatter by about 0.03. A lost mode is 0.33 off at
    # least.
    assert bool(((plain - truth).abs() < 0.15).all()), plain
    assert abs(float(plain.mean()) - truth) < 5 * 0.03 / 5**0.5, plain
    # Weights correct it: 4000 draws, of which four in five count, have a standard error of 0.008.
    assert bool(((weighted - truth).abs() < 0.05).all()), weighted
    assert float(info["gap"].max()) < 0.3
    assert float(info["ess"].min()) > 0.8 * 128
    # The mean of 128 weights of this effective size has a relative standard error of at most 0.044.
    assert float((info["evidence"] - log_p).abs().max()) < 0.22


def test_without_annealing_a_mode_eight_deviations_away_is_lost_and_reported():
    """The weights of what is left look perfect in most problems (one draw that comes near the lost
    mode spoils them); there the gap is -log(1 - lost mass)."""
    plain, _, truth, log_p, info = fitted(
        8, steps=10, anneal=False, updates=1, polish=400, rate=1e-2
    )
    gone = ((plain - truth).abs() > 0.3) & (info["ess"] > 0.95 * 128)
    assert int(gone.sum()) >= 3, (plain, info["ess"])
    lost = torch.where(gone, torch.where(plain > 0.5, 1 - truth, truth), 0.0).double()
    # Log-weights of a variance v = -ln 0.95 lower the bound by v / 2, and their mean has a standard
    # error of (v / 128)^(1/2).
    torch.testing.assert_close(
        info["bound"][gone], (log_p + (1 - lost).log())[gone], rtol=0, atol=0.026 + 5 * 0.02
    )
    # Some fifty draws of the prior lie in a lost mode: its mass is known within a fifth or so.
    torch.testing.assert_close(info["gap"][gone], -(1 - lost).log()[gone], rtol=0, atol=0.3)


def test_a_gaussian_cannot_hold_two_modes_and_the_run_warns():
    post = two_modes(8)
    exact = exact_posterior(post)
    with pytest.warns(UserWarning, match="below the evidence"):
        run = po.sample(
            post,
            methods.ScorePriorVI("low-rank", draws=256, rank=2, polish=300, rate=1e-2),
            n=512,
            steps=30,
            seed=0,
        )
    share = mass(run.samples.view(2, 256, 2))
    narrow = run.samples.view(2, 256, 2).var(1)[:, 0] < 0.5 * float(exact.covariance[0, 0])
    assert bool((((share - float(exact.mixture.weights[1])).abs() > 0.2) | ~narrow).all())
    assert float(run.trace["gap"].min()) > 0.3
    assert run.log_evidence is not None
    assert run.log_evidence < exact.log_evidence - 0.3
    assert po.evaluation.sliced_wasserstein(run.samples, exact.sample(512, seed=1)) > 0.5


@pytest.mark.slow
def test_with_annealing_modes_eight_deviations_apart_are_both_kept():
    """The gradient hardly moves mass once the modes are apart, so that smaller batches and faster
    updates leave masses that scatter."""
    plain, weighted, truth, _, info = fitted(8, steps=60, draws=512, updates=30, rate=2e-3)
    assert int(((plain - truth).abs() < 0.05).sum()) >= 4, plain
    assert bool(((plain - truth).abs() < 0.15).all()), plain
    assert bool(((weighted - truth).abs() < 0.05).all()), weighted
    assert float(info["gap"].max()) < 0.3


# THE METHOD
# --------------------------------------------------------------------------------------------------


def test_a_run_gives_weights_and_a_bound_in_the_users_units():
    """A prior with a range: log p(y) is a density of the measurement as it was given."""
    post = picture()
    exact = exact_posterior(post)
    settings = {"draws": 64, "rank": 12, "rate": 2e-2, "polish": 800}
    run = po.sample(post, methods.ScorePriorVI("low-rank", **settings), n=128, steps=10, seed=0)
    evidence = run.trace["evidence"][-1]
    assert run.log_w.shape == (128,)
    assert float((evidence - exact.log_evidence).abs().max()) < 0.7  # a Gaussian for two components
    assert run.trace["bound"].shape == (1, 128)
    coarse = po.sample(
        post, methods.ScorePriorVI("low-rank", weigh_up_to=11, **settings), n=128, steps=10, seed=0
    )
    assert bool((coarse.log_w == 0).all())
    assert float((coarse.trace["bound"] - run.trace["bound"]).abs().max()) < 1.2


@pytest.mark.filterwarnings("ignore:the evidence bound")
def test_complex_and_nonlinear_problems_run():
    for make in (complex_picture, phases):
        run = po.sample(
            make(), methods.ScorePriorVI(draws=16, polish=60, updates=5), n=16, steps=8, seed=0
        )
        assert bool(run.samples.abs().isfinite().all())
        assert run.counts["denoiser"] > 8 * 5


def test_refused_problems_and_settings():
    one = po.priors.Gaussian(torch.zeros(1, dtype=F64), 1.0)
    post = po.Posterior(
        one,
        po.Likelihood(
            torch.zeros(1, dtype=F64), po.operators.Identity((1,)), po.noise.Gaussian(0.1)
        ),
    )
    assert "at least 2 numbers" in str(methods.ScorePriorVI().refuses(post))
    assert methods.ScorePriorVI("diagonal").refuses(post) is None
    with pytest.raises(ValueError, match="rate: expected a number > 0"):
        methods.ScorePriorVI(rate=0.0)
    with pytest.raises(ValueError, match="ScorePriorVI.form is 'gaussian'"):
        methods.ScorePriorVI("gaussian")


@pytest.mark.parametrize("d", [4, 5])
def test_two_couplings_move_every_number(d):
    family = flows.RealNVP(couplings=2, hidden=8)
    params = 0.3 * draw(1, family.size(d), seed=3)
    z = draw(1, 20, d, seed=4)
    assert float((family.push(params, z)[0] - z).abs().amax((0, 1)).min()) > 1e-3


def test_each_step_fits_the_target_blurred_to_the_level_it_reaches(monkeypatch):
    post, levels, target = bed(), [], fits.Target
    monkeypatch.setattr(
        fits,
        "Target",
        lambda post, level, gradient: levels.append(float(level)) or target(post, level, gradient),
    )
    method = methods.ScorePriorVI("diagonal", draws=4, updates=1, polish=1)
    drive(post, method, 4, n=4)
    assert levels == pytest.approx(
        [
            *po.grid.karras(4, post.prior.sigma_max, post.prior.sigma_min)[1:-1].tolist(),
            post.prior.sigma_min,
        ]
    )


def test_a_gradient_longer_than_clip_is_shortened_to_it_and_a_shorter_one_is_not():
    """Group by group: Adam's first moment after one update is a tenth of the gradient that it was
    given."""
    family, d, n = flows.Diagonal(), 3, 4
    params = family.initial(torch.zeros(2, family.size(d), dtype=F64), d)
    frame = fits.FitFrame(torch.zeros(1, d, dtype=F64), 1.0, n)
    z = draw(2, n, d, seed=3)
    steep = torch.tensor([1e4, 1e-2], dtype=F64).repeat_interleave(n)[:, None]
    first = {}
    for clip in (1e30, 5.0):
        fit = fits.begin(params, torch.zeros(2 * n, d, dtype=F64))
        first[clip] = fits.ascend(
            family, fit, frame, lambda x: steep * (1 - x), z, 1e-3, clip
        ).first
    free, held = first[1e30], first[5.0]
    assert float(free[0].norm()) > 5
    torch.testing.assert_close(held[0], free[0] * 0.5 / free[0].norm())
    assert float(free[1].norm()) < 0.5
    torch.testing.assert_close(held[1], free[1])
