"""The ADM network and its files."""

from __future__ import annotations

import pytest
import torch
from foreign import fill, wave
from reference import F64

from posteriori.priors import DiscreteVP, load, recognise
from posteriori.priors.architectures.adm import ADM
from posteriori.priors.foreign import adm
from posteriori.priors.foreign.found import Stated


def small(**changes):
    arguments = {"width": 32, "multipliers": (1, 2), "attention": (2,), "head_channels": 16}
    return ADM(**(arguments | changes))


# What guided_diffusion.unet.UNetModel of guided-diffusion-sdk 1.0.0 returns for the weights of
# ``fill``: `python benchmarks/originals.py adm` prints these and compares random weights too.
ORIGINAL = [
    (
        {},
        [-0.126699, -0.02838, 0.09691, -0.139083, -0.073201, 0.030985],
    ),
    (
        {"classes": 7, "new_order": True, "head_channels": 32},
        [-0.110314, -0.011203, 0.059123, -0.134113, 0.113337, 0.300512],
    ),
    (
        {"scaled": False, "residual_resampling": False, "heads": 4, "head_channels": None},
        [-0.054404, -0.13668, -0.137525, -0.037083, -0.195832, -0.258195],
    ),
    (
        {
            "residual_resampling": False,
            "learned_resampling": False,
            "classes": 5,
            "new_order": True,
            "heads": 2,
            "head_channels": None,
        },
        [0.018934, -0.112811, -0.213345, 0.082859, -0.004067, -0.087277],
    ),
    (
        {"scaled": False, "learned_resampling": False, "heads": 4, "head_channels": None},
        [-0.216618, -0.088694, 0.081453, -0.100652, 0.092806, 0.282594],
    ),
]


@pytest.mark.parametrize(("changes", "numbers"), ORIGINAL)
def test_the_network_returns_what_the_original_code_does(changes, numbers):
    net = fill(small(**changes))
    y = torch.tensor([1, 4]) if net.classes else None
    with torch.no_grad():
        out = net(wave((2, 3, 8, 8), 0.5), torch.tensor([3.0, 700.0]), y)
    assert out.shape == (2, 6, 8, 8)
    found = out.flatten()[:: out.numel() // 6]
    torch.testing.assert_close(found, torch.tensor(numbers), rtol=0, atol=5e-6)


STRUCTURES = [
    {},
    {"out_channels": 3, "channels": 3, "classes": 10},
    {"channels": 1, "out_channels": 2, "multipliers": (1, 1, 2), "blocks": 2, "attention": (2, 4)},
    {"multipliers": (0.5, 1), "width": 64, "attention": (1,)},
    {"residual_resampling": False},
    {"residual_resampling": False, "learned_resampling": False, "blocks": 3},
    {"scaled": False, "attention": ()},
]


@pytest.mark.parametrize("changes", STRUCTURES)
def test_everything_but_the_heads_is_read_from_names_and_shapes(changes):
    with torch.device("meta"):
        net = small(**changes)
    found = adm.arguments(net.state_dict(), "file")
    want = {k: v for k, v in net.arguments.items() if k not in ("heads", "head_channels")}
    want.pop("new_order")
    if want["residual_resampling"]:
        want["learned_resampling"] = False  # there is none that could be
    assert found == want


def test_fractional_channels_count_from_the_network_s_width():
    with torch.device("meta"):
        net = small(multipliers=(0.5, 1, 1, 2), width=64)
    assert adm.arguments(net.state_dict(), "file")["width"] == 64


@pytest.mark.parametrize("key", adm.PUBLISHED_SHAPES)
def test_published_networks_are_known_by_their_shapes(key):
    width, multipliers, blocks, attention = key
    kind = adm.PUBLISHED_SHAPES[key]
    with torch.device("meta"):
        net = ADM(3, 6, width, multipliers, blocks, attention, **kind.heads)
    found = adm.arguments(net.state_dict(), "file")
    assert tuple(found[name] for name in ("width", "multipliers", "blocks", "attention")) == key


def test_the_published_sizes():
    """93.56 and 552.8 million parameters, as their authors count them."""
    with torch.device("meta"):
        nets = [
            ADM(width=128, blocks=1, attention=(16,), head_channels=64),
            ADM(width=256, blocks=2, attention=(8, 16, 32), head_channels=64),
        ]
    counts = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert [round(count / 1e6, 1) for count in counts] == [93.6, 552.8]


@pytest.fixture
def file(tmp_path):
    torch.save(fill(small()).state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_what_no_file_says_is_asked_for_by_the_name_of_its_flag(file):
    with pytest.raises(ValueError, match="none of the published .* state heads= .num_heads of its"):
        load(file)
    with pytest.raises(ValueError, match="give one of heads and head_channels"):
        load(file, heads=2, head_channels=16, schedule="linear")
    with pytest.raises(ValueError, match="does not say with which noise it was trained"):
        load(file, head_channels=16)
    with pytest.raises(ValueError, match="64 channels do not divide into heads=5"):
        load(file, heads=5, schedule="linear")
    with pytest.raises(ValueError, match="an ADM network, does not take sigma_data"):
        load(file, sigma_data=0.5)
    with pytest.raises(ValueError, match="unknown schedule 'sigmoid'"):
        load(file, heads=2, schedule="sigmoid")


def test_a_loaded_network_is_the_denoiser_of_its_schedule(file):
    """x0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar) at a timestep of the schedule."""
    prior = load(file, head_channels=16, schedule="linear", range=(0.0, 1.0))
    assert (prior.multiple, prior.range, prior.parametrization) == (2, (0.0, 1.0), "eps")
    abar = DiscreteVP.linear().alphas_cumprod[300]
    x_t = wave((1, 3, 8, 8), 2.0)
    with torch.no_grad():
        eps = small(head_channels=16)
        eps.load_state_dict(torch.load(file, weights_only=True))
        eps = eps.eval()(x_t, torch.tensor([300.0]))[:, :3]
    want = (x_t - (1 - abar) ** 0.5 * eps) / abar**0.5
    with pytest.warns(UserWarning, match="learned variance"):
        got = prior.denoise(x_t / abar**0.5, torch.tensor(((1 - abar) / abar) ** 0.5, dtype=F64))
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.filterwarnings("ignore:the network returns")
def test_a_class_is_given_once_and_kept_in_the_card(tmp_path):
    from posteriori.priors import from_pretrained, save_pretrained

    net = fill(small(classes=5))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    stated = {"head_channels": 16, "schedule": "linear"}
    x, sigma = wave((2, 3, 8, 8), 1.0), torch.tensor(0.7)
    bare = load(tmp_path / "net.pt", **stated)
    with pytest.raises(ValueError, match=r"one of 5 classes: give it by prior.at\(y="):
        bare.denoise(x, sigma)
    with pytest.raises(ValueError, match=r"label must lie in 0 .. 4, got 5"):
        load(tmp_path / "net.pt", label=5, **stated)
    one = load(tmp_path / "net.pt", label=3, **stated)
    save_pretrained(one, tmp_path / "prior")
    with pytest.warns(UserWarning, match="learned variance"):
        want = bare.at(y=torch.tensor(3)).denoise(x, sigma)
    assert torch.equal(one.denoise(x, sigma), want)
    assert torch.equal(from_pretrained(tmp_path / "prior").denoise(x, sigma), want)
    assert not torch.equal(bare.at(y=torch.tensor(2)).denoise(x, sigma), want)
    torch.save(fill(small()).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="not conditioned on a class"):
        load(tmp_path / "net.pt", label=3, **stated)


@pytest.mark.filterwarnings("ignore:the cosine")
def test_published_settings_are_taken_and_said(tmp_path, monkeypatch):
    tiny = adm.Published("tiny", 16, {"head_channels": 16}, "cosine", True)
    monkeypatch.setitem(adm.PUBLISHED_SHAPES, (32, (1, 2), 1, (2,)), tiny)
    torch.save(fill(small()).state_dict(), tmp_path / "net.pt")
    with pytest.warns(UserWarning, match="ends at sigma"):
        found = recognise(tmp_path / "net.pt")
    prior = found.prior
    assert (prior.train_size, prior.schedule.name) == ((16, 16), "cosine (T=1000)")
    assert prior.net.arguments["new_order"] is True
    assert "head_channels 16, new order of attention channels, cosine schedule" in found.notes[0]
    found = recognise(tmp_path / "net.pt", Stated(heads=4, schedule="linear", new_order=False))
    assert found.prior.net.arguments["heads"] == 4
    assert found.prior.schedule == DiscreteVP.linear()
    assert not found.prior.net.arguments["new_order"]


@pytest.mark.parametrize("change", [{"scaled": False}, {"residual_resampling": False}])
def test_published_widths_with_other_parts_are_not_the_published_network(
    tmp_path, monkeypatch, change
):
    tiny = adm.Published("tiny", 16, {"head_channels": 16})
    monkeypatch.setitem(adm.PUBLISHED_SHAPES, (32, (1, 2), 1, (2,)), tiny)
    torch.save(fill(small(**change)).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="none of the published ones"):
        load(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("middle_block.1.qkv.weight"), r"1 missing \(middle_block.1.qkv.weight\)"),
        (
            lambda s: s.update(
                {"input_blocks.1.1.transformer_blocks.0.norm1.weight": torch.ones(1)}
            ),
            "conditioned on a text",
        ),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), r"1 not in the network \(extra"),
        (
            lambda s: [s.pop(k) for k in list(s) if k.startswith("output_blocks.3.")],
            "which no ADM network has",
        ),
        (
            lambda s: s.update({"input_blocks.0.0.weight": torch.ones(32, 4, 3, 3)}),
            "takes 4 channels and returns 6",
        ),
        (
            lambda s: s.update({"input_blocks.0.0.weight": torch.ones(32, 3, 3, 3, 3)}),
            "network of 3-d images",
        ),
    ],
)
def test_files_that_no_network_has_are_refused(file, change, message):
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    with pytest.raises(ValueError, match=message):
        load(file, head_channels=16, schedule="linear")
