"""Latent priors: the chart of a decoder, its derivative in little memory, the check at load, and
the folder."""

from __future__ import annotations

import json
import math
from itertools import accumulate

import pytest
import torch
from cases import full_gaussian, orthonormal, toy_autoencoder, toy_unet
from reference import F64, draw
from torch import nn
from torch.profiler import ProfilerActivity, profile

import posteriori as po
from posteriori import methods
from posteriori import operators as ops
from posteriori import priors as pri
from posteriori.chart import Decoder, Lifted, Pushed
from posteriori.evaluation import exact_posterior, oracle
from posteriori.noise import Gaussian
from posteriori.priors.architectures.autoencoder import ConvAutoencoder

SHAPE = (1, 6, 4)


def linear(scale=1.0, shift=0.0, range=None, **kinds):
    """Latents (4,) of vectors (6,) in orthonormal columns; the prior is of scaled latents."""
    W = orthonormal(6, 4)
    z = full_gaussian(F64, (4,))
    u = pri.Gaussian(scale * (z.mean - shift), scale**2 * z.covariance)
    coder = pri.LinearAutoencoder(W, **kinds)
    return pri.Latent(u, coder, scale=scale, shift=shift, range=range), z, W


def curved(checkpointing=True, **how):
    coder = toy_autoencoder(F64)
    coder.checkpointing = checkpointing
    return pri.Latent(full_gaussian(F64, (2, 3, 2)), coder, check=False, **how)


def mask(shape=SHAPE):
    return ops.Mask(ops.random_mask(shape[1:], 0.5, 0), shape)


def measured(prior, A, noise=None, range=(-1, 1)):
    y = A(draw(1, *A.in_shape, seed=5))[0]
    return po.Posterior(prior, po.Likelihood(y, A, noise or Gaussian(0.2), range=range))


# THE CHART
# --------------------------------------------------------------------------------------------------


def test_images_are_decoded_from_unscaled_latents_and_expressed_in_the_users_range():
    """x = a Dec(u / scale + shift) + b; lift is the encoder with the inverse of all else."""
    prior = curved(scale=2.0, shift=torch.tensor([0.5, -1.0], dtype=F64).view(2, 1, 1))
    post = measured(prior, mask(), range=(0, 255))
    u, net = draw(3, 2, 3, 2), prior.autoencoder.net
    x = net.decode(u / 2 + prior.shift)
    torch.testing.assert_close(post.chart.push(u), 127.5 * x + 127.5, rtol=1e-13, atol=1e-11)
    torch.testing.assert_close(
        post.chart.lift(127.5 * x + 127.5),
        2 * (net.encode(x) - prior.shift),
        rtol=1e-11,
        atol=1e-11,
    )
    assert post.shape == (2, 3, 2)
    assert post.to_given(u).shape == (3, *SHAPE)


@pytest.mark.parametrize("A", [mask(), ops.Clip(SHAPE)], ids=["linear", "not linear"])
def test_the_likelihood_of_latents_is_that_of_their_images(A):
    """log p(y | push(u)) = log p'(y | u), with A after a decoder as one operator."""
    post = measured(curved(), A, range=(0, 1))
    u = draw(4, 2, 3, 2)
    torch.testing.assert_close(
        post.likelihood.log_prob(u),
        post.given.log_prob(post.to_given(u)),
        rtol=1e-13,
        atol=1e-12,
    )
    assert not post.likelihood.conjugate
    assert post.log_volume == 0
    po.testing.check_operator(post.likelihood.A)
    assert "linear" in methods.DDNM().refuses(post)


@pytest.mark.parametrize("shift", [0.0, 0.7])
@pytest.mark.parametrize("noise", [Gaussian(0.3), po.noise.Poisson(50.0)], ids=["normal", "counts"])
def test_a_linear_decoder_keeps_a_linear_likelihood(shift, noise):
    prior, _, _ = linear(2.0, shift, range=(-1, 1))
    A, u = ops.Dense(draw(5, 6).abs()), draw(3, 4)
    y = A(draw(1, 6, seed=5).abs())[0] + 1
    post = po.Posterior(prior, po.Likelihood(y, A, noise, range=(-1, 3)))
    torch.testing.assert_close(
        post.likelihood.log_prob(u),
        post.given.log_prob(post.to_given(u)),
        rtol=1e-12,
        atol=1e-12,
    )
    # Counts are of A x itself, so that an offset cannot be taken from them.
    assert isinstance(post.likelihood.A, ops.LinearOperator) == (noise.std is not None)
    po.testing.check_operator(post.likelihood.A)


def test_the_expansion_of_a_linear_decoder_is_an_operator_with_its_adjoint():
    post = measured(linear()[0], ops.Identity((6,)), range=None)
    po.testing.check_operator(post.likelihood.A.B)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (-0.4, 1.5)])
def test_the_closed_form_of_latents_is_that_of_the_images_they_span(scale, shift):
    """x = W z with z Gaussian: the posterior of x is that of a Gaussian of covariance W C W^T,
    whatever scale and shift the latents have."""
    prior, z, W = linear(scale, shift)
    A = ops.Dense(draw(3, 6))
    ours = exact_posterior(measured(prior, A, range=None))
    pixels = pri.Gaussian(W @ z.mean, W @ z.covariance @ W.T)
    wanted = exact_posterior(measured(pixels, A, range=None))
    torch.testing.assert_close(ours.mean, wanted.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.covariance, wanted.covariance, rtol=1e-9, atol=1e-9)
    assert ours.log_evidence == pytest.approx(wanted.log_evidence, rel=1e-10)
    assert ours.sample(2, 0).shape == (2, 6)


def test_the_oracle_of_a_linear_decoder_draws_images():
    post = measured(linear(2.0, 0.3)[0], ops.Dense(draw(3, 6)), range=None)
    levels = torch.tensor([1e3, 0.0], dtype=F64)
    end = po.sample(oracle(post), methods.Unconditional(), n=2, steps=1, grid=levels).samples
    # From pure noise one step is the posterior's mean, up to 1 / 1000 of it.
    mean = exact_posterior(post).mean.expand(2, 6)
    torch.testing.assert_close(end, mean, rtol=0, atol=2e-2)


def test_a_curved_chart_has_no_closed_form():
    with pytest.raises(TypeError, match="no closed form under a curved chart"):
        exact_posterior(measured(curved(), mask()))


@pytest.mark.parametrize("name", ["DPS", "MMPS", "DAPS", "PiGDM", "ReSample"])
def test_with_orthonormal_columns_a_method_is_itself_on_the_coordinates(name):
    """Latents of x = W z and measurements A x against vectors z and measurements A W z."""
    method = methods.ALL[name]()
    prior, z, W = linear()
    A = draw(3, 6)
    post = measured(prior, ops.Dense(A), range=None)
    other = po.Posterior(
        z, po.Likelihood(post.given.y, ops.Dense(A @ W), post.given.noise, check=False)
    )
    ours = po.sample(post, method, n=3, steps=5).samples
    theirs = po.sample(other, method, n=3, steps=5).samples
    torch.testing.assert_close(ours, theirs @ W.T, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["DPS", "DAPS"])
def test_a_scale_that_the_prior_shares_changes_nothing(name):
    """Images of latents 2 u and of a prior of 2 u, at noise levels twice as large."""
    method = methods.ALL[name]()
    net = toy_autoencoder(F64)
    z = pri.Gaussian(draw(2, 3, 2), 0.5)
    runs = []
    for scale in (1.0, 2.0):
        u = pri.Gaussian(scale * z.mean, scale**2 * 0.5)
        post = measured(pri.Latent(u, net, scale=scale, check=False), mask())
        levels = scale * torch.tensor([9.0, 1.0, 0.2, 0.0], dtype=F64)
        runs.append(po.sample(post, method, n=2, steps=3, grid=levels).samples)
    torch.testing.assert_close(*runs, rtol=1e-8, atol=1e-8)


def test_images_of_another_size_or_range_are_refused_with_what_was_expected():
    prior = curved()
    with pytest.raises(ValueError, match=r"images \(1, H, W\).*multiples of 2, got \(1, 7, 4\)"):
        measured(prior, mask((1, 7, 4)))
    with pytest.raises(ValueError, match=r"latents \(2, 4, 2\), the prior models.*\(2, 3, 2\)"):
        measured(prior, mask((1, 8, 4)))
    with pytest.raises(ValueError, match=r"range \(-1.0, 1.0\); say in which range"):
        measured(prior, mask(), range=None)
    with pytest.raises(ValueError, match="real latents"):
        pri.Latent(prior, toy_autoencoder(F64), check=False)
    with pytest.raises(ValueError, match="scale must be finite and not 0"):
        curved(scale=0.0)


def test_latents_of_any_size():
    net = toy_unet(torch.float64, channels=2)
    u = pri.Network(net, shape=(2, None, None), multiple=4, sigma_data=0.5)
    prior = pri.Latent(u, toy_autoencoder(F64), check=False)
    assert prior.sample(2, steps=2, shape=(1, 8, 12)).shape == (2, 1, 8, 12)
    assert measured(prior, mask((1, 8, 12))).shape == (2, 4, 6)


def test_a_frame_is_one_of_images():
    A = mask()
    like = po.Likelihood(
        torch.zeros(A.out_shape, dtype=F64), A, Gaussian(0.2), range=(-1, 1), frame=((0, 5), (1, 4))
    )
    run = po.sample(po.Posterior(curved(), like), methods.DPS(), n=1, steps=2)
    assert run.samples.shape == (1, *SHAPE)
    assert run.in_frame().samples.shape == (1, 1, 5, 3)


def test_rows_of_several_measurements_share_a_decoder():
    """``sample_each`` gives each measurement the run that it has alone."""
    prior, A = curved(), mask()
    likes = [
        po.Likelihood(A(draw(1, *SHAPE, seed=k))[0], A, Gaussian(0.2), range=(-1, 1))
        for k in range(2)
    ]
    runs = po.sample_each(prior, likes, methods.DPS(), n=2, steps=3, seed=4)
    for k, like in enumerate(likes):
        alone = po.sample(po.Posterior(prior, like), methods.DPS(), n=2, steps=3, seed=4 + k)
        torch.testing.assert_close(runs[k].samples, alone.samples, rtol=1e-9, atol=1e-9)


def test_another_leaf_keeps_the_autoencoder():
    u = pri.GaussianMixture(torch.ones(2, dtype=F64), draw(2, 12), 0.3, shape=(2, 3, 2))
    prior = pri.Latent(u, toy_autoencoder(F64), check=False, scale=0.7)
    means, x, level = draw(2, 12, seed=8), draw(1, 2, 3, 2), torch.tensor(0.5, dtype=F64)
    moved = prior.at(means=means)
    assert isinstance(moved, pri.Latent)
    assert (moved.autoencoder, moved.scale) == (prior.autoencoder, 0.7)
    torch.testing.assert_close(moved.denoise(x, level), u.at(means=means).denoise(x, level))
    assert prior.know().leaves() == u.know().leaves()
    x0, pulls = pri.linearize_at(prior, x, level, means=means)
    _, wanted = pri.linearize_at(u, x, level, means=means)
    torch.testing.assert_close(pulls["means"](x0), wanted["means"](x0))


# DERIVATIVES AND MEMORY
# --------------------------------------------------------------------------------------------------


def test_checkpointing_and_parts_of_a_batch_change_no_number():
    u = draw(5, 2, 3, 2)
    found = {}
    for checkpointing in (True, False):
        for rows in (None, 2):
            prior = curved(checkpointing, at_once=rows)
            chart = prior.chart((-1, 1), SHAPE)
            x, pull = Pushed(chart).linearize(u)
            z, back = Lifted(chart).linearize(x)
            v, w = draw(*x.shape, seed=1), draw(*z.shape, seed=2)
            found[checkpointing, rows] = (x, pull(v), pull(v), z, back(w))
    for values in found.values():
        for a, b in zip(values, found[False, None], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    x, pull, *_ = found[True, None]
    assert float(pull.abs().max()) > 0
    po.testing.check_operator(Lifted(chart))


class Residual(nn.Module):
    """A residual block of Stable Diffusion's decoder."""

    def __init__(self, a, b):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, a), nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(4, b), nn.Conv2d(b, b, 3, padding=1)
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, h):
        inner = self.conv1(nn.functional.silu(self.norm1(h)))
        return self.skip(h) + self.conv2(nn.functional.silu(self.norm2(inner)))


class Up(nn.Module):
    def __init__(self, a, b, last):
        super().__init__()
        self.blocks = nn.ModuleList([Residual(a, b), Residual(b, b), Residual(b, b)])
        self.up = None if last else nn.Conv2d(b, b, 3, padding=1)

    def forward(self, h):
        for block in self.blocks:
            h = block(h)
        return h if self.up is None else self.up(nn.functional.interpolate(h, scale_factor=2.0))


class Ladder(nn.Module):
    """Stable Diffusion's decoder of four blocks, with a sixteenth of its channels."""

    def __init__(self):
        super().__init__()
        pairs = [(32, 32), (32, 32), (32, 16), (16, 8)]
        ups = [Up(a, b, k == 3) for k, (a, b) in enumerate(pairs)]
        first, last = nn.Conv2d(4, 32, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.decoder = nn.Sequential(first, *ups, nn.GroupNorm(4, 8), nn.SiLU(), last)

    def encode(self, x):
        raise NotImplementedError

    def decode(self, z):
        return self.decoder(z)


def peak_bytes(of):
    """The most memory that tensors hold at any time while ``of`` runs, temporary ones included, by
    torch's own account of allocations. Hooks on saved tensors do not see those computed anew."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        of()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    assert events
    return max(accumulate(event.nbytes() for event in events))


def peak_of_a_gradient(checkpointing):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Ladder()
    numbers = {"factor": 8, "channels": 3, "latent_channels": 4}
    coder = pri.Autoencoder(net, checkpointing=checkpointing, **numbers)
    z = draw(1, 4, 16, 16).float().requires_grad_()

    def gradient():
        torch.autograd.grad(coder.decode(z).square().sum(), z)

    gradient()
    return peak_bytes(gradient)


def test_the_decoder_gradient_takes_a_third_of_the_plain_memory():
    """At four decoder blocks: 0.321 of it, and the same at other sizes."""
    assert peak_of_a_gradient(True) <= peak_of_a_gradient(False) / 3


def test_a_batch_takes_no_more_memory_than_the_rows_at_once():
    """J^T v of eight images, two at a time: graphs of two, beside latents and images of all."""
    chart = Decoder(toy_autoencoder(F64), 1.0, 0.0, (2, 24, 16), (1, 48, 32), at_once=2)
    few, many = (draw(n, 2, 24, 16) for n in (2, 8))

    def taken(u):
        def gradient():
            x, pull = Pushed(chart).linearize(u)
            pull(x)

        return peak_bytes(gradient)

    images = 4 * 8 * 48 * 32 * 8
    assert taken(many) <= taken(few) + images


class Attentive(nn.Module):
    """Attention over pixels and a group norm of channels that do not lie in a row, as diffusers'
    autoencoders have them."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mix = nn.GroupNorm(2, 4), nn.Linear(4, 12)

        def forward(self, h):
            tokens = h.flatten(2).transpose(1, 2)
            tokens = self.norm(tokens.transpose(1, 2)).transpose(1, 2)
            q, k, v = (t[:, None] for t in self.mix(tokens).chunk(3, -1))
            seen = nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]
            return h + seen.transpose(1, 2).reshape(h.shape)

    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(self.Block(), self.Block())

    def encode(self, x):
        return x

    def decode(self, z):
        return self.decoder(z)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_decoder_with_attention_has_all_derivatives_that_methods_take(checkpointing):
    """J v by forward differentiation and by differentiating J^T v, with <J v, w> = <v, J^T w>: the
    fast kernels of attention have neither."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Attentive().double()
    numbers = {"factor": 1, "channels": 4, "latent_channels": 4}
    coder = pri.Autoencoder(net, checkpointing=checkpointing, **numbers)
    f = Pushed(Decoder(coder, 1.0, 0.0, (4, 3, 3), (4, 3, 3)))
    u, v, w = (draw(2, 4, 3, 3, seed=k) for k in range(3))
    with torch.no_grad():
        forward = torch.func.jvp(f, (u,), (v,))[1]
        _, push, pull = f.differential(u)
        torch.testing.assert_close(push(v), forward, rtol=1e-10, atol=1e-10)
        inner = (forward * w).sum(), (v * pull(w)).sum()
        torch.testing.assert_close(*inner, rtol=1e-10, atol=1e-10)


def test_parts_are_themselves_again_after_a_gradient_and_after_a_failure():
    prior = curved()
    coder = prior.autoencoder
    z = draw(1, 2, 3, 2).requires_grad_()
    coder.decode(z).sum().backward()
    with pytest.raises(RuntimeError):
        coder.decode(draw(1, 5, 3, 2).requires_grad_())
    assert all("forward" not in part.__dict__ for part in coder.modules())


# THE CHECK
# --------------------------------------------------------------------------------------------------


class Halving(nn.Module):
    """Latents of pairs of pixels, in units of 5.5: only the right scale makes them of variance
    1."""

    factor, channels, latent_channels = 2, 1, 4

    def __init__(self, unit=5.5):
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(unit))

    def encode(self, x):
        return self.unit * nn.functional.pixel_unshuffle(x, 2)

    def decode(self, z):
        return nn.functional.pixel_shuffle(z, 2) / self.unit


def halved(scale, probe=None, unit=5.5, **how):
    coder = pri.Autoencoder(Halving(unit), factor=2, channels=1, latent_channels=4)
    prior = pri.Gaussian(torch.zeros(4, 3, 3), 1.0)
    return pri.Latent(prior, coder, scale=scale, probe=probe, **how)


def test_a_wrong_scale_is_told_with_what_was_measured_and_what_would_fit():
    images = draw(8, 1, 6, 6).float()
    halved(1 / 5.5, images)
    with pytest.raises(
        ValueError,
        match=r"with scale=1 the scaled latents of the probe images have variance (2|3)\d\.\d+, "
        r"the prior claims 1; a scale of 0\.1\d+ would fit.*scaling_factor",
    ):
        halved(1.0, images)
    halved(1.0, images, check=False)
    halved(1.0, images, variance_ratio=40.0)


def test_an_autoencoder_that_does_not_return_its_images_is_told():
    class Blind(Halving):
        def decode(self, z):
            return super().decode(z).flip(-1)

    coder = pri.Autoencoder(Blind(1.0), factor=2, channels=1, latent_channels=4)
    with pytest.raises(ValueError, match=r"decoded draws of the prior differ.*at most 0\.3"):
        pri.Latent(pri.Gaussian(torch.zeros(4, 3, 3), 1.0), coder)


def test_what_is_no_autoencoder_is_refused():
    numbers = {"factor": 2, "channels": 1, "latent_channels": 4}
    with pytest.raises(ValueError, match="Linear has no encode"):
        pri.Autoencoder(nn.Linear(2, 2), **numbers)
    with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
        pri.Autoencoder(Halving(), **numbers | {"factor": 0})
    with pytest.raises(ValueError, match="columns of W have rank 1"):
        pri.LinearAutoencoder(torch.ones(3, 2))
    with pytest.raises(ValueError, match="image_shape .* must have 6 numbers"):
        pri.LinearAutoencoder(orthonormal(6, 2), (2, 2))

    class Draws(Halving):
        def encode(self, x):
            return torch.distributions.Normal(x, 1.0)

    coder = pri.Autoencoder(Draws(), **numbers)
    with pytest.raises(TypeError, match="must return a tensor, got a Normal; .* its mode"):
        coder.encode(torch.zeros(1, 1, 4, 4))


# DRAWS, FILES, DEVICES
# --------------------------------------------------------------------------------------------------


def test_draws_are_decoded_draws_of_the_latents():
    prior, _, W = linear(2.0, 0.5, range=(-1, 1))
    u = prior.prior.sample(3, 7)
    torch.testing.assert_close(prior.sample(3, 7), (u / 2 + 0.5) @ W.T, rtol=1e-13, atol=1e-13)


def network_latent(probe=None, **how):
    u = pri.Network(toy_unet(channels=4), shape=(4, 4, 4), multiple=4, sigma_data=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = ConvAutoencoder(1, 4, (4, 6))
    coder = pri.Autoencoder(net, factor=2, channels=1, latent_channels=4)
    return pri.Latent(u, coder, probe=probe, check=False, **how)


def test_a_latent_prior_is_a_folder(tmp_path):
    shift = torch.tensor([0.1, 0.0, -0.2, 0.3]).view(4, 1, 1)
    prior = network_latent(scale=0.25, shift=shift, range=(0, 1))
    pri.save_pretrained(prior, tmp_path / "p", description="toy", licence="none")
    back = pri.from_pretrained(tmp_path / "p")
    assert isinstance(back, pri.Latent)
    A = mask((1, 8, 8))
    runs = [
        po.sample(measured(p, A, range=(0, 1)), methods.DPS(), n=2, steps=2, dtype=torch.float32)
        for p in (prior, back)
    ]
    assert torch.equal(runs[0].samples, runs[1].samples)
    assert back.record() == prior.record()
    assert pri.load(tmp_path / "p").scale == 0.25
    said = pri.recognise(tmp_path / "p")
    assert "autoencoder of" in said.architecture


def test_the_check_is_made_again_when_a_folder_is_read(tmp_path):
    probe = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prior = network_latent(probe)
    pri.save_pretrained(prior, tmp_path / "p")
    with pytest.raises(ValueError, match="decoded latents of the probe images differ"):
        pri.from_pretrained(tmp_path / "p")


def test_damaged_folders_are_told(tmp_path):
    pri.save_pretrained(network_latent(), tmp_path / "p")
    card = tmp_path / "p" / "latent.json"
    whole = json.loads(card.read_text())
    for change, wrong in (
        ({"autoencoder": "Other"}, "unknown autoencoder 'Other'"),
        ({"arguments": {"channels": 1}}, "no ConvAutoencoder can be made"),
        ({"colour": 1}, "colour"),
        ({"sha256": "0"}, "the sha256 differs"),
    ):
        card.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match=wrong):
            pri.from_pretrained(tmp_path / "p")
    with pytest.raises(TypeError, match="a LinearAutoencoder cannot be rebuilt from a card"):
        pri.save_pretrained(linear()[0], tmp_path / "q")


def test_a_latent_prior_is_used_in_place_where_nothing_has_to_move():
    prior = network_latent()
    like = po.Likelihood(torch.zeros(1, 8, 8), ops.Identity((1, 8, 8)), Gaussian(0.1), range=(0, 1))
    post = po.Posterior(prior, like)
    assert post.at_work(dtype=torch.float64).prior is prior
    assert isinstance(post.chart, Decoder)
    assert math.isclose(post.chart.a, 0.5)
