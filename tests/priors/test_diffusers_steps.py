"""Networks of diffusers under the schedulers of the library, step by step beside its own."""

from __future__ import annotations

import json
import math

import pytest
import torch
from foreign import fill, wave
from reference import F64
from safetensors.torch import load_file, save_file

from posteriori.priors import (
    DiscreteVP,
    from_diffusers,
    from_pretrained,
    load,
    recognise,
    save_pretrained,
)

diffusers = pytest.importorskip("diffusers")

UNET = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 16),
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def unet(**more):
    return fill(diffusers.UNet2DModel(8, 3, 3, **(UNET | more)))


def dit(**more):
    kind = diffusers.DiTTransformer2DModel
    small = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8}
    return fill(kind(in_channels=3, num_embeds_ada_norm=5, **(small | more)))


def written(folder, net, scheduler):
    part = "unet" if isinstance(net, diffusers.UNet2DModel) else "transformer"
    net.save_pretrained(folder / part)
    scheduler.save_pretrained(folder / "scheduler")
    return folder


STEPS = [
    ("DDPMScheduler", {"clip_sample": False}),
    ("DDPMScheduler", {"clip_sample": False, "prediction_type": "v_prediction"}),
    ("DDIMScheduler", {"clip_sample": False}),
    ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("PNDMScheduler", {"skip_prk_steps": True, "prediction_type": "v_prediction"}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "prediction_type": "v_prediction"}),
    ("EDMEulerScheduler", {"sigma_data": 0.7}),
    ("EDMDPMSolverMultistepScheduler", {"sigma_max": 20.0}),
    ("FlowMatchEulerDiscreteScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
]


def levels_of(theirs, name, k):
    """The level before and after step k of its 10, each as (a, sigma): x_net = a (x0 + sigma z)."""
    if name.startswith("FlowMatch"):
        return [(1 - float(t), float(t) / (1 - float(t))) for t in theirs.sigmas[k : k + 2]]
    if name.startswith(("EDM", "Euler")):  # which keep images in VE coordinates
        return [(1.0, float(sigma)) for sigma in theirs.sigmas[k : k + 2]]
    abar = theirs.alphas_cumprod.double()
    now, after = (float(abar[int(t)]) for t in theirs.timesteps[k : k + 2])
    return [(math.sqrt(v), math.sqrt((1 - v) / v)) for v in (now, after)]


def moved(prior, x, levels, noise=None):
    """Our transition, from x in the library's coordinates to x in the library's coordinates."""
    (a, sigma), (b, s) = levels
    x0 = prior.denoise(x / a, torch.tensor(sigma, dtype=F64))
    std = 0.0 if noise is None else s * math.sqrt(1 - (s / sigma) ** 2)
    out = x0 + math.sqrt(s**2 - std**2) * (x / a - x0) / sigma
    return b * (out if noise is None else out + std * noise)


@pytest.mark.parametrize("make", [unet, dit])
@pytest.mark.parametrize(("name", "settings"), STEPS)
def test_a_step_of_the_library_is_our_step(tmp_path, name, settings, make):
    """From the third of 10 levels on: DDPM's with the noise that it draws, the others without."""
    theirs = getattr(diffusers, name)(**settings)
    net, k = make(), 2
    prior = load(written(tmp_path, net, theirs))
    theirs.set_timesteps(10)
    if name == "PNDMScheduler":  # which begins with a step of first order
        k = 0
    levels = levels_of(theirs, name, k)
    t = theirs.timesteps[k]
    x = levels[0][0] * (0.5 + levels[0][1]) * wave((2, 3, 8, 8), 0.2)
    given = {} if make is unet else {"class_labels": torch.tensor([5, 5])}
    scaled = theirs.scale_model_input(x, t) if hasattr(theirs, "scale_model_input") else x
    with torch.no_grad():
        out = net(scaled, t.expand(2), **given).sample
    stream = torch.Generator().manual_seed(3)
    draws = {"generator": stream} if name == "DDPMScheduler" else {}
    want = theirs.step(out, t, x, **draws).prev_sample
    noise = None
    if draws:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    got = moved(prior, x, levels, noise)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-5


def test_a_transformer_is_of_one_size_and_of_no_class_unless_one_is_given(tmp_path):
    folder = written(tmp_path / "a", dit(out_channels=6), diffusers.DDIMScheduler())
    found = recognise(folder)
    assert (found.prior.shape, found.prior.multiple) == ((3, 8, 8), 1)
    lines = dict(found.lines())
    assert lines["architecture"].startswith("DiTTransformer2DModel of diffusers")
    assert "any of its 5 classes" in lines["note"]
    x, sigma = wave((2, 3, 8, 8), 0.2), torch.tensor(0.7)
    with pytest.warns(UserWarning, match="learned variance"):
        plain = found.prior.denoise(x, sigma)
    two = load(folder, label=2)
    with pytest.warns(UserWarning, match="learned variance"):
        of_two = two.denoise(x, sigma)
    assert not torch.allclose(plain, of_two, atol=1e-3)
    save_pretrained(two, tmp_path / "ours")
    back = from_pretrained(tmp_path / "ours")
    with pytest.warns(UserWarning, match="learned variance"):
        assert torch.equal(back.denoise(x, sigma), of_two)
    assert back.given["class_labels"] == 2
    with pytest.raises(ValueError, match=r"label must lie in 0 .. 4, got 7"):
        load(folder, label=7)


def test_a_transformer_of_before_2024(tmp_path):
    """Transformer2DModel was its class then; its tensors have the same names."""
    folder = written(tmp_path, dit(), diffusers.DDIMScheduler())
    config = folder / "transformer" / "config.json"
    x, sigma = wave((1, 3, 8, 8), 0.2), torch.tensor(0.7)
    want = load(folder).denoise(x, sigma)
    config.write_text(config.read_text().replace("DiTTransformer2DModel", "Transformer2DModel"))
    assert torch.equal(load(folder).denoise(x, sigma), want)
    told = json.loads(config.read_text()) | {"norm_type": "layer_norm"}
    config.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="holds a Transformer2DModel; only UNet2DModel and DiT"):
        load(folder)


def test_a_network_with_classes(tmp_path):
    net = unet(num_class_embeds=4)
    folder = written(tmp_path / "a", net, diffusers.DDIMScheduler())
    x, abar = wave((1, 3, 8, 8), 0.2), DiscreteVP.linear().alphas_cumprod[400]
    a, s = math.sqrt(abar), math.sqrt(1 - abar)
    with pytest.raises(ValueError, match=r"one of 4 classes: give it by prior.at\(class_labels="):
        load(folder).denoise(x, torch.tensor(0.7))
    with torch.no_grad():
        eps = net(a * x, torch.tensor([400]), class_labels=torch.tensor([3])).sample
    got = load(folder, label=3).denoise(x, torch.tensor(s / a, dtype=F64))
    torch.testing.assert_close(got, x - s / a * eps, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="not conditioned on a class"):
        load(written(tmp_path / "b", unet(), diffusers.DDIMScheduler()), label=1)


def test_a_diffusers_network_is_saved_as_a_prior_of_this_package(tmp_path):
    scheduler = diffusers.EDMEulerScheduler(prediction_type="v_prediction")
    prior = from_diffusers(written(tmp_path / "a", unet(), scheduler))
    save_pretrained(prior, tmp_path / "ours")
    x, sigma = wave((2, 3, 7, 8), 0.2), torch.tensor(0.7)
    with pytest.warns(UserWarning, match="trained on 8x8"):
        want = prior.denoise(x, sigma)
    with pytest.warns(UserWarning, match="trained on 8x8"):
        assert torch.equal(from_pretrained(tmp_path / "ours").denoise(x, sigma), want)
    card = tmp_path / "ours" / "card.json"
    card.write_text(card.read_text().replace('"UNet2DModel"', '"AutoencoderKL"'))
    with pytest.raises(ValueError, match="unknown diffusers network 'AutoencoderKL'"):
        from_pretrained(tmp_path / "ours")


def test_weights_in_several_files(tmp_path):
    folder = written(tmp_path, unet(), diffusers.DDIMScheduler())
    x, sigma = wave((1, 3, 8, 8), 0.2), torch.tensor(0.7)
    want = load(folder).denoise(x, sigma)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(str(file))
    file.unlink()
    names = sorted(state)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for name, part in halves.items():
        save_file({key: state[key].clone() for key in part}, str(folder / "unet" / name))
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    told = {key: name for name, part in halves.items() for key in part}
    index.write_text(json.dumps({"weight_map": told}))
    torch.testing.assert_close(load(folder).denoise(x, sigma), want, rtol=1e-5, atol=1e-5)
    index.write_text(json.dumps({"weight_map": told | {names[0]: "../../a.safetensors"}}))
    with pytest.raises(ValueError, match="names a file outside its folder"):
        load(folder)
