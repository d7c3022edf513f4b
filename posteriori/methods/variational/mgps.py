"""MGPS: fit a Gaussian to x at a lower noise level tau given x and y, then bridge back to s."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import adam
from posteriori.operators.base import norm2
from posteriori.rng import Rng
from posteriori.settings import Count, Positive, Share


@dataclass(frozen=True)
class MGPS(Method[Tensor]):
    """Midpoint guidance: a Gaussian is fitted to what the image at a lower noise level tau can be,
    given x and y, and a draw of it is bridged back to s.

        x_tau | x, y  ~  N(x_tau; m, p) p(y | D(x_tau, tau)),
                         m = D(x, sigma) + tau^2 / sigma^2 (x - D)
        q  = N(mu, diag(std^2)), fitted by ``inner`` steps on KL(q || x_tau | x, y),
             started at N(m, p);   x_tau ~ q
        x' = x_tau + k (x - x_tau) + sqrt(k (sigma^2 - s^2)) z,
             k = (s^2 - tau^2) / (sigma^2 - tau^2);   at s = 0: x' = D(x, sigma)

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image
    and z standard normal.

    inner: steps of the fit, >= 1; published 2.
    midpoint: the share in (0, 1] that places tau; published 0.5.
    spacing: of tau, which is never below sigma_min.
        "level"      tau = ``midpoint`` s (default)
        "time"       at the share ``midpoint`` of a linear-beta VP process's time: the paper's
    width: p, and the variance by which the likelihood is widened; k' = 1 - tau^2 / sigma^2.
        "matched"    p = tau^2 k' + k'^2 e, e the denoiser's mean squared error; widened by r2, the
                     denoiser's widest error at tau (default)
        "ddpm"       p = tau^2 k', not widened: the paper's
    fit: how q is fitted.
        "curvature"  per step two gradients, at mu +- std r with random signs r. Their mean moves mu
                     by a step from ||A|| and p. Their difference estimates the diagonal of the
                     Hessian, which added to 1 / p is 1 / std^2 (default)
        "adam"       one reparametrised gradient in (mu, log std) per step: the paper's
    lr: > 0, learning rate of "adam" in VP units; published 0.03.

    On images an isotropic p understates what smooth directions can still do, and y is fitted late
    (masked: chi-square 4 to 9 in 30 steps).

    Reference: Moufad, Janati, Bedin, Durmus, Douc, Moulines, Olsson, Variational diffusion
        posterior sampling with midpoint guidance, 2025.
    Cost per step: one denoiser, and ``inner`` (twice that for "curvature") denoisers with a
        vector-Jacobian product, operator and adjoint.
    Assumes: A differentiable; other noise than Gaussian enters by its variance at A D, and ||A|| of
        a curved A costs 16 A and A^T a step.
    Exact when: y is flat and the steps many ("ddpm": the ancestral step); each step of "matched"
        with "curvature", a white Gaussian prior and A selecting pixels.
    Departs from the authors' code: ``inner`` is one number (theirs rises to 20 now and then). No
        second fit of x_0 at the start.
    """

    inner: Count = 2
    midpoint: Share = 0.5
    spacing: Literal["level", "time"] = "level"
    width: Literal["matched", "ddpm"] = "matched"
    fit: Literal["curvature", "adam"] = "curvature"
    lr: Positive = 0.03

    reference: ClassVar[str] = "moufad2025mgps"
    family: ClassVar[str] = "variational"
    cost: ClassVar[str] = "1 + 2 inner denoisers, 2 inner VJP"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(300, "ddpm")
    def published(cls, inner: int = 2, lr: float = 0.03) -> MGPS:
        """Half the time, DDPM's variance and Adam, for images in [-1, 1]."""
        return cls(inner, 0.5, "time", "ddpm", "adam", lr)

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"noisy"} if self.width == "ddpm" else ())

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x, x0, tau = state, post.prior.denoise(state, sigma), self.level(s, post.prior.sigma_min)
        if not bool(s > 0):
            return x0, {}
        share = float(1 - tau**2 / sigma**2)
        p = float(tau) ** 2 * share + (
            share**2 * post.prior.know().error(sigma) if self.width == "matched" else 0.0
        )
        norm = (
            norm2(post.likelihood.A, x0)
            if self.width == "matched" or self.fit == "curvature"
            else x.real.new_ones(len(x))
        )
        mu, std = (self.by_curvature if self.fit == "curvature" else self.by_adam)(
            post, torch.lerp(x, x0, share), p, tau, norm, rng
        )
        k = float((s**2 - tau**2) / (sigma**2 - tau**2))
        return torch.lerp(mu + std * rng.normal(mu), x, k).add(
            rng.normal(x), alpha=math.sqrt(k * float(sigma**2 - s**2))
        ), {}

    def level(self, s: Tensor, low: float = 0.0) -> Tensor:
        """tau, not below ``low``; by "time" with log(1 + s^2) = 0.1 t + 9.95 t^2, DDPM's betas in
        continuous time."""
        if self.spacing == "level":
            return (self.midpoint * s).clamp(min=min(low, float(s)))
        t = ((0.01 + 39.8 * (s**2).log1p()).sqrt() - 0.1) / 19.9 * self.midpoint
        return (0.1 * t + 9.95 * t**2).expm1().sqrt().clamp(min=min(low, float(s)))

    def by_curvature(
        self, post: Posterior, m: Tensor, p: float, tau: Tensor, norm: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """mu and std of the fit to N(m, p) times the likelihood, by damped steps: (B, *E) each."""
        like, error = post.likelihood, post.prior.know().max_variance(tau)
        least = (
            like.noise.gaussian(like.y)[1].min() + error * (self.width == "matched") * norm.square()
        )
        bound = per_row((error / float(tau) ** 2) ** 2 * norm.square() / least.clamp(min=1e-30), m)
        mu, std, precision = m, torch.full_like(m.real, p**0.5), torch.zeros_like(m.real)
        for k in range(self.inner):
            shift = std * rng.normal(m).sgn()
            ahead, behind = (
                self.slope(post, mu + shift, tau, norm),
                self.slope(post, mu - shift, tau, norm),
            )
            bend = ((behind - ahead) / 2 * shift.conj()).real / std.square()
            precision = torch.lerp(1 / p + bend.clamp(min=0), precision, k / (k + 1))
            mu, std = (
                mu + ((m - mu) / p + (ahead + behind) / 2) / precision.clamp(min=1 / p + bound),
                precision.rsqrt(),
            )
        return mu, std

    def by_adam(
        self, post: Posterior, m: Tensor, p: float, tau: Tensor, norm: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """The same fit by Adam on one reparametrised draw per step; its steps of mu are in the VP
        units of the paper."""
        mu, log_std = m, torch.full_like(m.real, 0.5 * math.log(p))
        moments = [torch.zeros_like(v) for v in (m, log_std, log_std, log_std)]
        for k in range(1, self.inner + 1):
            shift = log_std.exp() * rng.normal(mu)
            slope = self.slope(post, mu + shift, tau, norm)
            bend = (1 + m.is_complex()) * ((2 * log_std).exp() / p - 1) - (
                slope * shift.conj()
            ).real
            step, *moments[:2] = adam((mu - m) / p - slope, moments[0], moments[1], k)
            turn, *moments[2:] = adam(bend, moments[2], moments[3], k)
            mu, log_std = (
                mu.sub(step, alpha=self.lr * float((1 + tau**2).sqrt())),
                log_std.sub(turn, alpha=self.lr),
            )
        return mu, log_std.exp()

    def slope(self, post: Posterior, x: Tensor, tau: Tensor, norm: Tensor) -> Tensor:
        """grad_x log p(y | D(x, tau)): (B, *E)."""
        like, r2, (x0, vjp) = (
            post.likelihood,
            post.prior.know().max_variance(tau) * (self.width == "matched"),
            post.prior.linearize(x, tau),
        )
        if like.conjugate:
            return vjp(like.widen(r2).score(x0))
        clean, adjoint = like.A.linearize(x0)
        return vjp(
            adjoint(
                (like.y - clean)
                / bounded_variance(like.noise.variance_at(like.y, clean), r2, norm, clean)
            )
        )
