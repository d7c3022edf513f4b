"""Denoisers under noise that is not white, against conditioning on a measurement: mu = x0 +
Sigma^(1/2) z is the measurement Sigma^(-1/2) x0 + z = Sigma^(-1/2) mu."""

from __future__ import annotations

import pytest
import torch
from cases import PRIORS, full_gaussian, mixture, spd, toy_unet
from reference import draw

from posteriori import covariances as cov
from posteriori import operators as ops
from posteriori import priors as pri
from posteriori.counting import CountedPrior, Counter

double = {"dtype": torch.float64}
SHAPE = (3, 2, 2)


def _unequal():
    """Components with axes and variances of their own, along the pixels."""
    means = 2 * draw(3, 12, **double)
    return pri.GaussianMixture(
        torch.tensor([1.0, 2.0, 3.0], **double),
        means,
        0.2 + draw(3, 12, **double, seed=4).abs(),
        shape=SHAPE,
    )


MIXTURES = {
    "white": pri.GaussianMixture(
        torch.tensor([1.0, 3.0], **double), draw(2, 12, **double), 0.4, shape=SHAPE
    ),
    "diagonal": _unequal(),
    "shared": pri.GaussianMixture(
        torch.tensor([1.0, 3.0], **double), draw(2, 12, **double), spd(12)[None], shape=SHAPE
    ),
    "full": mixture(d=12, shape=SHAPE),
    "Gaussian": full_gaussian(shape=SHAPE),
}
NOISES = {
    "white": cov.WhiteNoise(0.5),
    "pixels": cov.PixelNoise(0.05 + draw(*SHAPE, **double, seed=3).abs()),
    "blocks": cov.BlockNoise(2, 0.1, 2.0),
    "far": cov.PixelNoise(torch.tensor([[1e6, 1e-4], [1e6, 1e6]], **double)),
    "colours": ops.Grey(SHAPE).double().posterior_covariance(0.5, 0.02),
}


def conditional_mean(prior, mu, Sigma):
    W = Sigma.dense(mu[None], -0.5)
    post, _ = prior.know().exact("posterior").condition(W, W @ mu.flatten(), 1.0)
    return post.mean


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_denoises_under_any_noise_as_it_is_conditioned(name, noise):
    prior, Sigma = MIXTURES[name], NOISES[noise]
    mu = prior.sample(4, 1) if name != "Gaussian" else prior.mean + draw(4, *SHAPE, **double)
    mu = mu + Sigma.power(draw(4, *SHAPE, **double, seed=8), 0.5)
    found = prior.know().denoise_under(mu, Sigma)
    for row, one in zip(mu, found, strict=True):
        expected = conditional_mean(prior, row, Sigma)
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PRIORS)
def test_under_white_noise_every_prior_denoises_as_it_does(name):
    prior = PRIORS[name](torch.float64)
    shape = tuple(n for n in prior.shape if n is not None)
    z = draw(3, *shape, dtype=torch.complex128 if prior.complex else torch.float64)
    sigma = torch.tensor(prior.sigma_max * prior.sigma_min, **double).sqrt()
    x = prior.start(z, sigma)
    found = prior.know().denoise_under(x, cov.WhiteNoise(float(sigma) ** 2))
    torch.testing.assert_close(found, prior.denoise(x, sigma), rtol=1e-6, atol=1e-6)


def test_rows_have_noise_of_their_own():
    prior, mu = MIXTURES["full"], draw(3, *SHAPE, **double)
    members = (NOISES["pixels"], NOISES["blocks"])
    found = prior.know().denoise_under(mu, cov.RowsNoise(members, (0, 1, 0)))
    for k, j in enumerate((0, 1, 0)):
        alone = prior.know().denoise_under(mu[k : k + 1], members[j])
        torch.testing.assert_close(found[k : k + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seen", ["fourier", "pixels"])
def test_complex_images_are_denoised_as_they_are_conditioned(seen):
    prior = pri.ComplexImages(mixture(d=24, shape=(2, 3, 4)))
    mask = ops.random_mask((3, 4), 0.5, 0)
    Sigma = (
        ops.MaskedFourier(mask, (3, 4)).posterior_covariance(2.0, 0.05)
        if seen == "fourier"
        else ops.Mask(mask).posterior_covariance(2.0, 0.05)
    )
    mu = draw(2, 3, 4, dtype=torch.complex128)
    eye = torch.eye(12, dtype=torch.complex128).view(12, 3, 4)
    W = Sigma.power(eye, -0.5).flatten(1).T
    for row, one in zip(mu, prior.know().denoise_under(mu, Sigma), strict=True):
        after, _ = prior.know().exact("posterior").condition(W, W @ row.flatten(), 1.0)
        expected = after.pairs.mean
        torch.testing.assert_close(torch.view_as_real(one), expected.movedim(0, -1))


def test_slices_are_denoised_under_the_levels_of_their_own_pixels():
    slice_prior = mixture(d=6, shape=(2, 3))
    volume, mu = pri.Slices(slice_prior, 4), draw(2, 4, 2, 3, **double)
    Sigma = cov.PixelNoise(0.1 + draw(4, 2, 3, **double, seed=5).abs())
    found = volume.know().denoise_under(mu, Sigma)
    for d in range(4):
        own = cov.PixelNoise(Sigma.variances[d])
        expected = slice_prior.know().denoise_under(mu[:, d], own)
        torch.testing.assert_close(found[:, d], expected, rtol=1e-11, atol=1e-11)
    with pytest.raises(TypeError, match="it may tie slices together"):
        volume.know().denoise_under(mu, cov.FourierNoise(torch.ones(2, 3, **double)))


def test_packed_parts_are_denoised_as_their_mixture():
    joint = pri.Joint({"image": full_gaussian(shape=(2, 3)), "kernel": mixture()})
    W = torch.linalg.qr(draw(10, 10, **double))[0]
    Sigma = cov.SingularNoise(
        torch.linspace(0.1, 2, 10, **double), V=lambda c: c @ W.T, Vh=lambda x: x @ W
    )
    mu = draw(2, 10, **double)
    for row, one in zip(mu, joint.know().denoise_under(mu, Sigma), strict=True):
        torch.testing.assert_close(one, conditional_mean(joint, row, Sigma))


@pytest.mark.parametrize("name", ["UNet", "UNet at", "GaussianMixture at", "UNet slices", "Joint"])
def test_what_knows_no_such_denoiser_says_so(name):
    prior = PRIORS[name](torch.float64)
    if name == "Joint":
        prior = pri.Joint({"image": PRIORS["UNet"](torch.float64)})
    shape = tuple(n for n in prior.shape if n is not None)
    Sigma = cov.SingularNoise(torch.ones(1), V=lambda c: c, Vh=lambda x: x)
    for noise in (Sigma, cov.PixelNoise(torch.ones(shape, **double))):
        assert prior.know().anisotropic.refuses(noise) is not None
        with pytest.raises(TypeError, match=r"no (denoiser|network)|one noise level|tie slices"):
            prior.know().denoise_under(torch.zeros(2, *shape, **double), noise)


def test_a_call_under_noise_counts_as_one_denoiser():
    counter = Counter()
    prior = CountedPrior(MIXTURES["full"], counter)
    out = prior.know().denoise_under(mu := draw(3, *SHAPE, **double), NOISES["blocks"])
    assert counter.calls == {"denoiser": 3, "vjp": 0, "operator": 0, "adjoint": 0}
    told = counter.denoised
    assert told[0] is mu
    assert told[1] is out


# NETWORKS
# --------------------------------------------------------------------------------------------------


def mapped(dtype=torch.float64, sides=(8, 12)):
    """The toy network, which takes maps though nothing has trained it."""
    net = toy_unet(dtype)
    net.arguments["noise_maps"] = True
    return pri.Network(net, shape=(1, *sides), multiple=4, sigma_data=0.5)


@pytest.mark.parametrize("sides", [(8, 12), (7, 10)], ids=["whole", "padded"])
def test_a_map_of_one_level_is_that_level(sides):
    prior, x = mapped(sides=sides), draw(2, 1, *sides, **double)
    for level in (0.03, 0.7, 9.0):
        Sigma = cov.PixelNoise(torch.full((1, 1, 1), level**2, **double))
        found = prior.know().denoise_under(x, Sigma)
        expected = prior.denoise(x, torch.tensor(level, **double))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_network_sees_each_pixel_at_its_own_level():
    """Where the network adds nothing, the preconditioning is left, pixel by pixel."""
    net = toy_unet(torch.float64)
    net.arguments["noise_maps"] = True
    for p in (*net.leave.parameters(),):
        p.data.zero_()
    prior = pri.Network(net, shape=(1, 8, 12), multiple=4, sigma_data=0.5)
    v, x = 0.01 + draw(1, 8, 12, **double).abs(), draw(2, 1, 8, 12, **double)
    found = prior.know().denoise_under(x, cov.PixelNoise(v))
    torch.testing.assert_close(found, 0.25 / (0.25 + v) * x)


def test_a_map_is_heeded_and_rows_stay_apart():
    prior, x = mapped(), draw(3, 1, 8, 12, **double)
    half = torch.ones(1, 8, 12, **double)
    half[..., 6:] = 1e-3
    members = (cov.PixelNoise(half), cov.PixelNoise(half.flip(-1)))
    found = prior.know().denoise_under(x, cov.RowsNoise(members, (0, 1, 0)))
    for k, j in enumerate((0, 1, 0)):
        alone = prior.know().denoise_under(x[k : k + 1], members[j])
        torch.testing.assert_close(found[k : k + 1], alone, rtol=1e-5, atol=1e-6)
    assert float((found[0] - prior.know().denoise_under(x, members[1])[0]).abs().max()) > 1e-2


def test_maps_are_refused_by_name():
    prior = mapped()
    blocks = cov.BlockNoise(2, 0.1, 1.0)
    assert "a level for the means of blocks" in prior.know().anisotropic.refuses(blocks)
    three = pri.Network(toy_unet(channels=3), shape=(3, 8, 12), multiple=4, sigma_data=0.5)
    three.net.arguments["noise_maps"] = True
    uneven = cov.PixelNoise(torch.ones(3, 8, 12) + torch.arange(3.0)[:, None, None])
    assert "all channels" in three.know().anisotropic.refuses(uneven)
    with pytest.raises(ValueError, match="trained for one noise level an image"):
        toy_unet()(torch.zeros(1, 1, 8, 12), torch.zeros(1, 8, 12))
