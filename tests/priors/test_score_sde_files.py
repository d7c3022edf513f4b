"""Networks and checkpoints of score_sde."""

from __future__ import annotations

import math

import pytest
import torch
from foreign import fill, wave
from reference import F64

from posteriori.priors import ContinuousVP, from_pretrained, load, recognise, save_pretrained
from posteriori.priors.architectures.score_sde import NCSNpp
from posteriori.priors.foreign import score_sde

VE = {"ve": True, "down": "skip", "up": "skip"}
STREAM = {"ve": True, "down": "residual", "blocks": 1, "attention": ()}
BESIDE = VE | {"beside": True, "blocks": 1, "attention": (0, 2)}
VP = {"ve": False}


def network(**changes):
    usual = {"channels": 4, "width": 16, "multipliers": (1, 2, 2), "blocks": 2, "attention": (1,)}
    return fill(NCSNpp(**(usual | changes)))


# What sgmse.backbones.ncsnpp.NCSNpp of sgmse 0.1.2 returns for the weights of ``fill`` before its
# images are made complex: `python benchmarks/originals.py score_sde`.
ORIGINAL = [
    (VE, [5.948419, 2.769142, -0.351206, -0.765795, 0.14943, -0.018676]),
    (STREAM, [-2.393323, -2.297757, 2.929935, 1.490458, -0.353123, 0.241926]),
    (BESIDE, [-0.162977, -5.16783, -0.968398, 0.573672, -0.495603, -0.086158]),
    (VP, [-0.056262, -0.744643, 0.572488, 2.508713, 0.049757, -0.070219]),
]


@pytest.mark.parametrize(("changes", "numbers"), ORIGINAL)
def test_the_network_returns_what_the_original_does(changes, numbers):
    net = network(**changes)
    c = torch.tensor([0.3, 5.0] if net.ve else [3.0, 700.0])
    with torch.no_grad():
        out = net(wave((2, 4, 16, 16), 0.5), c)
    found = out.flatten()[:: out.numel() // 6][:6]
    torch.testing.assert_close(found, torch.tensor(numbers), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        *(case for case, _ in ORIGINAL),
        VP | {"channels": 1, "multipliers": (1, 1), "blocks": 3, "attention": (0, 1), "levels": 9},
        VE | {"attention": (), "multipliers": (1, 2, 3, 4), "blocks": 1, "levels": 1000},
        STREAM | {"attention": (0, 1, 2), "blocks": 2},
    ],
)
def test_the_network_is_read_from_the_list_of_its_layers(changes):
    net = network(**changes)
    assert score_sde.arguments(net.state_dict(), "file") == net.arguments


def checkpoint(net, sigmas=None):
    """As the training writes one: names of the parallel wrapper, averages as a list."""
    if sigmas is not None:
        net.sigmas = sigmas
    shadow = [p.clone() for p in net.parameters() if p.requires_grad]
    last = {f"module.{k}": 0 * v if v.ndim else v for k, v in net.state_dict().items()}
    last["module.sigmas"] = net.sigmas
    for name in last:
        if name.endswith("0.W"):
            last[name] = net.state_dict()[name.removeprefix("module.")]
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    optimizer = {"state": {}, "param_groups": []}
    return {"optimizer": optimizer, "model": last, "ema": ema, "step": 7}


X = wave((2, 4, 16, 16), 0.2)


def test_a_ve_checkpoint_is_a_score_of_images_from_0_to_1(tmp_path):
    net = network(**VE, levels=5)
    net.all_modules[0].W.data = wave((16,), 0.3)
    torch.save(checkpoint(net, torch.logspace(2, -2, 5)), tmp_path / "checkpoint_8.pth")
    found = recognise(tmp_path / "checkpoint_8.pth")
    prior = found.prior
    assert (prior.range, prior.parametrization, prior.variance) == ((0.0, 1.0), "score", 0.0625)
    assert (prior.sigma_min, prior.sigma_max) == (pytest.approx(0.01), pytest.approx(100))
    assert any("averaged weights 'ema' are taken" in note for note in found.notes)
    assert found.architecture.startswith("NCSN++ of score_sde")
    with torch.no_grad():
        score = net(X, torch.full((2,), 0.6))
    got = prior.denoise(X, torch.tensor(0.6, dtype=F64))
    torch.testing.assert_close(got, X + 0.36 * score, rtol=1e-5, atol=1e-5)
    save_pretrained(prior, tmp_path / "ours")
    assert torch.equal(from_pretrained(tmp_path / "ours").denoise(X, torch.tensor(0.6)), got)


def test_a_vp_checkpoint_predicts_the_noise_at_999_t(tmp_path):
    net = network(**VP, levels=5)
    torch.save(checkpoint(net, torch.logspace(2, -2, 5)), tmp_path / "checkpoint_8.pth")
    prior = load(tmp_path / "checkpoint_8.pth")
    assert prior.schedule == ContinuousVP(label_scale=999, t_min=1e-5)
    sigma = 0.9
    t = (math.sqrt(0.01 + 2 * 19.9 * math.log1p(sigma**2)) - 0.1) / 19.9
    with torch.no_grad():
        noise = net(X / math.sqrt(1 + sigma**2), torch.full((2,), 999 * t))
    got = prior.denoise(X, torch.tensor(sigma, dtype=F64))
    torch.testing.assert_close(got, X - sigma * noise, rtol=1e-4, atol=1e-4)


def test_averages_that_are_not_those_of_the_model_are_refused(tmp_path):
    content = checkpoint(network(**VP, levels=5), torch.ones(5))
    content["ema"]["shadow_params"].pop()
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="a list of .* tensors without names, which are not those"):
        load(tmp_path / "net.pth")


def test_what_the_files_do_not_say_is_asked_for_and_others_are_refused(tmp_path):
    file = tmp_path / "net.pth"
    net = network(**VE)
    torch.save(net.state_dict(), file)
    with pytest.raises(ValueError, match="state sigma_min= and sigma_max="):
        load(file)
    assert load(file, sigma_min=0.01, sigma_max=50.0).sigma_max == 50
    with pytest.raises(ValueError, match="a network of score_sde, does not take schedule"):
        load(file, schedule="linear")
    state = dict(net.state_dict())
    torch.save({k: v for k, v in state.items() if not k.startswith("all_modules.9.")}, file)
    with pytest.raises(ValueError, match="lacks layers of all_modules"):
        load(file)
    torch.save(state | {"all_modules.9.Other.weight": torch.ones(2)}, file)
    with pytest.raises(ValueError, match="1 not in the network"):
        load(file, sigma_min=0.01, sigma_max=50.0)
    torch.save(network(ve=False, down="skip", up="skip").state_dict(), file)
    with pytest.raises(ValueError, match="told the number of a noise level"):
        load(file)
