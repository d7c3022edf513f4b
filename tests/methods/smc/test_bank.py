"""MomentSMC from a bank of the prior's own images: few calls, right masses, levels where the bank
does not reach."""

from __future__ import annotations

import pytest
import torch
from cases import bed
from reference import F64

import posteriori as po
from posteriori.evaluation import exact_posterior, sliced_wasserstein
from posteriori.methods import MomentSMC
from posteriori.methods.smc.moments.bank import BankOf, looks
from posteriori.priors.base import bank_images
from posteriori.tasks import beds


def test_of_many_modes_one_level_is_left_and_masses_and_evidence_are_right():
    problem = beds.gmm25(8, 1, 103, "extended")
    method = MomentSMC(1000, bank=8192)
    run = po.sample(problem.posterior, method, n=1000, steps=20, batch=1000)
    exact = exact_posterior(problem.posterior)
    truth = exact.sample(1000, 1)
    floor = sliced_wasserstein(exact.sample(1000, 2), truth)
    assert len(run.config["levels"]) == 2
    # D twice; at most 1 + 8 products for one number of y; the pilot's 16 images at 23 levels.
    assert run.counts["denoiser"] < 3
    assert run.counts["vjp"] < 1 + 8 + 0.016 * 24 * 14
    assert sliced_wasserstein(run.samples, truth) < 2.5 * floor
    assert run.log_evidence == pytest.approx(exact.log_evidence, abs=0.2)
    masses = torch.cdist(run.samples, exact.mixture.means).argmin(1).bincount(minlength=25) / 1000
    assert float((masses - exact.mixture.weights).abs().max()) < 0.06
    assert len(run.samples.unique(dim=0)) == 1000


class Counted(po.priors.Prior):
    """N(0, I) in R^3, without a closed form; it counts the rows that it denoises."""

    def __init__(self):
        super().__init__((3,), variance=1.0, max_std=1.0, sigma_max=20.0, sigma_min=0.05)
        self._rows = [0]

    def denoise(self, x, sigma):
        self._rows[0] += len(x)
        return x / (1 + sigma.to(x) ** 2)


def test_a_bank_is_drawn_once_and_its_calls_are_not_those_of_a_run():
    prior = Counted()
    A = po.operators.Dense(torch.tensor([[1.0, 0.5, 0.0]], dtype=F64))
    y = torch.tensor([0.7], dtype=F64)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.5)))
    method, rows, runs = MomentSMC(16, bank=64), [], []
    for _ in range(2):
        prior._rows[0] = 0
        runs.append(po.sample(post, method, n=32, steps=3))
        rows.append(prior._rows[0])
    assert rows[1] == 32 * runs[1].counts["denoiser"]
    assert rows[0] - rows[1] == 99 * 64
    assert torch.equal(runs[0].samples, runs[1].samples)
    assert runs[0].counts == runs[1].counts
    assert not torch.equal(bank_images(prior, 64, (3,)), prior.sample(64, 0))


def test_levels_begin_where_the_bank_reaches_and_end_where_the_prior_is_gaussian():
    """Of 512 images of two modes 40 apart too few agree with y at the lowest level, of 8192 enough
    do. A Gaussian prior bends nowhere."""
    means = torch.tensor([[-20.0, 0.0], [20.0, 0.0]], dtype=F64)
    prior = po.priors.GaussianMixture(torch.tensor([0.9, 0.1], dtype=F64), means, 1.0)
    A = po.operators.Dense(torch.tensor([[0.5, 1.0]], dtype=F64))
    y = torch.tensor([10.0], dtype=F64)
    post = po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.5)))
    few, many = (MomentSMC(256, bank=M).levels(post, 20) for M in (512, 8192))
    assert len(many) == 2
    assert 1 < float(many[0]) < 20
    assert 2 < len(few) <= 21
    assert float(few[-2]) == pytest.approx(float(many[0]), rel=1.5)
    assert float(few[0]) > 2 * float(many[0])
    assert bool((few[1:] < few[:-1]).all())
    assert len(MomentSMC(64, bank=512).levels(bed("general"), 20)) == 2


def test_images_near_y_tell_the_covariance_of_y_given_x():
    """Of a Gaussian prior it is the same for all x, in closed form."""
    post, level = bed("general"), torch.tensor(0.7, dtype=F64)
    bank = post.once(BankOf(256))
    _, V = next(looks(post, bank, level[None], rows=5))
    C = post.prior.covariance
    S = C - C @ torch.linalg.solve(C + 0.49 * torch.eye(len(C), dtype=F64), C)
    A = post.likelihood.A.matrix
    torch.testing.assert_close(
        V, A @ S @ A.T + post.likelihood.std**2 * torch.eye(len(A), dtype=F64)
    )
    # The bank is whole: only its order changes.
    torch.testing.assert_close(
        bank.images.sort(0).values, bank_images(post.prior, 256, post.shape).sort(0).values
    )
    near = bank.near(post)
    miss = [
        float((post.likelihood.y - x @ A.T).square().sum(1).mean()) for x in (near, bank.images)
    ]
    assert miss[0] < 0.5 * miss[1]
