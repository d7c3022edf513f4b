"""What methods for unknown instruments share: draws of image and parameters against dense algebra,
and the exact law of the parameters."""

import math

import pytest
import torch
from blind import blind_post, kernels_post, wide_post
from reference import draw

import posteriori as po
from posteriori.evaluation.blind import known_instrument, parameter_probabilities
from posteriori.methods.blind import pair as pairs
from posteriori.methods.blind.pair import blind_pair, draw_parameters
from posteriori.methods.data_steps.elliptical_slice import elliptical_slice
from posteriori.rng import Streams

F64 = torch.float64


class Given:
    """Random numbers that are given, one tensor a call."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def normal(self, like):
        z = self.numbers.pop(0)
        assert z.shape == like.shape
        return z


def law(draw_with, first, second):
    """Mean and covariance of what is affine in two normal tensors of shapes ``first`` and
    ``second``: exact, from their unit vectors as rows of one batch."""
    a, b = math.prod(first), math.prod(second)
    eye = torch.eye(a + b, dtype=F64)
    units = torch.cat([torch.zeros(1, a + b, dtype=F64), eye])
    out = draw_with(Given(units[:, :a].view(-1, *first), units[:, a:].view(-1, *second))).flatten(1)
    steps = out[1:] - out[0]
    return out[0], steps.T @ steps


@pytest.mark.parametrize("dense", [True, False])
def test_the_image_is_drawn_from_the_product_of_spring_and_likelihood(monkeypatch, dense):
    """By dense matrices and by the spectrum of the known blur: the conjugate mean and
    covariance, with a noise level of the row's own."""
    monkeypatch.setattr(pairs, "_DENSE", 100 if dense else 0)
    post = blind_post(side=4)
    pair, r2, s = blind_pair(post), 0.3, 0.05
    m, phi = 0.4 * draw(1, 1, 4, 4), draw(1, 3, 3, seed=1).abs() / 9
    rows = 33
    mean, covariance = law(
        lambda rng: pair.draw_images(
            m.expand(rows, -1, -1, -1), phi.expand(rows, -1, -1), r2, torch.full((rows,), s), rng
        ),
        (1, 4, 4),
        (1, 4, 4),
    )
    # In the prior's coordinates v, x = (v + 1) / 2.
    M = 0.5 * pair.matrices(phi)[0]
    y = (post.given.y - pair.A.apply(torch.full((1, 1, 4, 4), 0.5, dtype=F64), phi)[0]).flatten()
    Q = torch.eye(16, dtype=F64) / r2 + M.T @ M / s**2
    wanted = torch.linalg.solve(Q, m.flatten() / r2 + M.T @ y / s**2)
    torch.testing.assert_close(mean, wanted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(covariance, torch.linalg.inv(Q), rtol=1e-5, atol=1e-7)


def test_a_kernel_is_drawn_from_the_product_of_spring_and_likelihood():
    """y is linear in it: mean and covariance of the regression on the image's shifts."""
    post = blind_post(side=4)
    pair, r2, s, rows = blind_pair(post), 0.02, 0.05, 26
    x, m = 0.5 + 0.2 * draw(1, 1, 4, 4), draw(1, 3, 3, seed=1) / 9
    mean, covariance = law(
        lambda rng: draw_parameters(
            pair,
            x.expand(rows, -1, -1, -1),
            m.expand(rows, -1, -1),
            m.expand(rows, -1, -1),
            r2,
            torch.full((rows,), s, dtype=F64),
            rng,
            1,
        ),
        (3, 3),
        (1, 4, 4),
    )
    X = torch.stack([pair.A.apply(x, e.view(3, 3)).flatten() for e in torch.eye(9, dtype=F64)], 1)
    Q = torch.eye(9, dtype=F64) / r2 + X.T @ X / s**2
    wanted = torch.linalg.solve(Q, m.flatten() / r2 + X.T @ post.given.y.flatten() / s**2)
    torch.testing.assert_close(mean, wanted, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(covariance, torch.linalg.inv(Q), rtol=1e-5, atol=1e-8)


def test_elliptical_slices_leave_a_law_unchanged_and_find_it_from_afar():
    """N(0, C) times a Gaussian likelihood in two numbers: moments within 4.5 standard errors."""
    n, C = 4000, torch.tensor([[1.0, 0.5], [0.5, 0.8]], dtype=F64)
    w, s = torch.tensor([1.0, -2.0], dtype=F64), 0.4
    root, Q = torch.linalg.cholesky(C), torch.linalg.inv(C) + torch.outer(w, w) / s**2
    mean, V = torch.linalg.solve(Q, w * 1.5 / s**2), torch.linalg.inv(Q)

    def log_like(f):
        return -0.5 * ((f @ w - 1.5) / s).square()

    for moves, start in ((1, True), (30, False)):
        rng = Streams(moves, range(n))
        z = rng.normal(torch.zeros(n, 2, dtype=F64))
        f = mean + z @ torch.linalg.cholesky(V).T if start else 0 * z + 3.0
        before = f
        for _ in range(moves):
            f = elliptical_slice(log_like, f, rng.normal(f) @ root.T, rng)
        assert bool((f != before).all())  # a bracket that closes around the row never loses it
        off = (f.mean(0) - mean) / (V.diagonal() / n).sqrt()
        wide = (f.var(0) / V.diagonal() - 1) / (2 / n) ** 0.5
        assert float(torch.cat([off, wide]).abs().max()) < 4.5


def test_a_row_of_elliptical_slices_does_not_depend_on_its_batch():
    def log_like(f):
        return -50 * (f[:, 0] - 1).square()

    f = draw(3, 1)
    whole = elliptical_slice(log_like, f, draw(3, 1, seed=1), Streams(0, range(3)))
    alone = elliptical_slice(log_like, f[1:2], draw(3, 1, seed=1)[1:2], Streams(0, [1]))
    assert torch.equal(whole[1:2], alone)


def test_the_law_of_the_width_is_the_evidence_of_each_by_dense_matrices():
    post = wide_post()
    pair = blind_pair(post)
    grid = torch.linspace(-1, 1, 9, dtype=F64)[:, None]
    C, y = post.prior.priors[0].covariance, post.given.y.flatten()
    logs = []
    for phi in grid:
        A = pair.matrices(phi[None])[0]
        S = A @ C @ A.T + 0.05**2 * torch.eye(36, dtype=F64)
        gauss = torch.distributions.MultivariateNormal(torch.zeros(36, dtype=F64), S)
        logs.append(gauss.log_prob(y) - 0.5 * phi[0] ** 2 / 0.4**2)
    wanted = torch.stack(logs).softmax(0)
    torch.testing.assert_close(parameter_probabilities(post, grid), wanted, rtol=1e-5, atol=1e-7)


def test_of_a_finite_set_of_kernels_widths_are_told_and_shifts_tie():
    """An image on a ring may be shifted as well as its kernel: both have probability one half."""
    for truth, wanted in ((0, [1, 0, 0, 0]), (1, [0, 0.5, 0, 0.5]), (2, [0, 0, 1, 0])):
        post, kernels = kernels_post(truth=truth)
        p = parameter_probabilities(post, kernels, torch.zeros(4))
        torch.testing.assert_close(p, torch.tensor(wanted, dtype=F64), rtol=0, atol=5e-3)
        assert float(p[1]) == pytest.approx(float(p[3]), rel=1e-6, abs=1e-12)
    exact = known_instrument(post, kernels[2])
    assert exact.mean.shape == (1, 1, 24)


def test_a_posterior_without_an_unknown_instrument_is_refused():
    prior = po.priors.Gaussian(torch.zeros(4), 1.0)
    A = po.operators.Identity((4,))
    post = po.Posterior(prior, po.Likelihood(torch.zeros(4), A, po.noise.Gaussian(0.1)))
    with pytest.raises(TypeError, match="Identity is known"):
        blind_pair(post)
    gamma = po.operators.BlindGamma((4,))
    parts = {"image": prior, "log_gamma": po.priors.Gaussian(torch.zeros(1), 0.1)}
    given = po.Likelihood(torch.ones(4), gamma, po.noise.Gaussian(0.1))
    curved = po.Posterior(po.priors.Joint(parts), given)
    assert "BlindGamma is not" in po.methods.BlindPnPDM().refuses(curved)
    assert po.methods.BlindDPS().refuses(curved) is None
