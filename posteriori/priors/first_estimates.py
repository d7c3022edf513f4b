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
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
BLOCKS = (4, 8)
ACROSS = 5
KINDS = 2 + len(BLOCKS)


def shrunk(x: Tensor, label: Tensor, d: float) -> Tensor:
    """x = c_in mu (B, C, H, W), label (B or 1, 1, H or 1, W or 1) -> (B, C, H, W)."""
    return (1 + ((4 * label).exp() / d) ** 2).rsqrt().to(x) * x


def locally_constant(x: Tensor, label: Tensor, d: float) -> Tensor:
    """As ``shrunk``, of all KINDS of weights: (B, KINDS C, H, W)."""
    variance = (8 * label).exp().to(x)
    w = (1 / (variance + d**2 / 16)).expand(len(x), 1, *x.shape[2:])
    both = torch.cat([w * (variance + d**2).sqrt() * x, w], 1)
    coarse = [F.avg_pool2d(both, r, ceil_mode=True, count_include_pad=False) for r in BLOCKS]
    widest = F.avg_pool2d(coarse[-1], ACROSS, 1, ACROSS // 2, count_include_pad=False)
    means = [(_binomial(both), 1, 13)]
    means += [(mean, r, r**2) for mean, r in zip(coarse, BLOCKS, strict=True)]
    means += [(widest, BLOCKS[-1], (ACROSS * BLOCKS[-1]) ** 2)]
    found = []
    for mean, r, n in means:
        fine = mean if r == 1 else F.interpolate(mean, scale_factor=float(r), mode="bilinear")
        fine = fine[..., : x.shape[2], : x.shape[3]]
        found.append(fine[:, :-1] / (fine[:, -1:] + 1 / (n * d**2)) / d)
    return torch.cat(found, 1)


def _binomial(u: Tensor) -> Tensor:
    """Over 5 x 5 pixels, those beyond the edge being none: sums of mu and of weights alike."""
    g, channels = u.new_tensor(BINOMIAL) / sum(BINOMIAL), u.shape[1]
    with torch.autocast(u.device.type, enabled=False):  # a ratio of sums: in the precision of u
        for shape, pad in (((1, 1, 5, 1), (2, 0)), ((1, 1, 1, 5), (0, 2))):
            kernel = g.view(shape).expand(channels, *shape[1:])
            u = F.conv2d(u, kernel, padding=pad, groups=channels)
    return u
