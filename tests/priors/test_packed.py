"""Residual blocks with packed weights: what torch makes of the formula, in every derivative."""

from __future__ import annotations

import pytest
import torch

import posteriori as po
from posteriori.memo import _KEPT
from posteriori.priors import packed
from posteriori.priors.unet import UNet

LEVEL = torch.tensor(0.4)


def prior(autocast=None, **kwargs):
    """A small network whose layers that start at zero do not."""
    torch.manual_seed(0)
    net = UNet(channels=1, widths=(8, 16), blocks=(1, 1), embedding=16, **kwargs)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return po.priors.Network(
        net, shape=(1, None, None), sigma_data=0.5, multiple=net.multiple, autocast=autocast
    )


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def taken(monkeypatch):
    """How often ``residual`` has stood for a block; ``fits`` refuses all where ``off`` is set."""
    seen = {"count": 0, "off": False}
    fits, residual = packed.fits, packed.residual

    def counted(*given):
        seen["count"] += 1
        return residual(*given)

    monkeypatch.setattr(packed, "fits", lambda *given: not seen["off"] and fits(*given))
    monkeypatch.setattr(packed, "residual", counted)
    return seen


def both(seen, make):
    """With packed weights, then by torch alone."""
    if not packed._works(torch.float32):
        pytest.skip("this torch has no oneDNN convolutions")
    seen.update(count=0, off=False)
    ours = make()
    assert seen["count"] > 0
    seen["off"] = True
    return ours, make()


@pytest.mark.parametrize("autocast", [None, "bfloat16"])
@pytest.mark.parametrize("maps", [False, True])
def test_denoiser_and_products_are_those_of_torch(taken, autocast, maps):
    if autocast and not packed._works(torch.bfloat16):
        pytest.skip("this processor has no bfloat16")
    net = prior(autocast, noise_maps=maps)
    x, u = numbers(3, 1, 16, 16), numbers(2, 3, 1, 16, 16, seed=2)
    noise = po.covariances.PixelNoise(0.1 + numbers(16, 16, seed=3).abs())

    def make():
        x0, pull = net.linearize(x, LEVEL)
        mapped = net.know().anisotropic.denoise(x, noise) if maps else x0
        return net.denoise(x, LEVEL), x0, mapped, pull(u[0]), pull(u[1]), pull.many(u)

    close = {"rtol": 1e-4, "atol": 1e-5} if autocast is None else {"rtol": 0.03, "atol": 0.03}
    for ours, theirs in zip(*both(taken, make), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, **close)


def test_derivatives_of_any_kind_are_those_of_torch(taken):
    net = prior()
    x, u, v = numbers(2, 1, 16, 16), numbers(2, 1, 16, 16, seed=2), numbers(2, 1, 16, 16, seed=3)

    def second():
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net.denoise(leaf, LEVEL), leaf, u, create_graph=True)
        return torch.autograd.grad((slope * v).sum(), leaf)[0]

    torch.testing.assert_close(*both(taken, second), rtol=1e-3, atol=1e-5)
    # Forward mode and torch.func go by torch, whatever was packed before.
    taken.update(count=0, off=False)
    push = torch.func.jvp(lambda t: net.denoise(t, LEVEL), (x,), (v,))[1]
    assert taken["count"] == 0
    _, pull = net.linearize(x, LEVEL)
    torch.testing.assert_close((push * u).sum(), (v * pull(u)).sum(), rtol=1e-4, atol=1e-5)


def test_weights_that_change_are_packed_anew(taken):
    net, x = prior(), numbers(1, 1, 16, 16)
    before = net.denoise(x, LEVEL)
    with torch.no_grad():
        net.net.middle[0].conv2.weight.mul_(-3.0)
        net.net.middle[0].norm.gain.mul_(2.0)
    ours, theirs = both(taken, lambda: (net.denoise(x, LEVEL), net.linearize(x, LEVEL)[1](x)))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert float((ours[0] - before).abs().max()) > 1e-3


def test_who_trains_adapts_or_watches_gets_torchs_own(taken):
    net, x = prior(), numbers(2, 1, 16, 16)
    name = "net.middle.0.conv1.weight"
    at = {name: 2 * net.know().adjustable()[name]}
    net.at(**at).denoise(x, LEVEL)
    # The one block whose weight is given goes by torch, the two others do not.
    assert taken["count"] == (2 if packed._works(torch.float32) else 0)
    taken["count"] = 0
    net.net.requires_grad_(True)
    with torch.no_grad():
        net.denoise(x, LEVEL)
    net.net.requires_grad_(False)
    seen = []
    for block in net.net.modules():
        if hasattr(block, "conv2"):
            block.conv2.register_forward_hook(lambda *_: seen.append(1))
    net.denoise(x, LEVEL)
    net.double().denoise(x.double(), LEVEL)
    assert taken["count"] == 0
    assert len(seen) == 6


def test_nothing_is_kept_beside_the_network(taken):
    net = prior()
    names = set(net.state_dict())
    before = po.identity.content(net)
    net.linearize(numbers(1, 1, 16, 16), LEVEL)[1](numbers(1, 1, 16, 16))
    assert set(net.state_dict()) == names
    assert po.identity.content(net) == before
    blocks = [part for part in net.modules() if part in _KEPT]
    assert len(blocks) == (3 if packed._works(torch.float32) else 0)
