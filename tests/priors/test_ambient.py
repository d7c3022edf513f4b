"""Ambient posterior sampling: a network seen through a mask as the prior of any method."""

from __future__ import annotations

import numpy as np
import torch
from cases import toy_unet

import posteriori as po
from posteriori import problem_file
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


def test_a_problem_file_names_the_network_and_its_mask(tmp_path):
    net = toy_unet(masked=True)
    prior = Network(
        net, shape=(1, None, None), multiple=4, sigma_data=0.5, conditions=net.conditions
    )
    po.priors.save_pretrained(prior, tmp_path / "prior")
    mask = np.arange(96).reshape(8, 12) % 3 > 0
    np.save(tmp_path / "mask.npy", mask.astype(np.float32))
    np.save(tmp_path / "x.npy", np.full((1, 8, 12), 0.5, dtype=np.float32))
    (tmp_path / "problem.yaml").write_text(
        "prior: {ambient: {path: prior, mask: mask.npy}}\n"
        "operator: {name: mask, keep: 0.5, seed: 1}\n"
        "noise: {law: gaussian, sigma: 0.05, range: [0, 1]}\n"
        "measurement: {image: x.npy}\nmethod: DPS\nsteps: 2\nn: 1\nseed: 0\n"
    )
    task = problem_file.load(tmp_path / "problem.yaml").build()
    built = task.posterior.prior
    assert isinstance(built, Ambient)
    assert torch.equal(built.mask[0], torch.from_numpy(mask))
    x = torch.randn(1, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    want = Ambient(prior, torch.from_numpy(mask)).denoise(x, torch.tensor(0.7))
    torch.testing.assert_close(built.denoise(x, torch.tensor(0.7)), want)


def test_networks_without_masks_keep_the_identity_that_kept_runs_know():
    plain = Network(toy_unet(), shape=(1, 8, 12), multiple=4, sigma_data=0.5).record()["net"]
    assert set(plain) == {"class", "arguments", "unshuffle", "multiple", "sha256"}
    assert "masked" not in plain["arguments"]
    assert known().record()["net"]["arguments"]["masked"] is True
