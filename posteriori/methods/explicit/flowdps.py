"""FlowDPS: move the clean image of a flow towards the data, and mix fresh noise into the noise that
the flow tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.misfit import misfit, safe_ratio
from posteriori.methods.flow_time import Along, along, flow_time
from posteriori.methods.transitions import renoise
from posteriori.rng import Rng
from posteriori.settings import Natural, NonNegative


@dataclass(frozen=True)
class FlowDPS(Method[Tensor]):
    """Flow-driven posterior sampling: the clean image that a flow foresees is moved towards the
    data, and fresh noise is mixed into the noise that it foresees.

        D,  N = (x - D) / sigma                                 the two ends of a straight flow at x
        u    = D, then inner_steps times a step towards the data
        D'   = D + w(t) (u - D)
        x'   = D' + s ( sqrt(1 - f(t')) N + sqrt(f(t')) z )

        bounded     u <- u + scale (r2 A'^T (y - A u) + v (D - u)) / (r2 ||A'||^2 + v)
        norm        u <- u + scale A'^T (y - A u) / ||y - A u||

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma), A' = dA/du, z
    standard normal, v the variance of the noise of y, r2 the denoiser's mean squared error;
    t = sigma / (1 + sigma) and t' = s / (1 + s) are the times of the flow, for images in [-1, 1].
    In the flow's own coordinates z_t = x / (1 + sigma) this is the paper's
    z_t' = (1 - t') D' + t' N'.

    weighting: of the step; "norm" (published) is down the gradient of ||y - A u||. "bounded" goes
        to where x0 is expected given y, for a denoiser with that error, and does not overshoot it.
        ||A'|| of an A that is not linear is measured at D, by 16 operators and adjoints; of noise
        that is not Gaussian v is the smallest of its variances, and numbers of y weigh by theirs.
    scale: >= 0; 1 by default. Published 15 or 30, for latents of images of 768^2.
    inner_steps: >= 0; published 3. 0, or scale 0, is the flow alone.
    weight: w in [0, 1]: a number, or the pair of its values at noise and at data, linear in t
        between them. (1, 0) is the paper's w(t) = t.
    fresh: f in [0, 1], the share of the noise's variance that is new: "ancestral" is
        1 - s^2 / sigma^2, by which marginals are kept; a number or a pair as above. (0, 1) is the
        paper's 1 - t', 0 is deterministic: Euler's rule on the flow.

    (1, 0) for both is the trend that Bang et al. 2026 find best: data and fresh noise early.

    Reference: Kim, Kim, Ye, FlowDPS: flow-driven posterior sampling for inverse problems, 2025,
        algorithm 1. Settings along t as in Bang, Mun, Seo, Hong, Chun, Triadic dynamics aware
        diffusion posterior sampling for inverse problems, 2026.
    Cost per step: one denoiser, ``inner_steps`` operators and adjoints; no derivative of the
        denoiser.
    Assumes: a differentiable A.
    Exact when: never in general; with a flat likelihood and "ancestral" or deterministic noise it
        has the law of the prior as steps are added. The published share does not: with no data the
        variance of a white Gaussian prior of unit variance ends at 0.709 of it in 28 and in 100
        steps, at 0.657 in 1000 (tested).
    Departs from the authors' code: the norm is that of y - A u, theirs of A^T or of A^+ of it,
        which is the same where A A^T = I. Norms are per row.
    """

    weighting: Literal["bounded", "norm"] = "bounded"
    scale: NonNegative = 1.0
    inner_steps: Natural = 3
    weight: Along = (1.0, 0.0)
    fresh: Literal["ancestral"] | Along = "ancestral"

    reference: ClassVar[str] = "kim2025flowdps"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 denoiser, inner_steps operators and adjoints"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(28, courses.flow(4.0), "times of a flow with shift 4")
    def published(cls, scale: float = 15.0) -> FlowDPS:
        """The authors' setting for Stable Diffusion 3 at 768^2; 30 in the paper."""
        return cls("norm", scale, 3, (1.0, 0.0), (0.0, 1.0))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x0 = post.prior.denoise(state, sigma)
        moved = torch.lerp(
            x0,
            self.towards(post, x0, sigma),
            along(self.weight, flow_time(post.prior, sigma)),
        )
        share = (
            1 - float(s / sigma) ** 2
            if isinstance(self.fresh, str)
            else along(self.fresh, flow_time(post.prior, s))
        )
        return renoise(moved, state, sigma, s, share**0.5 * float(s), rng, origin=x0), {}

    def towards(self, post: Posterior, x0: Tensor, sigma: Tensor) -> Tensor:
        """u after ``inner_steps`` from x0: (B, *E)."""
        like = post.likelihood
        if not self.scale or not self.inner_steps:
            return x0
        y, variance = like.noise.gaussian(like.y)
        least = float(variance.min())
        weight = torch.where(variance > 0, least / variance, 1.0)
        r2, u = post.prior.know().error(sigma), x0
        if self.weighting == "bounded":
            whole = r2 * misfit(like).curvature(x0) + least
            h = safe_ratio(torch.full_like(whole, self.scale), whole)
        for _ in range(self.inner_steps):
            clean, pull = like.A.linearize(u)
            if self.weighting == "bounded":
                slope = r2 * pull(weight * (y - clean)) + least * (x0 - u)
            else:
                residual = like.y - clean
                size, slope = dot(residual, residual).sqrt(), pull(residual)
                h = safe_ratio(torch.full_like(size, self.scale), size)
            u = u + per_row(h, u) * slope
        return u
