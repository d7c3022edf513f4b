"""Whether another blur kernel explains a measurement better: its likelihood once the image is
integrated out, and how far that rises near the kernel which a run has found.

    log p(y | k, s) = -1/2 sum_w ( |Y_w|^2 / v_w + log v_w ) + const
    v_w             = s |K_w|^2 S_w + sigma^2

Y and K are the Fourier transforms of y and k, sigma the noise level, S the variances of images by
colour and frequency, which the prior has measured as what it does not know at its largest noise
level, s the contrast of the scene. The image is so taken for a stationary Gaussian one, which tells
the modulus of K alone; a maximum over images with the prior itself would prefer no blur at all.

    gain = ( max over k' near k - the value at k ) / count of numbers in y

s is the best of ``CONTRASTS``; the maximum is that of ``STEPS`` steps of Adam of each size from k,
with taps >= 0 of sum 1. A right kernel gains by what a scene differs from an average one, a wrong
kernel by more.

Reference: Levin, Weiss, Durand, Freeman, Efficient marginal likelihood optimization in blind
deconvolution, 2011: the kernel is to be judged with the image integrated out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.blind.pair import blind_pair
from posteriori.operators.parametric import Parametric
from posteriori.run import Run

CONTRASTS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Sizes of the steps, for taps of sum 1, and how many of each.
SIZES, STEPS = (0.0045, 0.0015), 25


class Spectra(NamedTuple):
    """|Y|^2 and S (C, H, W/2 + 1), how often each frequency counts (H, W/2 + 1) and sigma^2, all
    float64. The mean of the picture counts 0 times: it says nothing of a kernel of sum 1."""

    y: Tensor
    image: Tensor
    often: Tensor
    noise: float

    def log_likelihood(self, k: Tensor) -> Tensor:
        """log p(y | k, s) without its constant, at the best s, for kernels k (B, kh, kw): (B,)."""
        height, width = self.y.shape[-2], 2 * (self.y.shape[-1] - 1)
        power = torch.fft.rfft2(k.double(), s=(height, width)).abs().square()[:, None]
        at = [self._sum(s * power * self.image + self.noise) for s in CONTRASTS]
        return torch.stack(at).amax(0)

    def _sum(self, v: Tensor) -> Tensor:
        return -0.5 * (self.often * (self.y / v + v.log())).sum((1, 2, 3))


def kernel_spectra(post: Posterior) -> Spectra | None:
    """Those of a measurement; None where A is no unknown blur that repeats the image beyond its
    border, the width is odd, or the prior has measured no S."""
    try:
        pair = blind_pair(post)
    except TypeError:
        return None
    y, own = post.given.y, pair.chart.parts[0]
    known, std = pair.image.know().covariance, post.given.noise.std
    shape = tuple(y.shape)
    if known is None or not std or len(shape) != 3 or shape != pair.A.image_shape:
        return None
    if pair.A.name != "kernel" or getattr(pair.A, "boundary", "") != "circular" or shape[2] % 2:
        return None
    C = known(torch.tensor(float(pair.image.sigma_max)), shape)
    if C is None:
        return None
    C = C.wrapped()
    y = y.double()
    if C.colours is not None:
        y = torch.einsum("ci,ihw->chw", C.colours.to(y), y)
    half = shape[2] // 2 + 1
    count = torch.full((shape[1], half), 2.0).to(y)
    count[:, 0] = count[:, -1] = 1.0
    count[0, 0] = 0.0
    power = torch.fft.rfft2(y, norm="ortho").abs().square()
    S = own.a**2 * C.variances[..., :half].to(y)
    return Spectra(power, S.expand_as(power), count, float(std) ** 2)


def kernel_gain(run: Run, post: Posterior) -> float | None:
    """The gain of the mean kernel of a run; None where ``kernel_spectra`` has none."""
    found = kernel_spectra(post) if "kernel" in run.parts else None
    if found is None:
        return None
    A = blind_pair(post).A
    k = A.feasible(run.parts["kernel"].mean[None].to(found.y))
    gain = found.log_likelihood(climbed(found, A, k)) - found.log_likelihood(k)
    return float(gain) / post.given.y.numel()


def climbed(found: Spectra, A: Parametric, k: Tensor) -> Tensor:
    """A kernel (1, kh, kw) of larger likelihood near k; k itself where none was found."""
    z, best, most = k, k, found.log_likelihood(k)
    with torch.enable_grad():
        for size in SIZES:
            z = z.detach().clone().requires_grad_()
            rule = torch.optim.Adam([z], lr=size)
            for _ in range(STEPS):
                rule.zero_grad()
                (-found.log_likelihood(A.feasible(z)).sum()).backward()
                rule.step()
            here = A.feasible(z.detach())
            value = found.log_likelihood(here)
            if bool(value > most):
                best, most = here, value
    return best
