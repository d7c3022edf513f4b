"""Pipelines of the Stable Diffusion family, held to the library's own: tiny ones with random
weights."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("diffusers")

import pipelines
from cases import BRIEF
from reference import F64

import posteriori as po
from posteriori import methods
from posteriori.methods.data_steps import misfit
from posteriori.methods.transitions import DDIM
from posteriori.operators import norm
from posteriori.priors import from_diffusers_pipeline
from posteriori.priors.pipelines import flow_shift, is_hub_name

KINDS = pipelines.KINDS
FLOWS = ("sd3", "flux")
TEXT = "a bold seven"
EULER = methods.Unconditional(DDIM(0.0))
SIDE = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder and pipeline object by kind."""
    root, out = tmp_path_factory.mktemp("pipelines"), {}
    for kind in KINDS:
        pipe = pipelines.make(kind)
        pipe.save_pretrained(root / kind)
        with warnings.catch_warnings(action="ignore"):
            again = type(pipe).from_pretrained(root / kind, low_cpu_mem_usage=False)
        again.set_progress_bar_config(disable=True)
        out[kind] = root / kind, again
    return out


@pytest.fixture(scope="module")
def priors(folders):
    return {kind: from_diffusers_pipeline(folder) for kind, (folder, _) in folders.items()}


def picture(prior, sigma=0.1):
    A = po.operators.Downsample((3, SIDE, SIDE), 2)
    y = torch.linspace(0, 1, 3 * 64).view(3, 8, 8)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma), range=(0, 1)))


def embeddings(pipe, kind, text):
    """The pipeline's own, by its own rule for a text and for none."""
    cpu = torch.device("cpu")
    with torch.no_grad():
        if kind == "flux":
            e, pooled, _ = pipe.encode_prompt(text, None, cpu)
            return e, pooled
        if kind in ("sd15", "sd21"):
            return pipe.encode_prompt(text, cpu, 1, False)[0], None
        words = (text, None, None) if kind == "sd3" else (text, None)
        e, _, pooled, _ = pipe.encode_prompt(*words, cpu, 1, False)
        return e, pooled


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_becomes_what_the_pipeline_itself_makes_of_it(kind, folders, priors):
    _, pipe = folders[kind]
    for text in (TEXT, "fox"):
        told = priors[kind].know().text(text)
        e, pooled = embeddings(pipe, kind, text)
        torch.testing.assert_close(told["embedding"], e[0])
        assert (pooled is None) == ("pooled" not in told)
        if pooled is not None:
            torch.testing.assert_close(told["pooled"], pooled[0])
    empty = priors[kind].know().text("")
    if kind == "sdxl":  # the index says that nothing is told as 0
        assert all(float(value.abs().max()) == 0 for value in empty.values())
    else:
        torch.testing.assert_close(empty["embedding"], embeddings(pipe, kind, "")[0][0])


@pytest.mark.parametrize("kind", KINDS)
def test_latents_have_the_scale_and_shift_of_the_pipeline(kind, folders, priors):
    """Images to latents and back by the formulas of the library's pipelines."""
    _, pipe = folders[kind]
    config = pipe.vae.config
    x = 2 * torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) - 1
    chart = priors[kind].chart((-1.0, 1.0), (3, SIDE, SIDE))
    with torch.no_grad():
        z = pipe.vae.encode(x).latent_dist.mode()
        u = (z - (config.shift_factor or 0.0)) * config.scaling_factor
        torch.testing.assert_close(chart.lift(x), u, rtol=1e-5, atol=1e-5)
        back = pipe.vae.decode(u / config.scaling_factor + (config.shift_factor or 0.0)).sample
        torch.testing.assert_close(chart.push(u), back, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            priors[kind].chart((0.0, 1.0), (3, SIDE, SIDE)).push(u),
            (back + 1) / 2,
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FLOWS])
def test_the_denoised_latents_are_the_schedulers_own(kind, folders, priors):
    """pred_original_sample of DDIM's step, at whole timesteps and without a text."""
    _, pipe = folders[kind]
    e, pooled = embeddings(pipe, kind, TEXT)
    prior = priors[kind].conditioned(text=TEXT)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    added = None
    if kind == "sdxl":
        ids = pipe._get_add_time_ids((SIDE, SIDE), (0, 0), (SIDE, SIDE), z.dtype, 8)
        added = {"text_embeds": pooled.expand(2, -1), "time_ids": ids.expand(2, -1)}
    pipe.scheduler.set_timesteps(4)
    for t in (1, 400, 999):
        with torch.no_grad():
            out = pipe.unet(z, t, e.expand(2, -1, -1), added_cond_kwargs=added).sample
        want = pipe.scheduler.step(out, t, z).pred_original_sample
        abar = pipe.scheduler.alphas_cumprod[t].double()
        sigma = ((1 - abar) / abar).sqrt()
        ours = prior.denoise(z / abar.sqrt().float(), sigma)
        # x_net / a is rounded, and sigma multiplies the network's output by up to 14.6.
        torch.testing.assert_close(ours, want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_the_flow_is_a_run_of_the_pipeline(kind, folders, priors):
    """The pipeline's own call under guidance, from one noise to its last latents; ours in VE
    coordinates along the same levels."""
    _, pipe = folders[kind]
    flow, guidance = kind in FLOWS, 2.5
    channels = 16 if flow else 4
    z = torch.randn(1, channels, 8, 8, generator=torch.Generator().manual_seed(2))
    how = {"guidance_scale": guidance, "output_type": "latent", "height": SIDE, "width": SIDE}
    if kind == "flux":
        prior = priors[kind].conditioned(text=TEXT).at(distilled_guidance=torch.tensor(guidance))
        packed = pipe._pack_latents(z, 1, 16, 8, 8)
        out = pipe(TEXT, sigmas=[0.9, 0.5, 0.2], latents=packed, **how).images
        want = pipe._unpack_latents(out, SIDE, SIDE, pipe.vae_scale_factor)
    else:
        prior = priors[kind].conditioned(text=TEXT, guidance=guidance)
        steps = {"sigmas": [0.9, 0.5, 0.2]} if flow else {"num_inference_steps": 4}
        want = pipe(TEXT, latents=z, **steps, **how).images
    if flow:
        t = pipe.scheduler.sigmas.double()
        levels = t / (1 - t)
        x = z / (1 - t[0]).float()
        stretch = 1.0
    else:
        abar = pipe.scheduler.alphas_cumprod.double()
        times = abar[pipe.scheduler.timesteps]
        # The library's last step goes to the level of its first timestep, not to 0.
        levels = ((1 - torch.cat([times, abar[:1]])) / torch.cat([times, abar[:1]])).sqrt()
        x, stretch = z / times[0].sqrt().float(), float(abar[0].sqrt())
    post = picture(prior)
    with torch.no_grad():
        for sigma, s in pairwise(levels):
            x, _ = EULER.step(post, x, sigma, s, po.rng.Streams(0, [0]))
    torch.testing.assert_close(stretch * x, want, rtol=2e-4, atol=2e-4 * float(want.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_embedding_can_be_tuned(kind, priors):
    """Its derivative is that of differences, and no other leaf is offered for tuning."""
    prior = priors[kind].conditioned(text=TEXT)
    wanted = {"embedding"} | ({"pooled"} if "pooled" in priors[kind].know().leaves() else set())
    tunable = {n for n in prior.know().adjustable() if "." not in n}
    assert wanted <= tunable
    assert not {"time_ids", "distilled_guidance"} & tunable
    e = prior.know().adjustable()["embedding"]
    x = torch.randn(1, 4 if kind not in FLOWS else 16, 8, 8)
    sigma = torch.tensor(1.0, dtype=F64)
    _, pull = po.priors.linearize_at(prior, x, sigma, embedding=e)
    g = pull["embedding"](torch.ones_like(x))
    assert g.shape == e.shape
    h = 1e-2 * g / g.norm()
    ahead, behind = (
        float(prior.at(embedding=e + side * h).denoise(x, sigma).double().sum()) for side in (1, -1)
    )
    assert (ahead - behind) / 2 == pytest.approx(1e-2 * float(g.norm()), rel=0.05)


def test_what_is_not_said_is_the_librarys_own(priors):
    """Guidance of Flux 3.5, an XL image that is an original of its own size, the empty text."""
    x, sigma = torch.randn(2, 16, 8, 8), torch.tensor(1.0, dtype=F64)
    flux = priors["flux"]
    told = flux.at(distilled_guidance=torch.tensor(3.5))
    torch.testing.assert_close(flux.denoise(x, sigma), told.denoise(x, sigma))
    xl, x = priors["sdxl"], x[:, :4]
    ids = torch.tensor([SIDE, SIDE, 0, 0, SIDE, SIDE], dtype=torch.float32)
    for same in (xl.at(time_ids=ids), xl.at(**xl.know().text(""))):
        torch.testing.assert_close(xl.denoise(x, sigma), same.denoise(x, sigma))


def swept():
    """Every method of latents and of flows, and some others, with as little work inside a step as
    they do."""
    more = ("FlowDPS", "FlowDPS published", "FlowChef", "MPCFlow", "DAPS flower", "DPS", "ReSample")
    latent = {type(m).__name__ for m in BRIEF.values() if m.family == "latent"}
    short = {"inner_steps": 1, "inner": 1}
    return {
        name: replace(BRIEF[name], **{k: n for k, n in short.items() if hasattr(BRIEF[name], k)})
        for name in (*more, *sorted(latent))
    }


@pytest.fixture
def one_iteration(monkeypatch):
    """The norm of an operator after a decoder by one power iteration in place of 16."""
    for module in (norm, misfit):
        whole = module.squared_norm
        monkeypatch.setattr(
            module, "squared_norm", lambda *given, whole=whole: whole(*given, iterations=1)
        )


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sd21"])
def test_every_method_of_latents_and_flows_runs_on_every_pipeline(
    kind, weights, folders, one_iteration
):
    prior = from_diffusers_pipeline(folders[kind][0], weights=weights)
    assert prior.prior.net.net.dtype is getattr(torch, weights)
    assert next(prior.autoencoder.parameters()).dtype is torch.float32
    told = prior.conditioned(text=TEXT, guidance=1.5)
    levels = torch.tensor([0.6, 0.0], dtype=F64)
    ran = []
    for name, method in swept().items():
        post = picture(told)
        if method.refuses(post) is not None:
            continue
        with warnings.catch_warnings(action="ignore"):
            run = po.sample(post, method, n=method.returned, grid=levels)
        assert run.samples.dtype is torch.float32, name
        assert tuple(run.samples.shape[1:]) == (3, SIDE, SIDE), name
        assert bool(run.samples.isfinite().all()), name
        ran.append(name)
    assert {"FlowDPS", "FlowChef", "MPCFlow"} <= set(ran)
    assert set(ran) == set(swept())


def test_load_recognises_a_pipeline(folders):
    folder, _ = folders["sd15"]
    found = po.priors.recognise(folder)
    assert isinstance(found.prior, po.priors.Latent)
    assert found.architecture.startswith("StableDiffusionPipeline: a denoiser of latents of")
    half = po.priors.load(folder, autocast="bfloat16", sigma_max=10.0)
    assert next(half.prior.parameters()).dtype is torch.bfloat16
    assert half.sigma_max == 10
    with pytest.raises(ValueError, match="label"):
        po.priors.load(folder, label=3)


def test_two_loads_are_one_prior(folders):
    folder, _ = folders["sd3"]
    one, other = (from_diffusers_pipeline(folder) for _ in range(2))
    assert one.record() == other.record()


def test_levels_of_a_flow_have_the_shift_of_its_scheduler(folders, priors):
    """As many as the library trained on, but for its first, which is pure noise."""
    scheduler = folders["sd3"][1].scheduler
    t = type(scheduler).from_config(scheduler.config).sigmas.double().flip(0)
    t = t[(t > 0.01) & (t < 0.99)]
    ladder = priors["sd3"].know().ladder()
    u = ladder / (1 + ladder)
    even = u / (3 - 2 * u)
    torch.testing.assert_close(even.diff(), even.diff().mean().expand(len(even) - 1))
    theirs = t / (3 - 2 * t)
    torch.testing.assert_close(
        theirs.diff(), torch.full_like(theirs[1:], 0.001), rtol=1e-3, atol=1e-6
    )
    assert flow_shift({"shift": 3.0}) == 3
    moving = {"use_dynamic_shifting": True, "max_shift": 1.15}
    assert flow_shift(moving) == pytest.approx(3.158, abs=1e-3)


def test_what_is_not_there_is_said_in_one_sentence(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))
    for place in ("stabilityai/no-such-model", "black-forest-labs/FLUX.1-dev"):
        with pytest.raises(FileNotFoundError, match="nothing is downloaded: fetch it") as said:
            po.priors.load(place)
        assert "\n" not in str(said.value)
        assert "gated" in str(said.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no model_index.json"):
        from_diffusers_pipeline(tmp_path / "empty")
    broken = tmp_path / "broken"
    shutil.copytree(folders["sd15"][0], broken)
    shutil.rmtree(broken / "vae")
    with pytest.raises(FileNotFoundError, match="not copied or downloaded whole"):
        from_diffusers_pipeline(broken)
    unread = tmp_path / "unread"
    shutil.copytree(folders["sd15"][0], unread)
    shutil.rmtree(unread / "text_encoder")
    with pytest.raises(FileNotFoundError, match="has no text_encoder"):
        from_diffusers_pipeline(unread)
    other = tmp_path / "other"
    shutil.copytree(folders["sd15"][0], other)
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanPipeline"}))
    with pytest.raises(ValueError, match="holds a WanPipeline; pipelines that are priors"):
        from_diffusers_pipeline(other)


def test_a_missing_library_is_named(folders, monkeypatch):
    from posteriori import extras

    real = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda n: None if n == "transformers" else real(n))
    with pytest.raises(
        ImportError, match=r"needs transformers: pip install 'posteriori\[pipelines\]'"
    ):
        from_diffusers_pipeline(folders["sd15"][0])


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("stabilityai/sd-turbo", True),
        ("runwayml/stable-diffusion-v1-5", True),
        ("runs/model.safetensors", False),
        ("/here/model", False),
        ("./here", False),
        ("model", False),
    ],
)
def test_names_of_the_hub_are_told_from_paths(text, hub):
    assert is_hub_name(text) is hub
