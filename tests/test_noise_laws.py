"""Noise as instruments make it: densities by integration, draws by their distribution, precisions
by Fisher's identity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from reference import F64, draw
from scipy import stats

from posteriori import noise
from posteriori.rng import Streams

# Law, clean values, and where all of its y lie, in steps fine enough for the trapezium rule.
DENSE = {
    "Huber": (noise.Huber(0.3), (0.0,), (-9, 9)),
    "Huber wide": (noise.Huber(0.3, 2.5), (0.5,), (-5, 6)),
    "Outliers": (noise.Outliers(0.1, 0.2, -1.0, 2.0), (0.3, -0.9), (-2, 3)),
    "PoissonGaussian": (noise.PoissonGaussian(20.0, 0.05), (0.0, 0.02, 0.7, 3.0), (-0.6, 7)),
    "PoissonGaussian wide": (noise.PoissonGaussian(10.0, 1.5), (0.1, 4.0), (-10, 20)),
    "Rician": (noise.Rician(0.4), (0.0, 0.3, 5.0), (0, 9)),
    "Speckle": (noise.Speckle(1), (0.2, 1.0), (0, 40)),
    "Speckle of looks": (noise.Speckle(6), (0.2, 1.0), (0, 12)),
}


def density(law, clean, ends):
    """A grid of y, p(y | clean) on it, and its weights."""
    y = torch.linspace(*ends, 20_001, dtype=F64)
    p = law.log_prob(y[:, None], torch.full((len(y), 1), clean, dtype=F64)).exp()
    p[~p.isfinite()] = 0.0  # at an end where log 0 meets
    return y, p


@pytest.mark.parametrize("name", DENSE)
def test_densities_integrate_to_one_and_have_the_stated_moments(name):
    law, cleans, ends = DENSE[name]
    for clean in cleans:
        y, p = density(law, clean, ends)
        at = torch.tensor([clean], dtype=F64)
        # Where a density jumps the rule is off by a step.
        assert float(torch.trapezoid(p, y)) == pytest.approx(1, abs=1e-4)
        mean = float(torch.trapezoid(p * y, y))
        assert mean == pytest.approx(float(law.mean(at)), abs=1e-4)
        variance = float(torch.trapezoid(p * (y - mean).square(), y))
        assert variance == pytest.approx(float(law.variance_at(at, at)), rel=1e-3)


@pytest.mark.parametrize("name", DENSE)
def test_draws_have_the_density(name):
    """Kolmogorov's distance: below 1.95 / sqrt(n) with probability 0.999."""
    law, cleans, ends = DENSE[name]
    y, p = density(law, cleans[-1], ends)
    steps = 0.5 * (p[1:] + p[:-1]) * (y[1:] - y[:-1])
    below = torch.cat([steps.new_zeros(1), steps.cumsum(0)]).numpy()
    drawn = law.sample(torch.full((1, 20_000), cleans[-1], dtype=F64), Streams(2, [0]))[0]
    found = stats.kstest(drawn.numpy(), lambda v: np.interp(v, y.numpy(), below))
    assert found.statistic < 1.95 / math.sqrt(20_000)


def test_huber_is_a_parabola_with_straight_arms():
    law, e = noise.Huber(0.5, 1.5), torch.tensor([[0.0, 0.6, -0.75, 2.0, -5.0]], dtype=F64)
    score = law.score(e, torch.zeros_like(e))
    torch.testing.assert_close(score, torch.tensor([[0.0, 2.4, -3.0, 3.0, -3.0]], dtype=F64))
    near = noise.Huber(0.5, 30.0).log_prob(e, torch.zeros_like(e))
    torch.testing.assert_close(near, noise.Gaussian(0.5).log_prob(e, torch.zeros_like(e)))


MIXED = {
    "Laplace": noise.Laplace(0.3),
    "StudentT": noise.StudentT(0.3, 4),
    "Huber": noise.Huber(0.3),
    "Outliers": noise.Outliers(0.3, 0.1, -50.0, 50.0),
    "UnknownGaussian": noise.UnknownGaussian(0.3, 3),
}


@pytest.mark.parametrize("name", MIXED)
def test_the_expected_precision_gives_the_score(name):
    """E[w | e] e / core^2 = d log p / d clean, for every law of unknown precisions."""
    law, e = MIXED[name], 0.5 * draw(3, 7)
    found = law.precision(e) * e / law.core**2
    torch.testing.assert_close(found, law.score(e, torch.zeros_like(e)), rtol=1e-6, atol=1e-6)
    with pytest.raises(TypeError, match="Poisson"):
        noise.Poisson(100.0).precision(e)


def test_drawn_precisions_have_their_law_given_the_error():
    """Kolmogorov's distance on 4000 rows."""
    e = torch.full((4000, 1), 0.7, dtype=F64)
    limit = 1.95 / math.sqrt(4000)

    def drawn(law, error=e):
        return law.precision(error, Streams(3, range(len(error)))).flatten().numpy()

    rate = 4 + (0.7 / 0.3) ** 2
    found = stats.kstest(drawn(noise.StudentT(0.3, 4)) * rate, stats.chi2(5).cdf)
    assert found.statistic < limit
    # scipy's inverse Gaussian of the shape 1 has the mean ``mu``.
    for size in (0.7, 1e-3):
        known = stats.invgauss(0.3 / size)
        values = drawn(noise.Laplace(0.3), torch.full_like(e, size))
        assert stats.kstest(values, known.cdf).statistic < limit
    level = noise.UnknownGaussian(0.3, 3)
    errors = e.expand(-1, 5)
    found = drawn(level, errors) * (3 + 5 * (0.7 / 0.3) ** 2)
    assert stats.kstest(found, stats.chi2(8).cdf).statistic < limit
    lost = noise.Outliers(0.3, 0.1, -50.0, 50.0)
    p = float(lost.precision(e[:1]))
    share = float((torch.from_numpy(drawn(lost)) == 1).double().mean())
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 4000)


@pytest.mark.parametrize("complex_numbers", [False, True])
def test_a_level_that_is_not_known_is_integrated_over(complex_numbers):
    """sum over s of Gaussian densities and the inverse gamma law, by quadrature."""
    law = noise.UnknownGaussian(0.4, 3, complex_numbers)
    kind = torch.complex128 if complex_numbers else F64
    y, clean = draw(5, dtype=kind, seed=1), draw(2, 5, dtype=kind, seed=2)
    s = torch.logspace(-3, 3, 20_001, dtype=F64)
    # s^2 = trust sigma^2 / chi-square: the density of s from that of chi-square.
    square = 3 * 0.4**2 / s.square()
    weight = torch.from_numpy(stats.chi2(3).pdf(square.numpy())) * 2 * square / s
    one = noise.ComplexGaussian if complex_numbers else noise.Gaussian
    for k in range(2):
        logs = torch.stack([one(float(v)).log_prob(y, clean[k : k + 1])[0] for v in s[::20]])
        total = torch.trapezoid(logs.exp() * weight[::20], s[::20])
        assert float(law.log_prob(y, clean)[k]) == pytest.approx(math.log(float(total)), abs=1e-3)


def test_quantised_numbers_are_those_of_cells():
    """Probabilities of all cells sum to 1, also with ends; far out they are those of the nearest
    end, where a difference of two probabilities would be 0."""
    law = noise.Quantised(0.02, 0.1, 0.0, 1.0)
    cells = torch.arange(11, dtype=F64)[:, None] * 0.1
    for clean in (0.0, 0.33, 0.95, 1.2):
        p = law.log_prob(cells, torch.full_like(cells, clean)).exp()
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    one = torch.full((1, 40_000), 0.33, dtype=F64)
    y = law.sample(one, Streams(1, [0]))
    p = law.log_prob(cells, torch.full_like(cells, 0.33)).exp()
    share = torch.bincount((y[0] * 10).round().long(), minlength=11) / 40_000
    assert bool(((share - p).abs() <= 4 * (p * (1 - p) / 40_000).sqrt() + 1e-12).all())
    free = noise.Quantised(0.02, 0.1)
    far = torch.tensor([[3.0, -3.0]], dtype=F64)
    value = free.log_prob(torch.zeros(1, 2, dtype=F64), far)
    assert bool(value.isfinite())
    # log p = -(2.95 / 0.02)^2 / 2 - log(147.5 sqrt(2 pi)) to a relative 1e-4 (Mills' ratio).
    u = 2.95 / 0.02
    assert float(value) == pytest.approx(2 * (-0.5 * u * u - math.log(u * 2.5066)), abs=1e-3)
    score = free.score(torch.zeros(1, 2, dtype=F64), far)
    torch.testing.assert_close(
        score, torch.tensor([[-u / 0.02, u / 0.02]], dtype=F64), rtol=1e-4, atol=0
    )
    for cell in (0.0, 0.3):
        fine = noise.Quantised(0.3, 1e-3)
        y = torch.tensor([[cell]], dtype=F64)
        density = fine.log_prob(y, y + 0.4) - math.log(1e-3)
        torch.testing.assert_close(
            density, noise.Gaussian(0.3).log_prob(y, y + 0.4), atol=1e-6, rtol=0
        )


def test_what_a_law_cannot_be_of_is_refused_by_name():
    third = torch.tensor([[0.3333, 0.5]], dtype=F64)
    for make, words in (
        (lambda: noise.Outliers(0.1, 0.1, 1.0, 0.0), "low 1 must be less than high 0"),
        (lambda: noise.Outliers(0.1, 1.0, 0.0, 1.0), "Outliers.share"),
        (lambda: noise.PoissonGaussian(1e4, 0.1), "hides the counts"),
        (lambda: noise.Rician(0.1).check_kind(-third), "magnitudes >= 0.*-0.5"),
        (lambda: noise.Speckle(2).check_kind(-third), "intensities >= 0.*-0.5"),
        (lambda: noise.Speckle(2).sample(-third, Streams(0, [0])), "minimum of -0.5"),
        (lambda: noise.Speckle(2).scaled(-1.0), "negative"),
        (lambda: noise.Quantised(0.1, 0.1).check_kind(third), "multiples of step = 0.1"),
        (lambda: noise.UnknownGaussian(0.1, 0), "UnknownGaussian.trust"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.parametrize(
    "law",
    [
        noise.Huber(0.2, 2.0),
        noise.Outliers(0.2, 0.1, -1.0, 3.0),
        noise.Rician(0.2),
        noise.Speckle(4),
        noise.Quantised(0.2, 0.25, 0.0, 2.0),
        noise.UnknownGaussian(0.2, 5),
    ],
    ids=lambda law: type(law).__name__,
)
def test_scaled_laws_are_those_of_scaled_numbers(law):
    """log p of 3 y given 3 c is that of y given c, less log 3 for each number of a density."""
    y, clean = (
        torch.tensor([[0.25, 1.0, 1.75]], dtype=F64),
        torch.tensor([[0.5, 0.9, 1.6]]).double(),
    )
    lost = 0.0 if isinstance(law, noise.Quantised) else 3 * math.log(3)
    torch.testing.assert_close(
        law.scaled(3.0).log_prob(3 * y, 3 * clean), law.log_prob(y, clean) - lost
    )
