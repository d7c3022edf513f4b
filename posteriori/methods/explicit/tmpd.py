"""TMPD: Tweedie's covariance sigma^2 J, seen by the measurement as one variance for each number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, real_view
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.transitions import DDIM, Transition
from posteriori.operators.base import LinearOperator, norm2
from posteriori.rng import Rng


@dataclass(frozen=True)
class TMPD(Method[Tensor]):
    """Tweedie moment projected diffusion: Tweedie's covariance S = sigma^2 J, seen by the
    measurement as one variance for each number.

        p(y | x) ~ N(y; A D, diag(sigma_y^2 + w)),   J = dD/dx
        D_y = D + sigma^2 J^T A^T ((y - A D) / (sigma_y^2 + w))
        x'  = transition(D_y)

        row sum    w = A S A^T 1         1 all ones; one more vector-Jacobian product    (default)
        diagonal   w = diag(A S A^T)     one product for each measured real number

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image.

    covariance: which w.
        row sum: not below A S A^T when its entries are >= 0 (published).
        diagonal: exactly the diagonal; m equal numbers overshoot m-fold. So does a row sum made
            small by entries < 0, on a coarse grid.
    transition: how x' is drawn from x and D_y, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published).

    Raises ``ValueError`` for another ``covariance``.

    Reference: Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz, Tweedie moment projected
        diffusions for inverse problems, 2023.
    Cost per step: one denoiser, two vector-Jacobian products, operators and adjoints (``diagonal``:
        m + 1 products and adjoints, one operator).
    Assumes: linear A, Gaussian noise; a complex measurement counts as two real ones.
    Exact when: the prior is Gaussian and A S A^T diagonal, for example a mask and independent
        pixels.
    Departs from the paper: a row sum <= 0 says nothing about a variance; the bound
        max_variance ||A||^2 of DPS takes its place, and ``floored`` in the trace is the share of
        numbers where it did.
    """

    covariance: Literal["row sum", "diagonal"] = "row sum"
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "boys2023tmpd"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "noisy"})
    cost: ClassVar[str] = "1 denoiser, 2 VJPs (diagonal: m + 1)"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(1000, "ddpm")
    def published(cls) -> TMPD:
        """The paper's algorithm, which is the default: row sums and ancestral sampling."""
        return cls("row sum", DDIM(eta=1.0))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        info: Info = {}
        return self.transition(
            lambda x, level: self.denoise(post, x, level, info), state, sigma, s, rng
        ), info

    def denoise(
        self, post: Posterior, x: Tensor, sigma: Tensor, info: Info | None = None
    ) -> Tensor:
        """D_y(x, sigma), the estimate of E[x0 | x, y]: (B, *E)."""
        A, sigma2 = post.likelihood.linear, float(sigma) ** 2
        x0, pull = post.prior.linearize(x, sigma)
        residual = _reals(post.likelihood.y - A(x0))
        w = sigma2 * (
            _diagonal(A, pull, residual)
            if self.covariance == "diagonal"
            else _reals(A(pull(_back(A, torch.ones_like(residual)))))
        )
        floored = w <= 0
        if bool(floored.any()):
            w = torch.where(floored, post.prior.know().max_variance(sigma) * norm2(A) ** 2, w)
        if info is not None:
            info["floored"] = floored.to(w).flatten(1).sum(1) / w[0].numel()
        return x0.add(pull(_back(A, residual / (post.likelihood.std**2 + w))), alpha=sigma2)


def _reals(y: Tensor) -> Tensor:
    return real_view(y)


def _back(A: LinearOperator, reals: Tensor) -> Tensor:
    return A.adjoint(torch.view_as_complex(reals) if A.complex_out else reals)


def _diagonal(A: LinearOperator, pull: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """<A^T e_i, J^T A^T e_i> for every measured real number i: (B, *O), a complex number as two."""
    entries = []
    for i in range(like[0].numel()):
        unit = torch.zeros_like(like).flatten(1)
        unit[:, i] = 1.0
        back = _back(A, unit.view(like.shape))
        entries.append(dot(back, pull(back)))
    return torch.stack(entries, 1).view(like.shape)
