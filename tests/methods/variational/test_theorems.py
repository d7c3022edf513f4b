"""RED-diff's stationary point over all of its levels, the evidence bound on a mixture, and what a
run says when it has lost a mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import bed, two_modes
from reference import F64
from variational import fitted

import posteriori as po
from posteriori import methods
from posteriori.evaluation import summary
from posteriori.operators import matrix
from posteriori.priors import log_density as densities


class Given:
    """Hands out the same normal draws at every call."""

    def __init__(self, z):
        self.z = z

    def normal(self, like):
        return self.z.expand(like.shape)


@pytest.mark.parametrize(
    ("weighting", "w"), [("kl", lambda s: 1 / s), ("linear", lambda s: s), ("const", lambda s: 1.0)]
)
def test_the_stationary_point_of_red_diff_is_the_stated_one_over_all_levels(weighting, w):
    """(v A^T A + R)(mu - m) = v A^T (y - A m), R the mean over the levels of lam w
    sigma (C + sigma^2 I)^-1: there the mean gradient, read off the steps (g = (mu - mu') / rate H,
    and linear in z, so that z = 0 is its mean), vanishes."""
    post, lam, rate, eye = bed("general"), 0.7, 0.3, torch.eye(6, dtype=F64)
    A = matrix(post.likelihood.A)
    y = post.likelihood.y
    m = post.prior.mean
    v = post.likelihood.std**-2
    levels = [float(s) for s in po.grid.karras(12, 5.0, 0.1)[:-1]]
    R = sum(
        lam * w(s) * s * torch.linalg.inv(post.prior.covariance + s**2 * eye) for s in levels
    ) / len(levels)
    stated = m + torch.linalg.solve(v * A.T @ A + R, v * A.T @ (y - A @ m))
    method = methods.REDDiff(weighting, lam=lam, rate=rate)

    def gradient(mu):
        total = torch.zeros(6, dtype=F64)
        for s in levels:
            level = torch.tensor(s, dtype=F64)
            state = method.init(post, mu[None], None)._replace(mu=mu[None])
            ahead = method.step(post, state, level, level / 2, Given(torch.zeros(1, 6, dtype=F64)))[
                0
            ].mu[0]
            total += (lam * w(s) / s * eye + v * A.T @ A) @ (mu - ahead) / rate
        return total / len(levels)

    assert float(gradient(stated).norm()) < 1e-8 * float(gradient(m).norm())
    assert float(gradient(m + 1.1 * (stated - m)).norm()) > 1e-3 * float(gradient(m).norm())


def line(shift=0.0):
    """Two Gaussians on a line; ``shift``: their denoiser is wrong by shift
    sigma^2 / (1 + sigma^2)."""
    prior = po.priors.GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=F64),
        torch.tensor([[-1.0], [1.5]], dtype=F64),
        torch.tensor([[[0.3]], [[0.6]]], dtype=F64),
    )
    right = prior.denoise
    prior.denoise = lambda x, sigma: right(x, sigma) + shift * sigma**2 / (1 + sigma**2)
    return prior


def bound(prior, x, points=60):
    """Its exact mean over the noise, by Gauss and Hermite's quadrature; from 0.03, below which the
    mixture is locally one Gaussian."""
    at, weight = np.polynomial.hermite_e.hermegauss(points)
    z = torch.from_numpy(at).repeat(len(x))[:, None]
    values = densities.evidence_bound(
        prior, x.repeat_interleave(points, 0), Given(z), nodes=64, sigma_min=1e-3, sigma_max=2e3
    )
    return values.view(len(x), points) @ torch.from_numpy(weight / weight.sum())


def test_the_bound_of_a_mixture_is_tight_for_its_score_and_below_for_another():
    x = torch.linspace(-2.5, 3.5, 13, dtype=F64)[:, None]
    right, exact = line(), line().log_prob(x)
    assert float((bound(right, x) - exact).abs().max()) < 1e-4
    # A bound on average over x ~ p, as it is stated: the mean lies below by int (shift
    # sigma^2 / (1 + sigma^2))^2 / sigma^2 dt.
    at = torch.linspace(-7, 9, 801, dtype=F64)[:, None]
    p = right.log_prob(at).exp() * 0.02
    lower = float(p @ bound(line(0.4), at))
    assert lower == pytest.approx(float(p @ right.log_prob(at)) - 0.16 / 2, abs=1e-3)


# LOST MODES
# --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the evidence bound")
def test_a_lost_mode_is_said_in_the_summary_and_a_good_fit_is_not_accused():
    post = two_modes(8)
    lost = po.sample(
        post,
        methods.ScorePriorVI("low-rank", draws=128, rank=2, polish=200, rate=1e-2),
        n=256,
        steps=20,
        seed=0,
    )
    record = summary(lost, post)
    assert record["evidence_gap"] == pytest.approx(float(lost.trace["gap"][-1].max()))
    assert record["evidence_gap"] > 0.3
    assert [f for f in record["flags"] if "modes" in f and "were lost" in f]
    near = bed("white")
    good = po.sample(
        near,
        methods.ScorePriorVI("low-rank", draws=128, rank=6, rate=2e-2, polish=400),
        n=128,
        steps=20,
        seed=0,
    )
    record = summary(good, near)
    assert record["evidence_gap"] < 0.3
    assert not [f for f in record["flags"] if "were lost" in f]
    assert summary(po.sample(near, methods.PiGDM(), n=4, steps=5), near)["evidence_gap"] is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1000, 2000])
def test_both_modes_are_kept_eight_deviations_apart_on_seeds_that_nothing_was_chosen_on(seed):
    """The masses of q itself scatter by 0.04 and are within 0.05 four times in five; its weighted
    draws always are."""
    plain, weighted, truth, _, info = fitted(
        8, steps=60, seed=seed, draws=512, updates=30, rate=2e-3
    )
    assert int(((plain - truth).abs() < 0.05).sum()) >= 4, plain
    assert bool(((weighted - truth).abs() < 0.05).all()), weighted
    assert float(info["gap"].max()) < 0.3
