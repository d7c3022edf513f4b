"""Independent exact draws of a bed's posterior, for the two instruments that have no closed form by
rejection.

Draw x from an envelope, a mixture q times a constant M with p(x) p(y | x) <= M q(x) everywhere, and
keep it with probability p p / (M q): what is kept is an exact, independent draw, and the bound is
checked at every proposal.

PhotonShare with Poisson noise: log p(y | x) is concave, so its tangent at the mode t of each
    component is above it, and N(x; m, C) exp(g.(x - t)) = N(x; m + C g, C) exp(g.(m - t) + g.C
    g / 2).
Squares with Gaussian noise: as a function of u = M x the likelihood is a product of
exp(-(y_i - u_i^2)^2 / 2 s^2). A sum of at most three Gaussians in u_i lies above each factor; the
prior times a product of such sums is a mixture again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from posteriori.evaluation.exact import exact_posterior
from posteriori.likelihood import Likelihood, Posterior
from posteriori.noise import Poisson
from posteriori.operators.base import LinearOperator
from posteriori.operators.parametric import Parametric
from posteriori.priors.mixture import GaussianMixture
from posteriori.tasks.beds import Bed
from posteriori.tasks.bipsda import PhotonShare, Squares
from posteriori.tasks.kernels import exact_pairs


@dataclass(frozen=True, eq=False)
class Envelope:
    """M q >= p(x) p(y | x): q a mixture, ``log_accept`` (B, d) -> (B,) the logarithm of the
    ratio, <= 0."""

    mixture: GaussianMixture
    log_accept: Callable[[Tensor], Tensor]


def reference_samples(bed: Bed, n: int, seed: int) -> Tensor:
    """n independent exact draws (n, *E) of p(x | y), float64; draws of different seeds are
    independent.

    Raises ``TypeError`` for a posterior whose prior is no mixture, or whose instrument is neither
    linear with Gaussian noise, nor one of a family of blurs, nor one of BIPSDA's, and
    ``ValueError`` for n < 1.
    """
    if n < 1:
        raise ValueError(f"reference_samples needs n >= 1, got {n}")
    if isinstance(bed.posterior.likelihood.A, LinearOperator):
        return exact_posterior(bed.posterior).sample(n, seed)
    if isinstance(bed.posterior.given.A, Parametric):
        return exact_pairs(bed.posterior, n, seed)
    return reject(envelope(bed.posterior), n, seed)[0]


def envelope(post: Posterior) -> Envelope:
    """The envelope of a BIPSDA posterior. Raises ``TypeError`` for another prior, instrument or
    noise."""
    prior, given = post.prior, post.likelihood
    if not isinstance(prior, GaussianMixture):
        raise TypeError(
            f"a reference by rejection needs a GaussianMixture prior, got {type(prior).__name__}"
        )
    if isinstance(given.A, PhotonShare) and isinstance(given.noise, Poisson):
        return _tangents(prior, given)
    if isinstance(given.A, Squares) and given.noise.std:
        return _lobes(prior, given.A.matrix, given.y, given.noise.std)
    raise TypeError(
        f"no exact reference is known for {type(given.A).__name__} "
        f"with {type(given.noise).__name__} noise"
    )


def reject(bound: Envelope, n: int, seed: int) -> tuple[Tensor, float]:
    """n accepted draws, and the share of proposals that were. Raises ``ArithmeticError`` when the
    envelope is not above the posterior."""
    g = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    accepted = tried = 0
    while accepted < n:
        x = _draw(bound.mixture, 20_000, g)
        logs = bound.log_accept(x)
        if float(logs.max()) > 1e-9:
            raise ArithmeticError(
                "the envelope lies below the posterior by a factor "
                f"of {math.exp(float(logs.max())):.6g}"
            )
        kept.append(x[torch.rand(len(x), generator=g, dtype=torch.float64).log() < logs])
        accepted, tried = accepted + len(kept[-1]), tried + len(x)
        if tried >= 10**8 and accepted < n:
            raise ArithmeticError(
                f"rejection accepted {accepted} of {tried} proposals; "
                "the measurement is too sharp for this envelope"
            )
    return torch.cat(kept)[:n], accepted / tried


def _draw(mixture: GaussianMixture, n: int, g: torch.Generator) -> Tensor:
    """n draws from one generator, component by component."""
    counts = torch.multinomial(mixture.weights, n, replacement=True, generator=g).bincount(
        minlength=len(mixture.means)
    )
    roots = torch.linalg.cholesky(mixture.covariances)
    z = torch.randn(n, mixture.means.shape[1], generator=g, dtype=torch.float64)
    k = torch.arange(len(counts)).repeat_interleave(counts)
    x = mixture.means[k] + (roots[k] @ z[..., None])[..., 0]
    return x[torch.randperm(n, generator=g)]


def _tangents(prior: GaussianMixture, given: Likelihood) -> Envelope:
    """The three components, tilted by the tangent of the log-likelihood at their modes."""
    C, logs, means = prior.covariances, [], []
    for k, m in enumerate(prior.means):
        t = _mode(m, C[k], given)
        slope = given.score(t[None])[0]
        means.append(m + C[k] @ slope)
        logs.append(
            prior.log_weights[k]
            + given.log_prob(t[None])[0]
            + slope @ (m - t)
            + 0.5 * slope @ C[k] @ slope
        )
    masses = torch.stack(logs)
    mixture, total = GaussianMixture(masses.softmax(0), torch.stack(means), C), masses.logsumexp(0)
    return Envelope(
        mixture, lambda x: prior.log_prob(x) + given.log_prob(x) - mixture.log_prob(x) - total
    )


def _mode(m: Tensor, C: Tensor, given: Likelihood, iterations: int = 50) -> Tensor:
    """argmax N(x; m, C) p(y | x) by Newton steps, each halved until the density grows. Any point is
    valid; the mode rejects least."""
    precision = torch.linalg.inv(C)

    def log_density(x: Tensor) -> Tensor:
        return given.log_prob(x[None])[0] - 0.5 * (x - m) @ precision @ (x - m)

    x = m
    for _ in range(iterations):
        slope = given.score(x[None])[0] - precision @ (x - m)
        step = torch.linalg.solve(-torch.autograd.functional.hessian(log_density, x), slope)
        now = log_density(x)
        while float(log_density(x + step)) < float(now) and float(step.norm()) > 1e-9:
            step = step / 2
        x = x + step
        if float(step.norm()) <= 1e-9:
            break
    return x


def _lobes(prior: GaussianMixture, M: Tensor, y: Tensor, s: float) -> Envelope:
    """One Gaussian per component of the prior and choice of a lobe for each measurement."""
    sums = [_above(float(value), s) for value in y]
    index = torch.cartesian_prod(*[torch.arange(len(part)) for part in sums])
    centres, widths, heights = (
        torch.stack([part[:, j][index[:, i]] for i, part in enumerate(sums)], 1) for j in range(3)
    )
    masses, means, covariances = [], [], []
    for log_w, m, C in zip(prior.log_weights, prior.means, prior.covariances, strict=True):
        L = torch.linalg.cholesky(M @ C @ M.T + torch.diag_embed(widths**2))
        innovation = (centres - M @ m)[..., None]
        white = torch.linalg.solve_triangular(L, innovation, upper=False)[..., 0]
        half = torch.linalg.solve_triangular(L, (M @ C).expand(len(L), -1, -1), upper=False)
        log_dets = L.diagonal(dim1=1, dim2=2).log().sum(1)
        masses.append(
            log_w + (heights + widths.log()).sum(1) - log_dets - 0.5 * white.square().sum(1)
        )
        means.append(m + (half.mT @ white[..., None])[..., 0])
        covariances.append(C - half.mT @ half)
    mixture = GaussianMixture(
        torch.cat(masses).softmax(0), torch.cat(means), torch.cat(covariances)
    )

    def log_accept(x: Tensor) -> Tensor:
        u = x @ M.T
        logs = -0.5 * ((y - u.square()) / s).square()
        return sum(
            (logs[:, i] - _log_sum(part, u[:, i]) for i, part in enumerate(sums)),
            torch.zeros(len(x), dtype=x.dtype),
        )

    return Envelope(mixture, log_accept)


def _log_sum(part: Tensor, u: Tensor) -> Tensor:
    """log sum_j exp(height_j - (u - centre_j)^2 / 2 width_j^2) for rows (centre, width, height) of
    part."""
    return (part[:, 2] - 0.5 * ((u[..., None] - part[:, 0]) / part[:, 1]).square()).logsumexp(-1)


def _above(y: float, s: float) -> Tensor:
    """Rows (centre, width, log height) of at most three Gaussians whose sum is above
    exp(-(y - u^2)^2 / 2 s^2) for every u.

    Shapes are searched on a grid for the least area once the sum has been raised to touch from
    above. Beyond u^2 = |y| + 12 s, where the search stops, the function falls faster than a
    Gaussian of these widths; ``reject`` checks it.
    """
    root, width = max(y, 0.0) ** 0.5, s / max(4 * y, -2 * y, 2 * s) ** 0.5
    u = torch.linspace(0, (abs(y) + 12 * s) ** 0.5, 4000, dtype=torch.float64)
    logs = -0.5 * ((y - u.square()) / s).square()
    best, least = torch.zeros(0, 3, dtype=torch.float64), math.inf
    for centre in (0.85 * root, 0.9 * root, 0.95 * root, 0.98 * root, root) if root > 0 else (0.0,):
        for factor in (1.0, 1.05, 1.15, 1.3, 1.5, 1.8):
            for middle in (0.0, 1e-4, 0.003, 0.02, 0.08, 0.2, 0.5) if root > 0 else (0.0,):
                for share in (0.3, 0.5, 0.8) if middle else (1.0,):
                    rows = [
                        (c, factor * width, 0.0)
                        for c in ((centre, -centre) if root > 0 else (0.0,))
                    ]
                    rows += [(0.0, share * max(root, width), math.log(middle))] if middle else []
                    part = torch.tensor(rows, dtype=torch.float64)
                    # A grid of 4000 points misses the maximum by less than this.
                    part[:, 2] += float((logs - _log_sum(part, u)).max()) + 1e-3
                    area = float((part[:, 2].exp() * part[:, 1]).sum())
                    if area < least:
                        best, least = part, area
    return best
