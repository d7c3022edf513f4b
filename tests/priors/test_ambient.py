"""Ambient posterior sampling: a network seen through a mask as the prior of any method."""

from __future__ import annotations

import numpy as np
import torch
from cases import toy_unet
from torch import nn

import posteriori as po
from posteriori import problem_file
from posteriori.methods import DPS
from posteriori.priors import Ambient, Network, complementary_masks

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


class Correlated(nn.Module):
    """The network of h for x0 ~ N(0, C) on 3 x 4 pixels, what an ambient network would learn."""

    def __init__(self, C, sigma_data):
        super().__init__()
        self.C, self.d = C, sigma_data

    def forward(self, x, label, mask):
        sigma, d = torch.exp(4 * label[0]), self.d
        seen, total = mask[0].flatten().bool(), (sigma**2 + d**2).sqrt()
        S = self.C[:, seen]
        gain = S @ torch.linalg.inv(S[seen] + sigma**2 * torch.eye(len(S[0]), dtype=F64))
        estimate = ((total * x).flatten(1)[:, seen] @ gain.T).view_as(x)
        return (estimate - mask * (d / total) ** 2 * total * x) * (
            mask * total / (sigma * d) + (1 - mask) / d
        )


def test_several_masks_know_more_than_each_alone():
    """Of N(0, C) D is linear, so that its error is known in closed form: through two halves it is
    between that of E[x0 | x] and that of a half, at every level. One call of each mask, weighted by
    1 / c_out^2, is what the stack says."""
    d, eye = 0.5, torch.eye(12, dtype=F64)
    place = torch.cartesian_prod(torch.arange(3), torch.arange(4)).to(F64)
    C = d**2 * torch.exp(-torch.cdist(place, place) / 3)
    net = Network(
        Correlated(C, d), shape=(1, 3, 4), sigma_data=d, conditions={"mask": (1, None, None)}
    )
    masks = complementary_masks(3, 4, 1, seed=3)
    assert torch.equal(masks[0], ~masks[1])
    assert int(masks[0].sum()) == 6
    for level in (0.05, 0.3, 1.0, 3.0):
        sigma = torch.tensor(level, dtype=F64)

        def linear(mask, sigma=sigma):
            return Ambient(net, mask).denoise(eye.view(12, 1, 3, 4), sigma).view(12, 12).T

        def error(W, level=level):
            return float(((W - eye) @ C @ (W - eye).T + level**2 * W @ W.T).trace())

        whole, both = linear(torch.ones(3, 4) > 0), linear(masks)
        torch.testing.assert_close(whole, C @ torch.linalg.inv(C + level**2 * eye))
        parts = [linear(mask) for mask in masks]
        assert error(whole) < error(both) < min(map(error, parts))
        w = [1 / d**2 + mask.view(12, 1) / level**2 for mask in masks]
        torch.testing.assert_close(both, (w[0] * parts[0] + w[1] * parts[1]) / (w[0] + w[1]))
    x = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    twice, once = (Ambient(net, m).denoise(x, sigma) for m in (masks[[0, 0]], masks[0]))
    torch.testing.assert_close(twice, once)


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
