"""Posteriors known in closed form: what a method is compared with, and the oracle that no method
can beat on a given grid.

For a Gaussian or a mixture prior, a linear operator and Gaussian noise, component by component,

    S_k  = A C_k A^T + sigma^2 I
    m_k' = m_k + C_k A^T S_k^-1 (y - A m_k),   C_k' = C_k - C_k A^T S_k^-1 A C_k
    w_k' ~ w_k N(y; A m_k, S_k),               p(y) = sum_k w_k N(y; A m_k, S_k)

It is worked out in the prior's coordinates u and handed back in the user's x, an affine function of
u; see ``Posterior.chart``. A linear decoder of fewer latents than pixels gives covariances that are
singular.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posteriori.chart import Chart, Decoder
from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Gaussian
from posteriori.operators.base import LinearOperator
from posteriori.operators.dense import Dense
from posteriori.operators.dense_matrix import matrix
from posteriori.priors.base import Prior, Pull
from posteriori.priors.knowledge import Knowledge
from posteriori.priors.mixture import GaussianMixture


@dataclass(frozen=True, eq=False)
class ExactPosterior:
    """p(x | y) as a mixture in float64.

    mixture: in the range the user's likelihood states, as ``Run.samples`` are.
    log_evidence: log p(y) as a density over y in the user's units.
    """

    mixture: GaussianMixture
    log_evidence: float

    @property
    def mean(self) -> Tensor:
        """E[x | y], shape E."""
        return self.mixture.mean

    @property
    def covariance(self) -> Tensor:
        """Cov[x | y], (d, d) over the flattened image."""
        return self.mixture.covariance

    @property
    def std(self) -> Tensor:
        """Standard deviation of each number, shape E."""
        return self.covariance.diagonal().sqrt().view(self.mixture.image_shape)

    def sample(self, n: int, seed: int) -> Tensor:
        """n independent draws (n, *E), also independent of a run with the same seed."""
        # A run draws from the streams (seed, k); beyond 32 bits the streams are others, so that no
        # sample shares its random numbers.
        return self.mixture.sample(n, seed + 2**32)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """E[x0 | x0 + sigma z = x, y] for x (B, *E) and sigma in the user's range."""
        return self.mixture.denoise(x, torch.as_tensor(sigma, dtype=self.mixture.means.dtype))


def exact_posterior(post: Posterior) -> ExactPosterior:
    """The closed form of a posterior.

    Complex measurements of real images are written as twice as many real ones. Raises ``TypeError``
    for a prior without a closed form, a non-linear operator, noise that is not Gaussian or complex
    images; ``ValueError`` for a noise level of 0 or a widened likelihood.
    """
    inner, evidence = _condition(post)
    return ExactPosterior(_pushed(inner, post), evidence + post.log_volume)


def _pushed(inner: GaussianMixture, post: Posterior) -> GaussianMixture:
    """The law of x = push(u) where u has that of ``inner``."""
    chart = post.chart
    if chart.straight is not None:
        return inner.transformed(*chart.straight, post.given.range)
    assert isinstance(chart, Decoder)
    assert chart.affine is not None  # _condition refuses a curved chart
    M, b = (t.to(inner.means) for t in chart.affine)
    spread = M @ inner.covariances @ M.T
    means, covariances = inner.means @ M.T + b, (spread + spread.mT) / 2
    return GaussianMixture(
        inner.weights, means, covariances, shape=chart.image_shape, range=post.given.range
    )


def _condition(post: Posterior) -> tuple[GaussianMixture, float]:
    """The posterior mixture and log p(y) in the prior's coordinates, float64."""
    if isinstance(post.chart, Decoder) and post.chart.affine is None:
        raise TypeError(
            "exact_posterior: p(x | y) has no closed form under a curved chart, such as a decoder "
            "that is a network; one with a linear autoencoder has"
        )
    given = post.likelihood
    A, std = given.linear, given.std
    if A.complex_in:
        raise TypeError(f"exact_posterior needs real images, {type(A).__name__} takes complex ones")
    if std == 0:
        raise ValueError(
            "exact_posterior needs a noise level > 0, got 0; "
            "use the smallest level you trust, for example 1e-6 of the range"
        )
    if isinstance(given.r2, Tensor) or given.r2 != 0:
        raise ValueError(
            "exact_posterior takes a likelihood as measured, "
            f"got one widened by r2 = {float(given.r2):g}"
        )
    rows, y = _real_rows(A, given.y)
    mixture, evidence = (
        copy.deepcopy(post.prior).double().know().exact("posterior").condition(rows, y, std)
    )
    if not isinstance(mixture, GaussianMixture):
        raise TypeError(
            "exact_posterior knows Gaussian and GaussianMixture priors, "
            f"got {type(post.prior).__name__}"
        )
    return mixture, evidence


def _real_rows(A: LinearOperator, y: Tensor) -> tuple[Tensor, Tensor]:
    """A as a real float64 matrix (m, d), and y as m real numbers."""
    rows, flat = matrix(A, dtype=y.real.dtype), y.flatten()
    if flat.is_complex():
        rows, flat = torch.cat([rows.real, rows.imag]), torch.cat([flat.real, flat.imag])
    return rows.double(), flat.double()


class _Conditioned(Prior):
    """A prior after it has seen y: the exact conditional denoiser, with the noise levels and the
    start of the prior it came from."""

    def __init__(self, before: Prior, after: GaussianMixture) -> None:
        super().__init__(
            after.shape,
            range=before.range,
            variance=after.variance,
            sigma_max=before.sigma_max,
            sigma_min=before.sigma_min,
        )
        self.before, self.after = before, after

    def chart(self, range: tuple[float, float] | None, shape: tuple[int, ...]) -> Chart:
        return self.before.chart(range, shape)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.after.denoise(x, sigma)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        return self.after.linearize(x, sigma)

    def know(self) -> Knowledge:
        return replace(
            super().know(),
            ladder=self.before.know().ladder,
            anisotropic=self.after.know().anisotropic,
            closed=self.after,
        )

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.before.start(z, sigma)


def oracle(post: Posterior) -> Posterior:
    """A posterior whose prior is the exact p(x | y) and whose likelihood is flat.

    Sampled by ``Unconditional`` with the same grid, transition and seed it is what a method with a
    perfect guidance would give: same start, same random numbers, exact conditional score. Raises as
    ``exact_posterior`` does.
    """
    inner, _ = _condition(post)
    dtype = post.likelihood.y.real.dtype
    shape = post.given.A.in_shape
    blind = Dense(torch.zeros(1, math.prod(shape), dtype=dtype), shape=shape)
    flat = Likelihood(torch.zeros(1, dtype=dtype), blind, Gaussian(1.0), range=post.given.range)
    return Posterior(_Conditioned(post.prior, inner.to(dtype)), flat)
