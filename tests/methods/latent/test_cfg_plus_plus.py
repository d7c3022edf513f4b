"""CFG++ is classifier-free guidance of a strength that follows the steps, and DPS where there is no
condition."""

from __future__ import annotations

import pytest
import torch
from cases import bed, mixture
from reference import F64, draw, level

import posteriori as po
from posteriori.methods import DDIM, DPS, CFGPlusPlus, Unconditional
from posteriori.operators.null import Null
from posteriori.rng import Streams

LAMBDAS = (0.0, 0.3, 0.6, 1.0)


def guided(guidance):
    prior = mixture()
    return prior.conditioned(
        weights=torch.eye(3, dtype=F64)[1], negative={"weights": prior.weights}, guidance=guidance
    )


def post(prior, A=None, y=None, sigma=0.4):
    A = Null(prior.shape) if A is None else A
    y = torch.zeros(A.out_shape, dtype=F64) if y is None else y
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma)))


def stepped(prior, method, x, sigma, s):
    return method.step(post(prior), x, level(sigma), level(s), Streams(0, range(len(x))))[0]


@pytest.mark.parametrize("w", LAMBDAS)
@pytest.mark.parametrize(("sigma", "s"), [(3.0, 2.7), (1.0, 0.4), (0.5, 0.0)])
def test_it_is_guidance_of_a_strength_that_follows_the_step(w, sigma, s):
    """omega = w sigma / (sigma - s), which is w on the last step and 0 for w = 0."""
    x = draw(4, 4, seed=2)
    found = stepped(guided(w), CFGPlusPlus(), x, sigma, s)
    omega = w * sigma / (sigma - s)
    wanted = stepped(guided(omega), Unconditional(DDIM(eta=0.0)), x, sigma, s)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
    if w == 0:
        plain = stepped(mixture(), Unconditional(DDIM(eta=0.0)), x, sigma, s)
        torch.testing.assert_close(found, plain, rtol=1e-11, atol=1e-11)


def test_fresh_noise_keeps_the_level():
    """With a prior of no spread the image at the level s is noise of that level, for any eta."""
    prior = po.priors.Gaussian(torch.zeros(3, dtype=F64), 1e-12)
    narrow = prior.conditioned(mean=torch.zeros(3, dtype=F64), guidance=0.6)
    x = 2.0 * draw(20_000, 3, seed=3)
    for eta in (0.0, 0.5, 1.0):
        out = stepped(narrow, CFGPlusPlus(eta=eta), x, 2.0, 1.2)
        # 60,000 numbers: the variance of one draw is known to sqrt(2 / 60,000) = 0.58 %.
        assert float(out.var()) == pytest.approx(1.44, rel=6 * 0.0058)


def test_without_a_condition_it_is_dps_by_ddim():
    problem = bed()
    how = {"n": 3, "steps": 7, "seed": 4}
    ours, theirs = (
        po.sample(problem, method, **how).samples
        for method in (CFGPlusPlus(), DPS(transition=DDIM(eta=0.0)))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_data_steer_the_guided_image_and_the_unconditional_one_tells_the_noise():
    """By hand, for Gaussians: D_c and D_0 are affine, with Jacobians J_c and J_0."""
    a, b, w, sigma, s, std = 0.8, 2.5, 0.6, level(1.5), level(0.9), 0.4
    shift = torch.tensor([1.0, -2.0], dtype=F64)
    prior = po.priors.GaussianMixture(
        torch.tensor([0.5, 0.5], dtype=F64),
        torch.stack([torch.zeros(2, dtype=F64), shift]),
        torch.eye(2, dtype=F64).expand(2, 2, 2) * a,
    )
    guided = prior.conditioned(
        weights=torch.tensor([0.0, 1.0], dtype=F64),
        negative={"weights": torch.tensor([1.0, 0.0], dtype=F64)},
        guidance=w,
    )
    matrix = torch.tensor([[b, 0.5]], dtype=F64)
    y, x = torch.tensor([0.7], dtype=F64), draw(3, 2, seed=1)
    problem = post(guided, po.operators.Dense(matrix), y, std)
    found, _ = CFGPlusPlus(scale=0.5).step(problem, x, sigma, s, Streams(0, range(3)))
    k = a / (a + float(sigma) ** 2)
    free, given = k * x, shift + k * (x - shift)
    D = free + w * (given - free)
    c = guided.know().max_std ** 2
    r2 = c * float(sigma) ** 2 / (c + float(sigma) ** 2)
    variance = std**2 + r2 * float(matrix.square().sum())
    steer = 0.5 * float(sigma) ** 2 * k * ((y - D @ matrix.T) / variance) @ matrix
    wanted = D + steer + float(s / sigma) * (x - free)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_step_costs_two_passes_and_two_products():
    run = po.sample(post(guided(0.6)), CFGPlusPlus(), n=2, steps=5, seed=0)
    assert (run.counts["denoiser"], run.counts["vjp"]) == (10, 10)
