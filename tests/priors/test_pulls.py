"""Products with a denoiser's transposed Jacobian, several vectors at once: the same as one by one,
in one pass, counted as so many."""

from __future__ import annotations

import pytest
import torch
from reference import F64

import posteriori as po
from posteriori.counting import CountedPrior, Counter
from posteriori.priors.pulls import Together, pulled_together

LEVEL = torch.tensor(0.8, dtype=F64)


class Watched(torch.autograd.Function):
    """x -> x^3 / 3, whose backward passes are noted."""

    passes: list[str] = []

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    def backward(ctx, u):
        Watched.passes.append("pass")
        (x,) = ctx.saved_tensors
        return u * x**2


class Alone(torch.autograd.Function):
    """x -> 2 x, which looks at the numbers of a gradient: no batch of gradients passes."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, u):
        return 2 * u if float(u.sum()) > -1e300 else u


class Curved(po.priors.Prior):
    def __init__(self, function):
        super().__init__((2, 3), variance=1.0, sigma_max=10.0, sigma_min=0.1)
        self._function = function

    def denoise(self, x, sigma):
        return self._function.apply(x).roll(1, -1) / (1 + sigma)


def mixtures():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(3, 6, dtype=F64, generator=g)
    root = torch.randn(3, 6, 6, dtype=F64, generator=g)
    full = root @ root.mT + torch.eye(6, dtype=F64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    for covariances in (0.5, full[:1], full, full.diagonal(dim1=1, dim2=2)):
        yield po.priors.GaussianMixture(weights, means, covariances, shape=(2, 3))


PRIORS = {"graph": Curved(Watched), "graph of single gradients": Curved(Alone)} | {
    f"mixture {k}": prior for k, prior in enumerate(mixtures())
}


@pytest.mark.parametrize("name", PRIORS)
def test_vectors_together_give_what_each_gives_and_count_as_many(name):
    prior, counter = PRIORS[name], Counter()
    g = torch.Generator().manual_seed(1)
    x, u = (
        torch.randn(4, 2, 3, dtype=F64, generator=g),
        torch.randn(5, 4, 2, 3, dtype=F64, generator=g),
    )
    pull = CountedPrior(prior, counter).linearize(x, LEVEL)[1]
    assert isinstance(prior.linearize(x, LEVEL)[1], Together)
    together = pulled_together(pull, u)
    assert counter.calls["vjp"] == 20
    torch.testing.assert_close(together, torch.stack([pull(one) for one in u]))
    assert counter.calls["vjp"] == 40
    # Of a map that knows no more than one vector: one after the other.
    torch.testing.assert_close(pulled_together(lambda v: pull(v), u), together)


def test_vectors_together_are_one_pass_through_the_graph():
    x, u = torch.ones(4, 2, 3, dtype=F64), torch.ones(5, 4, 2, 3, dtype=F64)
    pull = Curved(Watched).linearize(x, LEVEL)[1]
    Watched.passes.clear()
    pulled_together(pull, u)
    assert len(Watched.passes) == 1
