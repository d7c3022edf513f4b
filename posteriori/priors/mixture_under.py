"""The denoiser of a Gaussian mixture under noise of any covariance, in closed form.

With a = Sigma^(-1/2) (mu - m), m any centre, n_k = Sigma^(-1/2) (m_k - m) and
M_k = I + Sigma^(-1/2) C_k Sigma^(-1/2),

    log r_k = log w_k - (a - n_k)^T M_k^-1 (a - n_k) / 2 - log det M_k / 2 + const
    E[x0 | mu] = sum_k r_k ( m_k + C_k Sigma^(-1/2) M_k^-1 (a - n_k) )

M_k has no eigenvalue below 1 and none that grows with the noise: the solve is well posed at any
level. Where all C_k are diagonal and Sigma is, or are one variance c and the same, nothing is
factorised: they share axes with Sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posteriori.covariances import NoiseCovariance, PixelNoise, RowsNoise, WhiteNoise

if TYPE_CHECKING:
    from posteriori.priors.mixture import GaussianMixture


@dataclass(frozen=True)
class MixtureUnder:
    """See the module. Costs a factorisation of a d x d matrix for each covariance C_k, once a
    call."""

    mixture: GaussianMixture

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        return None

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        if isinstance(covariance, RowsNoise):
            return covariance.each(lambda member, rows: self.denoise(rows, member), mu)
        if isinstance(covariance, WhiteNoise):
            level = torch.tensor(covariance.variance**0.5, dtype=torch.float64)
            return self.mixture.denoise(mu, level)
        if isinstance(covariance, PixelNoise) and self.mixture.axes is None:
            return self._diagonal(mu.flatten(1), covariance, mu).view(mu.shape)
        if self.mixture.axes is None and len(self.mixture.variances) == 1:
            variances = self.mixture.variances
            if bool((variances == variances[:, :1]).all()):
                return self._white(covariance, mu, float(variances[0, 0]))
        return self._dense(covariance, mu).view(mu.shape)

    def _white(self, covariance: NoiseCovariance, mu: Tensor, c: float) -> Tensor:
        p = self.mixture
        centre = p.means.mean(0)
        n = (p.means - centre).view(-1, *mu.shape[1:])
        far = covariance.applied(lambda v: 1 / (v + c), n).flatten(1)
        logs = (mu.flatten(1) - centre) @ far.T - 0.5 * (n.flatten(1) * far).sum(1)
        mean = ((logs + p.log_weights).softmax(1) @ p.means).view(mu.shape)
        return mean + covariance.applied(lambda v: c / (v + c), mu - mean)

    def _diagonal(self, flat: Tensor, covariance: PixelNoise, like: Tensor) -> Tensor:
        noise = covariance.variances.expand(like.shape[1:]).flatten().to(flat)
        p, centre = self.mixture, self.mixture.means.mean(0)
        v = p.variances + noise
        gap, n = flat - centre, p.means - centre
        # (a - n_k)^2 without the tensor of rows times components times dimensions.
        logs = p.log_weights - 0.5 * (
            gap.square() @ (1 / v).T
            - 2 * gap @ (n / v).T
            + (n.square() / v).sum(1)
            + v.log().sum(1)
        )
        r, gain = logs.softmax(1), (p.variances / v).expand(len(p.means), -1)
        return (r @ ((1 - gain) * p.means)) + (r @ gain) * flat

    def _dense(self, covariance: NoiseCovariance, mu: Tensor) -> Tensor:
        p, centre = self.mixture, self.mixture.means.mean(0)
        W = covariance.dense(mu, -0.5)
        a, n = (mu.flatten(1) - centre) @ W, (p.means - centre) @ W
        eye = torch.eye(len(W)).to(W)
        logs, parts = [], []
        shared = len(p.variances) == 1
        for k, C in enumerate(p.covariances[:1] if shared else p.covariances):
            CW = C @ W
            M = eye + W @ CW
            L = torch.linalg.cholesky((M + M.T) / 2)
            white = torch.linalg.solve_triangular(L, a.T, upper=False).T
            half = torch.linalg.solve_triangular(L, (n if shared else n[k : k + 1]).T, upper=False)
            logs.append(
                white @ half - 0.5 * half.square().sum(0) - 0.5 * white.square().sum(1)[:, None]
            )
            logs[-1] = logs[-1] - L.diagonal().log().sum()
            back = torch.linalg.solve_triangular(L.T, white.T, upper=True).T @ CW.T
            mean = torch.linalg.solve_triangular(L.T, half, upper=True).T @ CW.T
            parts.append((back, mean))
        r = (torch.cat(logs, 1) + p.log_weights).softmax(1)
        if shared:
            back, mean = parts[0]
            return r @ (p.means - mean) + back
        each = zip(r.T, p.means, parts, strict=True)
        return sum(
            (w[:, None] * (m + back - mean) for w, m, (back, mean) in each),
            torch.zeros_like(a),
        )
