"""Problems for the doctor: sound ones, and sound ones with one planted fault each.

``benchmarks/doctor.py`` tabulates them, ``tests/examination`` asserts them.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import nn

from posteriori import noise, priors, tasks
from posteriori import operators as ops
from posteriori.likelihood import Likelihood, Posterior
from posteriori.measurements.images import read_image
from posteriori.measurements.photos import COFFEE
from posteriori.operators.base import LinearOperator
from posteriori.priors.schedule import DiscreteVP
from posteriori.rng import Streams

ANGLES = [6.0 * k for k in range(30)]


@cache
def digits():
    return priors.digits()


@cache
def photos():
    return priors.photos()


@cache
def digit(seed=0):
    """A draw of the prior, (1, 32, 32) in [0, 1]."""
    return (digits().sample(1, seed, steps=20, shape=(1, 32, 32))[0].clamp(-1, 1) + 1) / 2


def photo(side=64, top=60, left=90):
    """A square of the packaged photograph, (3, side, side) in [0, 1]."""
    image, _ = read_image(COFFEE)
    return image[:, top : top + side, left : left + side]


def measured(prior, A, x, sigma=0.02, range=(0.0, 1.0), seed=0, law=None):
    """The posterior of y = A x + sigma z, with the right noise law."""
    if law is None:
        law = (
            noise.ComplexGaussian(sigma_per_channel=sigma)
            if A.complex_out
            else noise.Gaussian(sigma)
        )
    y = law.sample(A(x[None]), Streams(seed, [0]))[0]
    return Posterior(prior, Likelihood(y, A, law, range=range))


def changed(post, **changes):
    return Posterior(post.prior, replace(post.given, check=False, **changes))


def blurred(prior, x, std=1.5, sigma=0.02):
    return measured(prior, ops.Blur(ops.gaussian_kernel(std), tuple(x.shape)), x, sigma)


def motion(length=9):
    """A streak along the rows."""
    kernel = torch.zeros(length, length)
    kernel[length // 2] = 1 / length
    return kernel


class Eps(nn.Module):
    """The digits network as one that predicts the noise at the timesteps of a linear schedule."""

    def __init__(self):
        super().__init__()
        self.levels = np.log(DiscreteVP.linear().sigmas)

    def forward(self, x, t):
        level = float(np.exp(np.interp(float(t[0]), range(len(self.levels)), self.levels)))
        x = x * math.sqrt(1 + level**2)
        return (x - digits().denoise(x, torch.tensor(level, dtype=torch.float64))) / level


def as_eps(schedule):
    return priors.Network(
        Eps(),
        shape=digits().shape,
        train_size=(32, 32),
        parametrization="eps",
        schedule=schedule,
        variance=digits().variance,
        sigma_min=0.02,
        sigma_max=20.0,
    )


class Coil(LinearOperator):
    """The Fourier transform of an image seen by a coil; its adjoint with the conjugate of the coil,
    or without."""

    def __init__(self, shape, conjugate=True):
        super().__init__(shape, complex_out=True)
        phase = torch.linspace(0, 2, shape[-1])
        self.register_buffer("coil", torch.polar(torch.ones(shape[-1]), phase))
        self.conjugate = conjugate

    def forward(self, x):
        self.check_input(x)
        return torch.fft.fft2(self.coil * x, norm="ortho")

    def adjoint(self, y):
        coil = self.coil.conj() if self.conjugate else self.coil
        return (coil * torch.fft.ifft2(y, norm="ortho")).real


def radon(shift=0.0, x=None, sigma=0.1):
    """Tomography of a digit. shift: of the detector in the data, in pixels, which A leaves out."""
    x = digit() if x is None else x
    A = ops.Radon((1, 32, 32), ANGLES, 1.0)
    made = A if not shift else ops.DetectorShift(A.out_shape, shift) @ A
    post = measured(digits(), made, x, sigma)
    return Posterior(post.prior, replace(post.given, A=A))


def _sigma_data(factor):
    prior = copy.copy(digits())
    prior.sigma_data = factor * prior.sigma_data
    return prior


def _narrow():
    """The prior of digits, whose images are in [-1, 1], stated to be half as wide."""
    prior = copy.copy(digits())
    prior.range = (-0.5, 0.5)
    return prior


class CutOff(priors.Prior):
    """A denoiser that automatic differentiation can follow only in part."""

    def __init__(self, inner):
        super().__init__(
            inner.shape,
            range=inner.range,
            variance=inner.variance,
            sigma_max=inner.sigma_max,
            sigma_min=inner.sigma_min,
        )
        self.inner, self.train_size = inner, inner.train_size

    def denoise(self, x, sigma):
        return x + (self.inner.denoise(x.detach(), sigma) - x.detach())


class Spectrum(ops.Blur):
    """A blur whose claimed spectrum is of another one."""

    def spectrum(self):
        found = super().spectrum()
        return replace(found, s=0.5 * found.s)


def _doubled(post, factor=2.0):
    """y of images in [-1, 1], stated to lie in [0, 1]."""
    ones = torch.ones(1, *post.given.A.in_shape)
    return changed(post, y=factor * post.given.y - post.given.A(ones)[0])


def _turned(post, how):
    return changed(post, y=how(post.given.y).contiguous())


def _mask():
    return ops.Mask(ops.random_mask((64, 64), 0.5, 0), (3, 64, 64))


# name -> the line that it must trip, and the problem.
PLANTED = {
    "range doubled, digits blurred": (
        "range",
        lambda: _doubled(blurred(digits(), digit())),
    ),
    "range doubled, photograph masked": (
        "range",
        lambda: _doubled(measured(photos(), _mask(), photo())),
    ),
    "y in 0 to 255, stated in [0, 1]": (
        "range",
        lambda: changed(
            (post := blurred(digits(), digit())), y=255 * post.given.y, noise=noise.Gaussian(5.1)
        ),
    ),
    "sigma x 255, digits blurred": (
        "noise",
        lambda: changed(blurred(digits(), digit()), noise=noise.Gaussian(5.1)),
    ),
    "sigma / 255, digits blurred": (
        "noise",
        lambda: changed(blurred(digits(), digit()), noise=noise.Gaussian(0.02 / 255)),
    ),
    "sigma / 255, photograph blurred": (
        "noise",
        lambda: changed(blurred(photos(), photo()), noise=noise.Gaussian(0.02 / 255)),
    ),
    "sigma x 255, photograph masked": (
        "noise",
        lambda: changed(measured(photos(), _mask(), photo()), noise=noise.Gaussian(5.1)),
    ),
    "sigma / 255, tomography": (
        "noise",
        lambda: changed(radon(), noise=noise.Gaussian(0.1 / 255)),
    ),
    "missing conjugate in the adjoint": (
        "adjoint",
        lambda: changed(
            measured(digits(), Coil((1, 32, 32)), digit()), A=Coil((1, 32, 32), conjugate=False)
        ),
    ),
    "spectrum of another operator": (
        "norm",
        lambda: changed(
            blurred(digits(), digit()), A=Spectrum(ops.gaussian_kernel(1.5), (1, 32, 32))
        ),
    ),
    "centre of rotation off by half a pixel": ("fit", lambda: radon(0.5)),
    "range of the prior halved": ("samples", lambda: blurred(_narrow(), digit())),
    "sigma_data doubled": ("tweedie", lambda: blurred(_sigma_data(2.0), digit())),
    "sigma_data halved": ("tweedie", lambda: blurred(_sigma_data(0.5), digit())),
    "cosine schedule for a linear one": (
        "tweedie",
        lambda: blurred(as_eps(DiscreteVP.cosine()), digit()),
    ),
    "y with its axes swapped, motion blur": (
        "axes",
        lambda: _turned(
            measured(digits(), ops.Blur(motion(), (1, 32, 32)), digit(), 0.01), lambda y: y.mT
        ),
    ),
    "image with its axes swapped against the prior": (
        "axes",
        lambda: blurred(digits(), digit(2).mT.contiguous(), 0.7),
    ),
    "derivative of the denoiser cut off": (
        "symmetry",
        lambda: blurred(CutOff(digits()), digit()),
    ),
    "prior of another domain": (
        "world",
        lambda: measured(
            digits(), ops.Identity((1, 32, 32)), photo(32, 192, 144).mean(0, keepdim=True), 0.01
        ),
    ),
}


# Sound problems of as many kinds as there are.
SOUND = {
    "digits, blur": lambda: blurred(digits(), digit()),
    "digits, blur, loud": lambda: blurred(digits(), digit(1), 1.0, 0.3),
    "digits, blur, quiet": lambda: blurred(digits(), digit(2), 1.0, 0.003),
    "digits, motion blur": lambda: measured(
        digits(), ops.Blur(motion(), (1, 32, 32)), digit(3), 0.01
    ),
    "digits, nothing but noise": lambda: measured(
        digits(), ops.Identity((1, 32, 32)), digit(4), 0.1
    ),
    "digits, half of the pixels": lambda: measured(
        digits(), ops.Mask(ops.random_mask((32, 32), 0.5, 1), (1, 32, 32)), digit(5), 0.05
    ),
    "digits, a third of the size": lambda: measured(
        digits(), ops.Downsample((1, 32, 32), 2), digit(6), 0.02
    ),
    "digits, tomography": lambda: radon(),
    "digits, tomography, loud": lambda: radon(x=digit(1), sigma=1.0),
    "digits, Fourier of a coil": lambda: measured(digits(), Coil((1, 32, 32)), digit(2), 0.02),
    "digits, as an eps network": lambda: blurred(as_eps(DiscreteVP.linear()), digit()),
    "digits, Poisson": lambda: measured(
        digits(),
        ops.Blur(ops.gaussian_kernel(1.0), (1, 32, 32)),
        digit(3),
        law=noise.Poisson(peak=100.0),
    ),
    "digits, clipped": lambda: measured(digits(), ops.Clip((1, 32, 32)), digit(1), 0.02),
    "photograph, blur": lambda: blurred(photos(), photo()),
    "photograph, half of the pixels": lambda: measured(photos(), _mask(), photo(), 0.01),
    "photograph, box": lambda: measured(
        photos(), ops.Mask(ops.box_mask((64, 64), 24), (3, 64, 64)), photo(), 0.01
    ),
    "photograph, quarter of the size": lambda: measured(
        photos(), ops.Downsample((3, 64, 64), 4, kind="bicubic"), photo(), 0.02
    ),
    "photograph, no noise to speak of": lambda: measured(
        photos(), ops.Identity((3, 64, 64)), photo(64, 100, 20), 1e-3
    ),
    "gmm25, 8 numbers": lambda: tasks.get("gmm25", d=8, measured=2).posterior,
    "gmm25, 80 numbers": lambda: tasks.get("gmm25", d=80, measured=4, seed=1).posterior,
    "Gaussian bed": lambda: tasks.get("gaussian").posterior,
    "ksd": lambda: tasks.get("ksd").posterior,
    "mixture256": lambda: tasks.get("mixture256").posterior,
}
