"""Networks and weights of MONAI's DiffusionModelUNet."""

from __future__ import annotations

import math

import pytest
import torch
from foreign import fill, wave
from reference import F64

from posteriori.priors import from_pretrained, load, recognise, save_pretrained
from posteriori.priors.architectures.monai import MonaiUNet
from posteriori.priors.foreign import monai
from posteriori.priors.foreign.found import Stated

PLAIN = {"blocks": (1, 2, 1), "attention": (False, True, True)}
CLASSES = {
    "blocks": (2, 1, 1),
    "attention": (False, False, False),
    "residual_resampling": True,
    "classes": 5,
}
COMBINED = {
    "blocks": (1, 1, 1),
    "attention": (True, False, True),
    "combined": True,
    "projected": False,
}
# What monai.networks.nets.DiffusionModelUNet of monai 1.6.1 returns for the weights of ``fill``:
# `python benchmarks/originals.py monai`.
ORIGINAL = [
    (PLAIN, [0.825247, -0.956195, -1.283913, -0.426708, -0.644771, -1.240837]),
    (CLASSES, [0.02251, 0.277997, -0.482714, -0.547208, 0.627766, -0.24896]),
    (COMBINED, [-0.746824, -0.335247, 0.432925, 0.546686, -0.563108, -0.032166]),
]
X = wave((2, 2, 16, 16), 0.5)
SAID = {"head_channels": 16, "schedule": "linear"}


def network(**changes):
    usual = {"channels": 2, "out_channels": 2, "widths": (32, 64, 96), "head_channels": 16}
    return fill(MonaiUNet(**(usual | PLAIN | changes)))


@pytest.fixture
def write(tmp_path):
    def to(state, name="model.pt"):
        torch.save(state, tmp_path / name)
        return tmp_path / name

    return to


@pytest.mark.parametrize(("changes", "numbers"), ORIGINAL)
def test_the_network_returns_what_the_original_does(changes, numbers):
    net = network(**changes)
    y = torch.tensor([1, 4]) if net.classes else None
    with torch.no_grad():
        out = net(X, torch.tensor([3.0, 700.0]), y)
    found = out.flatten()[:: out.numel() // 6][:6]
    torch.testing.assert_close(found, torch.tensor(numbers), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        PLAIN,
        CLASSES,
        COMBINED,
        {"widths": (64,), "blocks": (3,), "attention": (True,), "channels": 1, "out_channels": 1},
        {"residual_resampling": True, "classes": 3},
    ],
)
def test_the_network_is_read_from_its_names_and_shapes(changes):
    made = dict(network(**changes).arguments)
    for unsaid in ("head_channels", "groups"):
        made.pop(unsaid)
    assert monai.arguments(network(**changes).state_dict(), "file") == made


def test_a_file_is_an_eps_network_and_comes_back_from_a_folder_of_ours(write, tmp_path):
    net = network()
    file = write({"model": net.state_dict()})
    found = recognise(file, Stated(**SAID, range=(0, 1)))
    assert found.architecture.startswith("DiffusionModelUNet of MONAI: ")
    assert "attention at 1/2, 1/4" in found.architecture
    assert any("32 groups" in note for note in found.notes)
    prior, k = found.prior, 400
    sigma = float(prior.schedule.ladder()[k])
    assert (prior.range, prior.parametrization, prior.multiple) == ((0, 1), "eps", 4)
    assert prior.schedule.timestep(sigma) == pytest.approx(k)
    with torch.no_grad():
        noise = net(X / math.sqrt(1 + sigma**2), torch.full((2,), float(k)))
    got = prior.denoise(X, torch.tensor(sigma, dtype=F64))
    torch.testing.assert_close(got, X - sigma * noise, rtol=1e-4, atol=1e-4)
    save_pretrained(prior, tmp_path / "ours")
    assert torch.equal(from_pretrained(tmp_path / "ours").denoise(X, torch.tensor(sigma)), got)


def test_names_of_monai_generative_are_those_of_before(write):
    """Its attentions had no part ``attn``, and its resampling was called ``conv``."""
    state = network().state_dict()
    older = {
        name.replace(".attn.out_proj.", ".proj_attn.")
        .replace(".attn.to_", ".to_")
        .replace("upsampler.postconv", "upsampler.conv"): tensor
        for name, tensor in state.items()
    }
    assert older.keys() != state.keys()
    new, old = (load(write(s, f"{k}.pt"), **SAID) for k, s in enumerate((state, older)))
    sigma = torch.tensor(0.5)
    assert torch.equal(old.denoise(X, sigma), new.denoise(X, sigma))


def test_a_class_is_given_by_its_number(write):
    file = write(network(**CLASSES).state_dict())
    prior, sigma = load(file, **SAID, label=3), torch.tensor(0.5)
    by_hand = load(file, **SAID).at(y=torch.tensor(3))
    assert torch.equal(prior.denoise(X, sigma), by_hand.denoise(X, sigma))
    with pytest.raises(ValueError, match="one of 5 classes"):
        network(**CLASSES)(X, torch.ones(2))


def test_what_a_file_does_not_say_is_asked_for(write):
    state = network().state_dict()
    file = write(state)
    with pytest.raises(ValueError, match=r"how many channels a head.*num_head_channels"):
        load(file, schedule="linear")
    with pytest.raises(ValueError, match="with which noise it was trained"):
        load(file, head_channels=16)
    with pytest.raises(ValueError, match="does not divide the 64 channels"):
        load(file, head_channels=24, schedule="linear")
    with pytest.raises(ValueError, match="does not take heads"):
        load(file, **SAID, heads=4)


def test_networks_that_are_not_read_are_named(write):
    state = network().state_dict()
    told = state | {"middle_block.attention.transformer_blocks.0.norm1.weight": torch.ones(4)}
    with pytest.raises(ValueError, match="told an embedding"):
        load(write(told), **SAID)
    solid = state | {"conv_in.conv.weight": torch.ones(32, 1, 3, 3, 3)}
    with pytest.raises(ValueError, match="3-d images"):
        load(write(solid), **SAID)
    lost = {k: v for k, v in state.items() if not k.startswith("up_blocks.1.resnets.0")}
    with pytest.raises(ValueError, match="not all of its weights"):
        load(write(lost), **SAID)
    beside = network(channels=4).state_dict()
    with pytest.raises(ValueError, match="takes 4 channels and returns 2"):
        load(write(beside), **SAID)
    with pytest.raises(ValueError, match="norms of other than 32 groups"):
        MonaiUNet(1, 1, (48,), (1,), (False,), 16)
