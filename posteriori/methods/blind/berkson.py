"""The instrument from images that are known up to an error: regression on the denoised image.

A denoised image D = E[x | u] misses the image by an error that is not correlated with D itself, of
the prior's measured covariance C. So y is linear in the parameters of the instrument A at D, with
more noise (a Berkson model):

    y = A D + A (x - D) + noise,   A (x - D) + noise ~ N(0, A C A^T + sigma_y^2 I)

Of a blur that repeats the image beyond its border, and C by colour and frequency, that covariance
is known frequency by frequency; elsewhere C is r2 I and the covariance its mean, white. A is taken
at the parameters of the step before. A regression on images that were fitted to y by these would
only find them again.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.blind.beliefs import NormalEquations, normal_equations
from posteriori.methods.blind.pair import BlindPair, Drawn
from posteriori.methods.data_steps import proximal
from posteriori.priors.error_spectrum import Covariance
from posteriori.rng import Rng


def clouds(pair: BlindPair, phi: Tensor, group: int) -> Iterator[tuple[slice, Posterior]]:
    """The rows that share parameters phi (B, *P), in the user's terms, and p(x | y, phi) of
    these."""
    for first in range(0, len(phi), group):
        yield slice(first, first + group), pair.known(phi[first], first)


def drawn_images(
    pair: BlindPair, m: Tensor, phi: Tensor, sigma: Tensor, group: int, rng: Rng
) -> Tensor:
    """x ~ N(x; m, C) p(y | x, phi) for m (B, *E) in the coordinates of the image's own prior, C
    being what that does not know of x at sigma, its own noise level: by frequency where it was
    measured, else r2 I."""
    if pair.image.know().covariance is None:
        noise = pair.noise(len(m))
        return pair.draw_images(m, phi, pair.image.know().error(sigma), noise, rng)
    z, e = rng.normal(m), rng.normal(pair.post.likelihood.each.expand(len(m), *pair.A.out_shape))
    out = []
    for rows, post in clouds(pair, phi, group):
        C = proximal.measured_covariance(post, sigma)
        assert C is not None  # the image's prior has one, the noise is Gaussian and not 0
        out.append(proximal.proximal_draw(post, m[rows], C, Drawn(iter((z[rows], e[rows])))))
    return torch.cat(out)


def regression_on_denoised(
    pair: BlindPair, x0: Tensor, phi: Tensor, sigma: Tensor, group: int, rng: Rng
) -> NormalEquations:
    """The normal equations of denoised images x0 (B, *E), in the coordinates of their own prior, at
    their noise level sigma, and the parameters phi (B, *P) of the step before, in the user's
    terms."""
    own = pair.chart.parts[0]
    x, y = own.push(x0), pair.post.likelihood.each.expand(len(x0), *pair.A.out_shape)
    seen = [whitening(post, sigma) for _, post in clouds(pair, phi, group)]
    if any(filter is None for filter in seen):
        r2 = own.a**2 * pair.image.know().error(sigma)
        passed = pair.A.apply(rng.normal(x), phi).abs().square().flatten(1).mean(1)
        nothing = pair.A.apply(torch.zeros_like(x), phi).abs().square().flatten(1).mean(1)
        return normal_equations(
            pair, x, (pair.noise(len(x)).square() + r2 * (passed - nothing)).sqrt()
        )
    x, y = (
        torch.cat([f.root(part) for f, part in zip(seen, t.split(group), strict=True) if f])
        for t in (x, y)
    )
    return normal_equations(pair, x, x.new_full((len(x),), abs(own.a)), y)


def whitening(post: Posterior, sigma: Tensor) -> Covariance | None:
    """(A C A^T + sigma_y^2 I)^-1 of a blur that repeats the image and the measured C; None where it
    is not known frequency by frequency."""
    C = proximal.measured_covariance(post, sigma)
    power = post.likelihood.linear.fourier_power()
    if C is None or power is None or post.likelihood.y.shape != post.shape:
        return None
    v = C.variances
    return Covariance(1 / (post.likelihood.std**2 + v * power.to(v)), C.colours, periodic=True)
