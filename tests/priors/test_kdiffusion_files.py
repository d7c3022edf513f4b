"""Networks, checkpoints and configurations of k-diffusion."""

from __future__ import annotations

import json
import math

import pytest
import torch
from console import call
from foreign import fill_tokens, wave
from reference import F64
from safetensors.torch import save_file

from posteriori.priors import from_pretrained, load, recognise, save_pretrained
from posteriori.priors.architectures.hourglass import HourglassTransformer
from posteriori.priors.architectures.image_transformer import ImageTransformer
from posteriori.priors.architectures.kdiffusion import KDiffusionUNet
from posteriori.priors.foreign.found import Stated

Y = torch.tensor([1, 4])
SIGMA = torch.tensor(0.7, dtype=F64)
UNET = {"channels": 3, "widths": (64, 128), "depths": (1, 2), "attention": (False, True),
        "features": 32}  # fmt: skip
GROWN = {"widths": (64, 128, 192), "depths": (1, 2, 1), "attention": (False, False, True),
         "skipped": 1, "augmentations": 9}  # fmt: skip
PATCHES = {"depths": (1, 1), "attention": (True, True), "patch": 2, "variance": True}
TOKENS = {"channels": 3, "patch": 2, "width": 128, "hidden": 96, "layers": 2, "heads": 2}


def unet(**changes):
    return fill_tokens(KDiffusionUNet(**(UNET | changes)))


def tokens(**changes):
    return fill_tokens(ImageTransformer(**(TOKENS | changes)))


def hourglass(*sights, classes=None, **changes):
    """Two layers a level, of what is said of it: a sight and how far it reaches."""
    levels = [
        {"depth": 2, "width": 64 * k, "hidden": 48 * k, "sight": sight, "heads": 2 * k
         if sight != "none" else 1, "reach": reach}
        for k, (sight, reach) in enumerate(sights, 1)
    ]  # fmt: skip
    usual = {"channels": 3, "patch": 2, "features": 48, "hidden": 40, "depth": 2}
    return fill_tokens(HourglassTransformer(levels=levels, classes=classes, **(usual | changes)))


def flat(**changes):
    return hourglass(*GLOBAL, **changes)


GLOBAL = (("global", 0), ("global", 0))
WINDOWS = (("shifted-window", 4), ("shifted-window", 2), ("none", 0))
NEIGHBOURS = (("neighborhood", 5), ("neighborhood", 3), ("global", 0))
# What its models return for the weights of ``fill_tokens``:
# `python benchmarks/originals_kdiffusion.py --hourglass FILE`.
ORIGINAL = [
    (lambda: unet(augmentations=9), [-0.36574, 0.663308, 0.810388, -0.388254, 0.679627, 0.836746]),
    (lambda: unet(**PATCHES), [1.298269, 1.469222, 1.020753, 1.298956, 1.472114, 1.025217]),
    (lambda: unet(**GROWN), [-0.169221, -0.566914, 0.324076, -0.169452, -0.565652, 0.324603]),
    (tokens, [-0.004192, -0.023685, -0.023576, 0.00012, -0.017487, -0.020622]),
    (lambda: tokens(patch=4, classes=5),
     [0.047795, 0.01162, -0.066489, 0.21505, -0.151548, 0.028754]),
    (flat, [0.032598, 0.083226, -0.012994, 0.040245, -0.04981, -0.051979]),
    (lambda: hourglass(*WINDOWS, classes=5),
     [0.02432, 0.096867, -0.001502, 0.068811, -0.081491, -0.088007]),
    (lambda: hourglass(*NEIGHBOURS),
     [0.033005, 0.110708, -0.006926, 0.054012, -0.082173, -0.073369]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "numbers"), ORIGINAL)
def test_the_network_returns_what_the_original_does(make, numbers):
    net = make()
    given = (Y,) if net.conditions else ()
    size = (32, 48) if isinstance(net, HourglassTransformer) else (16, 24)
    with torch.no_grad():
        out = net(wave((2, 3, *size), 0.5), torch.tensor([0.2, 5.0]).log() / 4, *given)
    found = out.flatten()[:: out.numel() // 6]
    torch.testing.assert_close(found, torch.tensor(numbers), rtol=0, atol=3e-6)


def settings(net, **changes):
    """The configuration of k-diffusion for a network of ours."""
    made = net.arguments
    model = {"input_channels": made["channels"], "input_size": [16, 16], "sigma_data": 0.5,
             "sigma_min": 0.01, "sigma_max": 160, "loss_weighting": "soft-min-snr"}  # fmt: skip
    if isinstance(net, KDiffusionUNet):
        model |= {"type": "image_v1", "patch_size": made["patch"]}
    elif isinstance(net, ImageTransformer):
        model |= {"type": "image_transformer_v1", "patch_size": [made["patch"]] * 2}
    else:
        words = {"neighborhood": "kernel_size", "shifted-window": "window_size"}
        attentions = [
            {"type": level["sight"]}
            | ({words[level["sight"]]: level["reach"]} if level["reach"] else {})
            for level in made["levels"]
        ]
        model |= {"type": "image_transformer_v2", "patch_size": [made["patch"]] * 2,
                  "self_attns": attentions}  # fmt: skip
    return {"model": model | changes, "dataset": {"type": "imagefolder", "num_classes": 0}}


@pytest.fixture
def write(tmp_path):
    """Write what its training writes: weights of the last step, averages, and more."""

    def to(net, config=None, prefix="", name="model_00010000.pth", **more):
        state = {prefix + k: v for k, v in net.state_dict().items()}
        content = {"model": {k: 0 * v for k, v in state.items()}, "model_ema": state,
                   "opt": {"state": {}, "param_groups": []}, "ema_sched": {"last_epoch": 3},
                   "epoch": 1, "step": 10000, "gns_stats": None} | more  # fmt: skip
        torch.save(content | ({} if config is None else {"config": config}), tmp_path / name)
        return tmp_path / name

    return to


@pytest.mark.parametrize("make", [case[0] for case in ORIGINAL])
def test_a_checkpoint_with_its_configuration_is_a_prior(make, write, tmp_path):
    """D of the paper's table 1 with sigma_data and the averaged weights, bit by bit from a folder
    of ours."""
    net = make()
    wrapped = isinstance(net, KDiffusionUNet) and net.arguments["augmentations"]
    file = write(net, settings(net), prefix="inner_model." if wrapped else "")
    found = recognise(file)
    prior = found.prior
    assert " of k-diffusion (image_" in found.architecture
    assert any("averaged weights 'model_ema' are taken" in note for note in found.notes)
    assert any("prefix 'inner_model.'" in note for note in found.notes) == bool(wrapped)
    assert prior.net.arguments == net.arguments
    assert (prior.sigma_data, prior.sigma_min, prior.sigma_max) == (0.5, 0.01, 160)
    assert (prior.range, prior.train_size, prior.shape) == ((-1, 1), (16, 16), (3, None, None))
    x, total = wave((2, 3, 16, 16), 0.1), math.sqrt(0.7**2 + 0.25)
    got = prior.denoise(x, SIGMA.float())
    with torch.no_grad():
        f = net(x / total, torch.full((2,), math.log(0.7) / 4))
    want = 0.25 / total**2 * x + 0.7 * 0.5 / total * f
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    save_pretrained(prior, tmp_path / "ours")
    again = from_pretrained(tmp_path / "ours")
    assert torch.equal(again.denoise(x, SIGMA.float()), got)


def test_a_file_for_inference_has_its_configuration_in_its_metadata(tmp_path, write):
    """Half precision is named; the configuration is as it was written, without usual values."""
    net = hourglass(("neighborhood", 7), ("global", 0), patch=4)
    config = {"model": {"type": "image_transformer_v2", "patch_size": [4, 4], "sigma_min": 0.02,
                        "input_channels": 3, "sigma_data": 0.25}}  # fmt: skip
    half = {k: v.half() for k, v in net.state_dict().items()}
    save_file(half, tmp_path / "m.safetensors", metadata={"config": json.dumps(config)})
    found = recognise(tmp_path / "m.safetensors")
    assert found.weights == "float16, used in float32"
    assert "layers 2 of 64 (neighborhood 7), 2 of 128 (global), patches of 4 x 4" in (
        found.architecture
    )
    prior = found.prior
    assert (prior.sigma_data, prior.sigma_min, prior.sigma_max) == (0.25, 0.02, 80)
    # A pickle that refers to classes is read without them, its configuration with it.
    refers = recognise(write(net, config, name="refers.pth", where=tmp_path))
    assert (refers.prior.sigma_data, refers.architecture) == (0.25, found.architecture)
    assert any("pathlib" in note for note in refers.notes)
    unit = {"model": {"type": "image_v1", "input_channels": 3}}
    assert load(write(unet(), unit)).sigma_data == 1  # what k-diffusion takes where none is said


def test_an_older_checkpoint_is_given_its_configuration(write, tmp_path, monkeypatch, capsys):
    net = hourglass(*WINDOWS)
    file, place = write(net), tmp_path / "config.json"
    place.write_text(json.dumps(settings(net)))
    prior = load(file, config=place)
    assert prior.net.arguments == net.arguments
    stated = load(file, config=str(place), sigma_data=0.3, sigma_max=20.0)
    assert (stated.sigma_data, stated.sigma_max) == (0.3, 20)
    assert call(monkeypatch, "import", file, "--config", place, "--out", tmp_path / "ours") == 0
    assert "sigma 0.01 to 160" in capsys.readouterr().out
    x = wave((1, 3, 16, 16), 0.2)
    kept = from_pretrained(tmp_path / "ours")
    assert torch.equal(kept.denoise(x, SIGMA.float()), prior.denoise(x, SIGMA.float()))
    with pytest.raises(FileNotFoundError, match="no configuration .*gone.json"):
        load(file, config=tmp_path / "gone.json")
    place.write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        load(file, config=place)
    with pytest.raises(ValueError, match="does not take config"):
        load(lambda x, sigma: x, config=place)


def test_what_neither_weights_nor_configuration_say_is_asked_for(write):
    with pytest.raises(ValueError, match="does not say what its tokens look at"):
        load(write(hourglass(*NEIGHBOURS)), sigma_data=0.5)
    with pytest.raises(ValueError, match="give that by config= .* or state sigma_data="):
        load(write(unet()))
    found = recognise(write(unet()), Stated(sigma_data=0.5))  # 3 numbers are 3 channels
    assert found.prior.shape == (3, None, None)
    assert any("noise levels are in its configuration" in note for note in found.notes)
    file = write(tokens())
    with pytest.raises(ValueError, match=r"12 channels in patches of 1 x 1, 3 channels in patches"):
        load(file, sigma_data=0.5)
    assert load(file, sigma_data=0.5, shape=(3, None, None)).net.arguments["patch"] == 2
    with pytest.raises(ValueError, match="patches of 12 numbers, which 5 channels"):
        load(file, sigma_data=0.5, shape=(5, None, None))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (unet, {"type": "image_transformer_v1"}, "type 'image_transformer_v1', and the weights"),
        (unet, {"sigma_data": -1}, "sigma_data must be a number > 0, got -1"),
        (unet, {"patch_size": 2}, "patches of 3 numbers, which 3 channels"),
        (tokens, {"patch_size": [2, 4]}, "patches of 2 x 4 pixels are not known"),
        (tokens, {"patch_size": "2"}, "patch_size must be two whole numbers, got '2'"),
        (flat, {"self_attns": [{"type": "global"}]}, "each of the 2 levels"),
        (flat, {"self_attns": [{"type": "axial"}] * 2}, "known types are global, no"),
        (flat, {"self_attns": [{"type": "none"}] * 2}, "do not belong together"),
        (flat, {"self_attns": [{"type": "shifted-window"}] * 2}, "window_size of"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(make, changes, message, write):
    net = make()
    with pytest.raises(ValueError, match=message):
        load(write(net, settings(net, **changes)))


def test_a_configuration_that_is_none_is_refused(write, tmp_path):
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"c.json is no configuration of k-diffusion"):
        load(write(unet()), config=tmp_path / "c.json")


def test_networks_that_are_given_more_than_an_image_are_refused(write, tmp_path):
    def file(net, **beside):
        state = net.state_dict() | beside
        torch.save({"config": settings(net), "model_ema": state}, tmp_path / "m.pth")
        return tmp_path / "m.pth"

    with pytest.raises(ValueError, match="told an embedding beside .*kv_proj"):
        load(file(unet(), **{"u_net.d_blocks.0.3.kv_proj.weight": torch.ones(2, 2)}))
    with pytest.raises(ValueError, match=r"told an embedding .*mapping_cond.weight \(32, 12\)"):
        load(file(unet(), **{"mapping_cond.weight": torch.ones(32, 12)}))
    with pytest.raises(ValueError, match="takes 4 numbers of a patch and returns 3: it is given a"):
        load(file(unet(), **{"proj_in.weight": torch.ones(64, 4, 1, 1)}))
    with pytest.raises(ValueError, match="of an earlier form"):
        load(file(hourglass(*GLOBAL), **{"skip_scales.0": torch.ones(1)}))
    with pytest.raises(ValueError, match="1 not in the network .up_levels.0.2.ff"):
        load(file(hourglass(*GLOBAL), **{"up_levels.0.2.ff.up_proj.weight": torch.ones(1)}))
    state = tokens().state_dict()
    del state["blocks.1.ff.up_proj.weight"]
    torch.save({"config": settings(tokens()), "model_ema": state}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match="1 missing .blocks.1.ff.up_proj.weight"):
        load(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (unet, "proj_out.weight", None),
        (unet, "proj_in.weight", torch.ones(1)),
        (tokens, "blocks.0.self_attn.qk_norm.scale", torch.ones(0)),
    ],
)
def test_names_without_their_weights_are_no_network(make, name, value, tmp_path):
    net = make()
    state = net.state_dict() | {name: value}
    state = {key: t for key, t in state.items() if t is not None}
    torch.save({"config": settings(net), "model_ema": state}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"m.pth has tensors by the names of k-diff.*is damaged"):
        load(tmp_path / "m.pth")


def test_a_class_is_one_of_those_it_was_trained_on_or_none(write):
    """No class is the embedding after the last; a network that was never trained on it has to be
    given one."""
    net, x = tokens(patch=4, classes=5), wave((2, 3, 16, 16), 0.1)
    file, sigma = write(net, settings(net)), SIGMA.float()
    found = recognise(file)
    assert any("any of its 5" in note for note in found.notes)
    none = found.prior.at(y=torch.tensor(5)).denoise(x, sigma)
    assert torch.equal(found.prior.denoise(x, sigma), none)
    third = load(file, label=3).denoise(x, sigma)
    assert torch.equal(found.prior.at(y=torch.tensor([3, 3])).denoise(x, sigma), third)
    assert not torch.allclose(third, none)
    with pytest.raises(ValueError, match=r"label must lie in 0 .. 4, got 5"):
        load(file, label=5)
    config = settings(net)
    config["dataset"]["cond_dropout_rate"] = 0
    found = recognise(write(net, config))
    assert any("never trained without its class" in note for note in found.notes)
    with pytest.raises(ValueError, match="conditioned on one of 5 classes"):
        found.prior.denoise(x, sigma)
    with pytest.raises(ValueError, match="not conditioned on a class"):
        load(write(unet(), settings(unet())), label=1)


def test_what_a_u_net_leaves_out_is_said(write):
    net = unet(**PATCHES)
    notes = recognise(write(net, settings(net, dropout_rate=0.05))).notes
    assert any("has_variance" in note for note in notes)
    assert any("drops 0.05 of its attention weights" in note for note in notes)
    grown = unet(**GROWN)
    assert any("first 1 levels" in n for n in recognise(write(grown, settings(grown))).notes)
    x, c = wave((1, 3, 16, 16), 0.1), torch.tensor([0.2])
    with torch.no_grad():
        before = grown(x, c)
        for p in (*grown.u_net.d_blocks[0].parameters(), *grown.u_net.u_blocks[-1].parameters()):
            p.fill_(torch.nan)
        assert torch.equal(grown(x, c), before)
    with pytest.raises(ValueError, match="at least 4 pixels a side, got 2x8"):
        unet()(wave((1, 3, 2, 8), 0.1), c)
