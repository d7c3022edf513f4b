"""The instrument's parameters given an image on a spring, the image that y measures being
integrated over.

    p(y | z, phi) = integral N(x; z, r2 I) N(y; A(x; phi), s^2 I) dx = N(y; A(z; phi), S)
    S             = s^2 I + r2 A A^T

y ties a width and its image strongly: a wide blur of a rough image measures as a narrow one of a
smooth image. So the parameters hardly move given x. With x integrated over they do, and x is drawn
after them: together one draw of the pair given z (a partially collapsed Gibbs step).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.linalg import per_row
from posteriori.methods.blind.beliefs import belief_of, deviation
from posteriori.methods.blind.pair import BlindPair
from posteriori.methods.data_steps.elliptical_slice import elliptical_slice
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
    mean, density = (belief := belief_of(pair)).mean.to(phi), spring_density(pair, m, r2, noise)
    for _ in range(moves):
        nu = deviation(belief, rng.normal(phi))
        phi = mean + elliptical_slice(lambda f: density(mean + f), phi - mean, nu, rng)
    return phi


def spring_density(
    pair: BlindPair, m: Tensor, r2: float, noise: Tensor
) -> Callable[[Tensor], Tensor]:
    """phi (B, *P) -> log N(y; A(m; phi), S) without what is constant in phi, (B,). Arguments as
    above."""
    own = pair.chart.parts
    x, y, r2 = own[0].push(m), pair.post.likelihood.each, own[0].a ** 2 * r2
    seen, image = (torch.fft.fft2(t, norm="ortho") for t in (y, x))

    def density(phi: Tensor) -> Tensor:
        K = pair.A.transfer(phi := own[1].push(phi))
        if K is None:
            return _dense(pair, y - pair.A.apply(x, phi), phi, r2, noise)
        K = K[:, None]
        v = r2 * K.abs().square() + per_row(noise.square(), y)
        return -0.5 * ((seen - K * image).abs().square() / v + v.log()).flatten(1).sum(1)

    return density


def _dense(pair: BlindPair, gap: Tensor, phi: Tensor, r2: float, noise: Tensor) -> Tensor:
    """The same of y - A(m; phi) by the matrices of all rows, r2 and phi in the user's terms."""
    M, gap = pair.matrices(phi), gap.flatten(1)
    S = r2 * M @ M.mT + torch.diag_embed(noise.square()[:, None].expand(gap.shape))
    L = torch.linalg.cholesky(S)
    half = torch.linalg.solve_triangular(L, gap[..., None], upper=False)
    return -0.5 * half.square().sum((1, 2)) - L.diagonal(dim1=1, dim2=2).log().sum(1)
