"""The contracts sweep the registry; three deliberate defects show that they can fail."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from cases import BRIEF, METHODS, NOISES, bed, posteriors_of, short_pilot

import posteriori as po
from posteriori.linalg import dot
from posteriori.methods.base import Method
from posteriori.noise import Gaussian
from posteriori.operators.base import AdjointError, LinearOperator
from posteriori.testing import check_method, check_noise, check_operator

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NOISES)
def test_noise(name, dtype):
    law, complex, level = NOISES[name]
    check_noise(law, complex=complex, level=level, dtype=dtype)


# In double precision on every posterior. Single precision is a matter of the method alone: one
# posterior, which all accept, shows it.
def sweep():
    """Name, posterior and precision of each check."""
    for name, method in METHODS.items():
        kinds = posteriors_of(method)
        single = "picture" if "picture" in kinds else next(iter(kinds))
        if method.family == "latent" and method.refuses(kinds[single]()):
            single = "told"
        yield from ((name, kind, torch.float64) for kind in kinds)
        yield name, single, torch.float32


@pytest.mark.parametrize(("name", "kind", "dtype"), [*sweep()])
def test_method(name, kind, dtype, monkeypatch):
    short_pilot(monkeypatch)
    method = BRIEF[name]
    post = posteriors_of(method)[kind](dtype)
    if method.refuses(post):
        assert dtype == torch.float64
        with pytest.raises(ValueError, match=type(method).__name__):
            po.sample(post, method, steps=2)
        return
    # A step between two levels, and on the first posterior a second, has all there is. Steps so
    # wide magnify rounding, which in single precision would be taken for rows that influence each
    # other.
    steps = 4 if dtype == torch.float32 else 3 if kind == "general" else 2
    # Claims have a sweep of their own, see test_claims.
    check_method(method, post, steps=steps, claims=False)


def test_every_method_accepts_some_posterior():
    for method in METHODS.values():
        assert any(method.refuses(make()) is None for make in posteriors_of(method).values())


# Deliberate defects.


@dataclass(frozen=True)
class BatchNorm(Method[torch.Tensor]):
    """The published step with its residual norm taken over the whole batch."""

    reference = "none"
    family = "defect"
    cost = "1 denoiser"

    def step(self, post, state, sigma, s, rng):
        x0 = post.prior.denoise(state, sigma)
        residual = post.likelihood.residual(x0)
        guided = x0 + 0.1 * post.likelihood.A.adjoint(residual) / residual.norm()
        return guided + s * rng.normal(state), {}


class NoConjugate(LinearOperator):
    """A complex matrix whose adjoint is its plain transpose."""

    def __init__(self):
        super().__init__((4,), complex_in=True, complex_out=True)
        g = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(3, 4, generator=g, dtype=torch.complex128)

    def forward(self, x):
        self.check_input(x)
        return x @ self.matrix.to(x).T

    def adjoint(self, y):
        return y @ self.matrix.to(y)


def test_a_norm_over_the_batch_is_caught():
    with pytest.raises(AssertionError, match="rows influence each other"):
        check_method(BatchNorm(), bed())


def test_a_missing_conjugate_is_caught():
    with pytest.raises((AssertionError, AdjointError)):
        check_operator(NoConjugate())


def test_a_wrong_range_is_caught():
    """sigma in the user's unit with data in the prior's: chi-square of exact samples is 4 in place
    of 1."""
    prior = po.priors.Gaussian(torch.zeros(400, dtype=torch.float64), 0.25, range=(-1, 1))
    A, x = po.operators.Identity((400,)), (prior.sample(1, 0) + 1) / 2
    y = x[0] + 0.05 * torch.randn(
        400, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    right = po.Posterior(prior, po.Likelihood(y, A, Gaussian(0.05), range=(0, 1)))
    wrong = po.Posterior(prior, po.Likelihood(2 * y - 1, A, Gaussian(0.05), range=(-1, 1)))
    assert float(right.given.chi2(x)) == pytest.approx(1.0, abs=5 * (2 / 400) ** 0.5)
    assert float(wrong.given.chi2(2 * x - 1)) == pytest.approx(4.0, abs=20 * (2 / 400) ** 0.5)


def test_info_and_purity_are_checked():
    @dataclass(frozen=True)
    class InPlace(BatchNorm):
        def step(self, post, state, sigma, s, rng):
            return state.mul_(0.5).add_(rng.normal(state)), {}

    @dataclass(frozen=True)
    class Scalar(BatchNorm):
        def step(self, post, state, sigma, s, rng):
            x0 = post.prior.denoise(state, sigma)
            return x0 + s * rng.normal(state), {"norm": dot(x0, x0).sum()}

    with pytest.raises((AssertionError, RuntimeError)):
        check_method(InPlace(), bed())

    @dataclass(frozen=True)
    class Restored(BatchNorm):
        """Gives the right numbers, and leaves others in the state that it was given."""

        def step(self, post, state, sigma, s, rng):
            x0 = post.prior.denoise(state, sigma)
            state.copy_(x0 + sigma * 0)
            return x0 + s * rng.normal(x0), {}

    with pytest.raises(AssertionError, match="changed its input state in place"):
        check_method(Restored(), bed())
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        check_method(Scalar(), bed())


def test_a_score_that_is_not_the_derivative_of_its_density_is_caught():
    @dataclass(frozen=True)
    class Doubled(po.noise.Gaussian):
        def score(self, y, clean):
            return 2 * super().score(y, clean)

    with pytest.raises(AssertionError):
        check_noise(Doubled(0.3))
