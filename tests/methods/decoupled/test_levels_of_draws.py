"""At which noise levels the parts of a step draw, and with which constants their densities are
stated."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from cases import bed
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.methods.smc import statistical_linearisation
from posteriori.noise import Poisson
from posteriori.rng import Streams


class Still:
    """Random numbers that are all 0: what is drawn is then the mean."""

    def normal(self, like):
        return torch.zeros_like(like)

    def uniform(self, count):
        return torch.full((1, count), 0.5, dtype=F64)


def dense(post):
    return po.operators.matrix(post.likelihood.A), post.likelihood.y, post.likelihood.std


@pytest.mark.parametrize("floor", [0.0, 0.4, 2.0])
def test_split_gibbs_draws_the_prior_at_this_level_and_the_data_at_the_next(floor):
    """z = D(x, max(sigma, floor)), then the mean of N(z, max(s, floor)^2 I) p(y | x)."""
    post, sigma, s = bed(), torch.tensor(0.9, dtype=F64), torch.tensor(0.3, dtype=F64)
    A, y, std = dense(post)
    x = post.prior.sample(1, 5)
    found, _ = methods.PnPDM(prior="exact", floor=floor).step(post, x, sigma, s, Still())
    z = post.prior.denoise(x, torch.tensor(max(0.9, floor), dtype=F64))
    r2 = max(0.3, floor) ** 2
    gain = r2 * A.T @ torch.linalg.inv(r2 * A @ A.T + std**2 * torch.eye(len(y), dtype=F64))
    torch.testing.assert_close(found[0], z[0] + gain @ (y - A @ z[0]))
    last, _ = methods.PnPDM(prior="exact", floor=floor).step(
        post, x, sigma, torch.tensor(0.0, dtype=F64), Still()
    )
    torch.testing.assert_close(last, z)


@pytest.mark.parametrize("width", ["matched", "widest", "sigma", "unit"])
def test_decoupled_annealing_draws_at_this_level_and_puts_the_noise_of_the_next_on(width):
    post, sigma, s = bed(), torch.tensor(0.9, dtype=F64), torch.tensor(0.3, dtype=F64)
    A, y, std = dense(post)
    x = post.prior.sample(1, 5)
    method = methods.DAPS(width=width)
    found, _ = method.step(post, x, sigma, s, Still())
    z = post.prior.denoise(x, sigma)
    known = post.prior.know()
    r2 = {
        "matched": known.error(sigma),
        "widest": known.max_variance(sigma),
        "sigma": 0.81,
        "unit": 0.81 / 1.81,
    }[width]
    gain = r2 * A.T @ torch.linalg.inv(r2 * A @ A.T + std**2 * torch.eye(len(y), dtype=F64))
    torch.testing.assert_close(found[0], z[0] + gain @ (y - A @ z[0]))
    # The last normal numbers are those put on, s times.
    noisy, _ = method.step(post, x, sigma, s, Streams(3, [0]))
    rng = Streams(3, [0])
    clean, _ = method.step(post, x, sigma, torch.tensor(0.0, dtype=F64), rng)
    torch.testing.assert_close(noisy, clean + 0.3 * rng.normal(clean))


@pytest.mark.parametrize("peak", [5.0, 40.0])
@pytest.mark.parametrize("clean", [0.0, 0.02, 0.7, 3.0])
def test_photon_counts_have_total_probability_one(peak, clean):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        law = Poisson(peak)
    counts = torch.arange(400, dtype=F64)
    log_p = law.log_prob((counts / peak)[:, None], torch.full((400, 1), clean, dtype=F64))
    p = log_p.exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-10)
    assert float(p @ counts) == pytest.approx(peak * clean, abs=1e-9)
    assert float(p @ (counts - peak * clean).square()) == pytest.approx(peak * clean, abs=1e-8)


@pytest.mark.parametrize("draws", [2, 4, 20])
def test_the_covariance_by_draws_divides_by_their_number(draws):
    """The mean of pairs D +- r z is known, so that with a linear A the covariance is r^2 A
    (sum z z^T / pairs) A^T: none is given up."""
    post, sigma = bed(), torch.tensor(0.8, dtype=F64)
    A, y, std = dense(post)
    x0, r2 = post.prior.sample(3, 2), post.prior.know().max_variance(sigma)
    z = Streams(statistical_linearisation.SEED, range(draws // 2)).normal(
        x0[:1].expand(draws // 2, -1)
    )
    S = std**2 * torch.eye(len(y), dtype=F64) + r2 * A @ (z.T @ z / (draws // 2)) @ A.T
    gap = y - x0 @ A.T
    misfit = (gap * torch.linalg.solve(S, gap.T).T).sum(1)
    wanted = -0.5 * (misfit + torch.linalg.slogdet(S)[1] + len(y) * math.log(2 * math.pi))
    torch.testing.assert_close(statistical_linearisation.log_says(post, x0, sigma, draws), wanted)
