"""Priors known in closed form, and the contract of every prior."""

from __future__ import annotations

import math

import pytest
import torch
from cases import PRIORS, full_gaussian, mixture, spd
from reference import F64

import posteriori as po
from posteriori.priors.combine import join, split
from posteriori.rng import Streams
from posteriori.testing.priors import check_prior


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=["double", "single"])
def test_contract(name, dtype):
    check_prior(PRIORS[name](dtype), dtype, symmetric=not name.startswith("UNet"))


class Broken(po.priors.Prior):
    """A white Gaussian with one fault."""

    def __init__(self, fault):
        super().__init__((4,), variance=1.0, sigma_max=5.0, sigma_min=0.02)
        self.fault = fault

    def denoise(self, x, sigma):
        gain = 1 / (1 + sigma**2)
        if self.fault == "dtype":
            return (x * gain).float()
        if self.fault == "batch":
            return x * gain * (1 + x.mean())
        if self.fault == "in place":
            return x.mul_(gain)
        if self.fault == "nan" and float(sigma) > 4:
            return x * math.nan
        if self.fault == "identity":
            return 0.3 + x * gain
        if self.fault == "symmetry":
            return gain * (x + 0.01 * float(sigma) * x.roll(1, -1))
        return x * gain

    def linearize(self, x, sigma):
        if self.fault != "pull":
            return super().linearize(x, sigma)
        return self.denoise(x, sigma), lambda u: 1.1 * u / (1 + sigma**2)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dtype", "returns torch.float32"),
        ("batch", "a row alone"),
        ("in place", "in place"),
        ("nan", "not finite"),
        ("identity", "moves an image"),
        ("symmetry", "not symmetric"),
        ("pull", "differ by"),
    ],
)
def test_the_contract_finds_faults(fault, message):
    check_prior(Broken(None))
    with pytest.raises(AssertionError, match=message):
        check_prior(Broken(fault))


def test_a_denoiser_without_a_derivative_is_none_that_is_constant():
    """One that leaves torch would count as J = 0; one that is the same everywhere has that J."""

    class Own(po.priors.Prior):
        def __init__(self, of):
            super().__init__((3,), range=None, variance=1.0, sigma_max=10.0, sigma_min=0.1)
            self.of = of

        def denoise(self, x, sigma):
            return self.of(x)

    x, sigma = torch.ones(2, 3), torch.tensor(0.5)
    x0, pull = Own(lambda x: torch.full_like(x, 0.3)).linearize(x, sigma)
    assert bool((x0 == 0.3).all())
    assert not bool(pull(torch.ones(2, 3)).any())
    with pytest.raises(TypeError, match=r"Own.denoise returns a tensor without a derivative"):
        Own(lambda x: 0.5 * x.detach()).linearize(x, sigma)


def test_gaussian_denoiser_is_the_regression_of_x0_on_x():
    prior, sigma = full_gaussian(), torch.tensor(0.7, dtype=F64)
    C = prior.covariance
    m = prior.mean
    x = torch.randn(5, 6, dtype=F64, generator=torch.Generator().manual_seed(1))
    want = m + (x - m) @ torch.linalg.solve(C + sigma**2 * torch.eye(6, dtype=F64), C)
    torch.testing.assert_close(prior.denoise(x, sigma), want, rtol=1e-12, atol=1e-12)


def mixture_parts(prior, x, sigma):
    """Component densities of x0 + sigma z at x (B, K), by torch.distributions."""
    d = prior.means.shape[1]
    V = prior.covariances + sigma**2 * torch.eye(d, dtype=F64)
    law = torch.distributions.MultivariateNormal(prior.means, V)
    return prior.weights.log() + law.log_prob(x[:, None])


@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.9, 30.0])
def test_mixture_log_prob_and_denoiser_against_an_independent_formula(sigma):
    prior, level = mixture(), torch.tensor(sigma, dtype=F64)
    x = prior.start(torch.randn(7, 4, dtype=F64, generator=torch.Generator().manual_seed(2)), level)
    logs = mixture_parts(prior, x, sigma)
    torch.testing.assert_close(prior.log_prob(x, sigma), logs.logsumexp(1), rtol=1e-11, atol=1e-11)
    if sigma > 0:  # Tweedie: D = x + sigma^2 grad log p
        leaf = x.clone().requires_grad_()
        (score,) = torch.autograd.grad(mixture_parts(prior, leaf, sigma).logsumexp(1).sum(), leaf)
        torch.testing.assert_close(
            prior.denoise(x, level), x + sigma**2 * score, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize(
    "name",
    [
        "Gaussian white",
        "Gaussian diagonal",
        "Gaussian full",
        "GaussianMixture",
        "GaussianMixture shared",
    ],
)
def test_closed_form_linearize_equals_automatic_differentiation(name):
    prior = PRIORS[name](F64)
    u = torch.randn(3, *prior.shape, dtype=F64, generator=torch.Generator().manual_seed(3))
    for sigma in torch.tensor([0.05, 0.8, 20.0], dtype=F64):
        x = prior.start(
            torch.randn(3, *prior.shape, dtype=F64, generator=torch.Generator().manual_seed(4)),
            sigma,
        )
        value, pull = prior.linearize(x, sigma)
        other, auto = po.priors.Prior.linearize(prior, x, sigma)
        torch.testing.assert_close(value, other, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pull(u), auto(u), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [full_gaussian, mixture])
def test_conditioning_is_bayes_rule(make):
    prior = make()
    d, m, sigma = prior.shape[0], 2, 0.4
    g = torch.Generator().manual_seed(5)
    A, y = torch.randn(m, d, dtype=F64, generator=g), torch.randn(m, dtype=F64, generator=g)
    post, evidence = prior.know().closed.condition(A, y, sigma)
    x = torch.randn(9, d, dtype=F64, generator=g)
    likelihood = po.noise.Gaussian(sigma).log_prob(y, x @ A.T)
    torch.testing.assert_close(
        post.log_prob(x),
        prior.know().closed.log_prob(x) + likelihood - evidence,
        rtol=1e-9,
        atol=1e-9,
    )


def test_evidence_of_a_gaussian_is_the_density_of_y():
    prior = full_gaussian()
    A = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(6))
    y = torch.ones(3, dtype=F64)
    S = A @ prior.covariance @ A.T + 0.3**2 * torch.eye(3, dtype=F64)
    want = torch.distributions.MultivariateNormal(A @ prior.mean, S).log_prob(y)
    assert prior.know().closed.condition(A, y, 0.3)[1] == pytest.approx(float(want), abs=1e-11)


def moments_close(samples, mean, covariance):
    """Five standard errors for means and covariances of n Gaussian-like samples."""
    n = len(samples)
    scale = covariance.diagonal().sqrt()
    assert float(((samples.mean(0) - mean) / scale).abs().max()) < 5 / math.sqrt(n)
    assert float(
        ((samples.T.cov() - covariance) / (scale[:, None] * scale)).abs().max()
    ) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    "make", [full_gaussian, mixture, lambda: po.priors.Gaussian(torch.ones(4, dtype=F64), 0.5)]
)
def test_start_and_sample_have_the_moments_of_the_law(make):
    prior, n = make(), 20_000
    d = prior.shape[0]
    z = Streams(0, range(n)).normal(torch.empty(n, d, dtype=F64))
    moments_close(
        prior.start(z, torch.tensor(2.0, dtype=F64)),
        prior.mean,
        prior.covariance + 4 * torch.eye(d, dtype=F64),
    )
    moments_close(prior.sample(n, seed=1), prior.mean, prior.covariance)
    assert prior.variance == pytest.approx(float(prior.covariance.diagonal().mean()))


def test_start_of_a_gaussian_is_an_exact_square_root():
    prior = full_gaussian()
    root = prior.start(torch.eye(6, dtype=F64), torch.tensor(0.5, dtype=F64)) - prior.mean
    torch.testing.assert_close(root.T @ root, prior.covariance + 0.25 * torch.eye(6, dtype=F64))


@pytest.mark.parametrize("make", [full_gaussian, mixture])
def test_draw_given_has_mean_d_and_covariance_sigma2_j(make):
    prior, n, sigma = make(), 20_000, torch.tensor(0.8, dtype=F64)
    d = prior.shape[0]
    one = prior.start(
        torch.randn(1, d, dtype=F64, generator=torch.Generator().manual_seed(7)), sigma
    )
    x0, pull = prior.linearize(one.expand(d, d), sigma)
    draws = (
        prior.know().exact("p(x0 | x)").draw_given(one.expand(n, d), sigma, Streams(3, range(n)))
    )
    moments_close(draws, x0[0], sigma**2 * pull(torch.eye(d, dtype=F64)))


def test_sample_k_depends_on_seed_and_k_alone():
    prior = mixture()
    assert torch.equal(prior.sample(5, seed=2)[:3], prior.sample(3, seed=2))
    assert not torch.equal(prior.sample(3, seed=2), prior.sample(3, seed=3))


def test_grid_limits_drown_and_resolve_the_prior():
    prior = mixture()
    widest = float(torch.linalg.eigvalsh(prior.covariance).max().sqrt())
    assert prior.sigma_max >= 4 * widest
    assert prior.sigma_min <= 0.05 * float(torch.linalg.eigvalsh(prior.covariances).min().sqrt())


def test_transformed_is_the_law_of_the_affine_image():
    prior = mixture()
    x = prior.sample(5, 0)
    log_p = prior.transformed(2.0, -1.0, (0, 1)).log_prob(2 * x - 1)
    torch.testing.assert_close(log_p, prior.know().closed.log_prob(x) - 4 * math.log(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2), torch.zeros(3, 2), 1.0), "weights"),
        ((torch.tensor([1.0, -1.0]), torch.zeros(2, 2), 1.0), "non-negative"),
        (
            (torch.ones(1), torch.zeros(1, 2), torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])),
            "not symmetric",
        ),
        ((torch.ones(1), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]])), "semi-definite"),
        ((torch.ones(1), torch.zeros(1, 2), torch.ones(3)), "expected"),
    ],
)
def test_bad_mixtures_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        po.priors.GaussianMixture(*arguments)


def complex_parts():
    pairs = po.priors.Gaussian(torch.linspace(-1, 1, 8, dtype=F64).view(2, 2, 2), spd(8))
    return pairs, po.priors.ComplexImages(pairs)


def test_complex_images_are_pairs():
    pairs, prior = complex_parts()
    x = torch.randn(3, 2, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(8))
    sigma = torch.tensor(0.6, dtype=F64)
    assert prior.shape == (2, 2)
    assert prior.complex
    assert torch.equal(join(split(x)), x)
    assert (prior.know().error(0.6), prior.know().max_variance(0.6)) == (
        pairs.know().error(0.6),
        pairs.know().max_variance(0.6),
    )
    torch.testing.assert_close(
        split(prior.denoise(x, sigma)), pairs.denoise(torch.stack([x.real, x.imag], 1), sigma)
    )
    draws = (
        prior.know()
        .exact("p(x0 | x)")
        .draw_given(x[:1].expand(4000, 2, 2), sigma, Streams(0, range(4000)))
    )
    torch.testing.assert_close(draws.mean(0), prior.denoise(x[:1], sigma)[0], atol=0.05, rtol=0)


def test_complex_conditioning_is_bayes_rule():
    pairs, prior = complex_parts()
    g = torch.Generator().manual_seed(9)
    A = torch.randn(3, 4, dtype=torch.complex128, generator=g)
    y = torch.randn(3, dtype=torch.complex128, generator=g)
    post, evidence = prior.know().closed.condition(A, y, 0.5)
    x = torch.randn(6, 2, 2, dtype=torch.complex128, generator=g)
    likelihood = po.noise.ComplexGaussian(sigma_per_channel=0.5).log_prob(y, x.flatten(1) @ A.T)
    torch.testing.assert_close(
        post.pairs.know().closed.log_prob(split(x)),
        pairs.know().closed.log_prob(split(x)) + likelihood - evidence,
        rtol=1e-9,
        atol=1e-9,
    )


def test_a_complex_run_reaches_the_exact_posterior_mean():
    _, prior = complex_parts()
    A = po.operators.Dense(
        torch.randn(3, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(10)),
        (2, 2),
    )
    y = torch.ones(3, dtype=torch.complex128)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.ComplexGaussian(sigma_per_channel=0.3)))
    run = po.sample(post, po.methods.MMPS(iterations=8), n=2000, steps=30)
    exact, _ = prior.know().closed.condition(A.matrix, y, 0.3)
    torch.testing.assert_close(run.mean, join(exact.pairs.mean[None])[0], atol=0.08, rtol=0)


def test_complex_images_need_pairs():
    with pytest.raises(
        ValueError, match=r"real prior of shape \(2, ...\), got a real one of shape \(3, 2\)"
    ):
        po.priors.ComplexImages(full_gaussian(shape=(3, 2)))
    with pytest.raises(ValueError, match="got a complex one"):
        po.priors.ComplexImages(complex_parts()[1])


@pytest.mark.parametrize("covariance", ["white", "diagonal", "full"])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 30.0])
def test_a_shared_covariance_gives_the_numbers_of_as_many_equal_ones(covariance, sigma):
    """The fast path for a shared covariance against the general one, which sees K copies of it."""
    g = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64))[0]
    values = torch.rand(6, generator=g, dtype=torch.float64) + 0.2
    C = {
        "white": torch.eye(6, dtype=torch.float64),
        "diagonal": values.diag(),
        "full": (axes * values) @ axes.T,
    }[covariance]
    weights = torch.rand(4, generator=g, dtype=torch.float64)
    means = 3 * torch.randn(4, 6, generator=g, dtype=torch.float64)
    fast = po.priors.GaussianMixture(weights, means, C[None])
    slow = po.priors.GaussianMixture(weights, means, C.expand(4, 6, 6))
    x, u = (3 * torch.randn(20, 6, generator=g, dtype=torch.float64) for _ in range(2))
    level = torch.tensor(sigma, dtype=torch.float64)
    (x0, pull), (slow_x0, slow_pull) = fast.linearize(x, level), slow.linearize(x, level)
    torch.testing.assert_close(fast.denoise(x, level), slow_x0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(x0, slow_x0, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(pull(u), slow_pull(u), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        fast.log_prob(x, level), slow.log_prob(x, level), rtol=1e-10, atol=1e-10
    )
    drawn, same = (
        prior.know().exact("p(x0 | x)").draw_given(x, level, Streams(0, range(20))).flatten(1)
        for prior in (fast, slow)
    )
    # The axes of equal covariances may be turned by another sign, and the drawn numbers with them.
    if covariance != "full":
        torch.testing.assert_close(drawn, same, rtol=1e-9, atol=1e-9)


def test_the_width_of_a_mixture_knows_how_far_its_means_lie_apart():
    """Two modes of unit variance 8 apart: along them the standard deviation is sqrt(1 + 16), and
    sigma_max ten times that."""
    means = torch.tensor([[-4.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    prior = po.priors.GaussianMixture(torch.ones(2, dtype=torch.float64), means, 1.0)
    assert prior.max_std == pytest.approx(17**0.5)
    assert prior.sigma_max == pytest.approx(10 * 17**0.5)
    assert prior.variance == pytest.approx((17 + 1) / 2)
    assert prior.know().max_variance(2.0) == pytest.approx(17 * 4 / 21)
