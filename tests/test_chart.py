"""Charts: the one map from the sampler's coordinates u to the user's x, and what it makes of a
likelihood."""

import math
from dataclasses import replace

import pytest
import torch
from reference import F64, draw

import posteriori as po
from posteriori.chart import AffineChart, Pair
from posteriori.packing import pack, unpack


def likelihood(A, noise, range=(0.0, 255.0)):
    y = A(20 + 5 * draw(1, *A.in_shape).abs())[0]
    return po.Likelihood(y, A, noise, range=range)


def test_an_affine_chart_takes_the_ends_of_one_range_to_those_of_the_other():
    chart = AffineChart.between((-1.0, 1.0), (0.0, 255.0), (2,))
    assert (chart.a, chart.b, chart.range) == (127.5, 127.5, (0.0, 255.0))
    assert chart.push(torch.tensor([[-1.0, 1.0]])).tolist() == [[0.0, 255.0]]
    assert chart.log_volume == -math.log(127.5)


def test_the_chart_of_a_range_to_itself_gives_back_the_very_objects():
    chart = AffineChart.between((0.1, 0.7), (0.1, 0.7), (2,))
    u, given = draw(1, 2), likelihood(po.operators.Identity((2,)), po.noise.Gaussian(1.0))
    assert chart.push(u) is u
    assert chart.pull(given) is given


@pytest.mark.parametrize(
    ("A", "noise"),
    [
        (po.operators.Dense(draw(3, 4), shape=(4,)), po.noise.Gaussian(0.7)),
        (po.operators.Dense(draw(3, 4).abs(), shape=(4,)), po.noise.Poisson(50.0)),
        (po.operators.Clip((4,), gain=0.02, low=0.0, high=3.0), po.noise.Gaussian(0.7)),
    ],
    ids=["conjugate", "other noise", "not linear"],
)
def test_the_pulled_likelihood_is_that_of_x_up_to_the_volume(A, noise):
    """log p(y | x = push(u)) = log p'(y' | u) + log_volume, where y has been rescaled; equal where
    it stays."""
    y = A(100 + 5 * draw(1, *A.in_shape))[0].abs()
    post = po.Posterior(
        po.priors.Gaussian(torch.zeros(4, dtype=F64), 0.2, range=(-1, 1)),
        po.Likelihood(y, A, noise, range=(0, 255)),
    )
    u = 0.1 * draw(5, 4)
    gap = post.given.log_prob(post.to_given(u)) - post.likelihood.log_prob(u)
    wanted = -math.log(127.5) * y.numel() if post.given.conjugate else 0.0
    assert post.log_volume == pytest.approx(wanted, rel=1e-14)
    torch.testing.assert_close(gap, torch.full((5,), wanted, dtype=F64), rtol=1e-9, atol=1e-9)
    assert post.likelihood.range == pytest.approx((-1, 1))


def test_a_complex_measurement_has_two_numbers_of_volume_each():
    A = po.operators.MaskedFourier(
        torch.ones(4, 5, dtype=torch.bool), (4, 5)
    ) @ po.operators.ComplexChannels((2, 4, 5))
    y = A(draw(1, 2, 4, 5))[0]
    given = po.Likelihood(y, A, po.noise.ComplexGaussian(sigma_per_channel=0.2), range=(0, 4))
    post = po.Posterior(
        po.priors.Gaussian(torch.zeros(2, 4, 5, dtype=F64), 0.3, range=(-1, 1)), given
    )
    u = draw(3, 2, 4, 5, seed=2)
    gap = post.given.log_prob(post.to_given(u)) - post.likelihood.log_prob(u)
    assert post.log_volume == pytest.approx(-40 * math.log(2), rel=1e-14)
    torch.testing.assert_close(
        gap, torch.full((3,), post.log_volume, dtype=F64), rtol=1e-9, atol=1e-9
    )


def pair(offset=0.0):
    return Pair(
        ("image", "kernel"),
        (AffineChart(2.0, offset, (1, 2), (0, 4)), AffineChart(1.0, 0.0, (3,))),
        (0.5, 0.1),
    )


def test_a_pair_pushes_each_part_in_its_unit():
    """x_i = parts_i(units_i u_i), and straight states the same map number by number."""
    chart, u = pair(offset=3.0), draw(2, 5)
    x = chart.push(u)
    assert chart.shape == (5,)
    torch.testing.assert_close(
        x["image"], (2 * 0.5 * u[:, :2] + 3).view(2, 1, 2), rtol=1e-15, atol=0
    )
    torch.testing.assert_close(x["kernel"], 0.1 * u[:, 2:], rtol=1e-15, atol=0)
    a, b = chart.straight
    torch.testing.assert_close(pack(x), a * u + b, rtol=1e-14, atol=0)
    assert list(unpack(pack(x), chart.shapes)) == ["image", "kernel"]


class Squares(po.operators.Operator):
    def forward(self, x):
        return x[:, :3] ** 2 + x[:, 2:]


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize(
    ("A", "noise"),
    [
        (po.operators.Dense(draw(4, 5), shape=(5,)), po.noise.Gaussian(0.3)),
        (po.operators.Dense(draw(4, 5).abs(), shape=(5,)), po.noise.Poisson(50.0)),
        (Squares((5,)), po.noise.Gaussian(0.3)),
    ],
    ids=["conjugate", "counts", "not linear"],
)
def test_a_pair_pulls_the_likelihood_of_x_whatever_it_is(A, noise, offset):
    """log p(y | push(u)) = log p'(y' | u) for every u: y is in no other unit. A linear A stays
    linear where it can."""
    chart, u = pair(offset), draw(6, 5, seed=3).abs()
    given = po.Likelihood(A(draw(1, 5))[0].abs() + 1, A, noise)
    pulled = chart.pull(given)
    there = given.log_prob(pack(chart.push(u)))
    torch.testing.assert_close(pulled.log_prob(u), there, rtol=1e-11, atol=1e-11)
    assert pulled.conjugate == given.conjugate
    po.testing.check_operator(pulled.A)


def test_parts_that_the_operator_takes_in_another_order_are_refused():
    class Known(Squares):
        in_parts = {"kernel": (3,), "image": (1, 2)}

    y = torch.ones(3, dtype=F64)
    with pytest.raises(
        ValueError,
        match=r"image \[1, 2\], kernel \[3\].*takes kernel \[3\], image \[1, 2\].*one order",
    ):
        pair().pull(po.Likelihood(y, Known((5,)), po.noise.Gaussian(0.1)))
    masked = po.operators.Mask(torch.tensor([True, False, True])) @ Known((5,))
    with pytest.raises(ValueError, match="in one order"):
        pair().pull(po.Likelihood(y[:2], masked, po.noise.Gaussian(0.1)))


def test_a_posterior_counted_by_the_driver_keeps_its_chart():
    from posteriori.counting import Counter, counted

    given = likelihood(po.operators.Identity((3,)), po.noise.Gaussian(1.0))
    post = po.Posterior(po.priors.Gaussian(torch.zeros(3, dtype=F64), 0.2, range=(-1, 1)), given)
    assert counted(post, Counter()).chart is post.chart
    assert counted(post, Counter()).log_volume == post.log_volume == -3 * math.log(127.5)
    assert replace(post.given).range == (0.0, 255.0)
