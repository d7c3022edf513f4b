"""TDS, Bootstrap, SMCDiff and DDSMC against their own chains, known in closed form on a Gaussian
prior."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from cases import bed, complex_picture, full_gaussian, mixture, picture
from reference import F64, drive

import posteriori as po
from posteriori.evaluation import affine_probe, exact_posterior, sliced_wasserstein
from posteriori.methods import AFDPS, DDSMC, FPS, TDS, Bootstrap, SMCDiff, Unconditional
from posteriori.methods.base import Method
from posteriori.methods.data_steps import svd_coordinates
from posteriori.methods.transitions import DDIM
from posteriori.noise import Gaussian
from posteriori.priors import Gaussian as GaussianPrior
from posteriori.rng import Streams

LEVELS = po.grid.log(6, 20.0, 0.3)


@dataclass(frozen=True)
class Decoupled(Method[torch.Tensor]):
    """The chain of DDSMC without y, written out."""

    eta: float
    reference, family, cost = "none", "none", "1 denoiser"

    def step(self, post, state, sigma, s, rng):
        delta = sigma**2 - s**2
        a = delta / (self.eta * s**2 + delta)
        x0 = post.prior.denoise(state, sigma)
        return (1 - a) * state + a * x0 + (a**0.5 * s * rng.normal(state) if s > 0 else 0.0), {}


def narrow(sigma=0.3):
    """A prior of six numbers seen through two."""
    post = bed("general", sigma=sigma)
    A = po.operators.Dense(
        torch.tensor([[1.0, 0.5, 0, 0, 0, 0], [0, 0, 0.7, 0, 0, -0.4]], dtype=F64)
    )
    return po.Posterior(
        post.prior, po.Likelihood(torch.tensor([0.9, -0.5], dtype=F64), A, Gaussian(sigma))
    )


def chain(post, kernel, levels=LEVELS):
    """log p(y), mean and covariance of the posterior under the chain's own law of x."""
    mean, covariance = affine_probe(post, kernel, len(levels) - 1, levels)
    A, like = po.operators.matrix(post.likelihood.A), post.likelihood
    S = A @ covariance @ A.T + like.std**2 * torch.eye(len(A), dtype=F64)
    gain = covariance @ A.T @ torch.linalg.inv(S)
    log_z = torch.distributions.MultivariateNormal(A @ mean, S).log_prob(like.y)
    return float(log_z), mean + gain @ (like.y - A @ mean), covariance - gain @ A @ covariance


FOUR = {
    **{f"TDS {twist}": TDS(4, twist) for twist in ("moments", "row sums", "pigdm", "narrow")},
    "TDS always": TDS(4, "moments", 1.0, "stratified"),
    "Bootstrap": Bootstrap(4),
    "Bootstrap multinomial": Bootstrap(4, share=1.0, scheme="multinomial"),
    "Bootstrap end": Bootstrap(4, "end"),
    "DDSMC": DDSMC(4),
    "DDSMC residual": DDSMC(4, share=1.0, scheme="residual"),
    "DDSMC 0.5": DDSMC(4, 0.5),
    "DDSMC 0": DDSMC(4, 0.0),
    "DDSMC rho": DDSMC(4, rho=0.2),
}


@pytest.mark.parametrize("name", FOUR)
def test_evidence_is_unbiased_with_four_particles(name):
    method, post, groups = FOUR[name], narrow(), 1000 if "residual" in name else 3000
    kernel = Decoupled(method.eta) if isinstance(method, DDSMC) else Unconditional(DDIM(1.0))
    truth = chain(post, kernel)[0]
    state, _ = drive(post, method, groups, LEVELS)
    log_z = method.log_evidence(post, state)
    ratio = (log_z - truth).exp()
    error = float(ratio.std()) / groups**0.5
    assert abs(float(ratio.mean()) - 1) < 4 * error, (name, float(ratio.mean()), error)
    # A twist that is too narrow has weights of heavy tails.
    assert (error > 0.15) if name == "TDS narrow" else (error < 0.08)
    assert float(log_z.mean()) < truth


@pytest.mark.parametrize(
    "method", [AFDPS(particles=3, share=0.0), TDS(particles=3, share=0.0, twist="pigdm")]
)
def test_a_weight_is_that_of_the_move_against_the_unguided_one(method):
    """Without resampling: log w = log N(x'; m, std^2) - log N(x'; m + (sigma^2 - s^2) g,
    std^2) + log phi(x) - log phi(x)."""
    post, sigma, s = narrow(), torch.tensor(2.0, dtype=F64), torch.tensor(1.2, dtype=F64)
    A, eye = po.operators.matrix(post.likelihood.A), torch.eye(2, dtype=F64)
    x = post.prior.start(
        torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(0)), sigma
    )
    after, _ = method.step(post, method.init(post, x, None), sigma, s, Streams(1, [0, 1], 3))
    leaf = x.clone().requires_grad_()
    x0 = post.prior.denoise(leaf, sigma)
    seen, r2 = (
        (leaf, 4.0) if isinstance(method, AFDPS) else (x0, post.prior.know().max_variance(sigma))
    )
    phi = torch.distributions.MultivariateNormal(
        seen @ A.T, post.likelihood.std**2 * eye + r2 * A @ A.T
    ).log_prob(post.likelihood.y)
    (g,) = torch.autograd.grad(phi.sum(), leaf)
    kept = float(s / sigma) ** 2
    m, std = x0.detach() + kept * (x - x0.detach()), float(s) * (1 - kept) ** 0.5
    free, pulled = (
        torch.distributions.Normal(mean, std).log_prob(after.x).sum(1)
        for mean in (m, m + (4.0 - 1.44) * g)
    )
    torch.testing.assert_close(after.log_w, free - pulled, rtol=1e-7, atol=1e-7)
    last, _ = method.step(post, method.init(post, x, None), sigma, 0 * s, Streams(1, [0, 1], 3))
    torch.testing.assert_close(last.x, x0.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(last.log_w, post.likelihood.log_prob(last.x), rtol=1e-7, atol=1e-7)


def test_the_chain_of_ddsmc_is_ancestral_at_eta_1():
    post = narrow()
    for a, b in zip(
        chain(post, Decoupled(1.0)), chain(post, Unconditional(DDIM(1.0))), strict=True
    ):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b))
    # At eta 0 it is another law, so that the comparison above can fail.
    assert abs(chain(post, Decoupled(0.0))[0] - chain(post, Decoupled(1.0))[0]) > 0.01


@pytest.mark.parametrize(
    "method",
    [TDS(2000), TDS(2000, "pigdm"), DDSMC(2000), DDSMC(2000, 0.5), Bootstrap(4000)],
    ids=str,
)
def test_many_particles_have_the_posterior_of_their_chain(method):
    """Two twists, and three methods, agree on it: within standard errors of the clouds' own
    means."""
    post = narrow()
    _, mean, covariance = chain(
        post, Decoupled(method.eta) if isinstance(method, DDSMC) else Unconditional(DDIM(1.0))
    )
    state, _ = drive(post, method, 12, LEVELS, seed=3)
    x = method.finish(post, state, Streams(9, range(12), method.group))[0].view(12, -1, 6)
    error = x.mean(1).std(0) / 12**0.5
    assert float(((x.mean((0, 1)) - mean).abs() / error).max()) < 5
    spread = ((x - mean) ** 2).mean(1)
    assert (
        float(((spread.mean(0) - covariance.diagonal()).abs() / (spread.std(0) / 12**0.5)).max())
        < 5
    )
    assert float(error.max()) < 0.06


def test_the_error_falls_with_the_root_of_the_particles():
    post, sizes = narrow(), (8, 32, 128)
    mean = chain(post, Unconditional(DDIM(1.0)))[1]
    errors = []
    for n in sizes:
        method = TDS(n, "moments")
        state, _ = drive(post, method, 250, LEVELS, seed=n)
        x = state.x.view(250, n, 6)
        w = state.clouds.softmax(1)
        errors.append(float(((w[..., None] * x).sum(1) - mean).square().mean().sqrt()))
    slopes = [torch.tensor(b / a).log2().item() / 2 for a, b in pairwise(errors)]
    assert all(-0.65 < slope < -0.38 for slope in slopes), (errors, slopes)


def test_with_an_exact_twist_and_small_steps_weights_hardly_vary():
    """phi = p(y | x): what is left is the error of a finite step."""
    post = narrow()
    shares = []
    for steps in (30, 240):
        _, infos = drive(post, TDS(64, "moments", 0.0), 8, po.grid.log(steps, 20.0, 0.02))
        shares.append(float(torch.stack([info["ess"] for info in infos[2:]]).mean()))
    rough = drive(post, TDS(64, "narrow", 0.0), 8, po.grid.log(240, 20.0, 0.02))[1]
    assert shares[1] > 0.9
    assert shares[1] > shares[0]
    assert float(torch.stack([info["ess"] for info in rough[2:]]).mean()) < 0.5 * shares[1]


# SMCDIFF
# --------------------------------------------------------------------------------------------------


def pair():
    """Two numbers of unit variance and correlation 0.8; the first is seen to be 1: the other is 0.8
    +- 0.6."""
    prior = GaussianPrior(torch.zeros(2, dtype=F64), torch.tensor([[1, 0.8], [0.8, 1]], dtype=F64))
    A = po.operators.Mask(torch.tensor([True, False]))
    return po.Posterior(prior, po.Likelihood(torch.ones(1, dtype=F64), A, Gaussian(0.0)))


def path_means(post, method, levels, paths=24):
    state, _ = drive(post, method, paths, levels)
    w, x = state.cloud.clouds.softmax(1), state.cloud.x.view(paths, -1, 2)
    assert float((x[..., 0] - 1).abs().max()) < 1e-12
    mean = (w * x[..., 1]).sum(1)
    return mean, ((w * x[..., 1].square()).sum(1) - mean**2)


def test_smcdiff_with_the_exact_kernel_is_exact_for_each_path_and_otherwise_errs_by_the_step():
    post, spread = pair(), {}
    for kernel, steps in (("exact", 10), ("ancestral", 10), ("ancestral", 60)):
        levels = po.grid.log(steps, 100.0, 0.02)
        mean, variance = path_means(post, SMCDiff(3000, kernel), levels)
        spread[kernel, steps] = float(mean.std())
        if kernel == "exact":
            assert float(mean.mean()) == pytest.approx(0.8, abs=0.03)
            assert float(variance.mean().sqrt()) == pytest.approx(0.6, abs=0.03)
            # What is left is Monte Carlo error; it falls with the particles.
            few = path_means(post, SMCDiff(300, kernel), levels)[0]
            assert float(few.std()) > 1.8 * spread[kernel, steps]
    assert spread["ancestral", 10] > 3 * spread["exact", 10]
    assert spread["ancestral", 10] > 3 * spread["ancestral", 60]


def test_replacement_without_weights_keeps_its_error_whatever_the_steps():
    post, errors = pair(), []
    for steps in (40, 160):
        mean, _ = affine_probe(post, po.methods.ScoreSDE(), steps, po.grid.log(steps, 100.0, 0.02))
        errors.append(abs(float(mean[1]) - 0.8))
    ours = abs(
        float(path_means(post, SMCDiff(1000), po.grid.log(100, 100.0, 0.02))[0].mean()) - 0.8
    )
    assert min(errors) > 0.2
    assert ours < 0.08


def test_the_path_of_smcdiff_is_the_forward_diffusion_of_y():
    post = pair()
    method = SMCDiff(2)
    rng = Streams(0, range(4000), 2)
    levels = torch.tensor([5.0, 2.0, 0.5], dtype=F64)
    state = method.init(
        post, post.prior.start(rng.normal(torch.zeros(8000, 2, dtype=F64)), levels[0]), rng
    )
    kept = []
    for sigma, s in pairwise(levels):
        state, _ = method.step(post, state, sigma, s, rng)
        o = state.cloud.x[:, 0].view(4000, 2)
        assert torch.equal(o[:, 0], o[:, 1])
        kept.append(o[:, 0] - 1)
    for level, part in zip(levels[1:], kept, strict=True):
        assert float(part.var()) == pytest.approx(float(level) ** 2, rel=0.1)
    # Independent increments upwards.
    assert float((kept[0] * kept[1]).mean()) == pytest.approx(0.25, abs=4 * 2 * 0.5 / 4000**0.5)


# DDSMC
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [DDSMC(), DDSMC(eta=0.5), DDSMC(eta=0.0), DDSMC.published()], ids=str
)
def test_proposals_of_ddsmc_are_conjugate_and_have_positive_variances(method):
    post = bed("general", sigma=1e-4)
    f = svd_coordinates.frame(post)
    for sigma, s in pairwise(po.grid.karras(200, 100.0, 0.01)[:-1].tolist()):
        a, v = method.chain(sigma, s)
        assert 0 < a <= 1
        rho2 = min((0.47 * sigma) ** 2, s**2 / a)
        gain, cov = method.proposal(rho2, a, v, f.tau)
        assert bool((cov > 0).all())
        assert bool((cov <= v * (1 + 1e-12)).all())
        # N(m, rho^2) N(u; x, tau^2), written out; unseen coordinates keep the chain's own variance.
        m, seen = torch.linspace(-1, 1, 6, dtype=F64), f.tau.isfinite()
        M = 1 / (1 / rho2 + 1 / f.tau**2)
        mt = M * (m / rho2 + torch.where(seen, f.u[0] / f.tau**2, 0.0))
        torch.testing.assert_close(
            m + gain * (f.u[0] - m), mt + torch.where(seen, 0.0, gain * (f.u[0] - m))
        )
        torch.testing.assert_close(cov, v - a**2 * rho2 + a**2 * M, rtol=1e-6, atol=1e-9 * v)
        torch.testing.assert_close(cov[~seen], torch.full_like(cov[~seen], v))


def test_eta_spans_ancestral_sampling_and_daps():
    sigma, s = 2.0, 1.5
    a, v = DDSMC(eta=1.0).chain(sigma, s)
    assert a == pytest.approx(1 - s**2 / sigma**2)
    assert v == pytest.approx(s**2 * (1 - s**2 / sigma**2))
    assert DDSMC(eta=0.0).chain(sigma, s) == pytest.approx((1.0, s**2))
    # Around Tweedie's centre the chain of eta 0 loses variance, around the end of the flow it does
    # not.
    post = narrow(1e6)
    wanted, got = post.prior.covariance.trace(), {}
    for centre in ("tweedie", "ode"):
        method = DDSMC(100, 0.0, centre, ode_steps=40)
        got[centre] = float(
            drive(post, method, 30, po.grid.log(20, 20.0, 0.02))[0].x.T.cov().trace() / wanted
        )
    assert got["tweedie"] < 0.85
    assert got["ode"] == pytest.approx(1.0, abs=0.08)
    for wrong in ({"eta": 1.5}, {"rho": 0.0}, {"ode_steps": 0}):
        with pytest.raises(ValueError, match="DDSMC"):
            DDSMC(**wrong)


# ALL
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [TDS(8), TDS(8, "pigdm"), Bootstrap(8), Bootstrap(8, "end"), DDSMC(8)], ids=str
)
def test_a_flat_likelihood_gives_the_prior_of_the_chain(method):
    post = narrow()
    post = po.Posterior(post.prior, replace(post.given, noise=Gaussian(1e7)))
    mean, covariance = affine_probe(post, Unconditional(DDIM(1.0)), 6, LEVELS)
    state, infos = drive(post, method, 500, LEVELS)
    assert min(float(info["ess"].min()) for info in infos) > 0.999
    z = (state.x.mean(0) - mean) / (covariance.diagonal() / 4000).sqrt()
    assert float(z.abs().max()) < 4.5
    ratio = state.x.T.cov() @ torch.linalg.inv(covariance)
    assert float((ratio - torch.eye(6, dtype=F64)).abs().max()) < 0.25


class Recorded(po.priors.Gaussian):
    """Counts the rows of each denoiser call."""

    sizes: list[int] = []

    def denoise(self, x, sigma):
        self.sizes.append(len(x))
        return super().denoise(x, sigma)

    def linearize(self, x, sigma):
        self.sizes.append(len(x))
        return super().linearize(x, sigma)


@pytest.mark.parametrize(
    "method",
    [TDS(16), Bootstrap(16), SMCDiff(16), DDSMC(16), DDSMC(16, centre="ode", ode_steps=3)],
    ids=str,
)
def test_chunks_give_the_same_samples_with_fewer_rows_at_a_time(method):
    plain = full_gaussian()
    post = po.Posterior(Recorded(plain.mean, plain.covariance), narrow().likelihood)
    Recorded.sizes.clear()
    whole = po.sample(post, method, n=32, grid=LEVELS)
    assert max(Recorded.sizes) == 32
    Recorded.sizes.clear()
    parts = po.sample(post, replace(method, chunk=5), n=32, grid=LEVELS)
    assert max(Recorded.sizes) == 5
    torch.testing.assert_close(parts.samples, whole.samples, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [TDS(6), Bootstrap(6), SMCDiff(6), DDSMC(6)], ids=str)
def test_a_run_shows_its_clouds_and_single_samples_are_independent(method):
    run = po.sample(narrow(), method, n=24, grid=LEVELS)
    assert run.trace["ess"].shape == run.trace["ancestors"].shape == (6, 24)
    assert bool((run.trace["ancestors"].diff(dim=0) <= 0).all())
    assert float(run.trace["ancestors"].min()) >= 1
    assert (run.log_evidence is None) is isinstance(method, SMCDiff)
    single = po.sample(narrow(), replace(method, single=True), n=24, grid=LEVELS)
    assert len(single.samples.unique(dim=0)) == 24
    assert single.counts["denoiser"] == 6 * run.counts["denoiser"]
    # Sample k knows nothing of the clouds beside it.
    alone = po.sample(narrow(), replace(method, single=True), n=24, grid=LEVELS, batch=6)
    torch.testing.assert_close(alone.samples, single.samples)


def test_evidence_is_that_of_y_in_the_users_units():
    post = picture()
    wide = po.Posterior(post.prior, replace(post.given, noise=Gaussian(0.6)))
    exact = exact_posterior(wide).log_evidence
    for method in (TDS(500), Bootstrap(2000), DDSMC(500)):
        run = po.sample(wide, method, n=method.particles, grid=po.grid.log(40, 10.0, 0.02))
        assert run.log_evidence == pytest.approx(exact, abs=0.15), type(method).__name__


def test_modes_of_a_mixture_get_their_masses():
    prior = mixture()
    A = po.operators.Dense(torch.randn(1, 4, dtype=F64, generator=torch.Generator().manual_seed(3)))
    post = po.Posterior(prior, po.Likelihood(A(prior.sample(1, 7))[0], A, Gaussian(0.5)))
    exact = exact_posterior(post)
    truth = exact.sample(1000, 1)
    floor = sliced_wasserstein(exact.sample(1000, 2), truth)
    for method in (TDS(1000), DDSMC(1000), Bootstrap(1000)):
        run = po.sample(post, method, n=1000, steps=60)
        assert sliced_wasserstein(run.samples, truth) < 3 * floor, type(method).__name__
        assert run.log_evidence == pytest.approx(exact.log_evidence, abs=0.25), type(
            method
        ).__name__


@pytest.mark.parametrize(("m", "same"), [(3, "moments"), (600, "pigdm")])
def test_the_twist_is_chosen_by_what_can_be_held(m, same):
    A = po.operators.Dense(torch.linspace(-1, 1, 6 * m, dtype=F64).reshape(m, 6))
    post = po.Posterior(full_gaussian(), po.Likelihood(torch.ones(m, dtype=F64), A, Gaussian(0.5)))
    twists = ("auto", "moments", "pigdm") if m == 3 else ("auto", "pigdm")
    draws = {
        twist: drive(post, TDS(4, twist), 8, po.grid.log(6, 20.0, 0.02))[0].x for twist in twists
    }
    for twist in draws.keys() - {"auto"}:
        assert torch.equal(draws["auto"], draws[twist]) == (twist == same)


def test_they_refuse_what_they_cannot_weigh():
    assert "'moments' is for real numbers" in TDS(twist="moments").refuses(complex_picture())
    assert TDS(twist="pigdm").refuses(complex_picture()) is None
    wide = po.priors.Gaussian(torch.zeros(600, dtype=F64), 1.0)
    many = po.operators.Identity((600,))
    big = po.Posterior(wide, po.Likelihood(torch.zeros(600, dtype=F64), many, Gaussian(0.1)))
    assert "got 600" in TDS(twist="moments").refuses(big)
    assert TDS().refuses(big) is None
    for method in (TDS(), Bootstrap(), DDSMC()):
        assert "noise level is 0" in method.refuses(pair())
    assert SMCDiff().refuses(pair()) is None


def test_smcdiff_refuses_noise_stronger_than_the_image_it_would_be_fitted_as():
    """A number seen with gain 0.1 through noise v is fitted with noise 10 v; its mean over six
    numbers against the prior's variance."""
    prior, gain = full_gaussian(), torch.zeros(1, 6, dtype=F64)
    gain[0, 2] = 0.1
    edge = 0.1 * (6 * prior.variance) ** 0.5
    for v, refused in ((0.99 * edge, False), (1.01 * edge, True)):
        post = po.Posterior(
            prior, po.Likelihood(torch.ones(1, dtype=F64), po.operators.Dense(gain), Gaussian(v))
        )
        assert ("use FPS" in (SMCDiff().refuses(post) or "")) is refused
        assert FPS().refuses(post) is None
