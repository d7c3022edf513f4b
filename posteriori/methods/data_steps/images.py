"""The measurement as one of images, for methods that leave the prior's coordinates to meet it: a
decoded latent is made consistent with y, and encoded again."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from posteriori.likelihood import Likelihood, Posterior
from posteriori.linalg import cg
from posteriori.methods.data_steps.descent import Descent
from posteriori.methods.data_steps.misfit import misfit, noise_energy
from posteriori.methods.transitions import renoise
from posteriori.packing import pack
from posteriori.rng import Rng


def on_images(post: Posterior) -> Likelihood:
    """The likelihood of x in the user's range, its noise made white; operator calls are counted as
    the posterior's."""
    given = post.given.whitened()
    return replace(given, A=post.likelihood.A.counting(given.A), check=False)


def consistent(post: Posterior, u: Tensor, descent: Descent, steps: int) -> Tensor:
    """Enc(x), x from Dec(u) by descent on ||y - A x||^2, ended at the noise level: (B, *U)."""
    like = on_images(post)
    x = descent(misfit(like), pack(post.chart.push(u)), steps, noise_energy(like))
    return post.chart.lift(x)


def regularised(post: Posterior, u: Tensor, lam: float, iterations: int) -> Tensor:
    """Enc(x), x = argmin ||y - A x||^2 + lam ||x - Dec(u)||^2 by conjugate gradients from Dec(u),
    for a linear A on images: (B, *U)."""
    like = on_images(post)
    A, x = like.linear, pack(post.chart.push(u))
    solved = cg(
        lambda v: A.adjoint(A(v)) + lam * v,
        A.adjoint(like.y.expand(len(x), *like.y.shape)) + lam * x,
        max_iter=iterations,
        rtol=float(torch.finfo(x.real.dtype).eps),
        start=x,
    )
    return post.chart.lift(solved.x)


def mixed(
    z: Tensor,
    x0: Tensor,
    origin: Tensor,
    x: Tensor,
    sigma: Tensor,
    s: Tensor,
    variance: float,
    rng: Rng,
) -> Tensor:
    """A consistent z among the latents of level s, the more of it the less noise: (B, *U).

        (1 - q) z + q x0 + s ( sqrt(q) (x - origin) / sigma + sqrt(1 - q) e ),
        q = s^2 / (variance + s^2)

    x: at level sigma. origin: the denoised latent that tells the noise in x.
    """
    q = float(s) ** 2 / (variance + float(s) ** 2)
    fresh = float(s) * (1 - q) ** 0.5
    return renoise(torch.lerp(z, x0, q), x, sigma, s, fresh, rng, origin=origin)
