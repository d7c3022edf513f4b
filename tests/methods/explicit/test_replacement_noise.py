"""Replacement by a noisy measurement: the default of ScoreSDE, ILVR, MCG and RePaint, which weighs
y against the image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import bed
from reference import F64, images

import posteriori as po
from posteriori import methods
from posteriori.methods.explicit.scoresde import replace_measured
from posteriori.noise import Gaussian
from posteriori.rng import Streams

SIGMA, S = torch.tensor(0.9, dtype=F64), torch.tensor(0.6, dtype=F64)
ALL = {
    "ScoreSDE": methods.ScoreSDE(),
    "MCG": methods.MCG(),
    "RePaint": methods.RePaint(3),
    "ILVR": methods.ILVR(),
}
PUBLISHED = {f"{name} published": type(method).published() for name, method in ALL.items()}


def hard(method):
    """The same method with y taken as noiseless."""
    return replace(method, noise="ignored")


def replaced(post, x, z):
    """(I - A^+ A) x + A^+ (y + s A z) with dense matrices."""
    A = po.operators.matrix(post.likelihood.A)
    P = torch.linalg.pinv(A) @ A
    return x - x @ P.T + torch.linalg.pinv(A) @ post.likelihood.y + float(S) * z @ P.T


def damped(post, x, s, z, n, share):
    """x + k (u / a + s z + sqrt(2 / c - 1) v / a n - x), k = c s^2 / (c s^2 + v^2 / a^2), along
    each singular vector of A."""
    U, a, Vh = torch.linalg.svd(po.operators.matrix(post.likelihood.A), full_matrices=False)
    tau = (post.likelihood.std / a) ** 2
    k = share * float(s) ** 2 / (share * float(s) ** 2 + tau)
    told = (
        post.likelihood.y @ U / a
        + float(s) * z @ Vh.T
        + (2 / share - 1) ** 0.5 * tau.sqrt() * (n @ U)
    )
    return x + (k * (told - x @ Vh.T)) @ Vh


def test_a_noisy_measurement_is_weighed_against_the_image():
    post = bed()
    x, share = images(post, SIGMA), 1 - float(S / SIGMA) ** 2
    for method in (methods.ScoreSDE(), methods.ILVR(), methods.RePaint(1), methods.MCG(scale=0.0)):
        ours, _ = method.step(post, x, SIGMA, S, Streams(4, range(3)))
        rng = Streams(4, range(3))
        moved = (
            (1 - share) * x
            + share * post.prior.denoise(x, SIGMA)
            + float(S) * share**0.5 * rng.normal(x)
        )
        z, n = rng.normal(x), rng.normal(post.likelihood.y.expand(3, -1))
        torch.testing.assert_close(ours, damped(post, moved, S, z, n, share))
    assert float((ours - replaced(post, moved, z)).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ALL | PUBLISHED)
def test_little_noise_is_no_noise_and_the_papers_settings_never_look(name):
    post, x = bed(), images(bed(), SIGMA)
    at = {
        v: po.Posterior(post.prior, replace(post.given, noise=Gaussian(v)))
        for v in (0.0, 1e-12, 0.1)
    }
    method = (ALL | PUBLISHED)[name]
    none, tiny, some = (
        replace_measured(p, x, SIGMA, S, Streams(4, range(3)), method.noise) for p in at.values()
    )
    torch.testing.assert_close(none, tiny, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(none, replaced(post, x, Streams(4, range(3)).normal(x)))
    assert torch.equal(none, some) is name.endswith("published")


def test_the_variance_around_the_image_stays_that_of_the_level():
    """x' = x0 + s e and y = A x0 + v n with independent errors: whatever the share, the error keeps
    its variance s^2 in each direction."""
    n, x0 = 40000, torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    prior = po.priors.Gaussian(torch.zeros(3, dtype=F64), 1.0)
    A = po.operators.Dense(torch.diag(torch.tensor([3.0, 0.2, 0.0], dtype=F64)))
    g = torch.Generator().manual_seed(0)
    draws = torch.randn(2, n, 3, dtype=F64, generator=g)
    for sigma in (0.61, 0.9, 50.0):
        # The rule is affine in y: the part of the error that the noise of y makes is k v n / a,
        # added below with one n for each row.
        post = po.Posterior(prior, po.Likelihood(A(x0[None])[0], A, Gaussian(0.1)))
        x = x0 + 0.6 * draws[0]
        out = replace_measured(post, x, torch.tensor(sigma, dtype=F64), S, Streams(1, range(n)))
        share, a2 = 1 - 0.36 / sigma**2, torch.tensor([9.0, 0.04, 0.0], dtype=F64)
        k = share * 0.36 * a2 / (share * 0.36 * a2 + 0.01)
        told = k * 0.1 * draws[1] / torch.tensor([3.0, 0.2, 1.0], dtype=F64)
        error = out - x0 + told
        assert float((error.var(0) / 0.36 - 1).abs().max()) < 4 * (2 / n) ** 0.5
        assert float((error.mean(0).abs() / 0.6).max()) < 4 / n**0.5


def faint(sigma=0.05):
    """32 numbers under a symmetric matrix with singular values from 1 to 1e-8, and its singular
    vectors."""
    W = torch.linalg.qr(torch.randn(32, 32, dtype=F64, generator=torch.Generator().manual_seed(2)))[
        0
    ]
    A = po.operators.Dense((W * torch.logspace(0, -8, 32, dtype=F64)) @ W.T)
    prior = po.priors.Gaussian(torch.zeros(32, dtype=F64), 0.25)
    y = A(prior.sample(1, 0))[0] + sigma * torch.randn(
        32, dtype=F64, generator=torch.Generator().manual_seed(3)
    )
    return po.Posterior(prior, po.Likelihood(y, A, Gaussian(sigma))), W


def test_what_is_measured_far_below_its_noise_is_left_alone():
    post, W = faint()
    x = images(post, SIGMA)
    out = replace_measured(post, x, SIGMA, S, Streams(4, range(3)))
    moved = ((out - x) @ W).abs().amax(0)
    assert float(moved[0]) > 0.1
    assert float(moved[-1]) < 1e-5
    last = torch.tensor(0.0, dtype=F64)
    assert torch.equal(replace_measured(post, x, S, last, Streams(4, range(3))), x)


@pytest.mark.parametrize("steps", [10, 300])
@pytest.mark.parametrize("name", ALL)
def test_noise_is_not_magnified_by_singular_values_near_zero(name, steps):
    post, _ = faint()
    method = ALL[name]
    x = po.sample(post, method, n=20, steps=steps, seed=0).samples
    assert float(x.abs().max()) < 6 * 0.5
    if steps == 10:
        assert (
            float(po.sample(post, hard(method), n=2, steps=steps, seed=0).samples.abs().max()) > 1e3
        )
