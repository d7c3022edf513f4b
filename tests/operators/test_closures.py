"""Closure phases and amplitudes: what stations cannot change, how many there are, and their
noise."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from reference import F64, draw

import posteriori as po
from posteriori import operators as ops

N, T = 6, 3
PAIRS = list(combinations(range(N), 2))
STATIONS = torch.tensor(PAIRS * T)
MOMENT = torch.arange(T).repeat_interleave(len(PAIRS))
COUNT = T * ((N - 1) * (N - 2) // 2 + N * (N - 3) // 2)


def places():
    """Of stations that turn with the sky: the u of every triangle sum to 0."""
    at = draw(T, N, 2, seed=3) * 2e9
    return (
        torch.cat([at[:, i] - at[:, j] for i, j in PAIRS], 1).view(T, len(PAIRS), 2).flatten(0, 1)
    )


def sky(shape=(1, 8, 8)):
    u, v = places().T
    return ops.ApertureSynthesis(u, v, shape, 5.0)


def gains(seed=5):
    g = torch.polar(draw(T, N, seed=seed).mul(0.3).exp(), 6 * draw(T, N, seed=seed + 1))
    return (
        torch.cat([g[:, i] * g[:, j].conj() for i, j in PAIRS], 0).view(len(PAIRS), T).T.flatten()
    )


def scene(seed=0, shape=(1, 8, 8)):
    return draw(1, *shape, seed=seed).abs() + 0.1


def made(y, sigma=None, **settings):
    A = sky()
    sigma = torch.full(y.shape, 1e-3, dtype=F64) if sigma is None else sigma
    return ops.Closures(A, y, sigma, STATIONS, MOMENT, **settings)


def test_there_are_as_many_as_are_independent_of_the_stations():
    """(n - 1)(n - 2) / 2 phases and n (n - 3) / 2 amplitudes of n stations, at each moment."""
    A = made(sky()(scene())[0])
    assert A.phases == T * (N - 1) * (N - 2) // 2
    assert A.amplitudes == T * N * (N - 3) // 2
    assert A.out_shape == (COUNT,)


def test_phases_and_gains_of_single_stations_change_nothing():
    x, other = scene(), scene(1)
    y, g = sky()(x)[0], gains()
    sigma = torch.full(y.shape, 1e-3, dtype=F64)
    plain, turned = made(y, sigma), made(g * y, sigma * g.abs())
    assert float((g * y - y).abs().max()) > 0.1
    torch.testing.assert_close(turned(other), plain(other), rtol=1e-8, atol=1e-8)
    assert float(plain(x).abs().max()) < 1e-8
    assert float(plain(other).square().mean()) > 100


def test_neither_brightness_nor_place_is_told_without_the_flux():
    """An image moved by whole pixels within dark borders, and one twice as bright."""
    shape = (1, 8, 8)
    x = torch.zeros(1, *shape, dtype=F64)
    x[..., 2:5, 2:5] = scene(2, (1, 3, 3))
    A = made(sky()(scene())[0])
    for other in (2 * x, x.roll((1, 2), (-2, -1))):
        torch.testing.assert_close(A(other), A(x), rtol=1e-7, atol=1e-7)
    told = made(sky()(scene())[0], flux=(3.0, 0.1))
    assert float(told(x)[0, -1]) == pytest.approx((float(x.sum()) - 3) / 0.1)
    torch.testing.assert_close(told(x)[:, :-1], A(x))


def test_the_noise_of_all_that_is_kept_is_white():
    """To first order: the derivative at the measurement, times the noise of the visibilities, has
    orthonormal rows."""
    y = sky()(scene())[0]
    sigma = 1e-3 * (0.5 + draw(len(y), seed=7).abs())
    free = ops.ComplexChannels((2, len(y)))
    A = ops.Closures(free, y, sigma, STATIONS, MOMENT)
    x = torch.stack([y.real, y.imag])
    slope = torch.autograd.functional.jacobian(lambda u: A(u[None])[0], x).flatten(1)
    rows = slope * sigma.repeat(2)
    torch.testing.assert_close(rows @ rows.T, torch.eye(COUNT, dtype=F64), rtol=0, atol=1e-9)


def test_a_turn_more_is_the_same_phase():
    """The gap of a phase lies in (-pi, pi], on both sides of the cut, and goes on through it."""
    free = ops.ComplexChannels((2, 3))
    pairs, moment = torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.zeros(3, dtype=torch.long)
    y = torch.polar(torch.ones(3, dtype=F64), torch.tensor([1.0, 1.0, 1.1], dtype=F64))
    A = ops.Closures(free, y, torch.full((3,), 0.1, dtype=F64), pairs, moment)
    width = 0.1 * 3**0.5
    for turn in (0.2, -0.2, 2 * math.pi - 0.2, 6.0, -6.0):
        V = torch.polar(torch.ones(3, dtype=F64), y.angle() + turn / 3)
        gap = float(A(torch.stack([V.real, V.imag])[None]))
        wrapped = math.remainder(turn, 2 * math.pi)
        assert gap * width == pytest.approx(wrapped, abs=1e-9)


def test_weak_visibilities_are_left_out_and_missing_ones_cost_their_loops():
    y = sky()(scene())[0]
    sigma = torch.full(y.shape, 1e-3, dtype=F64)
    weak = STATIONS[:, 0] == 0
    sigma[weak] = y[weak].abs()
    A = made(y, sigma)
    assert A.used == int((~weak).sum())
    n = N - 1
    assert A.phases == T * (n - 1) * (n - 2) // 2
    assert A.amplitudes == T * n * (n - 3) // 2
    with pytest.raises(ValueError, match="lower least_ratio"):
        made(y, 10 * y.abs())


def test_what_does_not_fit_is_refused():
    y = sky()(scene())[0]
    sigma = torch.full(y.shape, 1e-3, dtype=F64)
    for told, said in (
        ((y.real, sigma, STATIONS, MOMENT), "complex visibilities, got"),
        ((y[1:], sigma, STATIONS, MOMENT), r"for the n = 45"),
        ((y, 0 * sigma, STATIONS, MOMENT), "noise levels > 0"),
        ((y, sigma, STATIONS * 0, MOMENT), "paired with itself"),
        ((y, sigma, STATIONS, MOMENT * 0), "one pair of stations and one moment"),
    ):
        with pytest.raises(ValueError, match=said):
            ops.Closures(sky(), *told)
    with pytest.raises(ValueError, match="real images to complex visibilities"):
        ops.Closures(ops.Identity((1, 8, 8)), y, sigma, STATIONS, MOMENT)
    with pytest.raises(ValueError, match="flux is"):
        made(y, flux=(1.0, 0.0))


def test_a_sky_is_found_behind_unknown_stations():
    """Visibilities with gains of their own fit by closures, and not as they are."""
    shape = (1, 4, 4)
    u, v = places().T
    see = ops.ApertureSynthesis(u, v, shape, 5.0)
    x = scene(4, shape)
    sigma = torch.full((len(u),), 0.05, dtype=F64)
    noise = torch.complex(draw(len(u), seed=8), draw(len(u), seed=9)) * 0.05
    y = gains() * (see(x)[0] + noise)
    prior = po.priors.Gaussian(torch.full(shape, 0.8, dtype=F64), 0.6)
    A = ops.Closures(see, y, sigma * gains().abs(), STATIONS, MOMENT, flux=(float(x.sum()), 0.5))
    given = po.Likelihood(torch.zeros(A.out_shape, dtype=F64), A, po.noise.Gaussian(1.0))
    run = po.sample(
        po.Posterior(prior, given), po.methods.MMPS(), n=4, steps=24, seed=0, progress=False
    )
    # 52 numbers measured 16 unknown ones: a mean square of 1 within five standard errors
    assert 0.3 < float(A(run.samples).square().mean()) < 1 + 5 * (2 / COUNT) ** 0.5
