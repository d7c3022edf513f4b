"""FlowChef: steer a flow by the gradient at the clean image that it foresees, without a derivative
of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course, prior_scale
from posteriori.methods.data_steps.misfit import bounded_variance
from posteriori.methods.transitions import DDIM, Transition, one_call
from posteriori.operators.base import norm2
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class FlowChef(Method[Tensor]):
    """Steers a flow by the gradient at the clean image that it foresees; the derivative of the
    network is taken to be the identity.

        g = A'^T (y - A D)

        bounded   D' = D + scale r2 g / (sigma_y^2 + r2 ||A'||^2),   x' = transition(D')
        squared   x' = transition(D) + (1 + s) scale g

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, A' = dA/dx at D, r2 the mean squared error of the denoiser.

    In the flow's own coordinates z = x / (1 + sigma), "squared" is the paper's
    z' = z + u dt - eta dL/dD. Its loss L = ||y - A D||^2 / n is the mean over n measured numbers,
    whose gradient is -2 g / n: scale = 2 eta / n.

    weighting: as above; published "squared".
    scale: >= 0; 1 by default, 0 is the flow alone. Published with "squared", for images in
        [-1, 1]: eta = 500 at n = 3 x 64^2, that is 0.0814.
    transition: how x' is drawn; by default Euler's rule on the flow, DDIM with eta = 0 (published).

    "bounded" is by its formula one gradient step of ``DiffPIR`` with this transition.

    Raises ``ValueError`` for "squared" with a transition that calls the denoiser twice.

    Reference: Patel, Wen, Metaxas, Yang, FlowChef: steering of rectified flow models for controlled
        generations, 2025, algorithm 1.
    Cost per step: one denoiser, one operator and adjoint; no derivative of the denoiser. Where A is
        not linear, "bounded" measures ||A'|| by 16 more.
    Assumes: A differentiable.
    Exact when: "bounded" for a white Gaussian prior and A A^T = ||A||^2 I.
    Departs from the authors' code: the last step is guided as every other.
    """

    weighting: Literal["bounded", "squared"] = "bounded"
    scale: NonNegative = 1.0
    transition: Transition = DDIM(eta=0.0)

    reference: ClassVar[str] = "patel2025flowchef"
    family: ClassVar[str] = "explicit"
    cost: ClassVar[str] = "1 denoiser, 1 operator and adjoint"
    claims: ClassVar[frozenset[str]] = frozenset({"flat likelihood gives the prior"})

    @classmethod
    @course(100, courses.flow(), "times of a flow at equal distances")
    def published(cls, scale: float = 1000 / (3 * 64**2)) -> FlowChef:
        """The paper's step for images of 64^2 in [-1, 1]; 2 eta / n for another eta or size."""
        return cls("squared", scale)

    def __post_init__(self) -> None:
        if self.weighting == "squared":
            one_call(self.transition, "FlowChef", "the weighting 'squared'")

    @property
    def requires(self) -> frozenset[str]:
        return frozenset() if self.weighting == "bounded" else frozenset({"unbounded"})

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        if self.weighting == "bounded":
            return self.transition(
                lambda x, level: self.denoise(post, x, level), state, sigma, s, rng
            ), {}
        x0 = post.prior.denoise(state, sigma)
        clean, adjoint = post.likelihood.A.linearize(x0)
        moved = self.transition(lambda x, level: x0, state, sigma, s, rng)
        steer = adjoint(post.likelihood.y - clean)
        stretch = 1 + float(s) / prior_scale(post.prior)
        return moved.add(steer, alpha=stretch * self.scale), {}

    def denoise(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """D'(x, sigma) of "bounded": (B, *E)."""
        x0, like = post.prior.denoise(x, sigma), post.likelihood
        clean, adjoint = like.A.linearize(x0)
        r2 = post.prior.know().error(sigma)
        variance = bounded_variance(
            like.noise.variance_at(like.y, clean), r2, norm2(like.A, x0), clean
        )
        return x0.add(adjoint((like.y - clean) / variance), alpha=self.scale * r2)
