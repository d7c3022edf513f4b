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
from posteriori.packing import pack


def on_images(post: Posterior) -> Likelihood:
    """The likelihood of x in the user's range; operator calls are counted as the posterior's."""
    A = post.likelihood.A.counting(post.given.A)
    return replace(post.given, A=A, check=False)


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
