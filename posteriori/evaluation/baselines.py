"""What needs no prior network: the Wiener filter for a circular blur, and for any linear operator;
every learned prior should beat it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from posteriori.evaluation.images import psnr
from posteriori.linalg import cg
from posteriori.operators.base import LinearOperator


def wiener(y: Tensor, kernel: Tensor, sigma: float, strength: float = 1e-3) -> Tensor:
    """The linear minimum-mean-square estimate of x from y = kernel * x + sigma z, circular
    convolution: (C, H, W) -> (C, H, W).

        X(f) = conj(K) S Y / (|K|^2 S + sigma^2),   S(f) = strength / |f|^2,   f in cycles per pixel

    kernel: (kh, kw), its centre at (kh // 2, kw // 2). sigma in the units of y. At f = 0 S is
    infinite: the mean of y is kept.
    Raises ``ValueError`` when shapes, sigma or strength make no sense, or the kernel has no mean.
    """
    if (
        y.ndim != 3
        or kernel.ndim != 2
        or any(k > n for k, n in zip(kernel.shape, y.shape[1:], strict=True))
    ):
        raise ValueError(
            "wiener needs y (C, H, W) and a kernel (kh, kw) that fits in it, "
            f"got {tuple(y.shape)} and {tuple(kernel.shape)}"
        )
    if not 0 < sigma < math.inf or not 0 < strength < math.inf:
        raise ValueError(f"wiener needs sigma > 0 and strength > 0, got {sigma} and {strength}")
    if abs(float(kernel.sum())) < 1e-8 * float(kernel.abs().sum()):
        raise ValueError(
            "the kernel sums to 0: it removes the mean of the image, which no filter brings back"
        )
    H, W = y.shape[1:]
    field = torch.zeros(H, W, dtype=torch.float64)
    field[: kernel.shape[0], : kernel.shape[1]] = kernel.double()
    K = torch.fft.fft2(field.roll((-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), (0, 1)))
    f2 = (
        torch.fft.fftfreq(H, dtype=torch.float64)[:, None] ** 2
        + torch.fft.fftfreq(W, dtype=torch.float64) ** 2
    )
    gain = K.conj() / (K.abs() ** 2 + sigma**2 * f2 / strength)
    return torch.fft.ifft2(gain * torch.fft.fft2(y.double())).real.to(y)


def best_wiener(
    y: Tensor,
    kernel: Tensor,
    sigma: float,
    reference: Tensor,
    strengths: Sequence[float] | None = None,
    *,
    data_range: float = 1.0,
) -> tuple[Tensor, float, float]:
    """The ``wiener`` estimate of the strength with the best PSNR against the reference, that
    strength, and that PSNR.

    It is allowed to see the reference, so it is the best that this filter can do.
    """
    strengths = strengths or [10 ** (k / 4) for k in range(-24, 1)]
    estimates = torch.stack([wiener(y, kernel, sigma, strength) for strength in strengths])
    scores = psnr(estimates, reference, data_range)
    k = int(scores.argmax())
    return estimates[k], float(strengths[k]), float(scores[k])


def best_linear(
    y: Tensor,
    A: LinearOperator,
    sigma: float,
    reference: Tensor,
    strengths: Sequence[float] | None = None,
    *,
    data_range: float = 1.0,
) -> tuple[Tensor, float, float]:
    """As ``best_wiener``, for any linear A and y = A x + sigma z: the estimate (C, H, W), its
    strength, its PSNR.

        (A^T A + (sigma^2 / strength) F^H |f|^2 F) x = A^T y

    with the Fourier transform F and f in cycles per pixel is what ``wiener`` solves in closed form
    for a circular blur; here by conjugate gradients, all strengths side by side.
    Raises ``ValueError`` for sigma <= 0 and for an A that does not see the mean,
    ``ArithmeticError`` when the equations are not solved.
    """
    if not 0 < sigma < math.inf:
        raise ValueError(f"best_linear needs sigma > 0, got {sigma}")
    if float(A(A.probe(torch.ones, dtype=torch.float64)).abs().max()) < 1e-8:
        raise ValueError(
            f"{type(A).__name__} removes the mean of the image, "
            "which no linear estimate brings back"
        )
    strengths = strengths or [10 ** (k / 2) for k in range(-10, 0)]
    H, W = A.in_shape[-2:]
    f2 = (
        torch.fft.fftfreq(H, dtype=torch.float64)[:, None] ** 2
        + torch.fft.fftfreq(W, dtype=torch.float64) ** 2
    )
    weight = (sigma**2 / torch.tensor(strengths, dtype=torch.float64)).view(-1, 1, 1, 1) * f2

    def filtered(x: Tensor, gain: Tensor) -> Tensor:
        return torch.fft.ifft2(gain * torch.fft.fft2(x)).real

    b = A.adjoint(y[None].double()).expand(len(strengths), *A.in_shape)
    solved = cg(
        lambda x: A.adjoint(A(x)) + filtered(x, weight),
        b,
        max_iter=2000,
        rtol=1e-9,
        precondition=lambda r: filtered(r, 1 / (1 + weight)),
    )
    if not bool((solved.residual < 1e-7).all()):
        raise ArithmeticError(
            f"best_linear: the equations were solved to {float(solved.residual.max()):.1e} only; "
            "choose smaller strengths"
        )
    scores = psnr(solved.x, reference, data_range)
    k = int(scores.argmax())
    return solved.x[k].to(y), float(strengths[k]), float(scores[k])
