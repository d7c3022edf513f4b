"""Flags are not raised on what is sound, and are on what is not. What they do on photographs is
measured by benchmarks/flags.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import F64, draw
from scipy import stats

import posteriori as po
from posteriori import diagnostics
from posteriori import evaluation as ev
from posteriori.evaluation.calibration import members, room, student_members
from posteriori.measurements.photos import COFFEE
from posteriori.rng import Streams
from posteriori.run import Run, Status


def made(x, log_w=None):
    log_w = torch.zeros(len(x), dtype=F64) if log_w is None else log_w
    config = {
        "method": "exact",
        "settings": {},
        "levels": [1.0, 0.0],
        "grid": "karras",
        "range": None,
    }
    return Run(x, log_w, None, (Status(),) * len(x), {"denoiser": 0}, {}, 0.0, config, ())


def test_the_residual_of_a_posterior_sample_has_the_law_of_the_noise():
    """Over x and y, y - A x' of a right sample x' is N(0, s2 I): so m chi2 has the chi-square law
    of m degrees of freedom."""
    m, d, s2 = 4, 6, 0.3
    A, root = draw(m, d, seed=1), draw(d, d, seed=2)
    C = root @ root.T
    inner = A @ C @ A.T + s2 * torch.eye(m, dtype=F64)
    gain = C @ A.T @ torch.linalg.inv(inner)
    left = torch.eye(m, dtype=F64) - A @ gain
    covariance = left @ inner @ left.T + A @ (C - gain @ A @ C) @ A.T
    torch.testing.assert_close(covariance, s2 * torch.eye(m, dtype=F64))


@pytest.mark.parametrize("m", [1, 2, 5, 20, 100, 10000])
def test_sound_samples_pass_the_limits_of_chi2_with_less_than_one_per_cent(m):
    law, more = stats.chi2(m), stats.chi2(m + 2)
    low, high = (m * limit for limit in diagnostics.chi2_limits(m))
    assert law.sf(high) <= diagnostics.ALPHA * (1 + 1e-6)
    assert law.cdf(low) <= diagnostics.ALPHA * (1 + 1e-6)
    # A mean of samples that share one y is smaller in convex order:
    # P(mean > q) <= E (X - t)+ / (q - t) for every t below q.
    above = min(
        (m * more.sf(t) - t * law.sf(t)) / (high - t) for t in high * np.linspace(0.3, 0.99, 200)
    )
    below = (
        min((t * law.cdf(t) - m * more.cdf(t)) / (t - low) for t in low * np.linspace(1.01, 4, 200))
        if low > 0
        else 0.0
    )
    assert above <= 2.8 * diagnostics.ALPHA
    assert below <= 2.8 * diagnostics.ALPHA
    assert diagnostics.chi2_limits(m)[0] <= 0.5
    assert diagnostics.chi2_limits(m)[1] >= 2


def test_the_limits_of_few_numbers_are_those_of_the_law():
    assert 2 * diagnostics.chi2_limits(2)[1] == pytest.approx(stats.chi2(2).isf(diagnostics.ALPHA))
    assert 2 * diagnostics.chi2_limits(2)[0] == pytest.approx(stats.chi2(2).ppf(diagnostics.ALPHA))
    # A noise level stated too high by a factor of 3 is seen with 20 numbers, and could not be with
    # the room of a normal law.
    assert stats.chi2(20).cdf(20 * 9 * diagnostics.chi2_limits(20)[0]) > 0.99


@pytest.mark.parametrize("photons", [0.5, 5.0])
def test_few_photons_are_no_misfit_and_a_wrong_peak_is_one(photons):
    """The variance is estimated from y: chi2 of the truth itself is 0.35 at half a photon, and 1.6
    at five."""
    x = torch.full((1, 40, 40), 0.5, dtype=F64)
    A = po.operators.Identity((1, 40, 40))
    law = po.noise.Poisson(2 * photons) if photons >= 5 else None
    if law is None:
        with pytest.warns(UserWarning, match="nearly binary"):
            law = po.noise.Poisson(2 * photons)
    y = law.sample(x[None], Streams(3, [0]))[0]
    prior = po.priors.Gaussian(x, 1.0, range=(0, 1))
    record = ev.summary(made(x[None]), po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1))))
    assert record["chi2_samples"] == pytest.approx(0.345 if photons == 0.5 else 1.637, rel=0.15)
    assert record["chi2_expected"] == pytest.approx(record["chi2_samples"], rel=0.15)
    assert not any("stated noise" in sentence for sentence in record["flags"])
    brighter = ev.summary(
        made(8 * x[None]), po.Posterior(prior, po.Likelihood(y, A, law, range=(0, 1)))
    )
    assert any("times the stated noise" in sentence for sentence in brighter["flags"])


def test_shares_of_reference_and_samples_average_to_the_level():
    x, truth = draw(9, 40), draw(40, seed=5)
    assert 0 < room(members(x, truth, 0.9), 9) < 1
    assert room(members(x[:2], truth, 0.9), 2) == 1.0
    for level in (0.5, 0.9):
        shares = members(x, truth, level)
        (found,) = ev.coverage(x, truth, (level,))
        assert float(shares[0]) == pytest.approx(found.covered)
        assert float(shares.mean()) == pytest.approx(found.nominal)
        # Every member is measured as the reference is.
        again = members(torch.cat([truth[None], x[1:]]), x[0], level)
        torch.testing.assert_close(again[[1, 0]], shares[[0, 1]])
    spread = student_members(x, truth)
    assert float(spread[0]) == pytest.approx(ev.student(x.mean(0), x.std(0), 9, truth))
    torch.testing.assert_close(student_members(torch.cat([truth[None], x[1:]]), x[0])[1], spread[0])


def test_equal_numbers_count_as_ranked_at_random():
    shares = members(torch.zeros(9, 4000, dtype=F64), torch.zeros(4000, dtype=F64), 0.6)
    torch.testing.assert_close(
        shares, torch.full((10,), 0.6, dtype=F64), atol=5 * (0.24 / 4000) ** 0.5, rtol=0
    )


def raised(x, truth):
    (found,) = ev.coverage(x, truth, (0.9,))
    widest = {
        "nominal": found.nominal,
        "covered": found.covered,
        "room": room(members(x, truth, 0.9), len(x)),
    }
    return diagnostics.dispersion({"coverage": [widest], "spread": 1.0, "scale": 1.0})


@pytest.mark.parametrize("n", [4, 16])
def test_numbers_that_are_missed_together_are_no_wrong_spread(n):
    """Of 100 numbers that are moved by two, the share in the intervals scatters by a third, and
    says nothing about the sampler."""
    together = draw(2, 100, seed=1)
    alarms, seen, missed = 0, 0, 0
    for seed in range(300):
        z = draw(n + 1, 2, seed=10 + seed) @ together
        alarms += bool(raised(z[1:], z[0]))
        (found,) = ev.coverage(z[1:], z[0], (0.9,))
        missed += found.covered < found.nominal - 0.15
        if seed < 20:
            free = draw(n + 1, 400, seed=10 + seed)
            seen += any("under-dispersed" in text for text in raised(0.2 * free[1:], free[0]))
    assert missed > 30  # what a fixed limit of 15 points would have said
    assert alarms <= 0.02 * 300 + 3 * (300 * 0.02 * 0.98) ** 0.5
    assert seen == 20


def test_weights_that_differ_by_chance_have_not_collapsed():
    prior = po.priors.Gaussian(torch.zeros(5, dtype=F64), 1.0)
    post = po.Posterior(
        prior,
        po.Likelihood(torch.zeros(1, dtype=F64), po.operators.Null((5,)), po.noise.Gaussian(1.0)),
    )

    def said(*log_w):
        found = ev.summary(made(draw(len(log_w), 5), torch.tensor(log_w, dtype=F64)), post)["flags"]
        return any("collapsed" in text for text in found)

    assert not said(0.0, -0.7)
    assert not said(0.0, -0.7, 0.5)
    assert said(0.0, -9.0)
    assert said(0.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0, -9.0)


def test_two_numbers_may_be_nearly_equal():
    prior = po.priors.Gaussian(torch.zeros(2, dtype=F64), 1.0, range=(-1, 1))
    given = po.Likelihood(
        torch.zeros(1, dtype=F64), po.operators.Null((2,)), po.noise.Gaussian(1.0), range=(-1, 1)
    )
    x = torch.stack(
        [torch.linspace(-1, 1, 50, dtype=F64), torch.linspace(-1, 1, 50, dtype=F64) + 1e-4], 1
    )
    assert ev.summary(made(x), po.Posterior(prior, given))["flags"] == []


def test_photographs_are_not_speckled_and_half_a_per_cent_of_wrong_pixels_is_seen():
    x = po.measurements.read_image(COFFEE)[0].double()
    for k, (top, left) in enumerate([(0, 0), (0, 128), (128, 0), (128, 128)]):
        patch = x[None, :, top : top + 128, left : left + 128]
        hit = torch.rand(128, 128, generator=torch.Generator().manual_seed(k)) < 0.005
        assert float(ev.speckle(patch)) < diagnostics.SPECKLE / 2
        assert (
            float(ev.speckle(torch.where(hit, patch + torch.where(patch > 0.5, -0.3, 0.3), patch)))
            > 2 * diagnostics.SPECKLE
        )


def test_speckle_takes_what_is_not_contiguous_and_pepper_as_salt():
    x = 0.5 + 0.01 * draw(1, 20, 24, 3)
    x[0, 4, 5], x[0, 9, 9] = 0.0, 1.0
    assert float(ev.speckle(x.movedim(-1, 1))) == pytest.approx(2 / (18 * 22))
    assert float(ev.speckle(torch.zeros(1, 1, 8, 8))) == 0
