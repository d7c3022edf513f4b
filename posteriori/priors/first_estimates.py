"""Linear first estimates of an image under noise, which a network is shown beside it.

From c_in mu, mu = x0 + Sigma^(1/2) z, and labels ln(level) / 4 the network would have to find out
for itself which numbers are seen and which are noise; where most pixels are hidden it is slow to
learn that. Two Gaussian models say it at once, divided by the standard deviation d of the data:

    shrunk            x0 white:                       d (Sigma + d^2)^-1 mu
    locally constant  x0 constant where weights g lie, up to a variance (d / 4)^2 of its own:
                      d^-1 sum g w mu / (sum g w + 1 / (n d^2)),   w = 1 / (level^2 + d^2 / 16)

Hidden pixels have no weight in either. g of sum 1, over n = 1 / sum g^2 pixels or about so many, is
binomial over 5 x 5 pixels; the mean of a block of 4 x 4 or of 8 x 8, interpolated between blocks;
and that of 8 x 8 averaged over 5 x 5 blocks. One pixel depends on a bounded neighbourhood.

Under noise that differs from pixel to pixel a network may also be given another picture and other
levels, in which pixels that are seen worse than their neighbours are ``filled`` from these. A
hidden pixel then has the error of a guess in place of the noise of a look that tells nothing, and
it is this error whose size the network is told and that its loss is measured in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
SQUARES = (4, 8)
ACROSS = 5
KINDS = 2 + len(SQUARES)
# Of how many pixels each mean is, or about so many, narrowest first.
NUMBERS = (13, *(r**2 for r in SQUARES), (ACROSS * SQUARES[-1]) ** 2)

# What variances about the means of one scale have more than those about the next narrower, and
# that of pixels about the narrowest, in d^2: of hidden pixels of BSDS500's train, rounded.
APART = (0.04, 0.05, 0.11, 0.75)
OWN = 0.05
MARGIN, KEPT, FAR = 1.05, 10.0, 0.18
CONTRASTED = 2


def shrunk(x: Tensor, label: Tensor, d: float) -> Tensor:
    """x = c_in mu (B, C, H, W), label (B or 1, 1, H or 1, W or 1) -> (B, C, H, W)."""
    return (1 + ((4 * label).exp() / d) ** 2).rsqrt().to(x) * x


def locally_constant(x: Tensor, label: Tensor, d: float) -> Tensor:
    """As ``shrunk``, of all KINDS of weights: (B, KINDS C, H, W)."""
    variance = (8 * label).exp().to(x)
    w = (1 / (variance + d**2 / 16)).expand(len(x), 1, *x.shape[2:])
    both = torch.cat([w * (variance + d**2).sqrt() * x, w], 1)
    found = [
        mean[:, :-1] / (mean[:, -1:] + 1 / (n * d**2)) / d
        for mean, n in zip(_means(both), NUMBERS, strict=True)
    ]
    return torch.cat(found, 1)


def labels_within(x: Tensor, c: Tensor, r: int) -> Tensor:
    """The labels c, (B,) or (B, H, W), less the mean of their block of r x r, like x (B, C, H, W):
    (B, 1, H, W)."""
    if c.ndim == 1:
        return torch.zeros_like(x[:, :1])
    mean = F.avg_pool2d(c[:, None], r).repeat_interleave(r, 2).repeat_interleave(r, 3)
    return (c[:, None] - mean).to(x)


def beside(x: Tensor, c: Tensor, d: float, given: Tensor | None = None) -> list[Tensor]:
    """What a network is shown beside x = c_in mu, of the labels c, (B,) or (B, H, W): each
    (B, some, H, W). given: ``shrunk``, where it is known by more than labels."""
    label = c.view(-1, 1, 1, 1) if c.ndim == 1 else c[:, None]
    return [shrunk(x, label, d) if given is None else given, locally_constant(x, label, d)]


def contrasts(within: Tensor) -> tuple[Tensor, Tensor]:
    """Two functions of rho = level / (geometric mean level of the block), 0 where it is 1, of
    ``within`` = ln(rho) / 4:

        (1 - rho^2) / (1 + rho^2),      2 rho / (1 + rho^2) - 1

    With P what its neighbours say of a pixel, P having the error t, the mean of x0 is
    mu + level^2 / (level^2 + t^2) (P - mu). Where t is the level of the block, that is in units of
    the pixel's level the second function and 1, times a number of the block. A convolution has one
    factor for all blocks.
    """
    return torch.tanh(-4 * within), 1 / torch.cosh(4 * within) - 1


def summed(out: Tensor, within: Tensor) -> Tensor:
    """out (B, (1 + CONTRASTED) C, H, W), its first part and the others times the contrasts."""
    total, *others = out.chunk(1 + CONTRASTED, 1)
    for w, other in zip(contrasts(within), others, strict=True):
        total = torch.addcmul(total, w.to(other), other)
    return total


class Filled(NamedTuple):
    """mu (B, C, H, W), a look at x0; level (B, 1, H, W), the standard deviation of its errors."""

    mu: Tensor
    level: Tensor


def filled(mu: Tensor, level: Tensor, d: float) -> Filled:
    """mu (B, C, H, W) = x0 + level z, level (B or 1, 1, H, W), with a second look at each pixel:
    what its better seen neighbours say of it.

    B_k, the mean of x0 about a pixel at scale k, is N(B_(k+1), t_k d^2) before it is seen, t_k
    being what the variance of pixels about it has less than at the next wider scale; about the
    narrowest a pixel is N(B, OWN d^2). With b the variance of that prediction,

        mu' = mu + g (B - mu),            level'^2 = (1 - g)^2 level^2 + g^2 b,
        g = level^2 a / (level^2 a + KEPT b),
        a = max(0, 1 - MARGIN h / level^2) min(1, max(0, 2 - 2 b / (FAR d^2)))

    where h is the least harmonic mean of the variances about the pixel, over all scales: a pixel
    that is seen as well as its neighbours is left as it is, to the last bit, and so is one that is
    far from all that is seen. KEPT is above the 1 of least squares: the noise of looks is white and
    the network averages it, the error of guesses is not.
    """
    level = level.expand(len(mu), 1, *mu.shape[2:])
    v = level.square()
    w = 1 / (v + d**2 / 16)
    # Weights go through the means with mu and are no functions of it: levels have no derivative.
    means = [
        (mean[:, :-2], *mean[:, -2:].detach().split(1, 1))
        for mean in _means(torch.cat([w * mu, w, 1 / v], 1))
    ]
    narrow, b = torch.zeros_like(mu), torch.zeros_like(v)
    for (sums, seen, _), n, t in reversed([*zip(means, NUMBERS, APART, strict=True)]):
        before = b + t * d**2
        total = n * seen + 1 / before
        narrow = (n * sums + narrow / before) / total
        b = 1 / total
    h = 1 / torch.stack([precision for *_, precision in means]).amax(0)
    a = (1 - MARGIN * h / v).clamp_min(0)
    b = b + OWN * d**2
    a = a * (2 - 2 * b / (FAR * d**2)).clamp(0, 1)
    g = v * a / (v * a + KEPT * b)
    return Filled(mu + g * (narrow - mu), ((1 - g).square() * v + g.square() * b).sqrt())


def _means(u: Tensor) -> list[Tensor]:
    """The means of u (B, K, H, W) with all KINDS of weights, each (B, K, H, W)."""
    coarse = [F.avg_pool2d(u, r, ceil_mode=True, count_include_pad=False) for r in SQUARES]
    widest = F.avg_pool2d(coarse[-1], ACROSS, 1, ACROSS // 2, count_include_pad=False)
    found = [_binomial(u)]
    for mean, r in zip([*coarse, widest], [*SQUARES, SQUARES[-1]], strict=True):
        fine = F.interpolate(mean, scale_factor=float(r), mode="bilinear")
        found.append(fine[..., : u.shape[2], : u.shape[3]])
    return found


def _binomial(u: Tensor) -> Tensor:
    """Over 5 x 5 pixels, those beyond the edge being none: sums of mu and of weights alike."""
    g, channels = u.new_tensor(BINOMIAL) / sum(BINOMIAL), u.shape[1]
    with torch.autocast(u.device.type, enabled=False):  # a ratio of sums: in the precision of u
        for shape, pad in (((1, 1, 5, 1), (2, 0)), ((1, 1, 1, 5), (0, 2))):
            kernel = g.view(shape).expand(channels, *shape[1:])
            u = F.conv2d(u, kernel, padding=pad, groups=channels)
    return u
