"""MCGDiff and FPS: their rules with dense matrices, unbiased evidence, exactness per path, and the
collapse of the published filter."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from cases import bed, complex_picture, mixture, phases
from reference import F64, level
from torch.distributions import MultivariateNormal

import posteriori as po
from posteriori.evaluation import affine_probe, exact_posterior
from posteriori.methods import DDIM, FPS, MCGDiff, Unconditional
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.smc import particles as clouds
from posteriori.noise import ComplexGaussian, Gaussian
from posteriori.operators import Dense, MaskedFourier, matrix
from posteriori.operators.base import Spectrum
from posteriori.rng import Streams
from posteriori.testing import check_method

BOTH = [MCGDiff, FPS]
KEPT = {"ratio": 2.0, "last": "kept"}


def line(sigma, y=1.2):
    """N(0, 1) seen directly."""
    prior = po.priors.Gaussian(torch.zeros(1, dtype=F64), 1.0)
    return po.Posterior(
        prior,
        po.Likelihood(
            torch.tensor([y], dtype=F64), Dense(torch.eye(1, dtype=F64)), Gaussian(sigma)
        ),
    )


def drive(post, method, grid, groups, seed):
    """The final state of ``groups`` clouds."""
    rng = Streams(seed, range(groups), method.group)
    x = post.prior.start(
        rng.normal(torch.zeros(groups * method.group, *post.shape, dtype=F64)), grid[0]
    )
    state = method.init(post, x, rng)
    for sigma, s in pairwise(grid):
        state, _ = method.step(post, state, sigma, s, rng)
    return state


def at_tau(post, grid):
    """log density of the ancestral chain's own c_i(tau_i) = u_i, times 1 / a: a dense recursion for
    the Gaussian prior."""
    f, n = svd_coordinates.frame(post), 6
    _, _, Vh = torch.linalg.svd(matrix(post.likelihood.A), full_matrices=True)
    C, mu = Vh @ post.prior.covariance @ Vh.T, Vh @ post.prior.mean
    eye = torch.eye(n, dtype=F64)
    # Mean and covariance of (x, what was met so far), the latter at most as many numbers as y has.
    m, P, order = mu.clone(), C + grid[0] ** 2 * eye, []
    for sigma, s in pairwise(grid):
        G = C @ torch.linalg.inv(C + sigma**2 * eye)
        D, offset = torch.zeros(n, len(m), dtype=F64), mu - G @ mu
        D[:, :n] = G
        X = torch.eye(len(m), dtype=F64)[:n]
        rows, shift, noise = [], [], torch.zeros(0, 0, dtype=F64)
        met = [i for i in range(n) if float(s) <= float(f.tau[i]) < float(sigma)]
        for i in range(n):
            t = float(f.tau[i]) if i in met else float(s)
            k = (t / float(sigma)) ** 2
            j = (float(s) / t) ** 2 if t > 0 else 1.0
            first = (1 - k) * D[i] + k * X[i], (1 - k) * offset[i], t**2 * (1 - k)
            rows.append((1 - j) * D[i] + j * first[0])
            shift.append((1 - j) * offset[i] + j * first[1])
            noise = torch.block_diag(
                noise, torch.tensor([[j**2 * first[2] + t**2 * j * (1 - j)]], dtype=F64)
            )
        for i in range(n, len(m)):
            rows.append(torch.eye(len(m), dtype=F64)[i])
            shift.append(torch.zeros((), dtype=F64))
        noise = torch.block_diag(noise, torch.zeros(len(m) - n, len(m) - n, dtype=F64))
        for i in met:
            t = float(f.tau[i])
            k, j = (t / float(sigma)) ** 2, (float(s) / t) ** 2
            rows.append((1 - k) * D[i] + k * X[i])
            shift.append((1 - k) * offset[i])
            noise = torch.block_diag(noise, torch.tensor([[t**2 * (1 - k)]], dtype=F64))
            noise[i, -1] = noise[-1, i] = j * t**2 * (1 - k)
            order.append(i)
        F = torch.stack(rows)
        m, P = F @ m + torch.stack(shift), F @ P @ F.T + noise
    u = f.u[0, order]
    return float(MultivariateNormal(m[n:], P[n:, n:]).log_prob(u) - f.a[order].log().sum())


def ratio(post, method, grid, groups, truth, seed=1):
    out = (method.log_evidence(post, drive(post, method, grid, groups, seed)) - truth).exp()
    return float(out.mean()), float(out.std()) / groups**0.5


@pytest.mark.parametrize("off_grid", [False, True])
@pytest.mark.parametrize("method", [MCGDiff(particles=4), FPS(particles=4)])
def test_evidence_of_four_particles_is_unbiased_for_the_density_at_tau(method, off_grid):
    post = bed("general", sigma=0.3)
    grid = po.grid.log(12, 20.0, 0.1) if off_grid else svd_coordinates.levels(post, 12)
    mean, error = ratio(post, method, grid, 4000, at_tau(post, grid))
    assert abs(mean - 1) < 4 * error
    assert error < 0.1


def test_evidence_of_four_particles_is_unbiased_for_the_chain_when_the_last_weight_is_kept():
    post = bed("general", sigma=0.3)
    grid = po.grid.log(10, 20.0, 0.1)
    m, C = affine_probe(post, Unconditional(transition=DDIM(1.0)), 10, grid)
    A = matrix(post.likelihood.A)
    truth = float(
        MultivariateNormal(A @ m, A @ C @ A.T + 0.09 * torch.eye(4, dtype=F64)).log_prob(
            post.likelihood.y
        )
    )
    assert abs(truth - exact_posterior(post).log_evidence) > 0.08
    mean, error = ratio(post, MCGDiff(particles=4, **KEPT), grid, 4000, truth)
    assert abs(mean - 1) < 4 * error
    assert error < 0.1


def test_evidence_counts_what_is_measured_too_poorly_or_too_well_to_be_met():
    for sigma in (0.02, 25.0):
        post = bed("general", sigma=sigma)
        truth = exact_posterior(post).log_evidence
        for method in (MCGDiff(particles=256), MCGDiff(particles=256, **KEPT), FPS(particles=256)):
            n = 4096 if sigma < 1 else 1024  # weights that say little scatter little
            run = po.sample(post, method, n=n, batch=n, grid=po.grid.log(120, 20.0, 0.03), seed=3)
            assert run.log_evidence == pytest.approx(truth, abs=1.0 if sigma < 1 else 0.02), method


def look_at(post, form, sigma, s, fresh, groups=1, particles=64):
    """Two steps of FPS, the second from a common x: its cloud before, and the state after it."""
    method = FPS(particles=particles, form=form, fresh=fresh, share=0.0)
    rng = Streams(2, range(groups), particles)
    x = torch.randn(1, 6, dtype=F64, generator=torch.Generator().manual_seed(4)).expand(
        groups * particles, 6
    )
    state = method.init(post, x, rng)
    first, _ = method.step(post, state, level(2 * sigma), level(sigma), rng)
    cloud = clouds.moved(first[0], x)
    second, _ = method.step(post, (cloud, *first[1:]), level(sigma), level(s), rng)
    return cloud, second


@pytest.mark.parametrize("fresh", [None, 0.95])
def test_the_published_weight_does_not_depend_on_the_sampled_image_and_the_move_is_the_dense_solve(
    fresh,
):
    post, sigma, s, noise = bed("general", sigma=0.4), 0.8, 0.5, 0.4
    cloud, (after, e, _) = look_at(post, "published", sigma, s, fresh)
    A, c = matrix(post.likelihood.A), fresh or 1 - (s / sigma) ** 2
    x0, eye = post.prior.denoise(cloud.x, level(sigma)), torch.eye(6, dtype=F64)
    mu = x0[0] + (1 - c) ** 0.5 * s / sigma * (cloud.x[0] - x0[0])
    spectrum = post.likelihood.A.spectrum()
    y = post.likelihood.y + s * A @ spectrum.V(e)[0]
    precision = eye / (c * s**2) + A.T @ A / noise**2
    mean = torch.linalg.solve(precision, mu / (c * s**2) + A.T @ y / noise**2)
    move = MultivariateNormal(mean, precision_matrix=precision)
    looks = MultivariateNormal(after.x @ A.T, noise**2 * torch.eye(4, dtype=F64)).log_prob(y)
    chain = MultivariateNormal(mu, c * s**2 * eye).log_prob(after.x)
    weights = looks + chain - move.log_prob(after.x)
    torch.testing.assert_close(weights, weights[:1].expand(64), rtol=0, atol=1e-9)
    direct = MultivariateNormal(
        A @ mu, c * s**2 * A @ A.T + noise**2 * torch.eye(4, dtype=F64)
    ).log_prob(y)
    torch.testing.assert_close(weights[0], direct)
    # The draws follow the dense law: whitened, they are standard normal.
    white = (after.x - mean) @ torch.linalg.cholesky(precision)
    assert float(white.mean(0).abs().max()) < 4 / 8
    assert 0.7 < float(white.square().mean()) < 1.3


def test_weights_of_different_images_differ_as_the_dense_formula_says():
    post, sigma, s = bed("general", sigma=0.4), level(0.8), level(0.5)
    A = matrix(post.likelihood.A)
    x = torch.randn(8, 6, dtype=F64, generator=torch.Generator().manual_seed(5))
    method = FPS(particles=8, form="published", fresh=0.5, share=0.0)
    rng = Streams(2, [0], 8)
    (after, e, _), _ = method.step(post, method.init(post, x, rng), sigma, s, rng)
    y = post.likelihood.y + s * A @ post.likelihood.A.spectrum().V(e)[0]
    x0 = post.prior.denoise(x, sigma)
    mu = x0 + 0.5**0.5 * s / sigma * (x - x0)
    dense = MultivariateNormal(
        mu @ A.T, 0.5 * s**2 * A @ A.T + 0.16 * torch.eye(4, dtype=F64)
    ).log_prob(y)
    torch.testing.assert_close(after.log_w - after.log_w[0], dense - dense[0])
    # MCGDiff: the same with y itself, seen from level s through s^2 A A^T less the noise that y has
    # of its own.
    post = bed("general", sigma=0.01)
    guided = MCGDiff(particles=8, share=0.0)
    (after, _, _), _ = guided.step(
        post, guided.init(post, x, Streams(1, [0], 8)), sigma, s, Streams(1, [0], 8)
    )
    kept = float(s / sigma) ** 2
    m, v = x0 + kept * (x - x0), float(s) ** 2 * (1 - kept)
    past = MultivariateNormal(
        after.x @ A.T, float(s) ** 2 * A @ A.T - 0.01**2 * torch.eye(4, dtype=F64)
    ).log_prob(post.likelihood.y)
    says = MultivariateNormal(
        m @ A.T, (v + float(s) ** 2) * A @ A.T - 0.01**2 * torch.eye(4, dtype=F64)
    ).log_prob(post.likelihood.y)
    torch.testing.assert_close(after.log_w - after.log_w[0], says - past - (says - past)[0])


def test_the_path_has_the_law_of_a_noised_measurement():
    post = bed("general", sigma=0.4)
    A, spectrum = matrix(post.likelihood.A), post.likelihood.A.spectrum()
    method, rng = FPS(particles=1, form="published", fresh=0.6), Streams(3, range(6000))
    state = method.init(post, torch.zeros(6000, 6, dtype=F64), rng)
    for sigma, s in pairwise((3.0, 1.5, 0.9, 0.5)):
        old = state[1]
        state, _ = method.step(post, state, level(sigma), level(s), rng)
    y = post.likelihood.y + 0.5 * spectrum.V(state[1]) @ A.T
    law = 0.25 * A @ A.T
    assert float(((y.mean(0) - post.likelihood.y) / (law.diagonal() / 6000).sqrt()).abs().max()) < 4
    assert float((y.T.cov() - law).abs().max()) < 6 * float(law.abs().max()) * (2 / 6000) ** 0.5
    # One step keeps sqrt(1 - c) of the noise before it.
    assert float((state[1] * old).mean()) == pytest.approx(0.4**0.5, abs=0.02)


def test_paths_that_share_the_images_noise_differ_from_it_by_the_physical_noise():
    post = bed("general", sigma=0.4)
    A, spectrum = matrix(post.likelihood.A), post.likelihood.A.spectrum()
    method, truth = FPS(particles=1, form="published", fresh=0.6), post.prior.sample(1, 3)
    rng, same = Streams(3, range(5)), Streams(3, range(5))
    state, z = method.init(post, torch.zeros(5, 6, dtype=F64), rng), None
    for sigma, s in pairwise((3.0, 1.5, 0.9, 0.5)):
        state, _ = method.step(post, state, level(sigma), level(s), rng)
        fresh = same.normal(truth.expand(5, 6))
        same.uniform(1), same.normal(truth.expand(5, 6))
        z = fresh if z is None else 0.4**0.5 * z + 0.6**0.5 * fresh
        y = post.likelihood.y + s * spectrum.V(state[1]) @ A.T
        torch.testing.assert_close(
            y - (truth + s * z) @ A.T, (post.likelihood.residual(truth)).expand(5, 4)
        )


def correlated(steps):
    """Two numbers correlated by 0.8, the first known to be 1: E[x_2] = 0.8, sd 0.6."""
    prior = po.priors.Gaussian(
        torch.zeros(2, dtype=F64), torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    )
    A = Dense(torch.tensor([[1.0, 0.0]], dtype=F64))
    return po.Posterior(
        prior, po.Likelihood(torch.ones(1, dtype=F64), A, Gaussian(0.0))
    ), po.grid.log(steps, 30.0, 0.01)


@pytest.mark.parametrize("cls", BOTH)
def test_without_noise_every_path_gives_the_posterior(cls):
    spread = []
    for steps in (40, 200):
        post, grid = correlated(steps)
        run = po.sample(post, cls(particles=1000), n=6000, grid=grid, seed=2)
        assert float((run.samples[:, 0] - 1).abs().max()) < 1e-9
        spread.append(float(run.samples[:, 1].view(6, 1000).mean(1).sub(0.8).abs().max()))
        assert float(run.samples[:, 1].std()) == pytest.approx(
            0.6, abs=0.1 if steps == 40 else 0.04
        )
    assert spread[1] < 0.08
    if cls is FPS:
        assert spread[1] < spread[0]


def test_the_published_filter_collapses_on_the_data_and_the_consistent_one_does_not():
    exact = (0.960, 0.447)
    table = {20: (1.163, 0.182), 100: (1.189, 0.096)}
    for steps, (mean, sd) in table.items():
        grid = po.grid.log(steps, 50.0, 0.01)
        run = po.sample(line(0.5), FPS(particles=500, form="published"), n=4000, grid=grid, seed=1)
        assert float(run.samples.mean()) == pytest.approx(mean, abs=0.06)
        assert float(run.samples.view(8, 500).std(1).mean()) == pytest.approx(sd, rel=0.35)
    for cls in BOTH:
        run = po.sample(line(0.5), cls(particles=500), n=4000, steps=100, seed=1)
        assert float(run.samples.mean()) == pytest.approx(exact[0], abs=0.04)
        assert float(run.samples.std()) == pytest.approx(exact[1], abs=0.03)


def test_one_particle_is_an_affine_map_and_right_where_every_direction_stands_alone():
    mean, covariance = affine_probe(
        line(0.5), FPS(particles=1), 0, svd_coordinates.levels(line(0.5), 120)
    )
    assert float(mean) == pytest.approx(0.96, abs=0.02)
    assert float(covariance) ** 0.5 == pytest.approx(0.447, abs=0.03)


def two_modes():
    prior = mixture(d=2, K=2)
    A = Dense(torch.tensor([[1.0, 0.4]], dtype=F64))
    return po.Posterior(prior, po.Likelihood(torch.tensor([0.5], dtype=F64), A, Gaussian(0.3)))


@pytest.mark.parametrize("cls", BOTH)
def test_the_mean_on_a_mixture_converges_in_particles(cls):
    post, errors = two_modes(), []
    exact = exact_posterior(post)
    for particles in (16, 1024):
        groups = 64 if particles == 16 else 6
        run = po.sample(
            post,
            cls(particles=particles),
            n=groups * particles,
            steps=100,
            batch=groups * particles,
            seed=5,
        )
        each = run.samples.view(groups, particles, 2).mean(1)
        errors.append(float((each - exact.mean).square().sum(1).mean().sqrt()))
    assert errors[1] < errors[0] / 2
    assert errors[1] < 0.15


@pytest.mark.parametrize(
    "method", [MCGDiff(particles=8), FPS(particles=8), MCGDiff(particles=8, **KEPT)]
)
def test_little_noise_leaves_little_residual(method):
    post = bed("general", sigma=1e-6)
    run = po.sample(post, method, n=16, steps=40)
    assert float(post.likelihood.residual(run.samples).abs().max()) < 1e-4


class Shuffled(Dense):
    """The same matrix with its singular coordinates in another order."""

    def spectrum(self):
        inner, p = super().spectrum(), torch.tensor([2, 0, 3, 1])
        back, rest = p.argsort(), torch.tensor([4, 5])
        wide, wide_back = torch.cat([p, rest]), torch.cat([back, rest])
        return Spectrum(
            inner.s[p],
            V=lambda c: inner.V(c[:, wide_back]),
            Vh=lambda x: inner.Vh(x)[:, wide],
            U=lambda c: inner.U(c[:, back]),
            Uh=lambda y: inner.Uh(y)[:, p],
        )


@pytest.mark.parametrize(
    "method",
    [MCGDiff(particles=4), FPS(particles=4), MCGDiff(particles=4, **KEPT), FPS.published()],
)
def test_the_order_of_singular_coordinates_does_not_matter(method):
    post = bed("general", sigma=0.2)
    other = po.Posterior(
        post.prior,
        po.Likelihood(post.likelihood.y, Shuffled(post.likelihood.A.matrix), Gaussian(0.2)),
    )
    runs = [po.sample(p, method, n=8, steps=20, seed=1) for p in (post, other)]
    torch.testing.assert_close(runs[0].samples, runs[1].samples, rtol=1e-7, atol=1e-7)
    assert runs[0].log_evidence == (
        None if runs[0].log_evidence is None else pytest.approx(runs[1].log_evidence)
    )


def test_levels_hold_the_noise_of_every_direction_and_runs_use_them():
    post = bed("general", sigma=0.3)
    levels = po.sample(post, MCGDiff(particles=2), n=2, steps=30).config["levels"]
    assert len(levels) == 31
    for tau in (0.3 / 1.5, 0.3 / 0.7, 0.3 / 0.3, 0.3 / 0.05):
        assert min(abs(v / tau - 1) for v in levels[:-1]) < 1e-12
    assert len(svd_coordinates.levels(post, 4)) == 5
    assert FPS(5, "published", 0.95).levels(post, 10) is None


@pytest.mark.parametrize(
    "method", [MCGDiff(particles=3), FPS(particles=3), MCGDiff(particles=3, **KEPT)]
)
def test_complex_images_meet_the_contract_and_have_the_right_evidence(method):
    post = complex_picture()
    A = MaskedFourier(torch.arange(5).eq(2).expand(6, 5) & torch.arange(6)[:, None].eq(1), (6, 5))
    y = torch.randn(A.out_shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    post = po.Posterior(post.prior, po.Likelihood(y, A, ComplexGaussian(sigma_per_channel=0.4)))
    check_method(method, post, steps=4)
    run = po.sample(post, replace(method, particles=100), n=1000, steps=60)
    # A white prior of variance 0.5 a channel and a unit row: the number seen is N(0, 0.5 + 0.16)
    # twice; others (0) are noise alone.
    seen = matrix(A).abs().square().sum(1).view(A.out_shape)
    v = 0.5 * seen + 0.16
    truth = float((-0.5 * y.abs().square() / v - (2 * math.pi * v).log()).sum())
    assert run.log_evidence == pytest.approx(truth, abs=0.2)


def test_what_is_refused():
    for method in (MCGDiff(), FPS()):
        assert "PhaseRetrieval is not linear" in method.refuses(phases())
        assert "spectrum" in method.refuses(complex_picture())
    assert "noise level is 0" in MCGDiff.published().refuses(correlated(4)[0])
    with pytest.raises(ValueError, match="last='kept'"):
        MCGDiff(last="kept")
    with pytest.raises(ValueError, match="fresh"):
        FPS(fresh=0.5)
    with pytest.raises(ValueError, match="fresh"):
        FPS(form="published", fresh=1.5)
