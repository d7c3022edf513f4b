"""Whatever holds a network, by one function and one command."""

from __future__ import annotations

import pytest
import torch
from cases import full_gaussian, toy_unet
from console import call
from foreign import fill, wave
from reference import F64

from posteriori.priors import Network, from_pretrained, load, recognise, save_pretrained
from posteriori.priors.architectures.adm import ADM

ADM_SAID = {"head_channels": 16, "schedule": "linear"}
X, SIGMA = wave((2, 3, 8, 8), 1.0), torch.tensor(0.7)


def adm_state():
    return fill(ADM(width=32, multipliers=(1, 2), attention=(2,), head_channels=16)).state_dict()


@pytest.fixture
def write(tmp_path):
    def write(content, name="net.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return write


def test_our_own_folder_and_a_prior(tmp_path):
    prior = Network(toy_unet(), shape=(1, None, None), multiple=4, sigma_data=0.5)
    save_pretrained(prior, tmp_path / "p", description="a toy")
    found = recognise(tmp_path / "p")
    x = wave((1, 1, 8, 8), 0.0)
    assert torch.equal(found.prior.denoise(x, SIGMA), prior.denoise(x, SIGMA))
    lines = dict(found.lines())
    assert lines["architecture"].startswith("UNet of this package")
    assert lines["parametrisation"] == "edm, sigma_data 0.5"
    assert lines["schedule"] == "none; sigma 0.002 to 80"
    assert (lines["range"], lines["note"]) == ("[-1, 1]", "a toy")
    assert load(prior) is prior
    gaussian = full_gaussian()
    assert load(gaussian) is gaussian
    with pytest.raises(ValueError, match="a folder with a card, does not take heads"):
        load(tmp_path / "p", heads=2)


class Scaled(torch.nn.Module):
    """The denoiser of N(0, 0.3^2) pixels, in images from 0 to 1, as deepinv calls one."""

    def forward(self, x, sigma):
        assert sigma.shape == (len(x),)
        return x * (0.09 / (0.09 + sigma**2)).view(-1, 1, 1, 1)


STATED = {"shape": (3, None, None), "range": (0.0, 1.0), "sigma_min": 0.01, "sigma_max": 10.0}


@pytest.mark.parametrize(
    "denoiser", [Scaled(), lambda x, sigma: x * 0.09 / (0.09 + sigma**2), Scaled().double()]
)
def test_any_denoiser_of_x_and_sigma(denoiser):
    """Of 5 rows of 8 x 8 pixels: a function given a level for each row would have five for eight
    columns."""
    prior = load(denoiser, **STATED)
    x = wave((5, 3, 8, 8), 0.3).double()
    for sigma in (0.01, 0.4, 10.0):
        got = prior.denoise(x, torch.tensor(sigma, dtype=F64))
        torch.testing.assert_close(got, x * 0.09 / (0.09 + sigma**2), rtol=1e-6, atol=1e-9)
    assert (prior.range, prior.sigma_max, prior.variance) == ((0.0, 1.0), 10.0, 0.25)
    _, pull = prior.linearize(x, torch.tensor(0.3, dtype=F64))
    torch.testing.assert_close(pull(x), 0.5 * x, rtol=1e-6, atol=1e-9)


def test_a_denoiser_is_asked_for_what_it_cannot_tell():
    with pytest.raises(ValueError, match=r"state shape= .*, range= .*, sigma_max= the largest"):
        load(Scaled(), sigma_min=0.1)
    with pytest.raises(ValueError, match="does not take heads"):
        load(Scaled(), heads=3)
    with pytest.raises(TypeError, match="made of a path or of a denoiser"):
        load(3)


@pytest.mark.parametrize(
    ("wrap", "notes"),
    [
        (lambda s: s, []),
        (lambda s: {f"module.{k}": v for k, v in s.items()}, ["prefix 'module.'"]),
        (
            lambda s: {"ema": {f"module.{k}": v for k, v in s.items()}, "model": s},
            ["averaged weights 'ema' are taken", "prefix 'module.'"],
        ),
        (
            lambda s: {
                "state_dict": {f"denoise_fn.{k}": v for k, v in s.items()}
                | {"betas": torch.ones(3)}
            },
            ["prefix 'denoise_fn.'", r"1 tensors outside 'denoise_fn.' are left out (betas)"],
        ),
        (
            lambda s: (
                {f"net.{k}": 0 * v for k, v in s.items()}
                | {f"net_ema.{k}": v for k, v in s.items()}
            ),
            ["prefix 'net_ema.'", "outside 'net_ema.' are left out (net.time_embed.0.weight"],
        ),
    ],
)
def test_the_network_within_a_checkpoint_is_found_and_the_choice_is_said(write, wrap, notes):
    state = adm_state()
    found = recognise(write(wrap(state)), stated_adm())
    said = " | ".join(found.notes)
    for note in notes:
        assert note in said
    assert len(found.notes) == len(notes) + 1  # and the order of attention channels
    for name, tensor in found.prior.net.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def stated_adm():
    from posteriori.priors.foreign.found import Stated

    return Stated(**ADM_SAID)


def test_half_precision_is_named_and_what_it_lost_is_refused(write):
    state = adm_state()
    half = {k: v.half() for k, v in state.items()}
    found = recognise(write(half), stated_adm())
    assert found.weights == "float16, used in float32"
    assert {p.dtype for p in found.prior.parameters()} == {torch.float32}
    mixed = half | {"out.2.bias": state["out.2.bias"]}
    assert "1 tensors in float32" in recognise(write(mixed), stated_adm()).weights
    half["out.2.weight"][0, 0, 0, 0] = torch.inf
    with pytest.raises(
        ValueError, match=r"1 tensors are not finite \(first: out.2.weight, float16\); float16 ends"
    ):
        load(write(half), **ADM_SAID)
    state["out.2.weight"][0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"out.2.weight, float32\); the training diverged"):
        load(write(state), **ADM_SAID)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"of no network that is known here \(2 tensors, first a, b\); known are ADM"),
        (["first_stage_model.encoder.w"], "latent diffusion model"),
        (["out.0.positional_embedding"], "a classifier or an encoder"),
        (["init_conv.weight"], "denoising-diffusion-pytorch: build it"),
        (["u_net.d_blocks.0.0.w", "mapping.0.w"], "a part of a network of k-diffusion"),
        (["patch_in.proj.weight"], "a part of a transformer of k-diffusion"),
        (["down_blocks.0.resnets.0.norm1.weight"], "of a diffusers model: give the folder"),
    ],
)
def test_a_file_of_which_nothing_would_be_loaded_is_refused(write, names, message):
    with pytest.raises(ValueError, match=message):
        load(write({name: torch.ones(2) for name in names}))


def test_places_that_are_no_prior(tmp_path, write):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="is no prior. It is a picture"):
        load(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="There is no such file or folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="this is an optimizer state"):
        load(write({"state": {}, "param_groups": []}))


def test_the_command_says_what_it_found_and_saves_it(tmp_path, write, monkeypatch, capsys):
    file = write({"ema": adm_state()})
    words = ["import", file, "--head-channels", 16, "--schedule", "linear", "--sigma-max", 50]
    assert call(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    for text in (
        "architecture    ADM (guided-diffusion): 0.8",
        "predicts a variance",
        "parametrisation eps",
        "schedule        linear (T=1000); sigma 0.01 to 50",
        "range           [-1, 1]",
        "sizes           (3, any, any), sides padded to multiples of 2",
        "weights         float32",
        "note            the averaged weights 'ema' are taken",
        # Not trained, it predicts no noise: the denoiser of a flat law, whose draws lie anywhere
        "tweedie         pass: error / promised ",
        "samples         fail: values ",
        "nothing is written",
    ):
        assert text in said
    out = tmp_path / "prior"
    assert call(monkeypatch, *words, "--out", out, "--licence", "MIT", "--range", 0, 1) == 0
    assert f"prior: {{path: {out}}}" in capsys.readouterr().out
    prior = from_pretrained(out)
    want = load(file, sigma_max=50, range=(0.0, 1.0), **ADM_SAID)
    with pytest.warns(UserWarning, match="learned variance"):
        assert torch.equal(prior.denoise(X, SIGMA), want.denoise(X, SIGMA))
    assert prior.range == (0.0, 1.0)
    assert call(monkeypatch, "import", file, "--out", out) == 2
    assert "is the folder of a prior; give another" in capsys.readouterr().err


def test_a_problem_file_takes_other_people_s_files(tmp_path, write, monkeypatch):
    from posteriori.priors.foreign import adm
    from posteriori.problem_file.prior import PriorSection

    tiny = adm.Published("tiny", 16, {"head_channels": 16})
    monkeypatch.setitem(adm.PUBLISHED_SHAPES, (32, (1, 2), 1, (2,)), tiny)
    prior = PriorSection.model_validate({"path": write(adm_state())}).build("bfloat16")
    assert (prior.train_size, prior.autocast) == ((16, 16), "bfloat16")
