"""No graph through the network where none is claimed, and data steps that stay in the range of A^T,
or of C A^T: for every method."""

from __future__ import annotations

from dataclasses import replace
from types import MethodType

import pytest
import torch
from cases import METHODS, bed, posteriors_of
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.noise import Gaussian
from posteriori.priors.error_spectrum import Covariance
from posteriori.rng import Streams

RANGE = "moves only in the range of A^T"
MEASURED = "of C A^T where C is measured, else of A^T: moves only in that range"

# NO GRAPH
# --------------------------------------------------------------------------------------------------


def differentiates(method):
    """What a method says of itself: its cost names vector-Jacobian products, which some
    take or spare by their settings."""
    if isinstance(method, methods.ReSample):
        return method.guide > 0
    if isinstance(method, methods.Peng):
        return method.type == "I"
    if isinstance(method, methods.TReg):
        return method.null_steps > 0
    if isinstance(method, methods.EPS):
        return False  # of a prior in closed form, as those here
    return "VJP" in method.cost


def watched(post):
    """The posterior, with what its denoiser and its Jacobian were asked for: a list of sentences,
    empty when no graph was built."""
    prior, seen, inside = post.prior, [], []
    denoise, linearize = prior.denoise, prior.linearize

    def spy(self, x, sigma):
        if not inside and (torch.is_grad_enabled() or x.requires_grad):
            seen.append(
                f"denoise at sigma {float(sigma):.3g}: "
                f"grad enabled {torch.is_grad_enabled()}, input {x.requires_grad}"
            )
        return denoise(x, sigma)

    def spied(self, x, sigma):
        seen.append(f"linearize at sigma {float(sigma):.3g}")
        inside.append(True)
        try:
            return linearize(x, sigma)
        finally:
            inside.pop()

    prior.denoise, prior.linearize = MethodType(spy, prior), MethodType(spied, prior)
    return post, seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_a_graph_through_the_denoiser_is_built_only_where_it_is_paid_for(name):
    """On every posterior that the method accepts; a method whose cost names VJPs is seen to take
    them on the first."""
    method, tried = METHODS[name], 0
    for make in posteriors_of(method).values():
        post, seen = watched(make())
        if method.refuses(post) is not None:
            continue
        seen.clear()
        run = po.sample(post, method, n=method.returned, steps=3)
        if differentiates(method):
            # What tunes a leaf goes through the denoiser of ``prior.at``, which is another object.
            assert seen or method.family == "adaptive" or hasattr(method, "leaf"), (
                f"{name} says that it differentiates the denoiser ({method.cost}) and does not"
            )
            assert run.counts["vjp"] > 0
            return
        assert not seen, seen[:3]
        assert run.counts["vjp"] == 0
        assert not run.samples.requires_grad
        tried += 1
    assert tried >= 1


# RANGES
# --------------------------------------------------------------------------------------------------

SHAPE = (1, 6, 6)
MOVERS = {
    "DDNM": methods.DDNM.published(),
    "DDNM noise ignored": methods.DDNM(noise="ignored"),
    "DDS": methods.DDS(iterations=100, rtol=1e-12),
    "DDS two iterations": methods.DDS(iterations=2, rtol=0.0),
    "DDS matched": methods.DDS("matched", iterations=100, rtol=1e-12),
    "DDS fixed": methods.DDS("fixed"),
    "DiffPIR": methods.DiffPIR(),
    "DiffPIR matched": methods.DiffPIR(width="matched"),
    "DiffPIR sigma": methods.DiffPIR(lam=3.0, width="sigma"),
    "DiffPIR gradient": methods.DiffPIR(data="gradient", gradient_steps=3),
}


class Steep(po.priors.Gaussian):
    """Waves of variances that fall with the frequency; ``told``: the prior says so."""

    def __init__(self, told):
        f = torch.arange(6, dtype=F64)
        self_C = Covariance((1 + f[:, None] + f).pow(-3.0)[None], None)
        super().__init__(
            torch.full(SHAPE, 0.2, dtype=F64),
            self_C(torch.eye(36, dtype=F64).view(36, *SHAPE)).flatten(1),
        )
        self.variances, self.told = self_C.variances, told

    def know(self):
        return replace(super().know(), covariance=self.covariance_of_error)

    def covariance_of_error(self, sigma, shape):
        s2 = float(sigma) ** 2
        return Covariance(self.variances * s2 / (self.variances + s2), None) if self.told else None


def step_of(method, post, x, sigma):
    """D_y - D, (B, d); of DDNM, which has no D_y, what another y changes in its step."""
    if isinstance(method, methods.DDNM):
        other = po.Posterior(
            post.prior,
            replace(
                post.given, y=post.given.y + torch.linspace(0.5, 2, post.given.y.numel(), dtype=F64)
            ),
        )
        a, b = (
            method.step(p, x, sigma, 0.6 * sigma, Streams(0, range(len(x))))[0]
            for p in (post, other)
        )
        return (b - a).flatten(1)
    return (method.denoise(post, x, sigma) - post.prior.denoise(x, sigma)).flatten(1)


def outside(vectors, span):
    """The share of the vectors (B, d) that lies outside the range of span (d, m)."""
    Q = torch.linalg.qr(span)[0]
    return float((vectors - vectors @ Q @ Q.T).norm() / vectors.norm())


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("name", MOVERS)
def test_the_data_step_stays_in_the_range_that_is_claimed(name, told):
    """D_y - D against the range of A^T and of C A^T. C moves what no pixel of A shows, and only the
    settings that ask for C do."""
    method, prior = MOVERS[name], Steep(told)
    A = po.operators.Mask(po.operators.random_mask((6, 6), 0.4, 0), SHAPE)
    post = po.Posterior(prior, po.Likelihood(A(prior.sample(1, 3))[0] + 0.05, A, Gaussian(0.1)))
    sigma = torch.tensor(0.7, dtype=F64)
    x = prior.start(
        torch.randn(3, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(1)), sigma
    )
    moved = step_of(method, post, x, sigma)
    M = po.operators.matrix(A)
    learned = told and name in ("DDS", "DDS two iterations", "DiffPIR")
    assert float(moved.norm()) > 0.1
    assert (outside(moved, M.T) < 1e-8) is not learned
    if learned:
        assert outside(moved, M.T) > 0.1
        C = prior.covariance_of_error(sigma, SHAPE)
        assert outside(moved, C(torch.eye(36, dtype=F64).view(36, *SHAPE)).flatten(1) @ M.T) < 1e-6


def test_every_method_that_claims_a_range_is_tried_and_says_when_it_depends():
    """And a method that claims none leaves it."""
    claim = {
        name: [c for c in method.claims if "in the range" in c or "in that range" in c]
        for name, method in METHODS.items()
    }
    assert {name.split()[0] for name, found in claim.items() if found} == {
        name.split()[0] for name in MOVERS
    }
    assert claim["DDNM"] == [RANGE]
    assert claim["DDS"] == claim["DiffPIR"] == [MEASURED]
    post, sigma = bed("general"), torch.tensor(0.7, dtype=F64)
    x = post.prior.start(
        torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(1)), sigma
    )
    moved = methods.PiGDM().denoise(post, x, sigma) - post.prior.denoise(x, sigma)
    assert outside(moved, po.operators.matrix(post.likelihood.A).T) > 1e-2
