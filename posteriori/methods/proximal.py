"""The step towards the data shared by methods that know x0 only up to a Gaussian: x0 ~ N(D, C), y = A x0 + sigma_y z.

    E[x0 | y] = D + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A D)

With C = r2 I, r2 the mean of the denoiser's error, low frequencies, of which a denoiser of images knows far less than of the mean number,
move far too little while they are open, and at lower levels r2 is too small to catch up. r2 the largest error instead would let the noise
of y into the high frequencies. Hence C by colour and frequency, where the prior has measured it (``Prior.covariance_of_error``); C = r2 I
where it has not. Of white images C is r2 I at every level, and both agree.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg
from posteriori.methods.base import Info
from posteriori.priors.frequencies import Covariance
from posteriori.rng import Noise

ITERATIONS = 200


def measured(post: Posterior, sigma: Tensor, scale: float = 1.0) -> Covariance | None:
    """scale C(sigma) of this posterior's images; None where only its mean is known, or A is not linear, or the noise not Gaussian.

    None without noise as well: A C A^H may then be singular for what concerns y, and A x = y holds for every C.
    """
    like = post.likelihood
    if not like.conjugate or not like.noise.std:
        return None
    C = post.prior.covariance_of_error(sigma, post.shape)
    return C if C is None or scale == 1 else Covariance(scale * C.variances, C.colours)


def shift(
    post: Posterior,
    gap: Tensor,
    C: Covariance,
    *,
    std: float | None = None,
    iterations: int = ITERATIONS,
    rtol: float | None = None,
    info: Info | None = None,
) -> Tensor:
    """C A^H (A C A^H + std^2 I)^-1 gap: (B, *O) -> (B, *E). std: sigma_y when None.

    By conjugate gradients on (R A^H A R + std^2 I) e = R A^H gap, R = C^(1/2), from 0: cut short they move along what is least known and
    best measured first. ``rtol``: their relative residual, which ``info`` gets; when None 1e-3 in float32 (3e-3 in the energy norm where
    ``A.cosine_power`` preconditions), 1e-10 in float64.
    """
    A, s2 = post.likelihood.linear, (post.likelihood.std if std is None else std) ** 2
    # Divided by 1 + s2, so that a flat likelihood does not leave the range of single precision.
    unit = 1 / (1 + s2)
    start = C.root(A.adjoint(gap * unit))
    # Where A^H A is nearly diagonal in the cosines in which C is, so is the inverse. Not for a solve that is meant to be cut short.
    power = A.cosine_power() if iterations == ITERATIONS else None
    # Both leave errors of about a hundredth of the shift: preconditioned ones are measured as errors, not as residuals.
    loose = 1e-3 if power is None else 3e-3
    goal = (1e-10 if gap.real.dtype == torch.float64 else loose) if rtol is None else rtol
    near = None if power is None else Covariance(1 / (unit * (s2 + C.variances * power.to(C.variances))), C.colours)

    def matrix(e: Tensor) -> Tensor:
        return (s2 * unit) * e + unit * C.root(A.adjoint(A(C.root(e))))

    solved = cg(matrix, start, max_iter=iterations, rtol=goal, precondition=near, energy=near is not None)
    if info is not None:
        info["residual"] = solved.residual
    return C.root(solved.x)


def draw(post: Posterior, m: Tensor, C: Covariance, rng: Noise, temperature: float = 1.0) -> Tensor:
    """A draw from N(x; m, C) p(y | x)^(1 / temperature), one per row: perturb and solve, as ``draws.exact``."""
    std = post.likelihood.std * temperature**0.5
    x = m + C.root(rng.normal(m))
    clean = post.likelihood.A(x)
    return x + shift(post, post.likelihood.y - clean.add(rng.normal(clean), alpha=std), C, std=std)
