"""SITCOM: move the noisy image until its own denoised image explains y, then noise that afresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.descent import Adam, Conjugate, Descent
from posteriori.methods.data_steps.misfit import Local, Misfit, misfit, noise_energy
from posteriori.methods.transitions import ConstantFraction
from posteriori.rng import Rng
from posteriori.settings import Natural


@dataclass(frozen=True)
class SITCOM(Method[Tensor]):
    """Step-wise triple-consistent sampling: the noisy image is moved until its own denoised image
    explains y, and fresh noise is put on that.

        v  = descent on ||y - A D(v, sigma)||^2 from v = x, to the residual m sigma_y^2
        x0 = D(v, sigma)
        x' = x0 + s z

    x is the image at noise level sigma, x' at the next level s, D the denoised image, z standard
    normal, m the count of numbers in y, sigma_y the standard deviation of their noise.

    The image stays an output of the denoiser (backward consistency), agrees with y (measurement
    consistency), and is found near x (forward consistency): by the start and the early end of the
    descent, in place of a penalty on ||v - x||^2.

    inner: the most steps of the descent, >= 0; published 30.
    stop: end the descent at the noise level, as published; otherwise after ``inner`` steps.
    descent: a rule of ``data_steps.descent``; published ``Adam(0.02)``.

    Reference: Alkhouri, Liang, Huang, Dai, Qu, Ravishankar, Wang, SITCOM: step-wise
        triple-consistent diffusion sampling for inverse problems, 2025, algorithm 1.
    Cost per step: one denoiser, and for each of at most ``inner`` descent steps one denoiser and
        two vector-Jacobian products (one with Adam), until every row of the batch has come to the
        noise level.
    Assumes: A differentiable; other noise than Gaussian enters by its energy, where every A x is
        possible. ``Conjugate`` sizes its steps with J = J^T, which holds for the exact denoiser; on
        a network's J the misfit decides whether a step is taken.
    Exact when: never; a descent is no draw. Fresh noise of level s at every step keeps half of the
        variance of the prior as steps are added (see ConstantFraction with zeta = 1, which is the
        method without descent).
    Departs from the authors' code: no iterate is chosen by its distance to the true image. The
        early end is per row, at the noise's own energy (theirs adds 0.001 to sigma_y). D is not
        clamped, so no pixel loses its gradient.
    """

    inner: Natural = 10
    stop: bool = True
    descent: Descent = Conjugate()

    reference: ClassVar[str] = "alkhouri2025sitcom"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "1 + inner denoisers, 2 inner VJPs at most"

    @classmethod
    @course(20, "ddpm")
    def published(cls) -> SITCOM:
        """At most 30 steps of Adam at rate 0.02 for images in [-1, 1]."""
        return cls(inner=30, descent=Adam(0.02))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        v = self.consistent(post, state, sigma)
        return ConstantFraction(zeta=1.0)(post.prior.denoise, v, sigma, s, rng), {}

    def consistent(self, post: Posterior, x: Tensor, sigma: Tensor) -> Tensor:
        """v: (B, *E)."""
        if self.inner == 0:
            return x
        data = misfit(post.likelihood)

        def through(v: Tensor) -> Local:
            x0, back = post.prior.linearize(v, sigma)
            clean, pull, push = data.f(x0)
            return clean, lambda u: back(pull(u)), lambda d: push(back(d))

        # The authors' Adam works on x / sqrt(1 + sigma^2).
        fit = Misfit(data.y, through, unit=float((1 + sigma**2).sqrt()))
        return self.descent(fit, x, self.inner, noise_energy(post.likelihood) if self.stop else 0.0)
