"""Gaussian mixtures, where everything is known in closed form.

    p(x0) = sum_k w_k N(x0; m_k, C_k),     V_k = C_k + sigma^2 I
    r_k(x) ~ w_k N(x; m_k, V_k)                       which component x came from
    mu_k(x) = m_k + C_k V_k^-1 (x - m_k)              the denoiser of component k
    D(x, sigma) = sum_k r_k mu_k
    J^T u = sum_k r_k { C_k V_k^-1 u + (s_k - s) <mu_k, u> },  s_k = -V_k^-1 (x - m_k),  s = sum_k
    r_k s_k

Conditioning on a linear Gaussian measurement gives a mixture again, and with it the evidence. The
exact conditional denoiser E[x0 | x, y] is the denoiser of that mixture.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import Tensor

from posteriori.linalg import cosine
from posteriori.memo import kept
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.components import mixture_limits, principal_axes
from posteriori.priors.knowledge import Knowledge
from posteriori.priors.leaves import MixtureAt, rows_of_leaves
from posteriori.priors.mixture_under import MixtureUnder
from posteriori.priors.pulls import Together
from posteriori.priors.schedule import linear_ddpm
from posteriori.priors.shared_covariance import SharedCovariance
from posteriori.rng import Rng, Streams


class GaussianMixture(Prior):
    """A mixture of K Gaussians on R^d, or on images of a given shape.

    Parameters
    ----------
    weights: (K,) non-negative, normalised here.
    means: (K, d).
    covariances: (K, d, d) symmetric positive semi-definite, (K, d) diagonals, (1, d, d) or (1, d)
        shared, or one variance.
    shape: E with d numbers; (d,) when None.
    range: as for every prior.

    Raises ``ValueError`` for shapes that do not fit, negative weights, and covariances that are not
    symmetric or have a negative eigenvalue. The dtype is that of ``means``.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor | None

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor | float,
        *,
        shape: tuple[int, ...] | None = None,
        range: tuple[float, float] | None = None,
    ) -> None:
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise ValueError(
                "a mixture needs weights (K,) and means (K, d), "
                f"got {tuple(weights.shape)} and {tuple(means.shape)}"
            )
        if not bool((weights >= 0).all()) or not float(weights.sum()) > 0:
            raise ValueError(
                f"mixture weights must be non-negative and not all zero, got {weights.tolist()}"
            )
        K, d = means.shape
        variances, axes = principal_axes(
            torch.as_tensor(covariances, dtype=means.dtype, device=means.device), K, d
        )
        weights = weights.to(means) / weights.sum()
        super().__init__(
            shape or (d,), range=range, complex=False, **mixture_limits(weights, means, variances)
        )
        if math.prod(self.image_shape) != d:
            raise ValueError(
                f"shape {shape} has {math.prod(self.image_shape)} numbers, the means have {d}"
            )
        self.register_buffer("log_weights", weights.log())
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.register_buffer("axes", axes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(n for n in self.shape if n is not None)

    @property
    def weights(self) -> Tensor:
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """E[x0], shape E."""
        return (self.weights @ self.means).view(self.image_shape)

    @property
    def covariances(self) -> Tensor:
        """Dense component covariances, (K, d, d)."""
        K, d = self.means.shape
        if self.axes is None:
            return torch.diag_embed(self.variances).expand(K, d, d)
        return ((self.axes * self.variances[:, None, :]) @ self.axes.mT).expand(K, d, d)

    @property
    def covariance(self) -> Tensor:
        """Cov[x0], (d, d)."""
        centred = self.means - self.weights @ self.means
        return (
            torch.einsum("k,kij->ij", self.weights, self.covariances)
            + (self.weights[:, None] * centred).T @ centred
        )

    def _to_axes(self, v: Tensor) -> Tensor:
        """(B, K, d) -> coordinates along each component's principal axes."""
        return (
            v
            if self.axes is None
            else torch.einsum("bkd,kde->bke", v, self.axes.expand(v.shape[1], -1, -1))
        )

    def _from_axes(self, c: Tensor) -> Tensor:
        return (
            c
            if self.axes is None
            else torch.einsum("bke,kde->bkd", c, self.axes.expand(c.shape[1], -1, -1))
        )

    def _components(
        self,
        x: Tensor,
        sigma: Tensor,
        log_weights: Tensor | None = None,
        means: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """r (B, K), mu (B, K, d), s_k (B, K, d) and log p(x; sigma) (B,) for flat x (B, d), also
        with other weights and means."""
        log_weights = self.log_weights if log_weights is None else log_weights
        means = self.means if means is None else means
        c = self._to_axes(x[:, None, :] - means)
        v = self.variances + sigma**2
        whitened = c / v
        logs = log_weights - 0.5 * (
            (c * whitened).sum(-1) + v.log().sum(-1) + x.shape[1] * math.log(2 * math.pi)
        )
        total = logs.logsumexp(1)
        return (
            (logs - total[:, None]).exp(),
            means + self._from_axes(self.variances * whitened),
            -self._from_axes(whitened),
            total,
        )

    def _shared(self) -> SharedCovariance | None:
        """The same mixture in the axes of a covariance that all components share, once; None when
        they do not. Far fewer operations."""
        if len(self.variances) != 1:
            return None
        axes = None if self.axes is None else self.axes[0]
        return kept(
            self,
            "shared",
            lambda: SharedCovariance(self.log_weights, self.means, self.variances[0], axes),
        )

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        if shared := self._shared():
            return shared.denoise(x.flatten(1), sigma).view(x.shape)
        r, mu, _, _ = self._components(x.flatten(1), sigma)
        return torch.einsum("bk,bkd->bd", r, mu).view(x.shape)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        if shared := self._shared():
            x0, turn = shared.linearize(x.flatten(1), sigma)
            return x0.view(x.shape), Together(
                lambda u: turn(u.flatten(1)).view(u.shape),
                lambda u: turn(u.flatten(2)).view(u.shape),
            )
        r, mu, s, _ = self._components(x.flatten(1), sigma)
        relative = r[:, :, None] * (s - torch.einsum("bk,bkd->bd", r, s)[:, None])
        gain = self.variances / (self.variances + sigma**2)

        def pull(u: Tensor) -> Tensor:
            flat = u.flatten(1)[:, None]
            shrunk = self._from_axes(gain * self._to_axes(flat.expand(-1, len(self.means), -1)))
            within = torch.einsum("bk,bkd->bd", r, shrunk)
            between = torch.einsum("bkd,bk->bd", relative, (mu * flat).sum(-1))
            return (within + between).view(u.shape)

        return torch.einsum("bk,bkd->bd", r, mu).view(x.shape), Together(pull, torch.vmap(pull))

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        """log density of x0 + sigma z at x: (B, *E) -> (B,)."""
        level = torch.as_tensor(sigma, dtype=x.dtype)
        shared = self._shared()
        return (
            shared.responsibilities(x.flatten(1), level)[3]
            if shared
            else self._components(x.flatten(1), level)[3]
        )

    def _spread(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors of the whole covariance, once."""
        return kept(self, "spread", lambda: torch.linalg.eigh(self.covariance))

    def know(self) -> Knowledge:
        """The whole closed form. All levels of a linear-beta DDPM are on the ladder: a closed form
        holds at any."""
        return replace(
            super().know(),
            error=self._error,
            ladder=linear_ddpm().ladder,
            spectrum=self._spectral_error,
            anisotropic=MixtureUnder(self),
            closed=self,
            leaves=self._leaves_known,
            adjustable=lambda: {"means": self.means},
        )

    def _leaves_known(self) -> dict[str, tuple[int | None, ...]]:
        return {"weights": tuple(self.log_weights.shape), "means": tuple(self.means.shape)}

    def at(self, /, **leaves: Tensor) -> Prior:
        """With other ``weights`` (K,), which are normalised, and ``means`` (K, d), or (B, K) and
        (B, K, d): a mixture of the same covariances. Where they are those of all rows and ask for
        no gradient it is known in closed form."""
        if not leaves:
            return self
        per_row = any(rows_of_leaves(self, leaves).values())
        moved = {name: value.to(self.means) for name, value in leaves.items()}
        weights, means = moved.get("weights", self.weights), moved.get("means", self.means)
        if per_row or weights.requires_grad or means.requires_grad:
            return MixtureAt(self, weights, means)
        twin = copy.copy(self)
        twin._buffers = self._buffers | {
            "log_weights": (weights / weights.sum()).log(),
            "means": means,
        }
        vars(twin).update(mixture_limits(weights / weights.sum(), means, self.variances))
        return twin

    def _error(self, sigma: Tensor | float) -> float:
        """For one component the exact mean variance of x0 given x; for more, that of the best
        affine denoiser, an upper bound."""
        values = self.variances[0] if len(self.means) == 1 else self._spread()[0].clamp(min=0)
        return float((values * float(sigma) ** 2 / (values + float(sigma) ** 2)).mean())

    def _spectral_error(self, sigma: Tensor | float) -> Tensor:
        """Exact for one component; for more, that of the best affine denoiser, an upper bound. The
        transform is made once."""
        values, axes = (
            (self.variances[0], None if self.axes is None else self.axes[0])
            if len(self.means) == 1
            else self._spread()
        )
        vectors = torch.eye(len(values)).to(values) if axes is None else axes.T
        powers = kept(
            self,
            "powers",
            lambda: cosine(vectors.reshape(-1, *self.image_shape)).square().flatten(1),
        )
        values = values.clamp(min=0)
        return ((values * float(sigma) ** 2 / (values + float(sigma) ** 2)) @ powers).view(
            self.image_shape
        )

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        """N(mean, covariance + sigma^2 I): exact for one component, moment-matched for more."""
        if len(self.means) == 1:
            c = z.flatten(1)[:, None] * (self.variances + sigma**2).sqrt()
            return (self.means[0] + self._from_axes(c)[:, 0]).view(z.shape)
        values, axes = self._spread()
        return self.mean + (
            ((z.flatten(1) @ axes) * (values.clamp(min=0) + sigma**2).sqrt()) @ axes.T
        ).view(z.shape)

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        """An exact draw of x0 given x = x0 + sigma z, row by row: (B, *E) -> (B, *E)."""
        flat, shared = x.flatten(1), self._shared()
        r = shared.responsibilities(flat, sigma)[2] if shared else self._components(flat, sigma)[0]
        k = _choose(r, rng.uniform(1)[:, 0].to(r))
        mu = (
            shared.component(flat, sigma, k)
            if shared
            else self._components(flat, sigma)[1][torch.arange(len(k)), k]
        )
        return self._scatter(mu, k, sigma**2 / (self.variances + sigma**2), rng.normal(x))

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """n exact draws (n, *E), whatever the steps; draw k depends on (seed, k) alone. Raises
        ``ValueError`` for another shape."""
        check_shape(self, self.image_shape if shape is None else shape)
        rng = Streams(seed, range(n))
        k = _choose(self.weights.expand(n, -1), rng.uniform(1)[:, 0].to(self.means))
        return self._scatter(
            self.means[k],
            k,
            torch.ones_like(self.variances),
            rng.normal(self.means.new_empty(n, *self.image_shape)),
        )

    def _scatter(self, centre: Tensor, k: Tensor, share: Tensor, z: Tensor) -> Tensor:
        """centre + axes_k sqrt(share_k variance_k) z."""
        K = len(self.means)
        spread = (share * self.variances).sqrt().expand(K, -1)[k] * z.flatten(1)
        if self.axes is not None:
            spread = (
                spread @ self.axes[0].T
                if len(self.axes) == 1
                else torch.einsum("be,bde->bd", spread, self.axes[k])
            )
        return (centre + spread).view(z.shape)

    def condition(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[GaussianMixture, float]:
        """The posterior given y = matrix x0 + sigma z, and log p(y).

        matrix: (m, d), y: (m,), sigma > 0, of each real number: m complex ones are 2 m of them, and
        log p(y) is a density over these.
        Source: the conditional of a joint Gaussian, component by component.
        """
        if matrix.is_complex() or y.is_complex():
            matrix, y = (torch.cat([v.real, v.imag]) for v in (matrix + 0j, y + 0j))
        matrix, y = matrix.to(self.means), y.to(self.means)
        _K, _d = self.means.shape
        m = len(y)
        shared = len(self.variances) == 1
        C = self.covariances[:1] if shared else self.covariances
        AC = matrix @ C
        S = AC @ matrix.T + sigma**2 * torch.eye(m).to(matrix)
        L = torch.linalg.cholesky(S)
        half = torch.linalg.solve_triangular(L, AC, upper=False)
        innovation = y - self.means @ matrix.T
        white = torch.linalg.solve_triangular(L, innovation[..., None], upper=False)[..., 0]
        means = self.means + (half.mT @ white[..., None])[..., 0]
        log_dets = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        logs = self.log_weights - 0.5 * (
            white.square().sum(-1) + log_dets + m * math.log(2 * math.pi)
        )
        covariances = C - half.mT @ half
        mixture = GaussianMixture(
            logs.softmax(0),
            means,
            (covariances + covariances.mT) / 2,
            shape=self.image_shape,
            range=self.range,
        )
        return mixture, float(logs.logsumexp(0))

    def transformed(
        self, a: float | Tensor, b: float | Tensor, range: tuple[float, float] | None
    ) -> GaussianMixture:
        """The distribution of a x0 + b; a, b: numbers, or one for each number of an image (d,)."""
        if isinstance(a, Tensor):
            a, square = a.to(self.means), torch.outer(a, a).to(self.means)
        elif (a, b) == (1.0, 0.0):
            return self
        else:
            square = a**2  # type: ignore[assignment]
        means = a * self.means + b
        return GaussianMixture(
            self.weights, means, square * self.covariances, shape=self.image_shape, range=range
        )


class Gaussian(Prior):
    """N(mean, covariance) on images of the shape of ``mean``: a mixture of one component.

    Parameters
    ----------
    mean: shape E.
    covariance: (d, d) over the flattened image, (d,) diagonal, or one variance.
    range: as for every prior.
    """

    def __init__(
        self, mean: Tensor, covariance: Tensor | float, *, range: tuple[float, float] | None = None
    ) -> None:
        covariance = torch.as_tensor(covariance, dtype=mean.dtype, device=mean.device)
        mixture = GaussianMixture(
            mean.new_ones(1),
            mean.reshape(1, -1),
            covariance[None] if covariance.ndim else covariance,
            shape=tuple(mean.shape),
            range=range,
        )
        super().__init__(mean.shape, range=range, complex=False, **limits_of(mixture))
        self.mixture = mixture

    @property
    def mean(self) -> Tensor:
        return self.mixture.mean

    @property
    def covariance(self) -> Tensor:
        return self.mixture.covariance

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.denoise(x, sigma)

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        return self.mixture.linearize(x, sigma)

    def know(self) -> Knowledge:
        leaves: dict[str, tuple[int | None, ...]] = {"mean": tuple(self.mixture.image_shape)}
        return replace(
            self.mixture.know(),
            name=type(self).__name__,
            leaves=lambda: leaves,
            adjustable=lambda: {"mean": self.mean},
        )

    def at(self, /, **leaves: Tensor) -> Prior:
        """With another ``mean`` of shape E, or (B, *E)."""
        if not leaves:
            return self
        rows_of_leaves(self, leaves)
        return self.mixture.at(means=leaves["mean"].flatten(-len(self.shape)).unsqueeze(-2))

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return self.mixture.start(z, sigma)


def _choose(probabilities: Tensor, u: Tensor) -> Tensor:
    """The component at which each row's cumulative probability passes u: (B, K), (B,) -> (B,)."""
    return (probabilities.cumsum(1) < u[:, None]).sum(1).clamp(max=probabilities.shape[1] - 1)
