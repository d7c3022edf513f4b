"""The instrument's parameters given an image on a spring, the image that y measures being
integrated over.

    p(y | z, phi) = integral N(x; z, r2 I) N(y; A(x; phi), s^2 I) dx = N(y; A(z; phi), S)
    S             = s^2 I + r2 A A^T

y ties a width and its image strongly: a wide blur of a rough image measures as a narrow one of a
smooth image. So the parameters hardly move given x. With x integrated over they do, and x is drawn
after them: together one draw of the pair given z (a partially collapsed Gibbs step).
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.methods.blind.beliefs import belief_of, deviation
from posteriori.methods.blind.pair import BlindPair
from posteriori.methods.data_steps.elliptical_slice import elliptical_slice
from posteriori.packing import in_a_row
from posteriori.rng import Rng


def collapses(pair: BlindPair) -> bool:
    """Whether S has a closed form here, and the parameters no Gaussian draw given x: y is real and
    not linear in them, and the image is small or the family knows its ``transfer``."""
    A = pair.A
    if A.bilinear or A.complex_out:
        return False
    nothing = torch.zeros(1, *A.parameters_shape).to(pair.post.likelihood.y)
    return pair.small or A.transfer(nothing) is not None


def move_collapsed(
    pair: BlindPair,
    m: Tensor,
    phi: Tensor,
    r2: float,
    noise: Tensor,
    rng: Rng,
    moves: int,
) -> Tensor:
    """phi (B, *P) after ``moves`` elliptical slices that leave p(phi) p(y | m, phi) unchanged, for
    centres m (B, *E) and springs r2, all in the coordinates of their own priors; noise: (B,)."""
    mean = (belief := belief_of(pair)).mean.to(phi)
    for _ in range(moves):
        nu = deviation(belief, rng.normal(phi))
        phi = mean + elliptical_slice(
            lambda f: spring_density(pair, m, mean + f, r2, noise), phi - mean, nu, rng
        )
    return phi


def spring_density(pair: BlindPair, m: Tensor, phi: Tensor, r2: float, noise: Tensor) -> Tensor:
    """log N(y; A(m; phi), S) without what is constant in phi, (B,). Arguments as above."""
    (c, d), a = pair.units, pair.chart.parts[0].a
    x, told = pair.told(in_a_row((m / c, phi / d)))
    gap, r2 = pair.post.likelihood.each - pair.A.apply(x, told), a**2 * r2
    K, s2 = pair.A.transfer(told), noise.square()
    if K is None:
        M = pair.matrices(told)
        S = r2 * M @ M.mT + torch.diag_embed(s2[:, None].expand(gap.flatten(1).shape))
        L = torch.linalg.cholesky(S)
        half = torch.linalg.solve_triangular(L, gap.flatten(1)[..., None], upper=False)
        return -0.5 * half.square().sum((1, 2)) - L.diagonal(dim1=1, dim2=2).log().sum(1)
    power = torch.fft.fft2(gap, norm="ortho").abs().square()
    v = (r2 * K.abs().square() + s2[:, None, None])[:, None]
    return -0.5 * (power / v + v.log()).flatten(1).sum(1)
