"""Peng et al. with a covariance in the cosine basis, and with the variances that a network
predicts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import bed, complex_picture, full_gaussian, mixture, toy_unet
from reference import F64, images, level
from torch import nn

import posteriori as po
from posteriori import methods
from posteriori.linalg import cosine, cosines
from posteriori.noise import Gaussian
from posteriori.testing import check_method


def oracle(post, x, sigma):
    exact, _ = (
        post.prior.know()
        .exact("posterior")
        .condition(
            po.operators.matrix(post.likelihood.A), post.likelihood.y.flatten(), post.likelihood.std
        )
    )
    return exact.denoise(x, level(sigma))


SHAPE = (2, 4, 5)


def stationary(covariance="cosine"):
    """A blurred image whose prior is diagonal in the cosine basis, or a general Gaussian."""
    d = math.prod(SHAPE)
    variances = torch.logspace(0.5, -1.5, d, dtype=F64)
    F = cosine(torch.eye(d, dtype=F64).view(d, *SHAPE)).flatten(1).T
    C = F.T * variances @ F if covariance == "cosine" else full_gaussian(shape=SHAPE).covariance
    prior = po.priors.Gaussian(torch.full(SHAPE, 0.2, dtype=F64), C)
    A = po.operators.Blur(po.operators.gaussian_kernel(0.7).to(F64), SHAPE, boundary="reflect")
    y = A(prior.sample(1, 0))[0] + 0.1 * torch.randn(
        A.out_shape, dtype=F64, generator=torch.Generator().manual_seed(0)
    )
    return po.Posterior(prior, po.Likelihood(y, A, Gaussian(0.1))), variances, F


def test_the_cosine_transform_is_orthonormal_and_the_definition():
    for n in (1, 4, 7):
        torch.testing.assert_close(cosines(n) @ cosines(n).T, torch.eye(n, dtype=F64))
    x = torch.randn(2, 3, 4, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cosine(cosine(x), inverse=True), x)
    u, v = 2, 3
    waves = torch.cos(math.pi * u * (torch.arange(4, dtype=F64) + 0.5) / 4)[:, None] * torch.cos(
        math.pi * v * (torch.arange(5, dtype=F64) + 0.5) / 5
    )
    torch.testing.assert_close(
        cosine(x)[..., u, v], (x * waves).sum((-2, -1)) * (2 / 4) ** 0.5 * (2 / 5) ** 0.5
    )
    constant = cosine(torch.ones(1, 3, 4, 5, dtype=F64))
    torch.testing.assert_close(constant[..., 0, 0], torch.full((1, 3), 20**0.5, dtype=F64))
    torch.testing.assert_close(cosine(x.flatten(1))[0], cosines(60) @ x[0].flatten())


def test_the_error_of_each_frequency_is_that_of_the_denoiser():
    post, variances, F = stationary()
    torch.testing.assert_close(
        post.prior.know().spectral_error(0.7).flatten(), variances * 0.49 / (variances + 0.49)
    )
    general = stationary("general")[0].prior
    posterior = (
        general.covariance
        @ torch.linalg.inv(general.covariance + 0.49 * torch.eye(40, dtype=F64))
        * 0.49
    )
    torch.testing.assert_close(
        general.know().spectral_error(0.7).flatten(), (F @ posterior @ F.T).diagonal()
    )
    diagonal = po.priors.Gaussian(
        torch.zeros(2, 3, dtype=F64), torch.linspace(0.2, 2, 6, dtype=F64)
    )
    assert float(diagonal.know().spectral_error(0.7).mean()) == pytest.approx(
        diagonal.know().error(0.7)
    )
    # A mixture: an upper bound of what 4000 draws measure, whose mean is ``error``.
    several = mixture(d=4, shape=(1, 2, 2))
    clean = several.sample(4000, 0)
    noisy = clean + 0.7 * torch.randn(
        clean.shape, dtype=F64, generator=torch.Generator().manual_seed(1)
    )
    measured = cosine(clean - several.denoise(noisy, level(0.7))).square().mean(0)
    assert bool((measured < 1.05 * several.know().spectral_error(0.7)).all())
    assert float(several.know().spectral_error(0.7).mean()) == pytest.approx(
        several.know().error(0.7)
    )


@pytest.mark.parametrize("kind", ["I", "II"])
def test_the_cosine_covariance_is_exact_for_a_prior_diagonal_in_that_basis_and_not_otherwise(kind):
    method = methods.Peng(kind, covariance="dct", rtol=1e-12)
    for covariance, same in (("cosine", True), ("general", False)):
        post, _, F = stationary(covariance)
        A = po.operators.matrix(post.likelihood.A)
        for sigma in (3.0, 0.3):
            x = images(post, sigma)
            ours = method.denoise(post, x, level(sigma))
            gap = float((ours - oracle(post, x, sigma)).abs().max())
            assert (gap < 1e-8) is same, gap
            scalar = methods.Peng(kind).denoise(post, x, level(sigma))
            assert float((scalar - oracle(post, x, sigma)).abs().max()) > max(
                1e-3, gap if same else 0
            )
            # The rule written out with dense matrices.
            C = F.T * post.prior.know().spectral_error(sigma).flatten() @ F
            x0 = post.prior.denoise(x, level(sigma)).flatten(1)
            r = post.likelihood.y.flatten() - x0 @ A.T
            v = torch.linalg.solve(A @ C @ A.T + 0.01 * torch.eye(len(A), dtype=F64), r.T).T @ A
            J = post.prior.covariance @ torch.linalg.inv(
                post.prior.covariance + sigma**2 * torch.eye(40, dtype=F64)
            )
            torch.testing.assert_close(
                ours.flatten(1),
                x0 + v @ (C if kind == "II" else sigma**2 * J),
                rtol=1e-7,
                atol=1e-7,
            )


class Halves(nn.Module):
    """Exact noise, and beside it the v that a perfect training of the variance would give, for
    N(m, c I)."""

    def __init__(self, c, schedule):
        super().__init__()
        self.c, self.schedule = c, schedule

    def forward(self, x, t):
        abar = self.schedule.alphas_cumprod
        k = round(float(t[0]))
        now, before = abar[k], abar[k - 1] if k else 1.0
        s2 = (1 - now) / now
        beta = 1 - now / before
        tilde = beta * (1 - before) / (1 - now) if k else 0.0
        floor = tilde if k else (1 - abar[1] / abar[0]) * (1 - abar[0]) / (1 - abar[1])
        r2 = self.c * s2 / (self.c + s2)
        var = tilde + (before**0.5 * beta / (1 - now)) ** 2 * r2
        v = 2 * (math.log(var) - math.log(floor)) / (math.log(beta) - math.log(floor)) - 1
        z = x / now**0.5 * s2**0.5 / (self.c + s2)  # (x - D) / sigma for the mean 0
        return torch.cat([z, torch.full_like(x, v)], dim=1)


def learned(c=0.6, integer=False):
    schedule = po.priors.DiscreteVP.linear(integer=integer)
    net = Halves(c, schedule).double()
    prior = po.priors.Network(
        net,
        shape=(1, 4, 4),
        parametrization="eps",
        schedule=schedule,
        range=None,
        variance=c,
        sigma_max=50.0,
    )
    A = po.operators.Mask(po.operators.random_mask((4, 4), 0.5, 0), (1, 4, 4))
    return po.Posterior(
        prior, po.Likelihood(torch.full(A.out_shape, 0.6, dtype=F64), A, Gaussian(0.1))
    )


@pytest.mark.parametrize("t", [0, 1, 7, 400, 998])
@pytest.mark.filterwarnings("ignore:the network returns 2 channels")
def test_a_learned_variance_is_turned_into_that_of_the_image(t):
    post = learned()
    sigma = post.prior.schedule.sigmas[t]
    x = sigma * torch.randn(2, 1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    x0, r2 = post.prior.know().moments(x, level(sigma))
    torch.testing.assert_close(x0, post.prior.denoise(x, level(sigma)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        r2, torch.full_like(x, 0.6 * sigma**2 / (0.6 + sigma**2)), rtol=1e-5, atol=0
    )
    # ``variance`` is right, so that the scalar covariance says the same.
    ours = methods.Peng(covariance="learned", rtol=1e-12).denoise(post, x, level(sigma))
    torch.testing.assert_close(
        ours, methods.Peng().denoise(post, x, level(sigma)), rtol=1e-5, atol=1e-8
    )


def test_between_two_timesteps_the_variance_lies_between_and_no_network_value_makes_it_negative():
    schedule = po.priors.DiscreteVP.linear()
    v = torch.tensor([-3.0, -1.0, 0.2, 1.0], dtype=F64)
    for t in (0, 5, 900):
        low, high = schedule.learned_variance(v, t), schedule.learned_variance(v, t + 1)
        middle = schedule.learned_variance(v, t + 0.5)
        torch.testing.assert_close(middle, (low * high).sqrt())
        assert bool((torch.stack([low, high]) >= 1e-6).all())
    # At f = 1, var = beta: the image knows nothing but its own unit variance.
    assert float(schedule.learned_variance(v, 900)[3]) == pytest.approx(
        1 - schedule.alphas_cumprod[900], rel=1e-9
    )
    assert float(schedule.learned_variance(v, 900)[1]) == 1e-6


@pytest.mark.filterwarnings("ignore:the network returns 2 channels")
def test_a_network_of_integer_timesteps_is_asked_at_both():
    post, exact = learned(integer=True), learned()
    low, high = post.prior.schedule.sigmas[400:402]
    x = torch.ones(1, 1, 4, 4, dtype=F64)
    ends = [exact.prior.know().moments(x, level(s))[1] for s in (low, high)]
    r2 = post.prior.know().moments(x, level((low * high) ** 0.5))[1]
    torch.testing.assert_close(r2, (ends[0] * ends[1]).sqrt())


@pytest.mark.parametrize("kind", ["I", "II"])
@pytest.mark.filterwarnings("ignore:the network returns 2 channels")
def test_the_wider_covariances_obey_the_contract(kind):
    check_method(methods.Peng(kind, covariance="dct"), stationary()[0])
    check_method(methods.Peng(kind, covariance="learned"), learned())
    counts = po.sample(learned(), methods.Peng(kind, covariance="learned"), n=1, steps=4).counts
    assert (counts["denoiser"], counts["vjp"]) == ((8, 4) if kind == "I" else (4, 0))


def test_peng_refuses_a_covariance_that_the_prior_does_not_know():
    network = po.priors.Network(
        toy_unet(F64), shape=(1, 8, 12), multiple=4, sigma_data=0.5, range=None
    )
    A = po.operators.Identity((1, 8, 12))
    post = po.Posterior(network, po.Likelihood(torch.zeros(1, 8, 12, dtype=F64), A, Gaussian(0.1)))
    assert "Network prior does not know its error at each frequency" in str(
        methods.Peng(covariance="dct").refuses(post)
    )
    assert "DiscreteVP" in str(methods.Peng(covariance="learned").refuses(post))
    plain = po.priors.Network(
        toy_unet(F64),
        shape=(1, 8, 12),
        multiple=4,
        range=None,
        parametrization="v",
        schedule=po.priors.DiscreteVP.linear(),
    )
    post = po.Posterior(plain, po.Likelihood(torch.zeros(1, 8, 12, dtype=F64), A, Gaussian(0.1)))
    assert "it predicts no variance" in str(methods.Peng(covariance="learned").refuses(post))
    assert "predicts no variance" in str(methods.Peng(covariance="learned").refuses(bed()))
    assert "does not know its error" in str(
        methods.Peng(covariance="dct").refuses(complex_picture())
    )
    silent = po.Posterior(full_gaussian(), replace(bed().given, noise=Gaussian(0.0)))
    assert "noise level is 0" in str(methods.Peng(covariance="dct").refuses(silent))
    assert methods.Peng().refuses(silent) is None
    with pytest.raises(ValueError, match="Peng.covariance is"):
        methods.Peng(covariance="wavelet")


@pytest.mark.parametrize("kind", ["I", "II"])
def test_without_a_spectrum_a_solve_takes_one_operator_and_adjoint_an_iteration(kind):
    """No solve within the solve: calls stay of the order of the 40 numbers of y, not hundreds for a
    step; the answer is exact."""
    post, _, _ = stationary()
    A = po.operators.Blur(po.operators.gaussian_kernel(0.7).to(F64), SHAPE, boundary="zero")
    assert A.spectrum() is None
    post = po.Posterior(post.prior, po.Likelihood(post.likelihood.y, A, Gaussian(0.1)))
    counts = po.sample(post, methods.Peng(kind, covariance="dct", rtol=1e-9), n=1, steps=4).counts
    assert counts["operator"] <= 4 * (2 * 40 + 1)
    x, sigma = images(post, 0.5), level(0.5)
    found = methods.Peng(kind, covariance="dct", rtol=1e-9).denoise(post, x, sigma)
    torch.testing.assert_close(found, oracle(post, x, 0.5), rtol=1e-6, atol=1e-6)
