"""The one registry: every operator, noise law, prior and method that the contracts sweep.

A file of the package without a case fails ``test_registry.py``.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import pkgutil
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from blind import blind_post
from scipy.sparse import coo_array

import posteriori
import posteriori as po
from posteriori import methods
from posteriori import noise as laws
from posteriori import operators as ops
from posteriori import priors as pri
from posteriori.covariances import (
    FourierNoise,
    PairWhitening,
    PixelNoise,
    RootWhitening,
    WhiteNoise,
)
from posteriori.likelihood import Likelihood, Posterior
from posteriori.methods.smc.moments import method as moments
from posteriori.priors.architectures.autoencoder import ConvAutoencoder
from posteriori.priors.base import Prior
from posteriori.testing import CLAIMS


def _draw(*size, dtype, seed=0):
    return torch.randn(*size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def _coils(dtype, coils=3, H=6, W=5):
    return _draw(coils, H, W, dtype=dtype.to_complex(), seed=1)


def _waves(sides):
    """Stationary noise, its variances alike at k and -k."""
    power = torch.fft.fft2(_draw(*sides, dtype=torch.float64)).abs().square()
    return RootWhitening(FourierNoise(0.1 + power / power.max()))


def _pair(m):
    """W as a pair of functions, not symmetric."""
    W = torch.eye(m, dtype=torch.float64) + torch.ones(m, m, dtype=torch.float64).tril(-1)
    inverse = torch.linalg.inv(W)
    return PairWhitening(lambda e: e @ W.T.to(e.dtype), lambda z: z @ inverse.T.to(z.dtype), None)


def gained(image, gain):
    return gain[..., None, None].exp() * image


def _sums_from_the_end(y):
    return y.flip(-1).cumsum(-1).flip(-1)


# Name -> factory of a small operator; ``dtype`` is the precision of the numbers that it holds.
OPERATORS = {
    "BlindConvolution": lambda dtype: ops.BlindConvolution((2, 5, 6), (3, 2)),
    "BlindConvolution reflect": lambda dtype: ops.BlindConvolution((2, 5, 6), (4, 3), "reflect"),
    "BlindConvolution valid": lambda dtype: ops.BlindConvolution((1, 5, 6), (2, 3), "valid"),
    "BlindGaussianBlur": lambda dtype: ops.BlindGaussianBlur((2, 5, 6), 5, "zero"),
    "BlindGamma": lambda dtype: ops.BlindGamma((2, 3, 4)),
    "BlindCoilPhase": lambda dtype: ops.BlindCoilPhase(
        0.7 * _coils(dtype, 2, 4, 3), ops.random_mask((4, 3), 0.9, 2)
    ),
    "BlindRotationCentre": lambda dtype: ops.BlindRotationCentre(
        ops.Radon((6, 5), [0, 30, 100], 0.5, detectors=14).to(dtype)
    ),
    "BlindTurbulence": lambda dtype: ops.BlindTurbulence(
        (2, 6, 5), ops.gaussian_kernel(0.8, 3).to(dtype), (3, 2)
    ),
    "DetectorShift": lambda dtype: ops.DetectorShift((2, 3, 7), 1.3),
    "Gamma": lambda dtype: ops.Gamma((2, 3, 4), 2.2),
    "Warp": lambda dtype: ops.Warp((2, 5, 6), 1.5 * _draw(2, 5, 6, dtype=dtype)),
    "NavierStokes": lambda dtype: ops.NavierStokes((1, 8, 8), 0.5, 0.05, steps=3, stride=2),
    "Packed": lambda dtype: ops.Packed({"image": (1, 3, 4), "gain": (1,)}, gained),
    "Units": lambda dtype: ops.Units(torch.tensor([[0.5, -2.0, 3.0]], dtype=dtype)),
    "Units complex": lambda dtype: ops.Units(
        torch.tensor([0.5, 4.0], dtype=dtype), complex_images=True
    ),
    "RowWise": lambda dtype: ops.RowWise([ops.Blur(_draw(3, 5, dtype=dtype), (2, 6, 9))]),
    "Affine": lambda dtype: ops.Affine(ops.PhaseRetrieval((1, 4, 5)), 2.0, -1.0),
    "Blur circular": lambda dtype: ops.Blur(_draw(3, 5, dtype=dtype), (2, 6, 9)),
    "Blur circular even": lambda dtype: ops.Blur(_draw(2, 4, dtype=dtype), (1, 7, 8)),
    "Blur circular wrapped": lambda dtype: ops.Blur(_draw(9, 9, dtype=dtype), (1, 3, 12)),
    "Blur circular Gaussian": lambda dtype: ops.Blur(ops.gaussian_kernel(1.5).to(dtype), (1, 8, 8)),
    "Blur reflect": lambda dtype: ops.Blur(_draw(5, 3, dtype=dtype), (2, 7, 4), boundary="reflect"),
    "Blur reflect even": lambda dtype: ops.Blur(
        _draw(4, 2, dtype=dtype), (1, 5, 6), boundary="reflect"
    ),
    "Blur symmetric": lambda dtype: ops.Blur(
        _draw(4, 9, dtype=dtype), (2, 5, 3), boundary="symmetric"
    ),
    "Blur symmetric Gaussian": lambda dtype: ops.Blur(
        ops.gaussian_kernel(1.5).to(dtype), (2, 7, 4), boundary="symmetric"
    ),
    "Blur zero": lambda dtype: ops.Blur(_draw(9, 9, dtype=dtype), (1, 3, 12), boundary="zero"),
    "Blur valid": lambda dtype: ops.Blur(_draw(3, 4, dtype=dtype), (2, 6, 7), boundary="valid"),
    "Chain": lambda dtype: ops.PhaseRetrieval((1, 3, 4)) @ ops.Downsample((1, 6, 8), 2).to(dtype),
    "Clip": lambda dtype: ops.Clip((2, 3, 4)),
    "Clip darker": lambda dtype: ops.Clip((5,), gain=0.5, low=-0.4, high=0.3),
    "ComplexChannels": lambda dtype: ops.ComplexChannels((2, 5, 4)),
    "Compose": lambda dtype: (
        ops.Mask(ops.random_mask((6, 6), 0.5, 0), (1, 6, 6))
        @ ops.Blur(_draw(3, 3, dtype=dtype), (1, 6, 6))
    ),
    "Scaled Radon": lambda dtype: ops.Scaled(ops.Radon((6, 5), [0, 30, 100], 0.5), 0.02),
    "Weighted by rows": lambda dtype: ops.Weighted(
        ops.Dense(_draw(4, 3, dtype=dtype)), _draw(1, 4, dtype=dtype).abs() + 0.1
    ),
    "Scaled mask": lambda dtype: ops.Scaled(ops.Mask(ops.random_mask((5, 4), 0.5, 3)), 3.0),
    "Weighted Radon": lambda dtype: ops.Weighted(
        ops.Radon((6, 5), [0, 30, 100], 0.5), _draw(3, 8, dtype=dtype).abs() + 0.1
    ),
    "Whitened mask": lambda dtype: ops.Whitened(
        ops.Mask(ops.random_mask((4, 3), 0.6, 3)),
        ops.Whitener(RootWhitening(PixelNoise(0.1 + _draw(7, dtype=torch.float64) ** 2)), (7,)),
    ),
    "Whitened block means": lambda dtype: ops.Whitened(
        ops.Downsample((1, 4, 6), 2).to(dtype), ops.Whitener(_waves((2, 3)), (1, 2, 3))
    ),
    "Whitened rays": lambda dtype: ops.Whitened(
        ops.Radon((6, 5), [0, 30, 100], 0.5).to(dtype), ops.Whitener(_waves((3, 8)), (3, 8))
    ),
    "Whitened matrix": lambda dtype: ops.Whitened(
        ops.Dense(_draw(3, 5, dtype=dtype)), ops.Whitener(_pair(3), (3,))
    ),
    "Whitened complex": lambda dtype: ops.Whitened(
        ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 6)),
        ops.Whitener(
            RootWhitening(PixelNoise(torch.tensor([[0.1], [1.0], [3.0]]).double())), (3, 15), True
        ),
    ),
    "PhaseMap": lambda dtype: ops.PhaseMap(
        torch.polar(torch.ones(5, 4, dtype=dtype), _draw(5, 4, dtype=dtype))
    ),
    "wrapped pair": lambda dtype: ops.wrap((lambda x: x.cumsum(-1), _sums_from_the_end), (2, 3, 4)),
    "wrapped function": lambda dtype: ops.wrap(lambda x: x.square() + 2 * x, (2, 3, 4)),
    "Quadrature": lambda dtype: ops.Quadrature(
        torch.polar(torch.ones(5, 4, dtype=dtype), _draw(5, 4, dtype=dtype))
    ),
    "ApertureSynthesis": lambda dtype: ops.ApertureSynthesis(
        _draw(7, dtype=dtype, seed=1) * 2e9,
        _draw(7, dtype=dtype, seed=2) * 2e9,
        (1, 5, 4),
        20.0,
        "triangle",
    ),
    "Closures": lambda dtype: ops.Closures(
        ops.ComplexChannels((2, 6)),
        _draw(6, dtype=dtype.to_complex(), seed=3),
        torch.full((6,), 0.1, dtype=dtype),
        torch.tensor([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]),
        torch.zeros(6, dtype=torch.long),
        least_ratio=0.01,
        flux=(1.0, 0.5),
    ),
    "Compose Fourier": lambda dtype: (
        ops.MaskedFourier(ops.random_mask((5, 6), 0.4, 1), (5, 6)) @ ops.ComplexChannels((2, 5, 6))
    ),
    "Compose coils": lambda dtype: (
        ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 2))
        @ ops.ComplexChannels((2, 6, 5))
    ),
    "Compose unitary left": lambda dtype: (
        ops.Identity((1, 3, 4)) @ ops.Downsample((1, 9, 12), 3).to(dtype)
    ),
    "Dense wide": lambda dtype: ops.Dense(_draw(5, 12, dtype=dtype), (1, 3, 4)),
    "Dense tall": lambda dtype: ops.Dense(_draw(9, 6, dtype=dtype)),
    "Dense complex": lambda dtype: ops.Dense(_draw(4, 6, dtype=dtype.to_complex())),
    "Downsample box": lambda dtype: ops.Downsample((3, 8, 12), 4).to(dtype),
    "Downsample bicubic": lambda dtype: ops.Downsample((1, 9, 15), 3, kind="bicubic").to(dtype),
    "Downsample no antialias": lambda dtype: ops.Downsample(
        (2, 8, 6), 2, kind="bicubic-no-antialias"
    ).to(dtype),
    "Downsample stride": lambda dtype: ops.Downsample((1, 10, 5), 5, kind="stride").to(dtype),
    "Downsample by one": lambda dtype: ops.Downsample((1, 3, 4), 1).to(dtype),
    "Grey": lambda dtype: ops.Grey((3, 5, 4)).to(dtype),
    "Grey one channel": lambda dtype: ops.Grey((3, 2, 3), weights=(0.0, -2.0, 0.0)).to(dtype),
    "Identity": lambda dtype: ops.Identity((3, 5, 4)),
    "Identity pixel": lambda dtype: ops.Identity((1,)),
    "JPEG": lambda dtype: ops.JPEG((3, 16, 32), 75).to(dtype),
    "JPEG unrounded": lambda dtype: ops.JPEG((3, 16, 16), 20, rounding="none").to(dtype),
    "JPEG colours kept": lambda dtype: ops.JPEG((3, 8, 16), 90, subsampling="4:4:4").to(dtype),
    "Chain rounding": lambda dtype: (
        ops.JPEG((1, 8, 8), 60).to(dtype) @ ops.Downsample((1, 16, 16), 2).to(dtype)
    ),
    "JPEG grey": lambda dtype: ops.Affine(ops.JPEG((1, 16, 8), 50).to(dtype), 0.5, 0.5),
    "Mask": lambda dtype: ops.Mask(ops.random_mask((5, 7), 0.4, 3), (3, 5, 7)),
    "Mask box": lambda dtype: ops.Mask(ops.box_mask((2, 6, 9), 4)),
    "MaskedFourier": lambda dtype: ops.MaskedFourier(ops.random_mask((5, 6), 0.5, 4), (2, 5, 6)),
    "MaskedFourier uncentred": lambda dtype: ops.MaskedFourier(
        ops.random_mask((1, 7), 0.5, 5), (4, 7), centred=False
    ),
    "MultiCoilFourier": lambda dtype: ops.MultiCoilFourier(
        _coils(dtype), ops.random_mask((6, 5), 0.5, 6)
    ),
    "Modulus of coded far fields": lambda dtype: ops.coded_diffraction(_coils(dtype, 2, 4, 3)),
    "Modulus squared": lambda dtype: ops.Modulus(
        ops.Dense(_draw(5, 6, dtype=dtype.to_complex())) @ ops.ComplexChannels((2, 6)), square=True
    ),
    "Ptychography": lambda dtype: ops.Ptychography(
        _coils(dtype, 1, 3, 4)[0], torch.tensor([[0, 0], [1, 2], [2, 1], [2, 2]]), (5, 6)
    ),
    "Ptychography of several probes": lambda dtype: ops.Ptychography(
        _coils(dtype, 2, 3, 2), torch.tensor([[0, 0], [0, 1]]), (3, 4)
    ),
    "VaryingBlur": lambda dtype: ops.VaryingBlur(_draw(2, 3, 3, 2, dtype=dtype), (2, 5, 6)),
    "VaryingBlur reflect": lambda dtype: ops.VaryingBlur(
        _draw(2, 1, 3, 3, dtype=dtype), (1, 5, 4), "reflect", rows=(1, 2.5)
    ),
    "SinglePixel": lambda dtype: ops.SinglePixel((2, 4, 2), 5),
    "SinglePixel random": lambda dtype: ops.SinglePixel((1, 2, 4), 8, "random", seed=1),
    "Mask mosaic": lambda dtype: ops.Mask(ops.bayer_mask("GBRG", (3, 3, 4))),
    "Quantize": lambda dtype: ops.Quantize((2, 3, 4), bits=6, gain=11.0, black=20),
    "Quantize unrounded": lambda dtype: ops.Quantize((5,), bits=8, gain=20.0, rounding="none"),
    "Null": lambda dtype: ops.Null((2, 3, 4)),
    "Null complex": lambda dtype: ops.Null((3, 4), complex=True),
    "PhaseRetrieval": lambda dtype: ops.PhaseRetrieval((2, 5, 4)),
    "PhaseRetrieval odd": lambda dtype: ops.PhaseRetrieval((1, 3, 7), oversampling=1.5),
    "Radon": lambda dtype: ops.Radon((2, 9, 12), [0, 30, 45, 90, 100.5, 135], 0.7).to(dtype),
    "Radon few detectors": lambda dtype: ops.Radon(
        (11, 8), [10, 70, 200], 1.0, detectors=6, detector_mm=2.0
    ).to(dtype),
    "Sparse": lambda dtype: ops.Sparse(
        coo_array(_draw(5, 12, dtype=dtype).relu().numpy()), (2, 3, 4), out_shape=(1, 5)
    ),
    "FanBeam": lambda dtype: ops.FanBeam((2, 5, 4), [0, 45, 130.5, 250], 0.5, 8.0, 3.0).to(dtype),
    "ConeBeam": lambda dtype: ops.ConeBeam((2, 4, 3), [20, 200], 0.5, 6.0, 2.0, (3, 4)).to(dtype),
    "NonCartesianFourier": lambda dtype: ops.NonCartesianFourier(
        _coils(dtype, 2, 4, 3),
        torch.rand(9, 2, dtype=dtype, generator=_seeded(2)) - 0.5,
        engine="sum",
    ),
    "Transmission": lambda dtype: ops.Transmission(
        ops.Radon((2, 6, 5), [0, 40, 90, 120], 0.5).to(dtype)
    ),
    "AlongAxis": lambda dtype: ops.AlongAxis(_draw(3, 5, dtype=dtype), (5, 1, 2, 3)),
    "AlongAxis tall complex": lambda dtype: ops.AlongAxis(
        _draw(6, 4, dtype=dtype), (4, 3), complex_images=True
    ),
    "AlongAxis after slices": lambda dtype: (
        ops.thick_slices((4, 1, 2, 3), 2).to(dtype)
        @ ops.Slicewise(ops.Downsample((1, 4, 6), 2).to(dtype), 4)
    ),
    "MaskedFourier volume": lambda dtype: ops.MaskedFourier(
        ops.random_mask((4, 6, 1), 0.4, 7), (4, 6, 5), dims=3
    ),
    "Slicewise a few at once": lambda dtype: ops.Slicewise(
        ops.Radon((6, 5), [0, 30, 100], 0.5).to(dtype), 5, at_once=2
    ),
    "Slicewise": lambda dtype: ops.Slicewise(ops.Downsample((1, 4, 6), 2).to(dtype), 3),
    "Slicewise coils": lambda dtype: ops.Slicewise(
        ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 6)), 2
    ),
    "Slicewise tall": lambda dtype: ops.Slicewise(ops.Dense(_draw(5, 3, dtype=dtype)), 2),
    "Slicewise reflect": lambda dtype: ops.Slicewise(
        ops.Blur(ops.gaussian_kernel(0.7).to(dtype), (1, 7, 8), boundary="reflect"), 2
    ),
    "Stack": lambda dtype: ops.Stack(
        ops.Downsample((1, 8, 8), 2).to(dtype),
        ops.Mask(ops.box_mask((1, 8, 8), 4)),
        ops.Blur(_draw(3, 3, dtype=dtype), (1, 8, 8), boundary="zero"),
    ),
    "Stack complex": lambda dtype: ops.Stack(
        ops.MaskedFourier(ops.random_mask((6, 5), 0.3, 7), (6, 5)),
        ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 8)),
    ),
}


# PRIORS
# --------------------------------------------------------------------------------------------------


def spd(d, dtype=torch.float64, seed=0):
    """A random covariance with eigenvalues 0.3 to 2."""
    axes = torch.linalg.qr(_draw(d, d, dtype=torch.float64, seed=seed))[0]
    return ((axes * torch.linspace(0.3, 2, d, dtype=torch.float64)) @ axes.T).to(dtype)


def full_gaussian(dtype=torch.float64, shape=(6,), seed=0):
    d = torch.Size(shape).numel()
    return pri.Gaussian(
        0.5 * _draw(*shape, dtype=torch.float64, seed=seed + 1).to(dtype), spd(d, dtype, seed)
    )


def mixture(dtype=torch.float64, d=4, K=3, shape=None):
    covariances = torch.stack([spd(d, dtype, k) for k in range(K)])
    return pri.GaussianMixture(
        torch.arange(1.0, K + 1).to(dtype),
        2 * _draw(K, d, dtype=torch.float64, seed=9).to(dtype),
        covariances,
        shape=shape,
    )


def exact_network(gaussian, output, sigma_of, a_of):
    """The network that a perfect training of ``output`` would give: it knows sigma from its label
    alone."""

    def net(x_net, label):
        sigma = torch.as_tensor(sigma_of(float(label[0])), dtype=torch.float64)
        a = a_of(float(sigma))
        x = x_net / a
        x0 = gaussian.denoise(x, sigma)
        z = (x - x0) / float(sigma)
        s = a * float(sigma)
        return {
            "eps": z,
            "x0": x0,
            "v": a * z - s * x0,
            "score": -z / s,
            "flow": z - x0,
            "flow flipped": x0 - z,
        }[output]

    return net


def exact_edm(gaussian, d):
    def net(x_net, label):
        sigma = float((4 * label[0]).exp())
        width = (sigma**2 + d**2) ** 0.5
        x = width * x_net
        return (
            (gaussian.denoise(x, torch.tensor(sigma, dtype=torch.float64)) - d**2 / width**2 * x)
            * width
            / (sigma * d)
        )

    return net


def _vp(sigma):
    return (1 + sigma**2) ** -0.5


def _between(sigmas):
    return lambda t: np.exp(np.interp(t, np.arange(len(sigmas)), np.log(sigmas)))


def wrapped(gaussian):
    """The same Gaussian prior as every kind of pretrained network."""
    linear, continuous = pri.DiscreteVP.linear(), pri.ContinuousVP(label_scale=999)
    flow = pri.RectifiedFlow(label_scale=1000)
    flipped = pri.RectifiedFlow(flip=True, sigma_max=200.0)
    betas = np.linspace(1e-4, 0.02, 1000)
    discrete = _between(np.sqrt(1 / np.cumprod(1 - betas) - 1))

    def in_time(label):
        t = label / 999
        return np.sqrt(np.expm1(0.1 * t + 19.9 * t**2 / 2))

    def make(output, schedule, sigma_of, a_of, kind=None):
        net = exact_network(gaussian, output, sigma_of, a_of)
        limits = {"sigma_max": 100.0, "sigma_min": 0.02, "variance": gaussian.variance}
        return pri.Network(
            net,
            shape=gaussian.shape,
            parametrization=kind or output,
            schedule=schedule,
            range=None,
            **limits,
        )

    edm = exact_edm(gaussian, 0.7)
    return {
        "eps linear": make("eps", linear, discrete, _vp),
        "v linear": make("v", linear, discrete, _vp),
        "x0 linear": make("x0", linear, discrete, _vp),
        "score linear": make("score", linear, discrete, _vp),
        "eps continuous": make("eps", continuous, in_time, _vp),
        "score continuous": make("score", continuous, in_time, _vp),
        "score VE": make("score", pri.VE(0.01, 200.0), lambda label: label, lambda sigma: 1.0),
        "eps VE log": make("eps", pri.VE(0.01, 200.0, "log"), np.exp, lambda sigma: 1.0),
        "v VE": make("v", pri.VE(0.01, 200.0), lambda label: label, lambda sigma: 1.0),
        "flow": make("flow", flow, lambda t: t / (1000 - t), lambda sigma: 1 / (1 + sigma)),
        "flow flipped": make(
            "flow flipped", flipped, lambda t: (1 - t) / t, lambda sigma: 1 / (1 + sigma), "flow"
        ),
        "edm": pri.Network(
            edm,
            shape=gaussian.shape,
            sigma_data=0.7,
            range=None,
            sigma_max=100.0,
            sigma_min=0.02,
            variance=gaussian.variance,
        ),
    }


def toy_unet(dtype=torch.float32, seed=0, channels=1, masked=False):
    """A small network whose zero-initialised weights are filled, so that it does something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = pri.UNet(channels, (8, 12), (1, 1), unshuffle=2, embedding=8, masked=masked)
        for p in net.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return net.to(dtype)


def orthonormal(d, k, dtype=torch.float64, seed=2):
    """A matrix (d, k) with orthonormal columns."""
    return torch.linalg.qr(_draw(d, k, dtype=torch.float64, seed=seed))[0].to(dtype)


def toy_autoencoder(dtype=torch.float64, seed=0, channels=1, widths=(4, 6), blocks=1):
    """A small autoencoder of random weights: images of twice the side, two latent channels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ConvAutoencoder(channels, 2, widths, blocks)
    return pri.Autoencoder(net.to(dtype), factor=net.factor, channels=channels, latent_channels=2)


def ambient(dtype):
    """A network seen through a mask that hides every fifth pixel, at a size that is padded."""
    net = toy_unet(dtype, masked=True)
    known = pri.Network(
        net, shape=(1, None, None), multiple=4, sigma_data=0.5, conditions=net.conditions
    )
    return pri.Ambient(known, (torch.arange(7 * 12) % 5 > 0).view(7, 12))


def network_at(dtype):
    """A network with other biases, as an adapter would give it."""
    prior = pri.Network(toy_unet(dtype), shape=(1, 8, 12), multiple=4, sigma_data=0.5)
    name, bias = next((name, t) for name, t in prior.named_parameters() if name.endswith("bias"))
    return prior.at(**{name: bias + 0.1})


def guided_mixture(dtype):
    """Guidance towards one component of a mixture."""
    prior = mixture(dtype)
    towards = torch.tensor([0.1, 0.1, 0.8], dtype=dtype)
    return prior.conditioned(weights=towards, negative={"weights": prior.weights}, guidance=1.5)


# Name -> factory of a small prior in the given precision. A network's Jacobian is not symmetric;
# its name begins with "UNet".
PRIORS = {
    "Conditioned": guided_mixture,
    "Gaussian white": lambda dtype: pri.Gaussian(torch.zeros(2, 3, dtype=dtype), 0.5),
    "Gaussian diagonal": lambda dtype: pri.Gaussian(
        torch.ones(5, dtype=dtype), torch.linspace(0.2, 2, 5, dtype=dtype)
    ),
    "Gaussian full": lambda dtype: full_gaussian(dtype, (2, 3)),
    "GaussianMixture": lambda dtype: mixture(dtype),
    "GaussianMixture image": lambda dtype: mixture(dtype, shape=(1, 2, 2)),
    "GaussianMixture shared": lambda dtype: pri.GaussianMixture(
        torch.ones(2, dtype=dtype), _draw(2, 4, dtype=dtype), spd(4, dtype)[None]
    ),
    "GaussianMixture white": lambda dtype: pri.GaussianMixture(
        torch.ones(3, dtype=dtype), _draw(3, 4, dtype=dtype), 0.3
    ),
    "GaussianMixture at": lambda dtype: pri.leaves.MixtureAt(
        mixture(dtype), torch.tensor([0.2, 0.5, 0.3], dtype=dtype), _draw(3, 4, dtype=dtype)
    ),
    "ComplexImages": lambda dtype: pri.ComplexImages(full_gaussian(dtype, (2, 2, 3))),
    "ComplexImages mixture": lambda dtype: pri.ComplexImages(mixture(dtype, shape=(2, 2))),
    "Plane": lambda dtype: pri.Plane(full_gaussian(dtype, (1, 3, 2))),
    "GreyImages": lambda dtype: pri.GreyImages(full_gaussian(dtype, (3, 2, 2))),
    "Joint": lambda dtype: pri.Joint(
        {"image": full_gaussian(dtype, (2, 3)), "kernel": mixture(dtype)}, units={"kernel": 0.5}
    ),
    "Latent": lambda dtype: pri.Latent(
        full_gaussian(dtype, (4,)), pri.LinearAutoencoder(orthonormal(6, 4, dtype)), scale=0.5
    ),
    "Latent decoder": lambda dtype: pri.Latent(
        full_gaussian(dtype, (2, 3, 2)), toy_autoencoder(dtype), check=False
    ),
    "Slices": lambda dtype: pri.Slices(full_gaussian(dtype, (2, 3)), 3),
    "Slices mixture": lambda dtype: pri.Slices(mixture(dtype), 2, at_once=1),
    # A tile's weights make the Jacobian of the whole asymmetric, whatever the prior.
    "UNet tiles": lambda dtype: pri.Tiles(
        pri.Network(toy_unet(dtype), shape=(1, 8, 8), multiple=4, sigma_data=0.5),
        8,
        3,
        sides=(12, 9),
    ),
    "UNet patches": lambda dtype: pri.Patches(
        pri.Network(toy_unet(dtype), shape=(1, 8, 8), multiple=4, sigma_data=0.5),
        8,
        (1, 3),
        sides=(12, 10),
        at_once=2,
    ),
    "Turned": lambda dtype: pri.Turned(pri.Slices(full_gaussian(dtype, (2, 3)), 4), (2, 1, 0)),
    "AveragedScores": lambda dtype: pri.AveragedScores(
        [full_gaussian(dtype, (2, 3)), full_gaussian(dtype, (2, 3), 5)], (0.7, 0.3)
    ),
    "UNet slices": lambda dtype: pri.Slices(
        pri.Network(toy_unet(dtype), shape=(1, 8, 12), multiple=4, sigma_data=0.5), 2, at_once=1
    ),
    "UNet": lambda dtype: pri.Network(
        toy_unet(dtype), shape=(1, 8, 12), multiple=4, sigma_data=0.5
    ),
    "UNet at": network_at,
    "UNet ambient": ambient,
    "UNet padded": lambda dtype: pri.Network(
        toy_unet(dtype), shape=(1, 7, 10), multiple=4, sigma_data=0.5
    ),
    "UNet v": lambda dtype: pri.Network(
        toy_unet(dtype),
        shape=(1, 8, 4),
        parametrization="v",
        schedule=pri.DiscreteVP.linear(),
        multiple=4,
    ),
}
PRIORS |= {
    f"Network {name}": lambda dtype, name=name: wrapped(full_gaussian(dtype))[name]
    for name in wrapped(full_gaussian())
}


# NOISES
# --------------------------------------------------------------------------------------------------

# Name -> law, whether it is for complex numbers, a typical clean value.
NOISES = {
    "Gaussian": (laws.Gaussian(0.3), False, 1.0),
    "ComplexGaussian": (laws.ComplexGaussian(sigma_per_channel=0.2), True, 1.0),
    "ComplexGaussian whole": (laws.ComplexGaussian(sigma_complex=0.2), True, 0.5),
    "CorrelatedGaussian": (
        laws.CorrelatedGaussian(PixelNoise(torch.tensor(0.09).double())),
        False,
        1.0,
    ),
    "CorrelatedGaussian complex": (
        laws.CorrelatedGaussian(WhiteNoise(0.04), complex_numbers=True),
        True,
        1.0,
    ),
    "FilteredGaussian": (
        laws.FilteredGaussian(lambda e: 4 * e, lambda z: z / 4, 20_000 * math.log(4)),
        False,
        1.0,
    ),
    "Poisson": (laws.Poisson(200.0), False, 0.7),
    "Counts": (laws.Counts(), False, 25.0),
    "Laplace": (laws.Laplace(0.2), False, 1.0),
    "StudentT": (laws.StudentT(0.2, 8), False, 1.0),
    "Huber": (laws.Huber(0.2, 2.0), False, 1.0),
    "Outliers": (laws.Outliers(0.2, 0.1, -1.0, 2.0), False, 0.7),
    "PoissonGaussian": (laws.PoissonGaussian(30.0, 0.1), False, 0.7),
    "Rician": (laws.Rician(0.3), False, 0.5),
    "Speckle": (laws.Speckle(8), False, 0.7),
    "Quantised": (laws.Quantised(0.1, 0.125), False, 1.0),
    "UnknownGaussian": (laws.UnknownGaussian(0.3, 10**7), False, 1.0),
    "UnknownGaussian complex": (laws.UnknownGaussian(0.2, 10**7, True), True, 0.5),
}


# METHODS
# --------------------------------------------------------------------------------------------------


def bed(kind="general", sigma=0.1, dtype=torch.float64, d=6, m=4):
    """A Gaussian posterior: "white" prior, or "general" covariance; a matrix with singular values
    from 1.5 to 0.05."""
    prior = (
        pri.Gaussian(torch.full((d,), 0.3, dtype=dtype), 0.8)
        if kind == "white"
        else full_gaussian(dtype, (d,))
    )
    U, V = (torch.linalg.qr(_draw(n, n, dtype=torch.float64, seed=n))[0] for n in (m, d))
    matrix = (U * torch.tensor([1.5, 0.7, 0.3, 0.05], dtype=torch.float64)[:m]) @ V[:, :m].T
    x = prior.sample(1, seed=3)
    A = ops.Dense(matrix.to(dtype))
    y = A(x)[0] + sigma * _draw(m, dtype=torch.float64, seed=5).to(dtype)
    return Posterior(prior, Likelihood(y, A, laws.Gaussian(sigma)))


def picture(dtype=torch.float64):
    """Masked images of a mixture prior, 1 x 3 x 4, with a range."""
    prior = pri.GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=dtype),
        _draw(2, 12, dtype=torch.float64).to(dtype),
        0.2,
        shape=(1, 3, 4),
        range=(-1, 1),
    )
    A = ops.Mask(ops.random_mask((3, 4), 0.5, 0), (1, 3, 4))
    return Posterior(
        prior,
        Likelihood(torch.full(A.out_shape, 0.6, dtype=dtype), A, laws.Gaussian(0.05), range=(0, 1)),
    )


def complex_picture(dtype=torch.float64):
    """Complex images of a two-channel Gaussian prior, seen by coils."""
    prior = pri.ComplexImages(pri.Gaussian(torch.zeros(2, 6, 5, dtype=dtype), 0.5))
    A = ops.MultiCoilFourier(_coils(dtype), ops.random_mask((6, 5), 0.5, 2))
    y = _draw(*A.out_shape, dtype=dtype.to_complex(), seed=4)
    return Posterior(prior, Likelihood(y, A, laws.ComplexGaussian(sigma_per_channel=0.2)))


def phases(dtype=torch.float64):
    """A non-linear measurement: magnitudes of a Fourier transform."""
    A = ops.PhaseRetrieval((1, 3, 4))
    prior = pri.Gaussian(torch.full((1, 3, 4), 0.5, dtype=dtype), 0.1)
    return Posterior(prior, Likelihood(A(prior.sample(1, 0))[0], A, laws.Gaussian(0.05)))


def toy(dtype=torch.float64, d=6, m=3, sigma=0.3):
    g = torch.Generator().manual_seed(0)
    prior = po.priors.Gaussian(torch.zeros(d, dtype=dtype), torch.linspace(0.5, 2, d, dtype=dtype))
    A = po.operators.Dense(torch.randn(m, d, generator=g, dtype=torch.float64).to(dtype))
    y = torch.randn(m, generator=g, dtype=torch.float64).to(dtype)
    return po.Posterior(prior, po.Likelihood(y, A, po.noise.Gaussian(sigma)))


def two_modes(separation, dtype=torch.float32):
    """Two correlated Gaussians of unit variance; the measurement moves mass towards the second: .67
    of it at the end."""
    means = torch.tensor([[-separation / 2, 0.0], [separation / 2, 0.3]], dtype=dtype)
    covariances = torch.tensor([[[1, 0.3], [0.3, 1]], [[1, -0.3], [-0.3, 1]]], dtype=dtype)
    prior = po.priors.GaussianMixture(torch.tensor([0.4, 0.6], dtype=dtype), means, covariances)
    A = po.operators.Dense(torch.tensor([[0.6 / separation, 1.0]], dtype=dtype))
    return po.Posterior(
        prior, po.Likelihood(torch.tensor([0.8], dtype=dtype), A, po.noise.Gaussian(1.0))
    )


class Faulty(Prior):
    """A white Gaussian whose denoiser returns NaN in one row at one call."""

    def __init__(self, call, row):
        super().__init__((6,), variance=1.0, sigma_max=10.0, sigma_min=0.01)
        self.call, self.row, self.calls = call, row, 0

    def denoise(self, x, sigma):
        out = x / (1 + sigma**2)
        if self.calls == self.call:
            out = out.clone()
            out[self.row] = torch.nan
        self.calls += 1
        return out


class Told(Prior):
    """White Gaussian latents (2, 3, 2) around a mean for each channel, the leaf ``embedding``."""

    def __init__(self, dtype=torch.float64, variance=0.6):
        super().__init__((2, 3, 2), variance=variance, sigma_max=20.0, sigma_min=0.02, max_std=1.0)
        self.embedding = torch.nn.Parameter(torch.tensor([0.5, -0.3], dtype=dtype))

    def denoise(self, x, sigma):
        mean = self.embedding[:, None, None]
        return mean + (x - mean) * (self.variance / (self.variance + sigma**2))


def told(dtype=torch.float64):
    """Masked images 1 x 6 x 4 of a latent prior that is told of a mean."""
    prior = pri.Latent(Told(dtype), toy_autoencoder(dtype), check=False)
    A = ops.Mask(ops.random_mask((6, 4), 0.5, 0), (1, 6, 4))
    y = _draw(*A.out_shape, dtype=dtype, seed=6)
    return Posterior(prior, Likelihood(0.1 * y, A, laws.Gaussian(0.05), range=(-1, 1)))


POSTERIORS = {"general": bed, "picture": picture, "complex": complex_picture, "phases": phases}
# Those of an image and an instrument that is not known.
BLIND = {"kernel": lambda dtype=torch.float64: blind_post(dtype=dtype, side=4)}


def posteriors_of(method):
    """Name -> factory of the posteriors that a method is for."""
    if method.family == "blind":
        return BLIND
    return {"told": told} | POSTERIORS if method.family == "latent" else POSTERIORS


# Name -> method. Every class of ``methods.ALL`` has its default and, where it has one, its
# published preset.
METHODS = {
    "Unconditional": methods.Unconditional(),
    "Unconditional Heun": methods.Unconditional(transition=methods.Heun()),
    "Unconditional Midpoint": methods.Unconditional(transition=methods.Midpoint()),
    "CFGPlusPlus": methods.CFGPlusPlus(),
    "DPS": methods.DPS(),
    "DPS published": methods.DPS.published(),
    "DPS squared": methods.DPS(weighting="squared", scale=0.01),
    "DPS likelihood": methods.DPS(weighting="likelihood", scale=0.01),
    "PiGDM": methods.PiGDM(),
    "PiGDM published": methods.PiGDM.published(),
    "PiGDM paper": methods.PiGDM("paper"),
    "PiGDM pseudo-inverse": methods.PiGDM(weighting="pseudo-inverse"),
    "PiGDM Midpoint": methods.PiGDM(transition=methods.Midpoint()),
    "PiGDM Heun": methods.PiGDM(transition=methods.Heun()),
    "EPS": methods.EPS(),
    "EPS ancestral": methods.EPS(transition=methods.DDIM()),
    "MMPS": methods.MMPS(),
    "MMPS published": methods.MMPS.published(),
    "MMPS conjugate gradients": methods.MMPS(solver="cg"),
    "TMPD": methods.TMPD(),
    "TMPD diagonal": methods.TMPD("diagonal"),
    "DMPS": methods.DMPS(),
    "DMPS published": methods.DMPS.published(),
    "LGDMC": methods.LGDMC(),
    "LGDMC published": methods.LGDMC.published(),
    "DDNM": methods.DDNM.published(),
    "DDNM noise ignored": methods.DDNM(noise="ignored"),
    "DDRM": methods.DDRM.published(),
    "DDRM eta_b": methods.DDRM(eta=0.5, eta_b=0.6),
    "DDS": methods.DDS(),
    "DDS published": methods.DDS.published(),
    "ScoreSDE": methods.ScoreSDE(),
    "ScoreSDE published": methods.ScoreSDE.published(),
    "MCG": methods.MCG(),
    "MCG published": methods.MCG.published(),
    "RePaint": methods.RePaint(repeats=3),
    "RePaint published": methods.RePaint.published(),
    "ScoreALD": methods.ScoreALD(),
    "ScoreALD published": methods.ScoreALD.published(),
    "ILVR": methods.ILVR(),
    "ILVR published": methods.ILVR.published(),
    "ILVR coarse": methods.ILVR(until=1.0),
    "DSG": methods.DSG(),
    "DSG turned": methods.DSG(rate=0.7, eta=0.5),
    "Peng": methods.Peng(),
    "Peng published": methods.Peng.published(),
    "FlowDPS": methods.FlowDPS(),
    "FlowDPS published": methods.FlowDPS.published(),
    "FlowDPS flow": methods.FlowDPS(weight=(1.0, 0.2), fresh=0.0),
    "FlowChef": methods.FlowChef(),
    "FlowChef published": methods.FlowChef.published(),
    "MPCFlow": methods.MPCFlow(),
    "MPCFlow horizon": methods.MPCFlow(width="horizon", lam=2.0),
    "FreeDoM": methods.FreeDoM(),
    "FreeDoM published": methods.FreeDoM.published(),
    "FreeDoM faces": methods.FreeDoM.published_faces(1.0),
    "SNIPS": methods.SNIPS(),
    "SNIPS published": methods.SNIPS.published(),
    "ScorePriorVI": methods.ScorePriorVI(draws=8, updates=2, polish=4),
    "ScorePriorVI published": methods.ScorePriorVI.published(),
    "ScorePriorVI diagonal": methods.ScorePriorVI(
        "diagonal", "bound", draws=8, updates=2, polish=4
    ),
    "ScorePriorVI low-rank": methods.ScorePriorVI(
        "low-rank", draws=8, updates=2, polish=4, weigh_up_to=0
    ),
    "DiffPIR": methods.DiffPIR(),
    "DiffPIR published": methods.DiffPIR.published(),
    "DiffPIR gradient": methods.DiffPIR(data="gradient", gradient_steps=3),
    "ReSample": methods.ReSample(),
    "ReSample published": methods.ReSample.published(),
    "SITCOM": methods.SITCOM(),
    "SITCOM published": methods.SITCOM.published(),
    "DCDP": methods.DCDP(),
    "DCDP published": methods.DCDP.published(),
    "DCPnPDP": methods.DCPnPDP(),
    "DCPnPDP published": methods.DCPnPDP.published(),
    "DDIP": methods.DDIP(iterations=2),
    "DDIP published": methods.DDIP.published(),
    "SCD": methods.SCD(rank=2, iterations=2),
    "DAPS": methods.DAPS(),
    "DAPS published": methods.DAPS.published(),
    "DAPS exact": methods.DAPS(draw="exact"),
    "DAPS flower": methods.DAPS.flower(),
    "DAPS flower mean": methods.DAPS.flower(gamma=0),
    "REDDiff": methods.REDDiff(),
    "REDDiff published": methods.REDDiff.published(),
    "DreamSampler": methods.DreamSampler(),
    "DreamSampler published": methods.DreamSampler.published(),
    "DreamSampler edit": methods.DreamSampler(start="measurement", every=2),
    "P2L": methods.P2L(),
    "P2L means": methods.P2L(leaf="means", project=2),
    "PSLD": methods.PSLD(),
    "PSLD published": methods.PSLD.published(),
    "STSL": methods.STSL(),
    "STSL draws": methods.STSL(draws=2, eta=0.3),
    "TReg": methods.TReg(),
    "TReg published": methods.TReg.published(),
    "TReg null": methods.TReg(null_steps=2, leaf="means"),
    "ReSample on images": methods.ReSample(pixels=0.0),
    "MGPS": methods.MGPS(),
    "MGPS published": methods.MGPS.published(),
    "Reweighted": methods.Reweighted(),
    "Reweighted expected": methods.Reweighted(methods.DiffPIR(), "expected"),
    "DAPS mala": methods.DAPS(draw="mala", width="unit", inner_steps=10),
    "DAPS hmc": methods.DAPS(draw="hmc", width="widest", inner_steps=3),
    "PnPDM": methods.PnPDM(),
    "PnPDM published": methods.PnPDM.published(),
    "PnPDM exact": methods.PnPDM(prior="exact", draw="langevin", inner_steps=10),
    "TDS": methods.TDS(particles=4),
    "TDS published": methods.TDS.published(),
    "DDS3D": methods.DDS3D(),
    "DDS3D published": methods.DDS3D.published(),
    "DiffusionMBIR": methods.DiffusionMBIR(),
    "DiffusionMBIR published": methods.DiffusionMBIR.published(),
    "PaDIS": methods.PaDIS(),
    "PaDIS published": methods.PaDIS.published(),
    "SVI": methods.SVI(),
    "SVI published": methods.SVI.published(),
    "TPDM": methods.TPDM(),
    "MomentSMC": methods.MomentSMC(particles=4, pilot=4),
    "MomentSMC bank": methods.MomentSMC(particles=4, bank=32),
    "MCGDiff": methods.MCGDiff(particles=4),
    "MCGDiff published": methods.MCGDiff.published(),
    "FPS": methods.FPS(particles=4),
    "FPS published": methods.FPS.published(),
    "TDS row sums": methods.TDS(particles=4, twist="row sums", single=True, chunk=3),
    "Bootstrap": methods.Bootstrap(particles=4),
    "CBG": methods.CBG(candidates=8),
    "CBG exact": methods.CBG(candidates=8, draw="exact"),
    "CBG keep": methods.CBG(candidates=8, draw="gaussian", keep=True),
    "CBG gaussian": methods.CBG(candidates=8, draw="gaussian", transition=methods.Midpoint()),
    "EnKG": methods.EnKG(particles=4),
    "EnKG updates": methods.EnKG(particles=3, updates=2, ode_steps=1),
    "Bootstrap end": methods.Bootstrap(particles=4, look="end", single=True),
    "SMCDiff": methods.SMCDiff(particles=4),
    "SMCDiff published": methods.SMCDiff.published(),
    "SMCDiff exact": methods.SMCDiff(particles=4, kernel="exact"),
    "AFDPS": methods.AFDPS(particles=4),
    "DDSMC": methods.DDSMC(particles=4),
    "DDSMC published": methods.DDSMC.published(),
    "DDSMC ode": methods.DDSMC(particles=4, eta=0.0, centre="ode", ode_steps=3),
}
METHODS |= {
    "BlindDPS": methods.BlindDPS(),
    "BlindDPS published": methods.BlindDPS.published(),
    "BlindPnPDM": methods.BlindPnPDM(),
    "BlindPnPDM exact": methods.BlindPnPDM(prior="exact", floor=0.1),
    "FastDiffusionEM": methods.FastDiffusionEM(samples=2),
    "FastDiffusionEM mean": methods.FastDiffusionEM(samples=1, expectation="mean"),
    "GibbsDDRM": methods.GibbsDDRM(),
    "GibbsDDRM published": methods.GibbsDDRM.published(),
    "GibbsDiffusion": methods.GibbsDiffusion(),
    "GibbsDiffusion noise": methods.GibbsDiffusion(prior="exact", trust=5, sweeps=2),
}


def brief(method):
    """The same method with little work inside a step: for what does not depend on how much there
    is."""
    most = {
        **{"inner": 40, "inner_steps": 20, "prior_steps": 10, "iterations": 5, "repeats": 3},
        **{"draws": 16, "couplings": 4, "updates": 20, "polish": 20},
    }
    have = {field.name for field in dataclasses.fields(method)} & most.keys()
    found = {name: getattr(method, name) for name in have}
    short = {name: min(n, most[name]) for name, n in found.items() if isinstance(n, int)}
    return dataclasses.replace(method, **short)


def short_pilot(monkeypatch):
    """``MomentSMC`` finds its levels along 6 in place of 64."""
    monkeypatch.setattr(moments, "adapted", partial(moments.adapted, count=6))


# The same names: what sweeps of contracts run.
BRIEF = {name: brief(method) for name, method in METHODS.items()}

# Those whose rows are on their own.
SINGLE = [name for name, method in METHODS.items() if method.group == 1]


# LAWS ON GAUSSIAN POSTERIORS
# --------------------------------------------------------------------------------------------------

FLAT, _, WHITE, ANY, *_ = CLAIMS


@dataclass(frozen=True)
class Case:
    """A setting whose steps are affine in rows and random numbers, so that its law on a Gaussian
    posterior is known without sampling.

    reaches: those of FLAT, WHITE and ANY whose exact law it has as steps are added; it has the law
    of no other. At the default setting they are what the class claims, and what is true without
    being claimed (``UNSAID``).
    """

    method: methods.Method
    reaches: tuple[str, ...] = ()
    steps: int = 60


AFFINE = {
    "Unconditional": Case(methods.Unconditional(), (FLAT,)),
    "PaDIS": Case(methods.PaDIS(), (FLAT,)),
    "Unconditional Heun": Case(methods.Unconditional(methods.Heun()), (FLAT,)),
    "Unconditional Midpoint": Case(methods.Unconditional(methods.Midpoint()), (FLAT,)),
    "CFGPlusPlus": Case(methods.CFGPlusPlus(), (FLAT,)),
    "DPS": Case(methods.DPS(), (FLAT,)),
    "DPS squared": Case(methods.DPS(weighting="squared", scale=0.01)),
    "DPS likelihood": Case(methods.DPS(weighting="likelihood", scale=0.01), (FLAT,)),
    "PiGDM": Case(methods.PiGDM(), (FLAT, WHITE)),
    "PiGDM paper": Case(methods.PiGDM("paper"), (FLAT,)),
    "PiGDM published": Case(methods.PiGDM.published(), (FLAT,)),
    "PiGDM Midpoint": Case(methods.PiGDM(transition=methods.Midpoint()), (FLAT, WHITE)),
    "EPS": Case(methods.EPS(), (FLAT, WHITE, ANY), 30),
    "EPS ancestral": Case(methods.EPS(transition=methods.DDIM()), (FLAT, WHITE, ANY)),
    # Twice as many iterations as there are measurements: rounding has left nothing of the Krylov
    # space by then.
    "MMPS": Case(methods.MMPS(iterations=8, rtol=1e-13), (FLAT, WHITE, ANY), 30),
    "TMPD": Case(methods.TMPD(), (FLAT,)),
    "TMPD diagonal": Case(methods.TMPD("diagonal"), (FLAT,)),
    "DMPS": Case(methods.DMPS(), (FLAT,)),
    "DMPS published": Case(methods.DMPS.published(), (FLAT,)),
    "DDNM": Case(methods.DDNM.published()),
    "DDRM": Case(methods.DDRM.published()),
    "DDRM eta_b": Case(methods.DDRM(eta=0.5, eta_b=0.6)),
    "DDS": Case(methods.DDS(iterations=100, rtol=1e-12), (FLAT, WHITE)),
    "DDS published": Case(methods.DDS.published()),
    "ScoreSDE": Case(methods.ScoreSDE(), (FLAT,)),
    "MCG": Case(methods.MCG(), (FLAT,)),
    "ScoreALD": Case(methods.ScoreALD(), (FLAT,)),
    "ScoreALD published": Case(methods.ScoreALD.published()),
    "ILVR": Case(methods.ILVR(), (FLAT,)),
    "ILVR published": Case(methods.ILVR.published()),
    "Peng": Case(methods.Peng(), (FLAT, WHITE)),
    "FlowDPS": Case(methods.FlowDPS(), (FLAT,)),
    "FlowDPS flow": Case(methods.FlowDPS(fresh=0.0), (FLAT,)),
    "FlowDPS mixed": Case(methods.FlowDPS(fresh=(0.0, 1.0))),
    "FlowChef": Case(methods.FlowChef(), (FLAT,)),
    "MPCFlow horizon": Case(methods.MPCFlow("horizon", lam=2.0), (FLAT,)),
    "FreeDoM": Case(methods.FreeDoM(), (FLAT,)),
    "SNIPS": Case(methods.SNIPS(), (FLAT, WHITE, ANY)),
    "SNIPS published": Case(methods.SNIPS.published()),
    "DiffPIR": Case(methods.DiffPIR(), (FLAT, WHITE)),
    "DiffPIR published": Case(methods.DiffPIR.published(), (FLAT,)),
    "DiffPIR gradient": Case(methods.DiffPIR(data="gradient", gradient_steps=3), (FLAT,)),
    "PSLD": Case(methods.PSLD(), (FLAT,)),
    "PSLD adjoint": Case(methods.PSLD(0.3, 0.1, inverse="adjoint"), (FLAT,)),
    "STSL": Case(methods.STSL(), (FLAT,)),
    # DAPS's draws forget the shape of p(x0 | x) as levels get close.
    "DAPS": Case(methods.DAPS(), (FLAT, WHITE, ANY), 150),
    "DAPS sigma": Case(methods.DAPS(width="sigma"), (FLAT, WHITE, ANY), 150),
    "DAPS exact": Case(methods.DAPS(draw="exact"), (FLAT, WHITE, ANY)),
    "DAPS flower": Case(methods.DAPS.flower(), (FLAT, WHITE, ANY), 150),
    "DAPS flower mean": Case(methods.DAPS.flower(gamma=0)),
}
# True and claimed by no class.
UNSAID = {
    ("DAPS", FLAT),
    ("DAPS", ANY),
    ("ScoreSDE", FLAT),
    ("MCG", FLAT),
    ("ScoreALD", FLAT),
    ("ILVR", FLAT),
}
# Claimed by classes that draw or weigh: by samples alone, see test_claims.
SAMPLED = {"LGDMC", "MGPS", "AFDPS", "Bootstrap", "DDSMC", "FPS", "MCGDiff", "MomentSMC", "TDS"}


# CLASSES
# --------------------------------------------------------------------------------------------------

ROOT = Path(posteriori.__file__).parent


def classes(package, base):
    """The concrete classes of a package that derive from a base."""
    found = set()
    for info in pkgutil.walk_packages([str(ROOT / package)], f"posteriori.{package}."):
        for _, cls in inspect.getmembers(import_module(info.name), inspect.isclass):
            if (
                issubclass(cls, base)
                and not inspect.isabstract(cls)
                and cls.__module__.startswith(f"posteriori.{package}")
            ):
                found.add(cls)
    return found
