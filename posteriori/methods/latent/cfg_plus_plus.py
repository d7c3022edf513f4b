"""CFG++: guide the denoised image by a condition, and renoise it along the unconditional one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import renoise
from posteriori.operators.base import norm2
from posteriori.rng import Rng
from posteriori.settings import Fraction, NonNegative


@dataclass(frozen=True)
class CFGPlusPlus(Method[Tensor]):
    """CFG++: guides the denoised image by the condition of the prior and by the data, and renoises
    it with the noise that the prior without the condition sees.

        D   = D_0 + w (D_c - D_0),   w the guidance of ``prior.conditioned``, published in [0, 1]
        D_y = D + scale sigma^2 g / (sigma_y^2 + r2 ||A||^2),   g = J^T A^T (y - A D),  J = dD/dx
        x'  = D_y + sqrt(s^2 - std^2) (x - D_0) / sigma + std z
        std = eta s sqrt(1 - s^2 / sigma^2),    r2 = c sigma^2 / (c + sigma^2)

    x is the image at noise level sigma, x' the image at level s, c = spread^2 of the prior. The
    data step is that of ``DPS``.

    Without data a step with w is one of classifier-free guidance, at eta = 0, with

        omega = w sigma / (sigma - s)

    which grows with the number of steps; both are the prior's own for w = 0, and the last step
    (s = 0) has omega = w. A prior without a condition has D_0 = D.

    scale: multiplies the data step, a finite number >= 0; 1 by default.
    eta: share of fresh noise, in [0, 1]; 0 by default (published).

    Reference: Chung, Kim, Park, Nam, Ye, CFG++: manifold-constrained classifier free guidance for
        diffusion models, 2025, algorithm 2, and its data step of section 4.
    Cost per step: one denoiser and one vector-Jacobian product, both at two network passes for a
        conditioned prior, one operator and adjoint.
    Assumes: A differentiable.
    Exact when: never in general; without condition and data it is DDIM.
    Departs from the paper: the data step is weighted as DPS here is, not by a step size that was
        tuned; the guided image is differentiated in full.
    """

    scale: NonNegative = 1.0
    eta: Fraction = 0.0

    reference: ClassVar[str] = "chung2025cfgpp"
    family: ClassVar[str] = "latent"
    cost: ClassVar[str] = "1 denoiser, 1 VJP"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        known = post.prior.know()
        if known.guided is None:
            x0, pull = post.prior.linearize(state, sigma)
            origin = None
        else:
            x0, origin, pull = known.guided(state, sigma)
        like = post.likelihood
        clean, adjoint = like.A.linearize(x0)
        variance = bounded_variance(
            like.noise.variance_at(like.y, clean),
            known.max_variance(sigma),
            norm2(like.A, x0),
            clean,
        )
        steer = pull(adjoint((like.y - clean) / variance)) * (self.scale * float(sigma) ** 2)
        std = self.eta * float(s * (1 - s**2 / sigma**2).sqrt())
        # Without a condition the noise is what is left of x after the whole estimate, as in DPS.
        return renoise(x0 + steer, state, sigma, s, std, rng, origin=origin), {}
