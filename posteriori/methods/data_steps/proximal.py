"""The step towards the data shared by methods that know x0 only up to a Gaussian.

    x0 ~ N(D, C),   y = A x0 + sigma_y z
    E[x0 | y] = D + C A^H (A C A^H + sigma_y^2 I)^-1 (y - A D)

With C = r2 I, r2 the mean of the denoiser's error, low frequencies, of which a denoiser of images
knows far less than of the mean number, move far too little while they are open, and at lower levels
r2 is too small to catch up. r2 the largest error instead would let the noise of y into the high
frequencies. Hence C by colour and frequency, where the prior has measured it
(``Knowledge.covariance``); C = r2 I where it has not. Of white images C is r2 I at every level, and
both agree.

An A that repeats the image beyond its border, as a circular blur does, is diagonal in the Fourier
basis. There C is taken for such images too, with the same variances at the same frequencies: both
are diagonal in one basis, and nothing is iterated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg, dot, note_solver
from posteriori.methods.base import Info
from posteriori.operators.base import LinearOperator
from posteriori.priors.error_spectrum import Covariance
from posteriori.rng import Rng

ITERATIONS = 200


def measured_covariance(post: Posterior, sigma: Tensor, scale: float = 1.0) -> Covariance | None:
    """scale C(sigma) of this posterior's images; None where only its mean is known, or A is not
    linear, or the noise not Gaussian.

    None without noise as well: A C A^H may then be singular for what concerns y, and A x = y holds
    for every C.
    """
    like = post.likelihood
    if not like.conjugate or not like.noise.std:
        return None
    covariance = post.prior.know().covariance
    C = None if covariance is None else covariance(sigma, post.shape)
    if C is None:
        return None
    C = C if like.linear.fourier_power() is None else C.wrapped()
    return C if scale == 1 else Covariance(scale * C.variances, C.colours, C.periodic)


def mean_variance(post: Posterior, sigma: Tensor) -> float:
    """r2 of C = r2 I for a linear A: ``Knowledge.error`` of a closed form and of a prior that has
    measured C, else ``Knowledge.open_variance``.

    A network whose error is known in the mean alone corrects, at the next level, what the data step
    puts where images are closed, but never what the data step leaves undone where they are open.
    With the mean error the chi-square of samples of digits is 1.9 times (DAPS) and 2.3 times
    (DiffPIR) that of the truth, with this one the same (docs/results/digits-coverage.md).
    """
    known = post.prior.know()
    measured = known.closed is not None or known.covariance is not None
    return known.error(sigma) if measured else known.open_variance(sigma)


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
    """C A^H (A C A^H + std^2 I)^-1 gap: (B, *O) -> (B, *E).

    Closed form where C and A^H A are diagonal in the Fourier basis; else by conjugate gradients,
    see ``_on_images`` and, where A^H A is far from diagonal in the cosines of C,
    ``_on_measurements``.

    std: sigma_y when None.
    iterations: conjugate gradients that are meant to be cut short, by fewer of them, are on images.
    rtol: their relative residual, which ``info`` gets. When None it is 1e-3 in float32 (3e-3 in the
        energy norm where something preconditions), 1e-10 in float64.
    """
    A, s2 = post.likelihood.linear, (post.likelihood.std if std is None else std) ** 2
    whole = iterations == ITERATIONS
    spectrum = A.fourier_power() if C.periodic and whole else None
    if spectrum is not None:
        note_solver("closed form")
        out, left = (
            Covariance(
                C.variances / (s2 + C.variances * spectrum.to(C.variances)), C.colours, True
            )(A.adjoint(gap)),
            dot(gap, gap) * 0,
        )
    else:
        power = A.cosine_power() if whole and not C.periodic else None
        passed = A.measured_power() if whole and power is None and not C.periodic else None
        # Both leave errors of about a hundredth of the shift: preconditioned ones are measured as
        # errors, not as residuals.
        loose = 1e-3 if power is None and passed is None else 3e-3
        goal = (1e-10 if gap.real.dtype == torch.float64 else loose) if rtol is None else rtol
        if passed is not None:
            out, left = _on_measurements(A, gap, C, s2, passed, goal)
        else:
            out, left = _on_images(A, gap, C, s2, power, iterations, goal)
    if info is not None:
        info["residual"] = left
    return out


def _on_images(
    A: LinearOperator,
    gap: Tensor,
    C: Covariance,
    s2: float,
    power: Tensor | None,
    iterations: int,
    goal: float,
) -> tuple[Tensor, Tensor]:
    """The shift by (R A^H A R + s2 I) e = R A^H gap, R = C^(1/2), from 0, and the residual.

    Cut short, conjugate gradients move along what is least known and best measured first.

    power: of A^H A where it is nearly diagonal in the cosines in which C is; then so is the
        inverse.
    """
    # Divided by 1 + s2, so that a flat likelihood does not leave the range of single precision.
    unit = 1 / (1 + s2)
    near = (
        None
        if power is None
        else Covariance(1 / (unit * (s2 + C.variances * power.to(C.variances))), C.colours)
    )

    def matrix(e: Tensor) -> Tensor:
        return (s2 * unit) * e + unit * C.root(A.adjoint(A(C.root(e))))

    start = C.root(A.adjoint(gap * unit))
    solved = cg(
        matrix, start, max_iter=iterations, rtol=goal, precondition=near, energy=near is not None
    )
    return C.root(solved.x), solved.residual


def _on_measurements(
    A: LinearOperator, gap: Tensor, C: Covariance, s2: float, passed: Tensor, goal: float
) -> tuple[Tensor, Tensor]:
    """The shift by (A C A^H + s2 I) v = gap, and the residual.

    A y that sees from beyond its border has hardly a border: its covariance depends on the distance
    of two pixels alone, and the cosines of y nearly diagonalise it. Of the photograph of a cup at
    std 1.6 it takes 2 to 7 iterations where those on images take 5 to 39 with the power of the
    kernel and 7 to 85 without.
    """
    unit = 1 / (1 + s2)
    v = C.resized(*A.out_shape[-2:]).variances
    near = Covariance(1 / (unit * (s2 + v * passed.to(v))), C.colours)
    solved = cg(
        lambda u: (s2 * unit) * u + unit * A(C(A.adjoint(u))),
        gap * unit,
        max_iter=ITERATIONS,
        rtol=goal,
        precondition=near,
        energy=True,
    )
    return C(A.adjoint(solved.x)), solved.residual


def proximal_draw(
    post: Posterior, m: Tensor, C: Covariance, rng: Rng, temperature: float = 1.0
) -> Tensor:
    """A draw from N(x; m, C) p(y | x)^(1 / temperature), one per row: perturb and solve, as
    ``gaussian_draws.exact_draw``."""
    std = post.likelihood.std * temperature**0.5
    x = m + C.root(rng.normal(m))
    clean = post.likelihood.A(x)
    return x + shift(post, post.likelihood.y - clean.add(rng.normal(clean), alpha=std), C, std=std)
