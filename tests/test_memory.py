"""A method whose stated cost has no vector-Jacobian product builds no graph through the denoiser; one whose cost has, does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases import METHODS, bed, phases

import posteriori as po
from posteriori.priors.base import Prior

# Settings without the product that the cost of their class allows for: type II of Peng, ReSample without guide.
NOT_ALWAYS = {"Peng", "ReSample"}


class Watched(Prior):
    """Notes whether any denoiser call could build a graph."""

    def __init__(self, inner):
        limits = {"sigma_max": inner.sigma_max, "sigma_min": inner.sigma_min, "max_std": inner.max_std}
        super().__init__(inner.shape, range=inner.range, variance=inner.variance, **limits)
        self.inner, self.graphs, self.calls = inner, 0, 0

    def denoise(self, x, sigma):
        self.calls += 1
        self.graphs += torch.is_grad_enabled() and x.requires_grad
        return self.inner.denoise(x, sigma)

    def start(self, z, sigma):
        return self.inner.start(z, sigma)

    def know(self):
        return replace(super().know(), closed=self.inner.know().closed)


@pytest.mark.parametrize("name", METHODS)
def test_the_stated_cost_tells_whether_a_graph_is_built(name):
    method = METHODS[name]
    source = next((p for p in (bed("general"), phases()) if method.refuses(p) is None), None)
    assert source is not None, f"{name} accepts neither bed"
    post = po.Posterior(Watched(source.prior), source.likelihood)
    run = po.sample(post, method, n=2, steps=3)
    if "VJP" not in method.cost:
        assert post.prior.graphs == 0, f"{name} says '{method.cost}' and builds graphs"
        assert run.counts["vjp"] == 0
    elif name not in NOT_ALWAYS:
        assert post.prior.graphs > 0, f"{name} says '{method.cost}' and builds none"
