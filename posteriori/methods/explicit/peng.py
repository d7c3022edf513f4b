"""Peng et al.: the likelihood is widened by the optimal covariance of the reverse kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg, cosine, real_view
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course, prior_scale
from posteriori.methods.data_steps import proximal
from posteriori.methods.transitions import DDIM, Heun, Transition
from posteriori.operators.base import Map, solve
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class Peng(Method[Tensor]):
    """Optimal posterior covariance: the likelihood is widened by the covariance that makes the
    reverse kernel's likelihood largest.

        p(x0 | x) ~ N(D, C),   v = A^T (A C A^T + sigma_y^2 I)^-1 (y - A D)

        I          D_y = D + sigma^2 J^T v     through the denoiser, J = dD/dx
        II         D_y = D + C v               J replaced by C / sigma^2           (default)

        auto       C by colour and frequency where the prior has measured it, else analytic
                   (default)
        analytic   C = r2 I                    r2 = E ||x0 - D||^2 / d, the mean squared error
        dct        C = F^T diag(r2_f) F        r2_f the mean squared error of frequency f
        learned    C = diag(r2_i)              r2_i the variance of pixel i from the network

    x is the image at noise level sigma, x' = transition(D_y) the image at level s, D = D(x, sigma)
    the denoised image of d numbers.

    type: "I" (published) or "II". II is the posterior mean of x0 under N(D, C), with what C says of
        J. I can overshoot along directions that vary more than the mean, so that an image prior
        (low frequencies far above the mean) needs II.
    transition: how x' is drawn from x and D_y, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published: ``Heun``).
    covariance: what C is.
        auto: as ``posteriori.methods.data_steps.proximal`` has it.
        analytic: the mean squared error at this level, the maximum-likelihood choice among C = r2 I
            (published). r2 is the prior's ``error``, for a network that of its card.
        dct: F is the orthonormal cosine transform of the last two axes. Needs a prior that knows
            its ``spectral_error`` (Gaussian, GaussianMixture).
        learned: the variance that the network predicts beside D. Needs a prior with ``moments``.
    rtol: relative residual of the conjugate gradients (at most 1000 iterations), for the
        covariances that need them; >= 0; 1e-4 by default.
    pigdm_above: the level from which on C = sigma^2 / (1 + sigma^2) I, as in PiGDM, whatever
        ``covariance``; level and C for images in [-1, 1], half the prior's range otherwise being
        the unit. By default never (published: 0.2).
    clip: whether D_y is clipped to the prior's range, where it states one; off by default
        (published: on). A posterior that reaches its ends is then no longer Gaussian.

    Raises ``ValueError`` for another ``type`` or ``covariance``, or a negative number.

    Reference: Peng, Zheng, Dai, Xiao, Li, Zou, Xiong, Improving diffusion models for inverse
        problems using optimal posterior covariance, 2024, equations 10 and 13 (analytic); dct is
        the same choice in another orthonormal basis.
    Cost per step: I one denoiser, one vector-Jacobian product, one solve; II no vector-Jacobian
        product. Heun doubles both. dct and learned solve by conjugate gradients, one operator and
        adjoint an iteration; learned with type I takes one more denoiser.
    Assumes: linear A, Gaussian noise, of level 0 for analytic only (to which auto then returns).
    Exact when: the prior is Gaussian with a covariance of the form of C; both types then agree.
    Differs from PiGDM: r2 is a mean over directions, not a bound.
    Departs from the authors' code: the noise of y is not raised to 0.001 (0.01 where they
        downsample).
    """

    type: Literal["I", "II"] = "II"
    transition: Transition = DDIM(eta=1.0)
    covariance: Literal["auto", "analytic", "dct", "learned"] = "auto"
    rtol: NonNegative = 1e-4
    pigdm_above: NonNegative | None = None
    clip: bool = False

    reference: ClassVar[str] = "peng2024covariance"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, 1 VJP (type I), 1 solve"
    claims: ClassVar[frozenset[str]] = frozenset(
        {"flat likelihood gives the prior", "exact for a white Gaussian prior"}
    )

    @classmethod
    @course(50, "karras")
    def published(cls) -> Peng:
        """The authors' sampler: type I along the probability-flow ODE by Heun's rule, with PiGDM's
        variance from level 0.2 on and every estimate clipped to the range."""
        return cls("I", Heun(), "analytic", pigdm_above=0.2, clip=True)

    @property
    def requires(self) -> frozenset[str]:
        return self.needs if self.covariance in ("auto", "analytic") else self.needs | {"noisy"}

    def refuses(self, post: Posterior) -> str | None:
        A, sigma = (
            post.likelihood.A,
            torch.tensor((post.prior.sigma_min * post.prior.sigma_max) ** 0.5, dtype=torch.float64),
        )
        try:
            if self.covariance == "dct":
                post.prior.know().spectral_error(sigma)
            # Only its output tells whether a network predicts variances.
            if self.covariance == "learned":
                with torch.no_grad():
                    post.prior.know().moments(
                        A.probe(torch.zeros, dtype=post.likelihood.y.real.dtype).to(
                            post.likelihood.y.device
                        ),
                        sigma,
                    )
        except TypeError as error:
            return f"Peng: {error}; use covariance='analytic'"
        return super().refuses(post)

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
        found = self._estimate(post, x, sigma, info)
        limits = post.prior.range
        # Both parts of a complex image lie in the range.
        real = real_view(found)
        real = real if limits is None or not self.clip else real.clamp(*limits)
        return torch.view_as_complex(real) if found.is_complex() else real

    def _estimate(self, post: Posterior, x: Tensor, sigma: Tensor, info: Info | None) -> Tensor:
        covariance, r2 = self.covariance, post.prior.know().error(sigma)
        unit = prior_scale(post.prior)
        if self.pigdm_above is not None and float(sigma) >= self.pigdm_above * unit:
            covariance, r2 = "analytic", 1 / (float(sigma) ** -2 + unit**-2)
        known = proximal.measured_covariance(post, sigma) if covariance == "auto" else None
        x0, C = self._moments(post, x, sigma, covariance, known or (lambda u: r2 * u))
        if self.type == "I":
            x0, pull = post.prior.linearize(x, sigma)
        if known is None and covariance in ("auto", "analytic"):
            v = post.likelihood.widen(r2).score(x0)
        else:
            A, noise2 = post.likelihood.linear, post.likelihood.std**2
            # Preconditioned by C = r2 I where that is closed form: without a spectrum each such
            # solve would be iterative itself.
            closed = A.spectrum() is not None
            white = partial(solve, A, r2=r2, s2=noise2) if closed else None
            gap = post.likelihood.y - A(x0)
            # Its longer way spreads rounding, which in double precision only a finer end keeps from
            # the rows.
            goal = self.rtol if closed or gap.real.dtype != torch.float64 else min(self.rtol, 1e-12)
            solved = cg(
                lambda u: A(C(A.adjoint(u))) + noise2 * u,
                gap,
                max_iter=1000,
                rtol=goal,
                precondition=white,
            )
            v = A.adjoint(solved.x)
            if info is not None:
                info["residual"] = solved.residual
        return x0.add(pull(v), alpha=float(sigma) ** 2) if self.type == "I" else x0 + C(v)

    def _moments(
        self, post: Posterior, x: Tensor, sigma: Tensor, covariance: str, white: Map
    ) -> tuple[Tensor, Map]:
        """D (x itself for type I, which finds D with its derivative), and the map u -> C u."""
        if covariance == "learned":
            x0, r2 = post.prior.know().moments(x, sigma)
            return x0, lambda u: r2 * u
        x0 = x if self.type == "I" else post.prior.denoise(x, sigma)
        if covariance in ("auto", "analytic"):
            return x0, white
        spectrum = post.prior.know().spectral_error(sigma).to(x)
        return x0, lambda u: cosine(spectrum * cosine(u), inverse=True)
