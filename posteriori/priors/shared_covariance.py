"""A Gaussian mixture whose components share one covariance, in the axes of that covariance, where
all is diagonal.

With c = V^T (x - m), m the mean of the means, n_k = V^T (m_k - m), v the eigenvalues plus sigma^2
and g = eigenvalues / v:

    log r_k = log w_k + n_k^T c / v - n_k^T n_k / 2 v + const
    D       = m + V (g c + (1 - g) sum_k r_k n_k)
    J^T u   = V (g u' + 1/v sum_k r_k (n_k - n) <(1 - g) n_k, u'>),   u' = V^T u, n = sum_k r_k n_k

The rows of a batch meet the components in matrix products alone: no tensor of rows times components
times dimensions is made.
"""

from __future__ import annotations

import math

from torch import Tensor

from posteriori.priors.base import Pull


class SharedCovariance:
    """log_weights (K,), means (K, d), variances (d,), axes (d, d) or None for the coordinate axes;
    see the module."""

    def __init__(
        self, log_weights: Tensor, means: Tensor, variances: Tensor, axes: Tensor | None
    ) -> None:
        self.log_weights, self.variances, self.axes = log_weights, variances, axes
        self.centre = means.mean(0)
        self.n = self.to_axes(means - self.centre)

    def to_axes(self, x: Tensor) -> Tensor:
        return x if self.axes is None else x @ self.axes

    def from_axes(self, c: Tensor) -> Tensor:
        return c if self.axes is None else c @ self.axes.T

    def responsibilities(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c (B, d), v (d,), r (B, K) and log p(x; sigma) (B,) for flat x (B, d)."""
        c, v = self.to_axes(x - self.centre), self.variances + sigma**2
        logs = self.log_weights - 0.5 * (self.n.square() / v).sum(1) + (c / v) @ self.n.T
        total = logs.logsumexp(1)
        rest = 0.5 * ((c.square() / v).sum(1) + v.log().sum() + len(v) * math.log(2 * math.pi))
        return c, v, (logs - total[:, None]).exp(), total - rest

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        c, v, r, _ = self.responsibilities(x, sigma)
        gain = self.variances / v
        return self.centre + self.from_axes(gain * c + (1 - gain) * (r @ self.n))

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        """For flat x (B, d); the map takes (B, d) or (K, B, d)."""
        c, v, r, _ = self.responsibilities(x, sigma)
        gain, mean = self.variances / v, r @ self.n

        def pull(u: Tensor) -> Tensor:
            turned = self.to_axes(u)
            along = r * (((1 - gain) * turned) @ self.n.T)
            between = along @ self.n - along.sum(-1, keepdim=True) * mean
            return self.from_axes(gain * turned + between / v)

        return self.centre + self.from_axes(gain * c + (1 - gain) * mean), pull

    def component(self, x: Tensor, sigma: Tensor, k: Tensor) -> Tensor:
        """mu_k(x), the denoiser of one component for each row: x (B, d), k (B,) -> (B, d)."""
        c, gain = self.to_axes(x - self.centre), self.variances / (self.variances + sigma**2)
        return self.centre + self.from_axes(gain * c + (1 - gain) * self.n[k])
