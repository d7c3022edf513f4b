"""MPC-Flow with a horizon of one step: the cheapest change of a flow's velocity that meets the
data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import prior_scale
from posteriori.methods.data_steps.descent import Adam, Descent
from posteriori.methods.data_steps.gaussian_draws import Tilted, mode
from posteriori.methods.flow_time import flow_time
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import Count, Positive


@dataclass(frozen=True)
class MPCFlow(Method[Tensor]):
    """Model predictive control of a flow over a horizon of one step: the velocity is changed by the
    cheapest control that meets the data, and planned anew at the next level.

        c  = argmin_c  t ||c||^2 - lam log p(y | D + t c)       D + t c: where the flow would end
        D' = D + t c
           = argmin_u  ||u - D||^2 / (2 r2) - log p(y | u),     r2 = lam t / 2        "horizon"
        x' = transition(D')

    x is the image at noise level sigma, x' at the next level s, D = D(x, sigma) the denoised image,
    t = sigma / (1 + sigma) the time that the flow has left, for images in [-1, 1]; the control is
    kept until its end. The derivative of the network does not occur: it would from the second step
    of a horizon on.

    width: r2. "horizon" is the paper's cost; "matched", the default, is lam times the denoiser's
        own mean squared error in its place. The horizon's r2 falls with sigma where the error falls
        with sigma^2, and so trusts y too much at low levels.
    lam: > 0, the weight of the data; 1 by default.
    inner_steps: >= 1, of the descent; for a linear A and Gaussian noise the minimum is in closed
        form.
    descent: see ``posteriori.methods.data_steps.descent``; Adam at rate 0.1 for images in [-1, 1]
        (published).
    transition: how x' is drawn; by default Euler's rule on the flow, DDIM with eta = 0 (published).

    "matched" is for a linear A by its formula ``DiffPIR`` with this transition.

    Reference: Webber, Denker, Barbano, Reader, Solving inverse problems with flow-based models via
        model predictive control, 2026, with one step of horizon.
    Cost per step: one denoiser and one solve, or ``inner_steps`` operators and adjoints; no
        derivative of the denoiser.
    Assumes: noise with a density, A linear or differentiable.
    Exact when: D' of "matched" is E[x0 | x, y] for a white Gaussian prior. A flow without fresh
        noise keeps the error of its start, where nothing is known of y.
    """

    width: Literal["matched", "horizon"] = "matched"
    lam: Positive = 1.0
    inner_steps: Count = 10
    descent: Descent = Adam(0.1)
    transition: Transition = DDIM(eta=0.0)

    reference: ClassVar[str] = "webber2026mpcflow"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"density", "unbounded"})
    cost: ClassVar[str] = "1 denoiser, 1 solve or inner_steps gradients"
    claims: ClassVar[frozenset[str]] = frozenset()

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        return self.transition(
            lambda x, level: self.denoise(post, x, level), state, sigma, s, rng
        ), {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D'(x, sigma): (B, *E)."""
        unit = prior_scale(post.prior)
        r2 = self.lam * (
            post.prior.know().error(sigma)
            if self.width == "matched"
            else 0.5 * unit**2 * flow_time(post.prior, sigma)
        )
        target = Tilted(post.likelihood, post.prior.denoise(x, sigma), r2)
        return mode(target, self.inner_steps, self.descent, unit)
