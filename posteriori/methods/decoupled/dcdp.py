"""DCDP: fit the image to y, then purify it by the prior: noise on it, and the sampler back to 0."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.grid import above, karras
from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps.descent import Conjugate, Descent, HeavyBall
from posteriori.methods.data_steps.misfit import misfit, noise_energy
from posteriori.methods.transitions import renoise
from posteriori.rng import Rng
from posteriori.settings import Natural


@dataclass(frozen=True)
class DCDP(Method[Tensor]):
    """Decoupled data consistency by diffusion purification: the image is fitted to y, then noised
    to level sigma and brought back to 0 by the diffusion sampler.

        u  = descent on ||y - A u||^2 from the image of the level before,
             to the residual m sigma_y^2
        x  = u + sigma z
        u' = the probability-flow ODE from (x, sigma) to 0 in ``purify`` Euler steps;
             one step is D(x, sigma)

    D(x, sigma) is the denoised image, z standard normal, m the count of numbers in y, sigma_y the
    standard deviation of their noise.

    The state is an image without noise, at first the prior's mean (0 for a network). Data and prior
    never meet in one gradient.

    inner: steps of the descent, >= 0; published 100.
    purify: steps of the sampler, >= 0; published 20.
    stop: end the descent at the noise level; otherwise after ``inner`` steps, as published.
    descent: a rule of ``data_steps.descent``; published ``HeavyBall(1.02, 0.9)``.

    Raises ``ValueError`` for a negative number of steps.

    Reference: Li, Kwon, Liang, Alkhouri, Ravishankar, Qu, Decoupled data consistency with diffusion
        purification for image restoration, 2024, algorithm 1 (``purify`` > 1) and its one-step
        variant.
    Cost per step: ``purify`` denoisers, ``inner`` operators and adjoints. No back-propagation
        through the denoiser.
    Assumes: A differentiable; other noise than Gaussian enters by its energy, where every A x is
        possible.
    Exact when: never. Without data steps it is SDEdit; without purification, plain least squares
        (both tested).
    Departs from the authors' code: the sampler starts at the very level of the noise. The descent
        ends at the noise level of y, where theirs goes on to its last step. Rates are shares of
        1 / ||A||^2 (theirs multiply the gradient of a mean, so that they grow with the image).
    """

    inner: Natural = 10
    purify: Natural = 1
    stop: bool = True
    descent: Descent = Conjugate()

    reference: ClassVar[str] = "li2024dcdp"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"unbounded"})
    cost: ClassVar[str] = "purify denoisers, inner operators"

    @classmethod
    @course(
        10,
        courses.times(courses.linear, 2.03),
        "levels from 2 down, evenly spaced in the time of a DDPM (its 400 to 1)",
    )
    def published(cls) -> DCDP:
        """The authors' deblurring: 100 steps of momentum 0.9 (their rate 1e5 of a mean is 1.02 of a
        sum), 20 DDIM steps. Theirs is a measurement without noise: with noise, which such steps
        fit, it is far worse than the default."""
        return cls(inner=100, purify=20, stop=False, descent=HeavyBall(1.02, 0.9))

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Tensor:
        return post.prior.start(torch.zeros_like(x), x.real.new_zeros(()))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        return self.purified(post, self.consistent(post, state), sigma, rng), {}

    def consistent(self, post: Posterior, x: Tensor) -> Tensor:
        """u: (B, *E)."""
        return self.descent(
            misfit(post.likelihood),
            x,
            self.inner,
            noise_energy(post.likelihood) if self.stop else 0.0,
        )

    def purified(self, post: Posterior, u: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        """u' from u: (B, *E)."""
        if self.purify == 0:
            return u
        x, bottom = u.add(rng.normal(u), alpha=float(sigma)), post.prior.sigma_min
        levels = karras(self.purify if above(sigma, bottom) else 1, float(sigma), bottom)
        levels[0] = sigma
        for level, lower in pairwise(levels):
            x = renoise(post.prior.denoise(x, level), x, level, lower, 0.0, rng)
        return x
