"""Volumes of independent slices: slices are rows, to the prior and to the instrument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from cases import BRIEF, METHODS, POSTERIORS, full_gaussian, mixture
from reference import F64, draw

import posteriori as po
from posteriori.axis_kernels import AR1
from posteriori.covariances import PixelNoise, WhiteNoise
from posteriori.linalg import cosine
from posteriori.methods import DAPS, DDRM, DPS, MMPS, DiffPIR, PiGDM
from posteriori.noise import Gaussian
from posteriori.operators import Dense, PhaseRetrieval, Slicewise
from posteriori.priors import Prior, Slices, error_spectrum
from posteriori.priors.error_spectrum import Covariance
from posteriori.rng import Streams

SOME = [DPS(), DDRM(), PiGDM(), DiffPIR(), DAPS(), MMPS(iterations=40, rtol=1e-12)]


def volume(post, depth):
    """The posterior of so many slices, each measured as the one of ``post``."""
    given = post.given
    y = torch.stack([given.y * (1 + k) for k in range(depth)])
    like = po.Likelihood(y, Slicewise(given.A, depth), given.noise, range=given.range)
    return po.Posterior(Slices(post.prior, depth), like)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "picture") for name in METHODS),
        ("DPS", "complex"),
        ("DiffPIR", "complex"),
        ("TDS", "complex"),
    ],
)
def test_a_volume_of_one_slice_is_the_slice_to_every_method(name, kind):
    method, post = BRIEF[name], POSTERIORS[kind]()
    one = volume(post, 1)
    assert (
        (method.refuses(one) is None) == (method.refuses(post) is None)
        or "closed form" in method.requires
        or "exact" in name
        or "knows no denoiser under" in str(method.refuses(one))
    )
    if method.refuses(post) or method.refuses(one) or name == "DAPS exact":
        return
    n = 2 * method.returned
    slice_, whole = (po.sample(p, method, n=n, steps=3, seed=2).samples for p in (post, one))
    torch.testing.assert_close(whole[:, 0], slice_, rtol=1e-9, atol=1e-9)


class Shared:
    """The random numbers of rows, for the slices of one volume."""

    def __init__(self, rng, depth):
        self.rng, self.depth = rng, depth

    def normal(self, like):
        return self.rng.normal(like.view(self.depth, *like.shape[2:])).view(like.shape)

    def uniform(self, count):
        raise AssertionError("no method here asks for it")


@pytest.mark.parametrize("method", SOME, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("kind", ["general", "picture"])
def test_slices_of_a_volume_are_rows_with_measurements_of_their_own(method, kind):
    """The same steps from the same random numbers. MMPS shares its iteration between slices: it
    must have converged."""
    post, depth = POSTERIORS[kind](), 3
    whole = volume(post, depth)
    rows = post.for_rows(whole.likelihood.y)
    levels = po.grid.karras(5, post.prior.sigma_max, post.prior.sigma_min)
    x = post.prior.start(
        Streams(0, range(depth)).normal(torch.zeros(depth, *post.shape, dtype=F64)), levels[0]
    )
    a, b = Streams(1, range(depth)), Shared(Streams(1, range(depth)), depth)
    one, many = method.init(rows, x, a), method.init(whole, x[None], b)
    for sigma, s in pairwise(levels):
        one, many = method.step(rows, one, sigma, s, a)[0], method.step(whole, many, sigma, s, b)[0]
    torch.testing.assert_close(method.rows(many)[0], method.rows(one), rtol=1e-7, atol=1e-7)


def test_the_prior_of_slices_is_the_gaussian_with_a_block_for_each():
    slice_, depth = full_gaussian(F64, (6,)), 3
    blocks = torch.block_diag(*[slice_.covariance] * depth)
    whole, flat = Slices(slice_, depth), po.priors.Gaussian(slice_.mean.repeat(depth), blocks)
    x, sigma = draw(4, depth, 6), torch.tensor(0.7, dtype=F64)
    torch.testing.assert_close(
        whole.denoise(x, sigma).flatten(1), flat.denoise(x.flatten(1), sigma)
    )
    torch.testing.assert_close(
        whole.know().closed.log_prob(x, sigma), flat.know().closed.log_prob(x.flatten(1), sigma)
    )
    torch.testing.assert_close(
        whole.linearize(x, sigma)[1](x).flatten(1),
        flat.linearize(x.flatten(1), sigma)[1](x.flatten(1)),
    )
    assert whole.know().error(sigma) == pytest.approx(flat.know().error(sigma))
    assert whole.know().max_variance(sigma) == pytest.approx(flat.know().max_variance(sigma))
    many = (
        Slices(slice_, depth)
        .know()
        .closed.draw_given(x[:1].expand(20000, -1, -1), sigma, Streams(0, range(20000)))
        .flatten(1)
    )
    exact = (torch.linalg.inv(blocks) + torch.eye(18, dtype=F64) / sigma**2).inverse()
    assert (
        float((many.T.cov() - exact).abs().max())
        < 5 * float(exact.diagonal().max()) * (2 / 20000) ** 0.5
    )


def test_slices_of_a_mixture_are_in_modes_of_their_own():
    """Two far modes of equal weight, seen through much noise: the modes of two slices are
    independent draws."""
    prior = Slices(
        po.priors.GaussianMixture(
            torch.ones(2, dtype=F64), 5 * torch.tensor([[-1.0], [1.0]], dtype=F64), 0.1
        ),
        2,
    )
    closed = prior.know().exact("p(x0 | x)")
    x0 = closed.draw_given(
        torch.zeros(4000, 2, 1, dtype=F64), torch.tensor(50.0, dtype=F64), Streams(0, range(4000))
    )
    same = (x0[:, 0] > 0) == (x0[:, 1] > 0)
    assert float(same.double().mean()) == pytest.approx(0.5, abs=5 * 0.5 / 4000**0.5)


class Narrow(Prior):
    """Counts the rows that it is given at a time."""

    def __init__(self):
        super().__init__((None, 4), variance=1.0, sigma_max=10.0, sigma_min=0.01)
        self.most = 0

    def denoise(self, x, sigma):
        self.most = max(self.most, len(x))
        return x.sin() / (1 + sigma**2)


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_few_slices_are_worked_on_at_a_time_and_nothing_else_changes(at_once):
    inner, x, sigma = Narrow(), draw(2, 5, 3, 4), torch.tensor(0.5, dtype=F64)
    prior = Slices(inner, at_once=at_once)
    x0, pull = prior.linearize(x, sigma)
    u = draw(2, 5, 3, 4, seed=1)
    torch.testing.assert_close(pull(u), x.cos() / (1 + sigma**2) * u)
    torch.testing.assert_close(pull(2 * u), 2 * pull(u))
    torch.testing.assert_close(x0, x.sin() / (1 + sigma**2))
    assert inner.most == min(at_once, 10)


@dataclass(frozen=True)
class UnderLevels:
    """x / (1 + variance), of white noise and of levels for pixels."""

    prior: Narrow

    def refuses(self, covariance):
        return None

    def denoise(self, mu, covariance):
        self.prior.most = max(self.prior.most, len(mu))
        return covariance.applied(lambda v: 1 / (1 + v), mu)


class NarrowUnder(Narrow):
    def know(self):
        return replace(super().know(), anisotropic=UnderLevels(self))


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_few_slices_are_worked_on_at_a_time_under_levels_for_pixels(at_once):
    """And each slice of each volume has its own."""
    inner, x, levels = NarrowUnder(), draw(2, 5, 3, 4), draw(5, 3, 4, seed=1).square() + 0.1
    known = Slices(inner, at_once=at_once).know()
    torch.testing.assert_close(known.denoise_under(x, PixelNoise(levels)), x / (1 + levels))
    assert inner.most == min(at_once, 10)
    inner.most = 0
    torch.testing.assert_close(known.denoise_under(x, WhiteNoise(3.0)), x / 4)
    assert inner.most == min(at_once, 10)


def test_the_error_by_frequency_is_that_of_each_slice():
    C = Covariance(draw(3, 4, 5).square() + 0.1, torch.linalg.qr(draw(3, 3))[0])
    u = draw(2, 6, 3, 4, 5)
    torch.testing.assert_close(C(u), torch.stack([C(u[:, k]) for k in range(6)], 1))
    torch.testing.assert_close(C.root(C.root(u)), C(u))


def test_a_volume_is_transformed_a_few_slices_at_a_time(monkeypatch):
    """Memory beside the volume is then that of a few slices."""
    C = Covariance(draw(3, 4, 5).square() + 0.1, torch.linalg.qr(draw(3, 3))[0])
    u, seen = draw(2, 7, 3, 4, 5), []
    whole = C(u)

    def watched(x, **how):
        seen.append(len(x))
        return cosine(x, **how)

    monkeypatch.setattr(error_spectrum, "cosine", watched)
    monkeypatch.setattr(error_spectrum, "_NUMBERS_AT_ONCE", 2 * 60)
    torch.testing.assert_close(C(u), whole)
    assert set(seen) == {2}


def test_slices_of_another_kind_are_refused_by_name():
    with pytest.raises(ValueError, match="depth must be an integer >= 1, got 0"):
        Slices(mixture(), 0)
    with pytest.raises(ValueError, match="at_once must be an integer >= 1"):
        Slices(mixture(), 2, at_once=0)
    with pytest.raises(TypeError, match="PhaseRetrieval is not linear"):
        Slicewise(PhaseRetrieval((1, 3, 4)), 2)
    with pytest.raises(ValueError, match="depth is the number of slices"):
        Slicewise(Dense(draw(2, 4)), 0)
    with pytest.raises(TypeError, match="have one"):
        Slices(mixture(), 2).know().spectral_error(1.0)
    like = po.Likelihood(draw(3, 2), Slicewise(Dense(draw(2, 4)), 3), Gaussian(0.1))
    with pytest.raises(ValueError, match="shape"):
        po.Posterior(Slices(mixture(), 2), like)


def test_where_sampling_starts_slices_are_correlated_by_the_kernel():
    prior, kernel = Slices(full_gaussian(F64, (2,)), 3, kernel=AR1(0.7)), AR1(0.7)
    far = torch.tensor(1e6, dtype=F64)  # where only noise is left
    columns = prior.start(torch.eye(6, dtype=F64).view(6, 3, 2), far).flatten(1)
    columns = columns - prior.start(torch.zeros(1, 3, 2, dtype=F64), far).flatten(1)
    found = columns.T @ columns / far**2
    torch.testing.assert_close(found, torch.kron(kernel(3), torch.eye(2, dtype=F64)))
