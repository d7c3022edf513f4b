"""MMD, central moments, KSD and RMSE against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from posteriori.evaluation import discrepancies as dis
from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Gaussian
from posteriori.operators import Dense
from posteriori.priors import mixture


def normal(n, d, seed, mean=0.0, std=1.0):
    return mean + std * torch.randn(
        n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def expected_kernel(gap2, variance, d, h):
    """E exp(-||x - y||^2 / h) for x - y ~ N(gap, variance I)."""
    return (h / (h + 2 * variance)) ** (d / 2) * math.exp(-gap2 / (h + 2 * variance))


@pytest.mark.parametrize("kernels", [1, 5])
def test_mmd_of_two_gaussians(kernels):
    n, d, shift, h = 3000, 3, 0.7, 4.0
    a, b = normal(n, d, 0, mean=shift, std=1.5), normal(n, d, 1)
    want = 0.0
    for j in range(kernels):
        w = h * 2.0 ** (j - kernels // 2)
        aa, bb = expected_kernel(0, 2 * 2.25, d, w), expected_kernel(0, 2.0, d, w)
        # Pairs of a sample with itself count as 1.
        want += (
            aa + (1 - aa) / n + bb + (1 - bb) / n - 2 * expected_kernel(d * shift**2, 3.25, d, w)
        )
    assert dis.mmd(a, b, bandwidth=h, kernels=kernels) == pytest.approx(want, rel=0.1)


def test_mmd_of_exact_samples_and_its_bandwidth(monkeypatch):
    a, b = normal(400, 2, 0), normal(500, 2, 1)
    assert dis.mmd(a, a) == pytest.approx(0, abs=1e-12)
    h = float((b[:, None] - b[None]).square().sum(-1).sum() / (500 * 499))
    assert dis.mean_distance(b, squared=True) == pytest.approx(h)
    value = dis.mmd(a, b)
    assert (
        value == pytest.approx(dis.mmd(a, b, bandwidth=h)) == pytest.approx(dis.mmd(3 * a, 3 * b))
    )
    monkeypatch.setattr(dis, "_PAIRS", 7 * 500)
    assert dis.mmd(a, b) == pytest.approx(value)


def test_central_moments_of_a_shift_and_a_stretch():
    x = normal(200, 3, 0)
    x = x - x.mean(0)
    assert dis.central_moment_discrepancy(x + 2.0, x, span=4.0) == pytest.approx(2 * 3**0.5 / 4)
    want = sum(float(((2**k - 1) * x.pow(k).mean(0)).norm()) / 4.0**k for k in range(2, 6))
    assert dis.central_moment_discrepancy(2 * x, x, span=4.0) == pytest.approx(want)
    span = 4 * float(x.std(0).max())
    assert dis.central_moment_discrepancy(2 * x, x) == pytest.approx(
        dis.central_moment_discrepancy(2 * x, x, span=span)
    )


@pytest.mark.parametrize(("c", "beta"), [(1.0, -0.5), (0.7, -0.3)])
def test_ksd_is_the_stein_kernel_written_out(c, beta, monkeypatch):
    x, s = normal(6, 3, 0), normal(6, 3, 1)

    def k(p, q):
        return (c**2 + (p - q).square().sum()) ** beta

    total = 0.0
    for i in range(6):
        for j in range(6):
            p, q = x[i].clone().requires_grad_(), x[j].clone().requires_grad_()
            gp, gq = torch.autograd.grad(k(p, q), (p, q), create_graph=True)
            trace = sum(torch.autograd.grad(gp[m], q, retain_graph=True)[0][m] for m in range(3))
            total += float((s[i] @ s[j] * k(p, q) + s[i] @ gq + s[j] @ gp + trace).detach())
    want = (total / 3) ** 0.5 / 6
    assert dis.ksd(x, lambda _: s, c=c, beta=beta) == pytest.approx(want)
    monkeypatch.setattr(dis, "_PAIRS", 12)
    assert dis.ksd(x, lambda _: s, c=c, beta=beta) == pytest.approx(want)


def test_ksd_of_exact_samples_is_that_of_the_diagonal_and_a_shift_is_seen():
    n, d, c = 300, 4, 0.7
    exact = [dis.ksd(normal(n, d, seed), lambda x: -x, c=c) ** 2 for seed in range(40)]
    want = (d * c**-1 + d * c**-3) / (n * d)
    assert sum(exact) / 40 == pytest.approx(want, rel=0.15)
    assert dis.ksd(normal(n, d, 0, mean=0.5), lambda x: -x, c=c) ** 2 > 5 * want
    assert dis.ksd(normal(n, d, 0, std=0.5), lambda x: -x, c=c) ** 2 > 5 * want


def test_posterior_score_is_that_of_the_closed_form():
    A = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
    prior = mixture.GaussianMixture(
        torch.tensor([0.3, 0.7]).double(),
        normal(2, 3, 0, std=2.0),
        torch.tensor([[1.0, 2.0, 0.5]]).double(),
    )
    post = Posterior(
        prior, Likelihood(torch.tensor([0.4], dtype=torch.float64), Dense(A), Gaussian(0.5))
    )
    exact, _ = prior.condition(A, post.likelihood.y, 0.5)
    x = normal(5, 3, 1).requires_grad_()
    (want,) = torch.autograd.grad(exact.log_prob(x).sum(), x)
    torch.testing.assert_close(dis.posterior_score(post)(x), want)


def test_rmse_is_of_single_samples():
    x = torch.tensor([[1.0, 3.0], [-1.0, -3.0]])
    assert dis.rmse(x, torch.zeros(2)) == pytest.approx(5**0.5)


def test_mistakes_are_named():
    x = normal(5, 2, 0)
    with pytest.raises(ValueError, match="bandwidth > 0"):
        dis.mmd(x, x, bandwidth=0.0)
    with pytest.raises(ValueError, match="two different samples"):
        dis.mmd(x, torch.ones(3, 2))
    with pytest.raises(ValueError, match="different spaces"):
        dis.mmd(x, normal(5, 3, 0))
    with pytest.raises(ValueError, match="span > 0"):
        dis.central_moment_discrepancy(x, torch.ones(3, 2))
    with pytest.raises(ValueError, match="-1 < beta < 0"):
        dis.ksd(x, lambda x: -x, beta=0.5)
