"""What a network is told: levels, labels, and schedules that are refused or warned of."""

from __future__ import annotations

import json
import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from posteriori.priors import VE, ContinuousVP, DiscreteVP, RectifiedFlow
from posteriori.priors.schedule import from_record, schedule_record

COSINE = pytest.warns(UserWarning, match="ends at sigma 20291, above 1000")


def test_known_levels():
    linear, scaled = DiscreteVP.linear(), DiscreteVP.scaled_linear()
    assert [linear.sigmas[t] for t in (250, 500, 999)] == pytest.approx(
        [0.958, 3.443, 157.4], rel=5e-4
    )
    assert [scaled.sigmas[t] for t in (250, 500, 999)] == pytest.approx(
        [0.696, 1.618, 14.61], rel=5e-4
    )
    with COSINE:
        assert DiscreteVP.cosine().sigma_max == pytest.approx(20291, rel=1e-4)
    assert (linear.sigma_min, linear.sigma_max) == (linear.sigmas[0], linear.sigmas[-1])
    assert ContinuousVP().sigma_max == pytest.approx(math.sqrt(math.exp(10.05) - 1))


@pytest.mark.parametrize(
    "schedule",
    [DiscreteVP.linear(), DiscreteVP.scaled_linear(), DiscreteVP.linear().zero_terminal()],
)
def test_discrete_labels_are_fractional_and_exact_at_timesteps(schedule):
    finite = [s for s in schedule.sigmas if s < math.inf]
    for t in (0, 1, 250, 500, len(finite) - 1):
        level = schedule.level(finite[t])
        assert level.labels == pytest.approx((t,), abs=1e-9)
        assert level.a**2 == pytest.approx(schedule.alphas_cumprod[t], rel=1e-12)
    middle = math.sqrt(finite[250] * finite[251])
    assert schedule.level(middle).labels == pytest.approx((250.5,), abs=1e-9)
    labels = [
        schedule.level(s).labels[0]
        for s in np.geomspace(schedule.sigma_min, schedule.sigma_max, 500)
    ]
    assert all(b > a for a, b in pairwise(labels))


def test_levels_between_the_last_finite_one_and_pure_noise():
    schedule = DiscreteVP.linear().zero_terminal()
    assert schedule.pure_noise
    assert schedule.alphas_cumprod[0] == pytest.approx(DiscreteVP.linear().alphas_cumprod[0])
    last = schedule.sigma_max
    assert schedule.level(last * 2).labels[0] == pytest.approx(998.5, abs=1e-3)
    assert 998.998 < schedule.level(1e7).labels[0] < 999
    with pytest.raises(ValueError, match="inf lies outside"):
        schedule.level(math.inf)


def test_integer_networks_are_asked_at_both_neighbours():
    schedule = DiscreteVP.linear(integer=True)
    assert schedule.level(schedule.sigmas[70])[2:4] == ((70,), (1.0,))
    level = schedule.level(schedule.sigmas[70] ** 0.75 * schedule.sigmas[71] ** 0.25)
    assert level.labels == (70, 71)
    assert all(isinstance(label, int) for label in level.labels)
    assert level.weights == pytest.approx((0.75, 0.25), abs=1e-9)


def test_round_trip_between_vp_ve_and_edm_coordinates():
    linear, continuous = DiscreteVP.linear(), ContinuousVP()
    for t in np.linspace(0.5, 998.5, 50):
        sigma = math.exp(np.interp(t, np.arange(1000), np.log(linear.sigmas)))
        a = linear.level(sigma).a
        edm_label = math.log(sigma) / 4
        assert linear.level(math.exp(4 * edm_label)).labels[0] == pytest.approx(t, abs=1e-10 * 1000)
        assert math.sqrt(1 - a**2) / a == pytest.approx(sigma, rel=1e-10)
    for t in np.linspace(2e-3, 1, 50):
        assert continuous.level(continuous.sigma_at(t)).labels[0] == pytest.approx(t, rel=1e-10)


@pytest.mark.parametrize(
    "schedule",
    [ContinuousVP(label_scale=3), RectifiedFlow(), RectifiedFlow(flip=True, label_scale=2)],
)
def test_velocity_rates_are_derivatives_along_the_label(schedule):
    for sigma in (0.02, 0.9, 40.0):
        before, here, after = (schedule.level(sigma * (1 + h)) for h in (-1e-5, 0, 1e-5))
        dt = (after.labels[0] - before.labels[0]) / schedule.label_scale
        assert here.rates == pytest.approx(
            ((after.a - before.a) / dt, (after.a * after.sigma - before.a * before.sigma) / dt),
            rel=1e-6,
        )


def test_flow_and_ve_labels():
    assert RectifiedFlow(label_scale=1000).level(3.0)[:3] == (0.25, 3.0, (750.0,))
    assert RectifiedFlow(flip=True).level(3.0).labels == (0.25,)
    assert VE(0.01, 50.0).level(2.0)[:3] == (1.0, 2.0, (2.0,))
    assert VE(0.01, 50.0, "log").level(2.0).labels == (math.log(2.0),)


@pytest.mark.parametrize(
    "schedule", [DiscreteVP.linear(), ContinuousVP(), RectifiedFlow(), VE(0.01, 50.0)]
)
def test_levels_outside_are_refused_with_both_numbers(schedule):
    low, high = schedule.sigma_min, schedule.sigma_max
    schedule.level(low * (1 - 5e-7))
    assert schedule.level(high * (1 + 5e-7)).sigma == high
    for bad in (low * 0.99, high * 1.01, math.nan, 0.0, -1.0):
        with pytest.raises(
            ValueError, match=f"outside {low:.6g} to {high:.6g}, the range of the"
        ) as error:
            schedule.level(bad)
        assert f"{bad:.6g}" in str(error.value)


def test_a_chain_that_does_not_reach_noise_is_warned_of():
    with pytest.warns(
        UserWarning,
        match=r"linear \(T=200\) schedule never reaches noise: its last alphas_cumprod is 0.13",
    ):
        DiscreteVP.linear(200)
    with pytest.warns(UserWarning, match="never reaches noise"):
        ContinuousVP(0.1, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DiscreteVP.linear()
        DiscreteVP.scaled_linear()
        DiscreteVP.linear().zero_terminal()


def test_short_cosine_schedules_are_sound():
    with pytest.warns(UserWarning, match="above 1000|never"):
        schedule = DiscreteVP.cosine(10, cap=0.9999999)
    assert all(0 < v < 1 for v in schedule.alphas_cumprod)
    level = schedule.level(schedule.sigma_max)
    assert all(math.isfinite(v) for v in (*level.labels, level.a, level.sigma))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((1.0, 0.5, 0.1), "entry 0 is .*1.0"),
        ((0.9, 0.95, 0.1), "entry 1 is .*0.95"),
        ((0.9, 0.9), "entry 1 is"),
        ((0.9, 0.0, 0.0), "entry 1 is"),
        ((0.9, math.nan, 0.1), r"alphas_cumprod\[1\]: expected a finite number, got nan"),
        ((0.9, 0.5, -0.1), "entry 2 is"),
        ((0.9,), "got 1 entries"),
        ((), "got 0 entries"),
    ],
)
def test_bad_alphas_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        DiscreteVP(values)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"betas must lie in .* entry 1 .* is .*1\.5"):
        DiscreteVP.from_betas([0.1, 1.5])
    with pytest.raises(ValueError, match="beta_min"):
        ContinuousVP(20.0, 0.1)
    with pytest.raises(ValueError, match="sigma_min"):
        RectifiedFlow(sigma_min=2.0, sigma_max=1.0)
    with pytest.raises(ValueError, match="label"):
        VE(0.1, 1.0, "t")


@pytest.mark.parametrize(
    "schedule",
    [
        DiscreteVP.linear(integer=True),
        DiscreteVP.linear().zero_terminal(),
        ContinuousVP(t_min=1e-5),
        RectifiedFlow(flip=True),
        VE(0.01, 50.0, "log"),
    ],
)
def test_records_survive_json(schedule):
    assert from_record(json.loads(json.dumps(schedule_record(schedule)))) == schedule


def test_records_make_known_classes_only():
    with pytest.raises(ValueError, match=r"unknown schedule 'os\.system'"):
        from_record({"kind": "os.system", "command": "true"})
    with pytest.raises(ValueError, match="the VE schedule cannot be made from"):
        from_record({"kind": "VE", "sigma": 1.0})


def test_a_learned_variance_of_a_step_tells_that_of_the_image():
    """Forwards: Var[x_(t-1) | x_t] = beta~ + c^2 Var[x0 | x_t], told as log var = f log
    beta + (1 - f) log beta~; and back."""
    schedule = DiscreteVP.linear()
    abar = np.array(schedule.alphas_cumprod)
    for t, variance in ((1, 1e-5), (50, 2e-3), (400, 0.2), (999, 0.7)):
        now, before = abar[t], abar[t - 1]
        beta = 1 - now / before
        rest, c = beta * (1 - before) / (1 - now), before**0.5 * beta / (1 - now)
        f = (math.log(rest + c**2 * variance) - math.log(rest)) / (math.log(beta) - math.log(rest))
        found = schedule.learned_variance(torch.tensor([2 * f - 1], dtype=torch.float64), t)
        assert float(found) == pytest.approx(variance, rel=1e-6)
