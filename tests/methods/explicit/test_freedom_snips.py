"""FreeDoM and SNIPS: their rules written out, the laws that they leave at a level, and where they
end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed, full_gaussian, mixture, phases
from reference import F64, Fixed, flat, images, kl, law

import posteriori as po
from posteriori import methods
from posteriori.evaluation import exact_posterior, gaussian_kl, sliced_wasserstein
from posteriori.methods import DDIM, ConstantFraction
from posteriori.noise import Gaussian
from posteriori.operators import Blur, Dense, Identity, Null, gaussian_kernel, matrix
from posteriori.rng import Streams

SIGMA, S = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)


# FREEDOM
# --------------------------------------------------------------------------------------------------


def vp_step(post, x, method, z):
    """The authors' rule for one row in VP coordinates, x_vp = a x, with the gradient taken by
    autodiff of the un-squared norm."""
    a, a_s = ((1 + v**2).rsqrt() for v in (SIGMA, S))
    leaf = (a * x).requires_grad_()
    x0 = post.prior.denoise(leaf / a, SIGMA)
    (gradient,) = torch.autograd.grad((post.likelihood.y - post.likelihood.A(x0)).norm(), leaf)
    with torch.no_grad():
        abar, abar_s = a**2, a_s**2
        eps = (leaf - a * x0) / (1 - abar).sqrt()
        if method.weighting == "norm":
            moved = a_s * x0 + (1 - abar_s).sqrt() * (0.5 * z + 0.75**0.5 * eps)
            return (moved - a * method.scale * gradient) / a_s
        c1 = a_s * (1 - abar / abar_s) / (1 - abar)
        c2 = (abar / abar_s).sqrt() * (1 - abar_s) / (1 - abar)
        c3 = ((1 - abar_s) * (1 - abar / abar_s) / (1 - abar)).sqrt()
        length = 0.02 * eps.square().mean().sqrt() * (1 - abar).sqrt() / a * c1
        return (
            c1 * x0 + c2 * leaf + c3 * z - length * gradient / gradient.square().mean().sqrt()
        ) / a_s


@pytest.mark.parametrize(
    "method",
    [methods.FreeDoM.published_faces(0.7), methods.FreeDoM.published()],
    ids=["faces", "published"],
)
def test_the_published_steps_are_the_authors_rules_for_every_sample(method):
    post = bed()
    x = images(post, SIGMA)
    ours, _ = method.step(post, x, SIGMA, S, Streams(4, range(3)))
    z = Streams(4, range(3)).normal(x)
    for k in range(3):
        torch.testing.assert_close(ours[k : k + 1], vp_step(post, x[k : k + 1], method, z[k]))


def test_the_published_window_is_timesteps_500_to_800_of_the_linear_schedule():
    levels = po.grid.ddpm(1000).flip(0)[1:]
    low, high = methods.FreeDoM.published().window
    inside = ((levels >= low) & (levels <= high)).nonzero()[:, 0]
    assert (int(inside[0]), int(inside[-1])) == (500, 800)
    guided = (levels > methods.FreeDoM.published_faces(1.0).until).nonzero()[:, 0]
    assert int(guided[0]) == 100


def test_a_walk_up_and_down_is_two_steps_with_noise_between():
    post = bed()
    x = images(post, SIGMA)
    method = methods.FreeDoM(repeats=2, window=(0.9, 1.0))
    ours, _ = method.step(post, x, SIGMA, S, Streams(4, range(3)))
    rng = Streams(4, range(3))
    once = replace(method, repeats=1)
    first, _ = once.step(post, x, SIGMA, S, rng)
    up = first + (0.81 - 0.36) ** 0.5 * rng.normal(x)
    second, _ = once.step(post, up, SIGMA, S, rng)
    torch.testing.assert_close(ours, second)
    for window in ((0.0, 0.89), (0.91, 2.0)):
        outside, _ = replace(method, window=window).step(post, x, SIGMA, S, Streams(4, range(3)))
        torch.testing.assert_close(outside, first)
    spread = post.prior.max_std
    assert 0.1 * spread < 0.9 < spread
    default, _ = methods.FreeDoM(repeats=2).step(post, x, SIGMA, S, Streams(4, range(3)))
    torch.testing.assert_close(default, second)


def test_walking_up_from_the_exact_law_keeps_the_law():
    """x' ~ N(mu, C + s^2) exactly, then x = x' + sqrt(sigma^2 - s^2) z: the first denoiser call
    must meet N(mu, C + sigma^2)."""
    post = flat(bed())
    method = methods.FreeDoM(repeats=2, window=(0.0, 2.0))
    met = []

    def probe(denoise, x, sigma, s, rng):
        # A transition that is an exact draw of p(x_s) by itself: the root of its covariance times
        # fresh numbers.
        met.append(x)
        root = torch.linalg.cholesky(
            post.prior.covariance + float(s) ** 2 * torch.eye(6, dtype=F64)
        )
        return post.prior.mean + rng.normal(x) @ root.T

    n = 40_000
    object.__setattr__(method, "transition", probe)
    method.step(post, torch.zeros(n, 6, dtype=F64), SIGMA, S, Plain(7))
    assert len(met) == 2
    expected = post.prior.covariance + 0.81 * torch.eye(6, dtype=F64)
    assert (
        float((torch.cov(met[1].T) - expected).abs().max())
        < 5 * float(expected.max()) * (2 / n) ** 0.5
    )


class Plain:
    """Plain random numbers for many rows."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like):
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator)


def test_one_walk_is_dps_and_no_guidance_is_the_unconditional_sampler():
    post = bed()
    one = {"n": 3, "steps": 6, "grid": po.grid.karras(6, 10.0, 0.05)}
    ours = po.sample(post, methods.FreeDoM(repeats=1), **one).samples
    torch.testing.assert_close(ours, po.sample(post, methods.DPS(), **one).samples)
    a = float((1 + SIGMA**2).rsqrt())
    x, transition = images(post, SIGMA), ConstantFraction(0.25)
    norm, _ = methods.FreeDoM("norm", 0.7, 1, transition=transition).step(
        post, x, SIGMA, S, Streams(0, range(3))
    )
    dps, _ = methods.DPS("norm", 0.7 * a, transition).step(post, x, SIGMA, S, Streams(0, range(3)))
    torch.testing.assert_close(norm, dps)
    for transition in (DDIM(0.0), DDIM(1.0), ConstantFraction(0.25)):
        free = po.sample(post, methods.Unconditional(transition), **one).samples
        for method in (
            methods.FreeDoM(scale=0.0, repeats=1),
            methods.FreeDoM(until=1e3, repeats=1),
        ):
            assert torch.equal(
                po.sample(post, replace(method, transition=transition), **one).samples, free
            )
    assert not torch.allclose(ours, po.sample(post, methods.FreeDoM(), **one).samples)


def test_where_nothing_is_measured_the_guidance_is_off():
    post = po.Posterior(
        full_gaussian(), po.Likelihood(torch.zeros(1, dtype=F64), Null((6,)), Gaussian(0.1))
    )
    free = po.sample(post, methods.Unconditional(), n=3, steps=6).samples
    for weighting in ("bounded", "relative", "norm"):
        ours = po.sample(post, methods.FreeDoM(weighting, repeats=1), n=3, steps=6).samples
        torch.testing.assert_close(ours, free)


def test_walks_bring_the_samples_nearer_to_the_posterior():
    general = bed()
    assert kl(general, methods.FreeDoM(), 40) < 0.8 * kl(general, methods.FreeDoM(repeats=1), 40)
    prior = mixture()
    A = Dense(torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(3)))
    post = po.Posterior(prior, po.Likelihood(A(prior.sample(1, 7))[0], A, Gaussian(0.5)))
    reference = exact_posterior(post).sample(1000, seed=1)
    distance = {
        repeats: float(
            sliced_wasserstein(
                po.sample(post, methods.FreeDoM(repeats=repeats), n=1000, steps=40).samples,
                reference,
            )
        )
        for repeats in (1, 3)
    }
    assert distance[3] < 0.85 * distance[1]


def test_walks_cost_denoisers_within_the_window_alone():
    post = bed()
    levels = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.0], dtype=F64)
    run = po.sample(post, methods.FreeDoM(repeats=4, window=(0.0, 2.5)), n=2, grid=levels)
    # Five steps; those from 2 and from 1 are walked four times, the last one, from 0.5 to 0, is
    # not.
    assert run.counts["denoiser"] == run.counts["vjp"] == 5 + 2 * 3


def test_a_zero_residual_gives_no_step_and_a_nonlinear_measurement_is_taken():
    prior = full_gaussian()
    x = images(bed(), SIGMA, 1)
    post = po.Posterior(
        prior, po.Likelihood(prior.denoise(x, SIGMA)[0], Identity((6,)), Gaussian(0.1))
    )
    free, _ = methods.Unconditional().step(post, x, SIGMA, S, Streams(0, [0]))
    for weighting in ("bounded", "relative", "norm"):
        ours, _ = methods.FreeDoM(weighting, repeats=1).step(post, x, SIGMA, S, Streams(0, [0]))
        torch.testing.assert_close(ours, free)
    assert methods.FreeDoM().refuses(phases()) is None
    assert bool(po.sample(phases(), methods.FreeDoM(), n=2, steps=20).samples.isfinite().all())


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": -1.0},
        {"until": -0.1},
        {"repeats": 0},
        {"window": (2.0, 1.0)},
        {"window": (-1.0, 1.0)},
    ],
)
def test_freedom_refuses_senseless_settings(settings):
    with pytest.raises(ValueError, match="FreeDoM"):
        methods.FreeDoM(**settings)


# SNIPS
# --------------------------------------------------------------------------------------------------

SNIPS = {
    "default": methods.SNIPS(n_steps=1),
    "small": methods.SNIPS(1, 0.3),
    "langevin": methods.SNIPS(1, 0.6, "langevin"),
    "published": replace(methods.SNIPS.published(), n_steps=1),
}


def affine(method, post, s):
    """M, c, N of one inner step x <- M x + c + N z at level s, read off column by column."""
    level, d = torch.tensor(s, dtype=F64), post.shape[0]
    zero, eye = torch.zeros(1, d, dtype=F64), torch.eye(d, dtype=F64)

    def step(x, z):
        return method.step(post, x, 2 * level, level, Fixed(z))[0]

    c = step(zero, zero)
    return (step(eye, torch.zeros_like(eye)) - c).T, c[0], (step(zero.expand(d, -1), eye) - c).T


def stationary(M, c, N):
    d = len(c)
    covariance = torch.linalg.solve(
        torch.eye(d * d, dtype=F64) - torch.kron(M, M), (N @ N.T).flatten()
    ).view(d, d)
    return torch.linalg.solve(torch.eye(d, dtype=F64) - M, c), covariance


@pytest.mark.parametrize("s", [5.0, 0.9, 0.2, 0.04])
@pytest.mark.parametrize("name", SNIPS)
def test_the_steps_are_preconditioned_langevin_with_the_papers_gradient(name, s):
    """Gradient and preconditioner as printed, with their divisions, by a dense singular value
    decomposition."""
    post, method = bed("general"), SNIPS[name]
    like = post.likelihood
    U, a, Vh = torch.linalg.svd(matrix(like.A))
    a, v, h = torch.cat([a, torch.zeros(2, dtype=F64)]), like.std, method.rate
    u = torch.cat([U.T @ like.y, torch.zeros(2, dtype=F64)])
    x = images(post, SIGMA)
    z = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(2))
    ours, _ = method.step(
        post, x, torch.tensor(2 * s, dtype=F64), torch.tensor(s, dtype=F64), Fixed(z)
    )
    score = (post.prior.denoise(x, torch.tensor(s, dtype=F64)) - x) / s**2
    ours, xb, zb, score = (t @ Vh.T for t in (ours, x, z, score))
    for i in range(6):
        data = a[i] * (u[i] - a[i] * xb[:, i])
        if a[i] * s > v:
            gradient, P, share = data / (a[i] ** 2 * s**2 - v**2), s**2 - v**2 / a[i] ** 2, 0.0
        else:
            gradient = score[:, i] + data / (v**2 - a[i] ** 2 * s**2)
            P, share = s**2 * (1 - a[i] ** 2 * s**2 / v**2), 1 - a[i] ** 2 * s**2 / v**2
        k = 1 - share * post.prior.know().error(s) / s**2 if method.noise == "matched" else 0.0
        torch.testing.assert_close(
            ours[:, i], xb[:, i] + h * P * gradient + (P * h * (2 - h * k)) ** 0.5 * zb[:, i]
        )


@pytest.mark.parametrize("name", SNIPS)
def test_well_measured_coordinates_have_the_stated_law_whatever_the_prior(name):
    """A white and a general prior: mean u / a, variance s^2 - v^2 / a^2, with the known factor of
    plain Langevin steps."""
    s, method = 0.9, SNIPS[name]
    for kind in ("general", "white"):
        post = bed(kind)
        like = post.likelihood
        U, a, Vh = torch.linalg.svd(matrix(like.A))
        well = a * s > like.std
        assert int(well.sum()) == 3
        mean, covariance = stationary(*affine(method, post, s))
        bias = 1 / (1 - method.rate / 2) if method.noise == "langevin" else 1.0
        torch.testing.assert_close(
            (Vh @ mean)[:4][well], (U.T @ like.y / a)[well], rtol=1e-6, atol=1e-6
        )
        measured = (Vh @ covariance @ Vh.T)[:4, :4][well][:, well]
        torch.testing.assert_close(
            measured, torch.diag((s**2 - (like.std / a) ** 2)[well] * bias), rtol=1e-6, atol=1e-6
        )
        # DDRM with eta_b = 1 draws them from the same law in one step.
        ddrm = methods.DDRM(eta_b=1.0)
        _, centre, N = affine(ddrm, post, s)
        torch.testing.assert_close(
            (Vh @ centre)[:4][well], (U.T @ like.y / a)[well], rtol=1e-6, atol=1e-6
        )
        torch.testing.assert_close(
            measured / bias, (Vh @ N @ N.T @ Vh.T)[:4, :4][well][:, well], rtol=1e-6, atol=1e-6
        )


def test_below_all_noise_a_level_is_stationary_at_the_stated_law():
    """a s < v everywhere: p(x) N(y; A x, v^2 - s^2 A A^T) and the bias of Euler's rule; the
    posterior as s and h tend to 0."""
    post, s = bed("general"), 0.03
    like, A = post.likelihood, matrix(post.likelihood.A)
    inner = torch.linalg.inv(like.std**2 * torch.eye(4, dtype=F64) - s**2 * A @ A.T)
    prior = torch.linalg.inv(post.prior.covariance + s**2 * torch.eye(6, dtype=F64))
    target = torch.linalg.inv(prior + A.T @ inner @ A)
    centre = target @ (prior @ post.prior.mean + A.T @ inner @ like.y)
    errors = {}
    for h in (0.8, 0.4, 0.2):
        mean, covariance = stationary(*affine(methods.SNIPS(1, h, "langevin"), post, s))
        torch.testing.assert_close(mean, centre, rtol=1e-5, atol=1e-5)
        errors[h] = float((covariance - target).norm() / target.norm())
    assert errors[0.8] / errors[0.4] == pytest.approx(2.0, rel=0.3)
    assert errors[0.4] / errors[0.2] == pytest.approx(2.0, rel=0.3)


def test_the_last_step_keeps_what_is_known_better_than_its_level_and_denoises_the_rest():
    """q = (a sigma / v)^2: 9, 0.81, 0.04 and 0. Only where q > 1 is x about u / a, whatever the
    prior says there."""
    prior = po.priors.Gaussian(
        torch.full((4,), 0.3, dtype=F64), torch.tensor([0.5, 1.0, 2.0, 0.8], dtype=F64)
    )
    a, y = torch.tensor([3.0, 0.9, 0.2], dtype=F64), torch.tensor([1.5, -2.0, 0.7], dtype=F64)
    A = Dense(torch.cat([torch.diag(a), torch.zeros(3, 1, dtype=F64)], 1))
    post = po.Posterior(prior, po.Likelihood(y, A, Gaussian(0.9)))
    x = images(post, SIGMA)
    last, _ = methods.SNIPS().step(post, x, SIGMA, torch.zeros((), dtype=F64), None)
    want = prior.denoise(x, SIGMA)
    want[:, 0] = y[0] / a[0]
    torch.testing.assert_close(last, want, rtol=1e-12, atol=1e-12)


def test_where_signal_and_noise_tie_the_step_has_no_singularity():
    """a s = v exactly and around it: x moves to u / a, and the noise vanishes continuously."""
    prior, v, a = po.priors.Gaussian(torch.ones(1, dtype=F64), 1.0), 0.5, 2.0
    post = po.Posterior(
        prior,
        po.Likelihood(
            torch.tensor([3.0], dtype=F64), Dense(torch.tensor([[a]], dtype=F64)), Gaussian(v)
        ),
    )
    method = methods.SNIPS(1, 0.5, "langevin")
    for nudge in (0.0, 1e-13, -1e-13, 1e-6, -1e-6):
        M, c, N = affine(method, post, v / a * (1 + nudge))
        assert float(M) == pytest.approx(0.5, abs=1e-5)
        assert float(c) == pytest.approx(0.5 * 1.5, abs=1e-5)
        assert abs(float(N)) <= 0.25 * (2 * abs(nudge) + 1e-15) ** 0.5 * 1.01


def test_a_full_rank_measurement_is_heard_at_every_level():
    """Where no direction is missing, nothing may fall back on the prior alone: above the noise the
    prior has no part at all."""
    A = Dense(torch.diag(torch.tensor([2.0, 1.0, 0.7], dtype=F64)) + 0.1)
    y = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    laws = []
    for mean in (0.0, 50.0):
        prior = po.priors.Gaussian(torch.full((3,), mean, dtype=F64), 1.0)
        laws.append(
            stationary(
                *affine(
                    methods.SNIPS(1), po.Posterior(prior, po.Likelihood(y, A, Gaussian(0.1))), 1.0
                )
            )
        )
    torch.testing.assert_close(laws[0], laws[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(laws[0][0], torch.linalg.solve(matrix(A), y), rtol=1e-9, atol=1e-9)
    tall = Dense(torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(0)))
    prior = po.priors.Gaussian(torch.zeros(3, dtype=F64), 1.0)
    for op in (A, tall):
        post = po.Posterior(prior, po.Likelihood(op(prior.sample(1, 0))[0], op, Gaussian(0.1)))
        # Down to levels far below v / a, where the last denoising takes no variance.
        assert kl(post, methods.SNIPS(), 60, po.grid.log(60, 10.0, 0.004)) < 0.01


@pytest.mark.parametrize("kind", ["general", "white", "flat"])
def test_snips_holds_its_claims(kind):
    """The posterior, and the prior under a flat likelihood, in the limit of many levels; few and
    short steps lag behind."""
    post = flat(bed()) if kind == "flat" else bed(kind)
    errors = [kl(post, methods.SNIPS(), steps) for steps in (30, 150)]
    assert errors[1] < min(0.01, errors[0])
    assert kl(post, methods.SNIPS(1, 0.1), 30) > 0.3


def test_many_small_plain_steps_reach_the_posterior_and_few_of_the_published_do_not():
    post = bed("general")
    assert kl(post, methods.SNIPS(20, 0.2, "langevin"), 60) < 0.01
    assert kl(post, methods.SNIPS.published(), 60) > 0.5
    assert kl(post, methods.SNIPS.published(), 500, po.grid.log(500, 5.0, 0.01)) < 0.1


def test_snips_on_a_mixture_is_near_the_exact_posterior():
    prior = mixture()
    A = Dense(torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(3)))
    post = po.Posterior(prior, po.Likelihood(A(prior.sample(1, 7))[0], A, Gaussian(0.5)))
    exact = exact_posterior(post)
    run = po.sample(post, methods.SNIPS(), n=1000, steps=60)
    reference = exact.sample(1000, seed=1)
    floor, spread = po.evaluation.floor(exact, 1000, slices=200)
    distance = float(sliced_wasserstein(run.samples, reference, slices=200))
    assert distance < floor + 4 * spread
    guided = po.sample(post, methods.DPS(), n=1000, steps=60)
    assert distance < 0.5 * float(sliced_wasserstein(guided.samples, reference, slices=200))
    assert run.counts == {"denoiser": 59 * 3 + 1, "vjp": 0, "operator": 0, "adjoint": 0}


def test_a_noiseless_measurement_is_met_and_a_missing_one_is_ignored():
    post = bed()
    A = post.likelihood.A
    silent = po.Posterior(
        post.prior, po.Likelihood(A(post.prior.sample(1, 3))[0], A, Gaussian(0.0))
    )
    run = po.sample(silent, methods.SNIPS(), n=3, steps=10)
    assert float(silent.given.residual(run.samples).abs().max()) < 1e-9
    nothing = po.Posterior(
        post.prior, po.Likelihood(torch.zeros(1, dtype=F64), Null((6,)), Gaussian(0.0))
    )
    assert kl_prior(nothing, methods.SNIPS()) < 0.01


def kl_prior(post, method, steps=100):
    mean, covariance = law(post, method, steps)
    return float(gaussian_kl(mean, covariance, post.prior.mean.flatten(), post.prior.covariance))


def test_snips_refuses_what_it_cannot_do():
    assert "PhaseRetrieval is not linear" in str(methods.SNIPS().refuses(phases()))
    A = Blur(gaussian_kernel(1.0).double(), (1, 6, 7), boundary="zero")
    prior = po.priors.Gaussian(torch.zeros(1, 6, 7, dtype=F64), 1.0)
    post = po.Posterior(prior, po.Likelihood(torch.zeros(A.out_shape, dtype=F64), A, Gaussian(0.1)))
    assert "closed-form spectrum, Blur has none" in str(methods.SNIPS().refuses(post))
    with pytest.raises(ValueError, match="closed-form spectrum"):
        po.sample(post, methods.SNIPS(), n=1, steps=3)
    for settings in ({"n_steps": 0}, {"rate": 0.0}, {"rate": 2.0}):
        with pytest.raises(ValueError, match="SNIPS"):
            methods.SNIPS(**settings)
