"""Ambient posterior sampling: a network seen through a mask as the prior of any method."""

from __future__ import annotations

import torch
from cases import toy_unet

import posteriori as po
from posteriori.methods import DPS
from posteriori.priors import Ambient, Network

F64 = torch.float64


def known():
    net = toy_unet(F64, masked=True)
    return Network(
        net, shape=(1, None, None), multiple=4, sigma_data=0.5, conditions=net.conditions
    )


def posterior(prior):
    A = po.operators.Blur(po.operators.gaussian_kernel(1.0), (1, 8, 12), boundary="circular")
    y = 0.5 * torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0), dtype=F64)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(0.1), range=(-1, 1)))


def test_through_a_mask_that_hides_nothing_it_is_dps():
    whole = Ambient(known(), torch.ones(8, 12, dtype=torch.bool))
    ours, theirs = (
        po.sample(posterior(prior), DPS(), n=2, steps=4, seed=1).samples
        for prior in (whole, known())
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_its_score_goes_through_the_mask_and_the_likelihood_has_its_own_operator():
    """The guidance reaches measured and hidden pixels through D alone: J^T u is 0 where D does not
    look, and D's own value there is an estimate."""
    mask = torch.arange(96).view(8, 12) % 3 > 0
    prior = Ambient(known(), mask)
    x = torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(0), dtype=F64)
    x0, pull = prior.linearize(x, torch.tensor(0.7, dtype=F64))
    turned = pull(torch.ones_like(x0))
    assert not bool(turned[..., ~mask].any())
    assert bool(turned[..., mask].all())
    assert float(x0[..., ~mask].abs().min()) > 0
    run = po.sample(posterior(prior), DPS(), n=2, steps=4, seed=1)
    assert run.samples.shape == (2, 1, 8, 12)
    assert all(status.ok for status in run.status)
