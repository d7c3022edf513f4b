"""Discrepancies that published tables use: MMD, central moments, kernel Stein, RMSE. Float64; a
complex number counts as two real ones.

None of them is 0 for exact samples: print the value of an independent exact set beside each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posteriori.evaluation.distances import flat
from posteriori.likelihood import Posterior
from posteriori.priors.mixture import Gaussian, GaussianMixture

_PAIRS = 2**22  # numbers per block of a pairwise matrix


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    x, y = flat(a).cpu(), flat(b).cpu()
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            "two sets in different spaces: "
            f"samples of shape {tuple(a.shape[1:])} and {tuple(b.shape[1:])}"
        )
    return x, y


def mean_distance(b: Tensor, *, squared: bool = False, first: int = 1000) -> float:
    """Mean distance, or squared distance, between two different ones of the first samples. Raises
    ``ValueError`` when they coincide."""
    x = flat(b)[:first].cpu()
    if len(x) < 2 or bool((x == x[0]).all()):
        raise ValueError(
            "a bandwidth needs at least two different samples, "
            f"got {len(x)} of shape {tuple(b.shape[1:])}"
        )
    d = torch.cdist(x, x)
    return float((d.square() if squared else d).sum() / (len(x) * (len(x) - 1)))


def mmd(a: Tensor, b: Tensor, *, bandwidth: float | None = None, kernels: int = 5) -> float:
    """Squared maximum mean discrepancy, mean k(a, a') - 2 mean k(a, b) + mean k(b, b') over all
    pairs, a sample with itself included.

        k(x, y) = sum_j exp(-||x - y||^2 / (2^j bandwidth)),
        j = -(kernels // 2), ..., kernels - 1 - kernels // 2

    a: (n, *E), b: (k, *E), the reference. bandwidth: in squared units of x; by default the mean
    squared distance between the first 1000 samples of b, so that the kernel does not depend on the
    set that is scored. Of n exact samples and as many reference samples the mean is
    2 (kernels - E k) / n, not 0. Raises ``ValueError`` for bandwidth <= 0 or kernels < 1.
    """
    x, y = _pair(a, b)
    h = mean_distance(b, squared=True) if bandwidth is None else bandwidth
    if not h > 0 or kernels < 1:
        raise ValueError(
            f"mmd needs bandwidth > 0 and kernels >= 1, got bandwidth={h}, kernels={kernels}"
        )
    widest = h * 2.0 ** (kernels - 1 - kernels // 2)
    return (
        _mean_kernel(x, x, widest, kernels)
        - 2 * _mean_kernel(x, y, widest, kernels)
        + _mean_kernel(y, y, widest, kernels)
    )


def _mean_kernel(x: Tensor, y: Tensor, widest: float, kernels: int) -> float:
    total = 0.0
    for part in x.split(max(1, _PAIRS // len(y))):
        # A kernel of half the bandwidth is the square of its neighbour: one exponential for all of
        # them.
        k = torch.cdist(part, y).square_().mul_(-1 / widest).exp_()
        for _ in range(kernels):
            total += float(k.sum())
            k.square_()
    return total / (len(x) * len(y))


def central_moment_discrepancy(
    a: Tensor, b: Tensor, *, span: float | None = None, orders: int = 5
) -> float:
    """||mean_a - mean_b|| / span + sum_{k = 2..orders} ||c_k(a) - c_k(b)|| / span^k, c_k the k-th
    central moment of each coordinate.

    span: by default 4 times the largest standard deviation of a coordinate of b, the reference.
    Raises ``ValueError`` for span <= 0.
    Source: Zellinger et al. 2017, with the span of Crafts and Villa 2025.
    """
    x, y = _pair(a, b)
    width = 4 * float(y.std(0).max()) if span is None else span
    if not width > 0:
        raise ValueError(f"central_moment_discrepancy needs a span > 0, got {width}")
    mx, my = x.mean(0), y.mean(0)
    total = float((mx - my).norm()) / width
    for k in range(2, orders + 1):
        total += float(((x - mx).pow(k).mean(0) - (y - my).pow(k).mean(0)).norm()) / width**k
    return total


def ksd(
    samples: Tensor, score: Callable[[Tensor], Tensor], *, c: float = 1.0, beta: float = -0.5
) -> float:
    """Kernel Stein discrepancy (1/N) sqrt(sum_{ij} u(x_i, x_j) / d), i = j included, with
    k(x, y) = (c^2 + ||x - y||^2)^beta and

        u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr grad_x grad_y k,   s = grad log p

    samples: (N, *E); score: (N, *E) -> (N, *E), finite. Exact samples give sqrt((E||s||^2
    c^(2 beta) - 2 beta d c^(2 beta - 2)) / (N d)) in root mean square. It sees neither a mode that
    is missing nor wrong weights of modes far apart: print it beside a distance.
    Raises ``ValueError`` for beta outside (-1, 0) or c <= 0.
    Source: Qiu et al. 2026, equation 1 and algorithm 1.
    """
    if not -1 < beta < 0 or not c > 0:
        raise ValueError(f"ksd needs -1 < beta < 0 and c > 0, got beta={beta}, c={c}")
    x, s = flat(samples), flat(score(samples))
    total, (n, d) = 0.0, x.shape
    own, dots = (s * x).sum(1), x.square().sum(1)
    for rows in torch.arange(n).split(max(1, _PAIRS // n)):
        r2 = (dots[rows, None] + dots - 2 * x[rows] @ x.T).clamp(min=0)
        # (s(y) - s(x)).(x - y), which multiplies 2 beta q^(beta - 1) = the factor of grad_x
        # k = -grad_y k along x - y.
        across = x[rows] @ s.T + s[rows] @ x.T - own[rows, None] - own
        q = c**2 + r2
        power = q.pow(beta - 2)
        u = (
            (s[rows] @ s.T) * power * q**2
            + 2 * beta * power * q * (across - d)
            - 4 * beta * (beta - 1) * power * r2
        )
        total += float(u.sum())
    return (max(total, 0.0) / d) ** 0.5 / n


def posterior_score(post: Posterior) -> Callable[[Tensor], Tensor]:
    """x -> grad log p(x | y) in the prior's coordinates, for a Gaussian or mixture prior. Raises
    ``TypeError`` for others."""
    prior = post.prior
    if not isinstance(prior, GaussianMixture | Gaussian):
        raise TypeError(
            f"posterior_score knows Gaussian and GaussianMixture priors, got {type(prior).__name__}"
        )
    closed = prior.know().exact("density")

    def score(x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(closed.log_prob(leaf).sum(), leaf)
        return slope + post.likelihood.score(x.detach())

    return score


def rmse(samples: Tensor, truth: Tensor) -> float:
    """sqrt of the mean of (x - truth)^2 over samples and numbers; of one sample, not of their
    mean."""
    x, t = _pair(samples, truth[None])
    return float((x - t).square().mean().sqrt())
