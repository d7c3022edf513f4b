"""Networks that are told the colour of noise: what is left of them under white noise, and the
preconditioning in the basis of each covariance."""

from __future__ import annotations

import math

import pytest
import torch
from cases import toy_unet
from reference import draw

import posteriori as po
from posteriori import covariances as cov
from posteriori import operators as ops
from posteriori import priors as pri
from posteriori.covariances.told import COLOURS
from posteriori.priors import edm
from posteriori.priors.first_estimates import CONTRASTED, KINDS
from posteriori.priors.unet import STEPS

double = {"dtype": torch.float64}
SIDES = (8, 16)


def coloured(sides=SIDES, silent=False):
    """The toy network with layers for colours, all of random weights, or with an output of 0."""
    plain = toy_unet(torch.float64)
    net = pri.UNet(**plain.arguments, noise_maps=True, coloured=True).double()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for p in net.embed.colour.parameters():
            p.data = torch.randn_like(p)
    net.load_state_dict(net.state_dict() | plain.state_dict())
    if silent:
        for p in net.leave.parameters():
            p.data.zero_()
    return pri.Network(net, shape=(1, *sides), multiple=4, sigma_data=0.5)


def blur(width=1.0, r2=1.5, s2=0.01, sides=SIDES):
    return ops.Blur(ops.gaussian_kernel(width), (1, *sides)).posterior_covariance(r2, s2)


NOISES = {"blur": blur(), "blocks": cov.BlockNoise(4, 0.03, 2.0)}


def test_before_it_is_trained_colours_change_nothing():
    plain = toy_unet(torch.float64)
    net = pri.UNet(**plain.arguments, coloured=True).double()
    net.load_state_dict(net.state_dict() | plain.state_dict())
    x, c = draw(2, 1, *SIDES, **double), draw(2, **double)
    assert torch.equal(net(x, c, colour=draw(2, COLOURS, **double)), plain(x, c))


def test_under_white_noise_it_is_the_network_without_colours():
    """Whatever the layers of the colour hold: bitwise."""
    plain, net = toy_unet(torch.float64), coloured().net
    x, c = draw(2, 1, *SIDES, **double), draw(2, **double)
    assert torch.equal(net(x, c, colour=torch.zeros(2, COLOURS, **double)), plain(x, c))
    assert not torch.allclose(net(x, c, colour=torch.ones(2, COLOURS, **double)), plain(x, c))


def shown(beside="all", weights=0.5):
    """The toy network that is shown labels, the shrunk image, the constant ones, the image times
    contrasts, or all of them beside the image, and the same without; these enter with weights of
    this size, and nothing of the output is multiplied by a contrast."""
    plain = toy_unet(torch.float64)
    nets = [
        pri.UNet(
            **plain.arguments, noise_maps=True, coloured=True, estimates=d, filled=d is not None
        ).double()
        for d in (0.5, None)
    ]
    first = plain.state_dict()["enter.weight"]
    more = weights * draw(len(first), 4 * (2 + KINDS + CONTRASTED), *first.shape[2:], **double)
    own = 8 + 4 * KINDS
    parts = {"labels": slice(0, 4), "shrunk": slice(4, 8), "constant": slice(8, own)}
    parts["contrasts"] = slice(own, None)
    for name, part in parts.items():
        more[:, part] *= beside in ("all", name)
    for net, enter in zip(nets, (torch.cat([first, more], 1), first), strict=True):
        changed = plain.state_dict() | {"enter.weight": enter}
        for name in ("leave.weight", "leave.bias"):
            begun = torch.zeros_like(net.state_dict()[name])
            begun[: len(changed[name])] = changed[name]
            changed[name] = begun
        net.load_state_dict(net.state_dict() | changed)
    return nets


def test_levels_beside_the_image_say_which_pixel_of_a_block_is_clear():
    """The embedding, of the mean label of a block of 2 x 2, is the same wherever the clear pixel
    lies in it."""
    told, untold = shown("labels")
    x = draw(1, 1, *SIDES, **double)
    clear = torch.zeros(1, *SIDES, **double)
    clear[:, ::2, ::2] = -1.0
    moved = clear.roll(1, 2)
    assert torch.equal(untold(x, clear), untold(x, moved))
    assert float((told(x, clear) - told(x, moved)).detach().abs().max()) > 1e-2


def stepped(label):
    """Labels of which every mean of 4 and of 16 is one of those that are embedded."""
    return (label * STEPS / 16).round() * 16 / STEPS


def test_labels_are_embedded_to_the_nearest_step():
    told, untold = shown(weights=0.0)
    x, label = draw(2, 1, *SIDES, **double), draw(2, *SIDES, **double)
    assert float((told(x, label) - untold(x, label)).detach().abs().max()) < 0.02
    near = stepped(label)
    assert torch.equal(told(x, near + 0.4 / STEPS), told(x, near))


@pytest.mark.parametrize("beside", ["labels", "contrasts"])
def test_levels_that_are_even_in_each_block_show_nothing(beside):
    """For one label and for a map of blocks. Without weights nothing is shown at all."""
    told, untold = shown(beside)
    if beside == "contrasts":
        for p in (told.leave.weight, told.leave.bias):
            p.data[4:] = draw(*p[4:].shape, **double)
    x, c = draw(2, 1, *SIDES, **double), stepped(draw(2, **double))
    blocks = stepped(draw(2, 4, 8, **double)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    for label in (c, c[:, None, None].expand(2, *SIDES), blocks):
        torch.testing.assert_close(told(x, label), untold(x, label), rtol=0, atol=1e-12)
    uneven = draw(2, *SIDES, **double)
    assert float((told(x, uneven) - untold(x, uneven)).detach().abs().max()) > 1e-2
    told, untold = shown(weights=0.0)
    label = stepped(draw(2, *SIDES, **double))
    torch.testing.assert_close(told(x, label), untold(x, label), rtol=0, atol=1e-12)


def test_the_output_is_a_sum_of_three_one_times_each_contrast():
    """The parts of the convolution at the exit, one at a time."""
    told, _ = shown()
    weight, bias = (draw(12, *p.shape[1:], **double) for p in (told.leave.weight, told.leave.bias))
    x, c = draw(2, 1, *SIDES, **double), 0.3 * draw(2, *SIDES, **double)
    parts = []
    for k in range(1 + CONTRASTED):
        for p, all_of_it in ((told.leave.weight, weight), (told.leave.bias, bias)):
            p.data.zero_()
            p.data[:4] = all_of_it[4 * k : 4 * k + 4]
        parts.append(told(x, c))
    told.leave.weight.data, told.leave.bias.data = weight, bias
    rho = (4 * c.unfold(1, 2, 2).unfold(2, 2, 2)).exp()
    rho = rho / rho.log().mean((-1, -2), keepdim=True).exp()
    rho = rho.permute(0, 1, 3, 2, 4).reshape(2, 1, *SIDES)
    odd, even = (1 - rho**2) / (1 + rho**2), 2 * rho / (1 + rho**2) - 1
    expected = parts[0] + odd * parts[1] + even * parts[2]
    torch.testing.assert_close(told(x, c), expected, rtol=1e-12, atol=1e-12)


def test_the_shrunk_image_of_labels_is_that_of_their_covariance():
    """d (Sigma + d^2)^-1 mu = (1 + s^2 / d^2)^-1/2 c_in mu where Sigma is diagonal."""
    told, _ = shown("shrunk")
    levels = 1.5 ** draw(2, 1, *SIDES, **double)
    mu = draw(2, 1, *SIDES, **double)
    x, label = mu / (levels**2 + 0.25).sqrt(), levels[:, 0].log() / 4
    expected = told(x, label, shrunk=0.5 * mu / (levels**2 + 0.25))
    torch.testing.assert_close(told(x, label), expected, rtol=0, atol=1e-12)
    one, label = mu / (0.7**2 + 0.25) ** 0.5, torch.full((2,), 0.7, **double).log() / 4
    expected = told(one, label, shrunk=0.5 * mu / (0.7**2 + 0.25))
    torch.testing.assert_close(told(one, label), expected, rtol=0, atol=1e-12)
    assert float((told(x, label, shrunk=mu) - expected).detach().abs().max()) > 1e-2


@pytest.mark.parametrize("name", [*NOISES, "pixels"])
def test_a_network_is_shown_what_its_covariance_leaves(name):
    """Of every member: the network that is told so by hand."""
    half = torch.full((1, *SIDES), 2.0, **double)
    half[..., ::3] = 0.01
    Sigma = (NOISES | {"pixels": cov.PixelNoise(half)})[name]
    mu = draw(2, 1, *SIDES, **double)
    total = Sigma.dense(mu) + 0.25 * torch.eye(mu[0].numel(), **double)
    expected = 0.5 * torch.linalg.solve(total, mu.flatten(1).T).T
    seen = []
    net = shown()[0]
    net.enter.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    prior = pri.Network(net, shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    prior.know().denoise_under(mu, Sigma)
    shrunk = torch.nn.functional.pixel_shuffle(seen[0][:, 8:12], 2)
    torch.testing.assert_close(shrunk.flatten(1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("d", [0.0, math.inf, 0.5])
def test_estimates_are_shown_to_networks_for_maps_alone(d):
    with pytest.raises(ValueError, match="estimates is a standard deviation > 0"):
        pri.UNet(1, (8,), (1,), noise_maps=d != 0.5, estimates=d)


def test_a_network_of_filled_maps_is_asked_under_them():
    half = torch.full((1, *SIDES), 4.0, **double)
    half[..., ::3] = 0.01
    mu, levels = draw(2, 1, *SIDES, **double), half[None].sqrt()
    net = shown()[0]
    prior = pri.Network(net, shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    found = prior.know().denoise_under(mu, cov.PixelNoise(half))
    levels = levels.expand(2, 1, *SIDES)
    torch.testing.assert_close(found, edm.denoise(net, mu, levels, 0.5, None, filled=True))
    assert float((found - edm.denoise(net, mu, levels, 0.5, None)).detach().abs().max()) > 1e-2


def test_filled_maps_are_of_networks_with_estimates():
    with pytest.raises(ValueError, match="filled is for a network with estimates"):
        pri.UNet(1, (8,), (1,), noise_maps=True, filled=True)


@pytest.mark.parametrize("name", NOISES)
def test_a_network_that_adds_nothing_is_exact_for_a_white_gaussian(name):
    """c_skip(Sigma) = d^2 (Sigma + d^2)^-1: E[x0 | mu] of x0 ~ N(0, d^2 I)."""
    x = draw(3, 1, *SIDES, **double)
    found = coloured(silent=True).know().denoise_under(x, NOISES[name])
    M = NOISES[name].dense(x)
    expected = 0.25 * torch.linalg.solve(M + 0.25 * torch.eye(len(M), **double), x.flatten(1).T)
    torch.testing.assert_close(found.flatten(1), expected.T, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NOISES)
def test_input_and_output_are_scaled_by_roots_of_matrices(name):
    """A linear F = g I turns D into (c_skip + g c_out c_in) mu, and is given label and colour of
    each row."""
    told = NOISES[name].told(draw(1, 1, *SIDES, **double))

    class Linear(torch.nn.Module):
        coloured = True

        def forward(self, x, c, colour):
            torch.testing.assert_close(c.double(), told.levels.view(1).log().expand(3) / 4)
            torch.testing.assert_close(colour.double(), told.colour.expand(3, -1))
            return 0.7 * x

    prior, x = (
        pri.Network(Linear(), shape=(1, *SIDES), sigma_data=0.5),
        draw(3, 1, *SIDES, **double),
    )
    M = NOISES[name].dense(x)
    v, Q = torch.linalg.eigh(M)
    gain = 0.25 / (v + 0.25) + 0.7 * 0.5 * v.sqrt() / (v + 0.25)
    expected = x.flatten(1) @ (Q * gain) @ Q.T
    found = prior.know().denoise_under(x, NOISES[name])
    torch.testing.assert_close(found.flatten(1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize(
    "noises",
    [("blur", "blocks"), ("blur", "pixels"), ("white", "blocks"), ("white", "pixels")],
)
def test_rows_stay_apart(noises, filled):
    """Also of a network of filled maps, which embeds a map of one level to the nearest step."""
    half = torch.ones(1, *SIDES, **double)
    half[..., :8] = 1e-3
    known = NOISES | {"pixels": cov.PixelNoise(half), "white": cov.WhiteNoise(0.4)}
    members = tuple(known[name] for name in noises)
    prior, x = coloured(), draw(3, 1, *SIDES, **double)
    if filled:
        prior = pri.Network(shown()[0], shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    found = prior.know().denoise_under(x, cov.RowsNoise(members, (0, 1, 0)))
    for k, j in enumerate((0, 1, 0)):
        alone = prior.know().denoise_under(x[k : k + 1], members[j])
        torch.testing.assert_close(found[k : k + 1], alone, rtol=1e-5, atol=1e-6)
    other = prior.know().denoise_under(x[:1], members[1])
    assert float((found[:1] - other).abs().max()) > 1e-3


def test_rows_of_white_noise_are_for_every_network():
    """One that takes one level an image, and one with a schedule, have each row's own."""
    plain = pri.Network(toy_unet(torch.float64), shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    eps = pri.Network(
        lambda x, t: torch.tanh(x + t.to(x)[:, None, None, None] / 1000),
        shape=(1, *SIDES),
        parametrization="eps",
        schedule=pri.DiscreteVP.linear(),
    )
    x, members = draw(3, 1, *SIDES, **double), (cov.WhiteNoise(0.1), cov.WhiteNoise(4.0))
    for prior in (plain, eps):
        found = prior.know().denoise_under(x, cov.RowsNoise(members, (1, 0, 1)))
        for k, j in enumerate((1, 0, 1)):
            alone = prior.denoise(x[k : k + 1], torch.tensor(members[j].variance ** 0.5, **double))
            torch.testing.assert_close(found[k : k + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*NOISES, "pixels"])
def test_the_denoiser_has_a_derivative(name):
    """J^T u and J h by automatic differentiation against the difference of two values."""
    third = torch.full((1, *SIDES), 4.0, **double)
    third[..., ::3] = 0.01
    Sigma = (NOISES | {"pixels": cov.PixelNoise(third)})[name]
    prior = pri.Network(shown()[0], shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    x, h, u = (draw(1, 1, *SIDES, seed=k, **double) for k in range(3))

    def denoised(x):
        return prior.know().denoise_under(x, Sigma)

    moved = (denoised(x + 1e-4 * h) - denoised(x - 1e-4 * h)) / 2e-4
    pulled = torch.func.vjp(denoised, x)[1](u)[0]
    pushed = torch.func.jvp(denoised, (x,), (h,))[1]
    torch.testing.assert_close((pulled * h).sum(), (u * moved).sum(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(pushed, moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*NOISES, "pixels", "white"])
def test_weights_may_be_of_half_precision(name):
    third = torch.full((1, *SIDES), 4.0, **double)
    third[..., ::3] = 0.01
    Sigma = (NOISES | {"pixels": cov.PixelNoise(third), "white": cov.WhiteNoise(0.4)})[name]
    prior = pri.Network(shown()[0], shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    x = draw(2, 1, *SIDES, **double)
    expected = prior.know().denoise_under(x, Sigma)
    found = prior.bfloat16().know().denoise_under(x, Sigma)
    assert found.dtype == torch.float64
    assert 0 < float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_images_of_other_sides_are_mirrored_on():
    prior, Sigma = coloured(sides=(10, 14)), blur(sides=(10, 14))
    found = prior.know().denoise_under(draw(2, 1, 10, 14, **double), Sigma)
    assert found.shape == (2, 1, 10, 14)
    assert bool(found.isfinite().all())


def test_what_it_was_not_trained_for_is_refused_by_name():
    plain = pri.Network(toy_unet(torch.float64), shape=(1, *SIDES), multiple=4, sigma_data=0.5)
    long = torch.zeros(5, 5)
    long[2] = 0.2
    motion = ops.Blur(long, (1, *SIDES)).posterior_covariance(1.0, 0.01)
    uneven = cov.FourierNoise(torch.arange(1.0, 4)[:, None, None] * torch.ones(SIDES))
    for prior, Sigma, words in (
        (plain, NOISES["blur"], "objective: coloured-noise"),
        (coloured(), cov.BlockNoise(16, 0.1, 1.0), "blocks of 2, 4 and 8 pixels a side, not of 16"),
        (coloured(), motion, "alike in all directions"),
        (coloured(), uneven, "all channels"),
        (coloured(), cov.RowsNoise((NOISES["blur"], motion), (0, 1)), "alike in all directions"),
    ):
        assert prior.know().anisotropic.refuses(Sigma)
        with pytest.raises(TypeError, match=words):
            prior.know().denoise_under(draw(2, 1, *SIDES, **double), Sigma)
    for Sigma in (*NOISES.values(), cov.RowsNoise(tuple(NOISES.values()), (0, 1))):
        assert coloured().know().anisotropic.refuses(Sigma) is None


@pytest.mark.parametrize(
    "A",
    [ops.Blur(ops.gaussian_kernel(1.0), (1, *SIDES)), ops.Downsample((1, *SIDES), 4)],
    ids=["blur", "downsample"],
)
def test_eps_runs_on_it_with_one_call_an_evaluation(A):
    """Levels 20, 0.4 and 0.03 times 1 / ||A||, noise 0.1: the middle of the second step is near the
    level of y, and it takes a derivative in each of its calls."""
    prior = coloured()
    size = ops.norm2(A)
    levels = torch.tensor([20.0, 0.4, 0.03, 0.0], **double) / size
    like = po.Likelihood(
        torch.zeros(A.out_shape, **double), A, po.noise.Gaussian(0.1), range=(-1, 1)
    )
    for near, products in ((0, 0), (2.5, 2)):
        method = po.methods.EPS(near=near, iterations=1)
        run = po.sample(po.Posterior(prior, like), method, n=2, grid=levels, seed=1)
        assert bool(run.samples.isfinite().all())
        assert run.counts["denoiser"] == 5
        assert run.counts["vjp"] == products
