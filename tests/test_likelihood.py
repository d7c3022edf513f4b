"""Ranges, units and the widened likelihood."""

from __future__ import annotations

import math

import pytest
import torch

import posteriori as po
from posteriori.counting import Counter, counted
from posteriori.methods.data_steps.misfit import noise_energy
from posteriori.noise import ComplexGaussian, Gaussian, Poisson
from posteriori.operators.base import Operator
from posteriori.rng import Streams


class Square(Operator):
    def forward(self, x):
        return x**2


def pooling():
    rows = torch.zeros(16, 64, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            for di in (0, 1):
                for dj in (0, 1):
                    rows[4 * i + j, 8 * (2 * i + di) + 2 * j + dj] = 0.25
    return po.operators.Dense(rows, shape=(1, 8, 8))


def test_a_noise_level_given_for_0_1_meets_a_prior_in_minus_1_1():
    prior = po.priors.Gaussian(torch.zeros(3, 64, 64), 0.25, range=(-1, 1))
    identity = po.operators.Identity((3, 64, 64))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y = Gaussian(0.05).sample(x, Streams(0, [0]))
    assert float((y - x).std()) == pytest.approx(0.05, abs=0.002)
    post = po.Posterior(prior, po.Likelihood(y, identity, Gaussian(0.05), range=(0, 1)))
    assert post.likelihood.std == pytest.approx(0.10)
    torch.testing.assert_close(post.likelihood.y, 2 * y[0] - 1)
    run = po.sample(post, po.methods.PiGDM(), n=1, steps=3)
    assert run.config["noise"]["sigma"] == 0.05
    assert run.config["noise_std_in_prior_range"] == pytest.approx(0.10)
    assert run.config["range"] == (0, 1)
    assert float(run.samples.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "method",
    [
        po.methods.PiGDM(),
        po.methods.MMPS(iterations=64),
        po.methods.DAPS(),
        po.methods.DiffPIR(),
        po.methods.DPS(),
    ],
)
def test_both_ranges_give_the_same_posterior(method):
    A = pooling()
    g = torch.Generator().manual_seed(0)
    y = A(0.5 + 0.1 * torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=g))[0]
    like = po.Likelihood(y, A, Gaussian(0.05), range=(0, 1))
    unit = po.priors.Gaussian(torch.full((1, 8, 8), 0.5, dtype=torch.float64), 0.01, range=(0, 1))
    sym = po.priors.Gaussian(torch.zeros(1, 8, 8, dtype=torch.float64), 0.04, range=(-1, 1))
    a = po.sample(po.Posterior(unit, like), method, n=4, steps=30)
    b = po.sample(po.Posterior(sym, like), method, n=4, steps=30)
    torch.testing.assert_close(a.samples, b.samples, rtol=1e-6, atol=1e-6)


def test_a_nonlinear_operator_sees_the_range_it_was_written_for():
    prior = po.priors.Gaussian(torch.zeros(4, dtype=torch.float64), 0.1, range=(-1, 1))
    x = torch.rand(1, 4, dtype=torch.float64)
    post = po.Posterior(prior, po.Likelihood((x**2)[0], Square((4,)), Gaussian(0.1), range=(0, 1)))
    torch.testing.assert_close(
        post.likelihood.residual(2 * x - 1), torch.zeros(1, 4, dtype=torch.float64)
    )
    assert post.likelihood.std == 0.1


def test_a_prior_with_a_range_wants_the_measurement_to_state_one():
    prior = po.priors.Gaussian(torch.zeros(4), 1.0, range=(-1, 1))
    with pytest.raises(ValueError, match=r"range \(-1.0, 1.0\); say in which range"):
        po.Posterior(
            prior, po.Likelihood(torch.zeros(4), po.operators.Dense(torch.eye(4)), Gaussian(0.1))
        )


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (torch.zeros(3, dtype=torch.uint8), TypeError, "uint8"),
        (torch.zeros(4), ValueError, r"shape \(4,\).*\(3,\)"),
        (torch.zeros(3, dtype=torch.complex64), TypeError, "real measurements, y is complex"),
        (
            torch.tensor([0.0, torch.nan, torch.inf]),
            ValueError,
            r"2 values that are not finite, the first at \(1,\)",
        ),
        ([1.0, 2.0, 3.0], TypeError, "list"),
    ],
)
def test_bad_measurements_are_refused_by_name(y, error, message):
    with pytest.raises(error, match=message):
        po.Likelihood(y, po.operators.Dense(torch.zeros(3, 5) + 1), Gaussian(0.1))


def test_prior_and_operator_shapes_must_meet():
    with pytest.raises(ValueError, match=r"\(5,\).*\(6,\)"):
        po.Posterior(
            po.priors.Gaussian(torch.zeros(6), 1.0),
            po.Likelihood(torch.zeros(3), po.operators.Dense(torch.ones(3, 5)), Gaussian(0.1)),
        )


def test_the_widened_likelihood_is_the_gaussian_it_says():
    g = torch.Generator().manual_seed(1)
    M = torch.randn(3, 5, generator=g, dtype=torch.float64)
    like = po.Likelihood(
        torch.randn(3, generator=g, dtype=torch.float64), po.operators.Dense(M), Gaussian(0.4)
    )
    x = torch.randn(2, 5, generator=g, dtype=torch.float64)
    for r2 in (0.0, 0.7):
        wide = like.widen(r2) if r2 else like
        S = 0.16 * torch.eye(3, dtype=torch.float64) + r2 * M @ M.T
        exact = torch.distributions.MultivariateNormal(x @ M.T, S).log_prob(like.y)
        torch.testing.assert_close(wide.log_prob(x), exact)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(
            torch.distributions.MultivariateNormal(leaf @ M.T, S).log_prob(like.y).sum(), leaf
        )
        torch.testing.assert_close(wide.score(x), gradient)


def test_chi_square_of_the_truth_is_one():
    A = po.operators.Dense(torch.eye(4000, dtype=torch.float64)[::2])
    x = torch.rand(1, 4000, dtype=torch.float64) + 1
    for law in (Gaussian(0.1), Poisson(500.0)):
        y = law.sample(A(x), Streams(0, [0]))
        assert float(po.Likelihood(y, A, law).chi2(x)) == pytest.approx(
            1.0, abs=5 * math.sqrt(2 / 2000)
        )


def test_complex_noise_names_its_convention():
    clean = torch.zeros(1, 200_000, dtype=torch.complex128)
    per_channel = ComplexGaussian(sigma_per_channel=0.1).sample(clean, Streams(0, [0]))
    assert float(per_channel.real.std()) == pytest.approx(0.1, rel=0.01)
    whole = ComplexGaussian(sigma_complex=0.1).sample(clean, Streams(0, [0]))
    assert float(whole.abs().square().mean().sqrt()) == pytest.approx(0.1, rel=0.01)
    with pytest.raises(ValueError, match="exactly one"):
        ComplexGaussian(sigma_per_channel=0.1, sigma_complex=0.1)
    with pytest.raises(TypeError, match="ComplexGaussian"):
        Gaussian(0.1).sample(clean, Streams(0, [0]))


def test_poisson_counts_photons():
    x = torch.full((1, 100_000), 0.5, dtype=torch.float64)
    y = Poisson(1000.0).sample(x, Streams(0, [0]))
    assert float(y.mean()) == pytest.approx(0.5, rel=0.001)
    assert float(y.var()) == pytest.approx(0.0005, rel=0.05)
    with pytest.warns(UserWarning, match="nearly binary"):
        Poisson(1.0)
    with pytest.raises(ValueError, match=r"minimum of -0.1"):
        Poisson(60.0).sample(torch.tensor([[-0.1, 1.0]]), Streams(0, [0]))
    Poisson(60.0).sample(torch.tensor([[-1e-7, 1.0]]), Streams(0, [0]))


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf, "0.1", True])
def test_a_noise_level_must_be_a_number(sigma):
    with pytest.raises(ValueError, match=r"Gaussian.sigma: expected a"):
        Gaussian(sigma)


def poor(dtype, matrix=None):
    """A matrix of rank 4 that measures 6 numbers, and a blur that loses a frequency: A A^H is
    singular."""
    U, V = (
        torch.linalg.qr(
            torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        )[0]
        for n in (6, 9)
    )
    matrix = (U * torch.tensor([1.5, 0.7, 0.3, 0.001, 0.0, 0.0], dtype=torch.float64)) @ V.T
    pair = torch.tensor([[0.5, 0.5, 0.0]], dtype=dtype)
    return po.operators.Dense(matrix.to(dtype)), po.operators.Blur(pair, (1, 4, 6))


@pytest.mark.parametrize("r2", [1.0, 6400.0, 1e8])
def test_single_precision_keeps_what_only_noise_limits(r2):
    """Directions that A does not see have the width s2, however much larger r2 is: in float32 as in
    float64."""
    for single, double in zip(poor(torch.float32), poor(torch.float64), strict=True):
        b = torch.randn(
            2, *single.out_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        exact = po.operators.solve(double, b, r2, 1e-4)
        torch.testing.assert_close(
            po.operators.solve(single, b.float(), r2, 1e-4).double(),
            exact,
            rtol=1e-3,
            atol=1e-3 * float(exact.max()),
        )
        logs = []
        for A, t in ((single, torch.float32), (double, torch.float64)):
            widened = po.Likelihood(b[0].to(t), A, Gaussian(0.01)).widen(r2)
            logs.append(widened.log_prob(torch.zeros(1, *A.in_shape, dtype=t)))
        assert float(logs[0]) == pytest.approx(float(logs[1]), rel=1e-3)
        determinants = [float(po.operators.log_det(A, r2, 1e-4)) for A in (single, double)]
        assert determinants[0] == pytest.approx(determinants[1], rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_weak_direction_without_noise_is_measured_all_the_same(dtype):
    A = po.operators.Dense(torch.diag(torch.tensor([1.0, 1e-4, 0.0], dtype=dtype)))
    b = torch.tensor([[1.0, 1e-4, 3.0]], dtype=dtype)
    torch.testing.assert_close(
        po.operators.solve(A, b, 2.0, 0.0), torch.tensor([[0.5, 5e3, 0.0]], dtype=dtype)
    )
    torch.testing.assert_close(
        po.operators.pinv(A, b), torch.tensor([[1.0, 1.0, 0.0]], dtype=dtype)
    )


def test_log_densities_are_those_of_every_real_number():
    """Against torch's own laws; a complex number is two real ones, each of the level per
    channel."""
    y, clean = (
        torch.randn(3, 4, 5, dtype=torch.complex128, generator=torch.Generator().manual_seed(k))
        for k in (0, 1)
    )
    parts = torch.distributions.Normal(torch.view_as_real(clean), 0.3)
    for law in (
        ComplexGaussian(sigma_per_channel=0.3),
        ComplexGaussian(sigma_complex=0.3 * math.sqrt(2)),
    ):
        torch.testing.assert_close(
            law.log_prob(y, clean), parts.log_prob(torch.view_as_real(y)).flatten(1).sum(1)
        )
    real = torch.distributions.Normal(clean.real, 0.3).log_prob(y.real).flatten(1).sum(1)
    torch.testing.assert_close(Gaussian(0.3).log_prob(y.real, clean.real), real)


def test_a_pixel_without_a_photon_is_known_to_one_photon():
    variance = Poisson(50.0).variance(torch.tensor([0.0, 0.01, 0.5, 2.0], dtype=torch.float64))
    torch.testing.assert_close(
        50.0**2 * variance, torch.tensor([1.0, 1.0, 25.0, 100.0], dtype=torch.float64)
    )


def complex_measurement(law, hidden=False):
    """Two images, and a likelihood of three complex numbers; ``hidden``: the operator does not tell
    its spectrum."""

    class Bare(po.operators.Dense):
        def spectrum(self):
            return None

    g = torch.Generator().manual_seed(0)
    M, y, x = (
        torch.randn(*shape, generator=g, dtype=torch.complex128) for shape in ((3, 4), (3,), (2, 4))
    )
    return x, po.Likelihood(y, (Bare if hidden else po.operators.Dense)(M), law), M


LEVELS = [
    (ComplexGaussian(sigma_per_channel=0.3), 0.3),
    (ComplexGaussian(sigma_complex=0.3 * math.sqrt(2)), 0.3),
]


@pytest.mark.parametrize(("law", "std"), LEVELS)
def test_a_complex_number_is_two_real_ones_in_the_misfit(law, std):
    """chi2 averages over real numbers, and so does its expectation 1; the noise energy sums over
    them."""
    x, given, M = complex_measurement(law)
    residual = torch.view_as_real(given.y - x @ M.T)
    torch.testing.assert_close(given.chi2(x), (residual / std).square().flatten(1).mean(1))
    assert noise_energy(given) == pytest.approx(6 * std**2)
    clean = torch.zeros(1, 20_000, dtype=torch.complex128)
    y = law.sample(clean, Streams(0, [0]))[0]
    A = po.operators.MaskedFourier(torch.ones(1, 20_000, dtype=torch.bool), (1, 20_000))
    many = po.Likelihood(y.view(A.out_shape), A, law)
    nothing = torch.zeros(1, 1, 20_000, dtype=torch.complex128)
    assert float(many.chi2(nothing)) == pytest.approx(1, abs=4 * math.sqrt(2 / 40_000))
    assert float(y.abs().square().sum()) == pytest.approx(
        noise_energy(many), rel=4 * math.sqrt(2 / 40_000)
    )


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(("law", "std"), LEVELS)
def test_a_widened_complex_likelihood_is_the_normal_law_of_its_real_numbers(law, std, hidden):
    """log N(y; A x, r2 A A^H + sigma^2 I) over real and imaginary parts, each of the covariance's
    real form."""
    x, given, M = complex_measurement(law, hidden)
    S = 0.7 * M @ M.mH + std**2 * torch.eye(3)
    block = torch.cat([torch.cat([S.real, -S.imag], 1), torch.cat([S.imag, S.real], 1)])
    residual = given.y - x @ M.T
    exact = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), block)
    torch.testing.assert_close(
        given.widen(0.7).log_prob(x), exact.log_prob(torch.cat([residual.real, residual.imag], 1))
    )
    torch.testing.assert_close(given.widen(0.0).log_prob(x), law.log_prob(given.y, x @ M.T))


def test_the_noise_energy_of_counts_is_the_sum_of_their_variances():
    y = torch.tensor([0.5, 2.0, 0.1], dtype=torch.float64)
    given = po.Likelihood(y, po.operators.Identity((3,)), Poisson(50.0))
    assert noise_energy(given) == pytest.approx(float(y.sum()) / 50)


def test_photon_counts_have_the_normalised_law_of_poisson():
    """log p of counts n = peak y; a difference between two y as well as between two rates."""
    rates = torch.tensor([[0.02, 0.3, 0.9], [0.5, 0.1, 0.05]], dtype=torch.float64)
    counts = torch.tensor([[0.0, 7.0, 12.0], [11.0, 3.0, 2.0]], dtype=torch.float64)
    wanted = torch.distributions.Poisson(20.0 * rates).log_prob(counts).sum(1)
    torch.testing.assert_close(Poisson(20.0).log_prob(counts / 20.0, rates), wanted)


@pytest.mark.parametrize(
    ("A", "law", "expected"),
    [
        (po.operators.Identity((4,)), po.noise.Gaussian(0.1), True),
        (po.operators.Identity((4,)), po.noise.Poisson(20.0), False),
        (Square((4,)), po.noise.Gaussian(0.1), False),
    ],
)
def test_a_likelihood_is_conjugate_where_a_is_linear_and_the_noise_gaussian(A, law, expected):
    assert po.Likelihood(torch.ones(4), A, law).conjugate is expected


def test_what_is_asked_once_is_made_once_a_run_and_anew_outside():
    """A frame of singular coordinates is needed at each of 8 steps, its spectrum is asked for a
    number of times that does not grow."""
    asked = []

    class Counting(po.operators.Dense):
        def spectrum(self):
            asked.append(1)
            return super().spectrum()

    prior = po.priors.Gaussian(torch.zeros(4), 1.0)
    post = po.Posterior(
        prior, po.Likelihood(torch.ones(3), Counting(torch.randn(3, 4)), po.noise.Gaussian(0.1))
    )
    times = []
    for steps in (2, 8):
        asked.clear()
        po.sample(post, po.methods.DDRM(), steps=steps)
        times.append(len(asked))
    assert times[0] == times[1]
    assert post.once(lambda _: object()) is not post.once(lambda _: object())

    def make(_):
        return object()

    assert post.once(make) is not post.once(make)


def test_rows_with_measurements_of_their_own_get_answers_of_their_own():
    prior = po.priors.Gaussian(torch.zeros(4), 1.0)
    post = counted(
        po.Posterior(
            prior, po.Likelihood(torch.ones(4), po.operators.Identity((4,)), Gaussian(0.1))
        ),
        Counter(),
    )

    def seen(some):
        return some.likelihood.each.clone()

    other = torch.randn(3, 4)
    assert torch.equal(post.once(seen), torch.ones(1, 4))
    assert torch.equal(post.for_rows(other).once(seen), other)
    assert torch.equal(post.once(seen), torch.ones(1, 4))
