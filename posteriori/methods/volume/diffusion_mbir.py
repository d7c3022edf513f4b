"""DiffusionMBIR: a prior of slices, and total variation through the plane on the noisy volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import between, course
from posteriori.methods.data_steps.total_variation import Split, no_split, tied
from posteriori.methods.explicit.scoresde import Treatment
from posteriori.methods.transitions import DDIM, Transition
from posteriori.rng import Rng
from posteriori.settings import Count, Natural, NonNegative, Positive

_State = tuple[Tensor, Split]


@dataclass(frozen=True)
class DiffusionMBIR(Method[_State]):
    """Model-based iterative reconstruction of volumes: a prior of slices by predictor and
    corrector, then one warm-started round of ADMM with total variation, on the noisy volume itself.

        x <- transition(D)
        x <- x + h (D(x, s) - x) / s^2 + sqrt(2 h) z        ``corrections`` times, while s > 0,
                                                            h = 2 (snr ||z|| / ||score||)^2
        x' ~ argmin_u  1/2 ||y - A u||^2 + w/2 ||u - x||^2
                       + lam c ||A||^2 sum_k ||u[k + 1] - u[k]||_1          by ADMM from x

        known       w = sigma_y^2 / s^2         x is known up to its own noise; at s = 0 up to the
                                                denoiser's error                       (default)
        ignored     w = 0                       y is taken as exact, and few iterations keep x near

    x is the image, first at noise level sigma, from the second line on at the next level s,
    D = D(x, sigma) the denoised image, score = (D(x, s) - x) / s^2, z standard normal, sigma_y the
    noise level of y, c the width of the range of images (see
    ``posteriori.methods.data_steps.total_variation``).

    Split and dual of ADMM live on from step to step.

    lam: weight of the total variation along the first axis of images, >= 0; 0.04 by default
        (published).
    rho: penalty of ADMM, > 0; 10 by default (published).
    iterations: conjugate gradients of the round, >= 1; 1 by default (published).
    corrections: Langevin steps at each level, >= 0; 1 by default (published).
    snr: sets their size h, > 0; 0.16 by default (published).
    transition: how x is drawn from x and D, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published).
    noise: how the noise of y is treated, as above; "known" by default (published: "ignored").

    Raises ``ValueError`` for a setting out of its range.

    Memory: the volume, the measurement, and two more volumes for the split and the dual.

    Reference: Chung, Ryu, McCann, Klasky, Ye, Solving 3D inverse problems using pre-trained 2D
        diffusion models, 2023, algorithm 1.
    Cost per step: 1 + corrections denoisers (of all slices), iterations + 1 operators and adjoints.
    Assumes: linear A, Gaussian noise, possibly of level 0; images (slices, *E), as of
        ``priors.Slices``.
    Exact when: never in general: a clean y moves a noisy x, as in its reference. With lam = rho =
        0, no noise and one iteration, the data step is one of steepest descent on ||y - A x||^2
        (tested).
    Departs from the authors' code: jumps do not wrap from the last slice to the first; its
        conjugate gradients let the search direction share memory with the residual and are wrong
        from the second iteration on, which one iteration hides; lam and rho are those for an
        operator of norm 1 and images in [0, 1]; the snr is that of each row; the noise of y is
        known by default.
    """

    lam: NonNegative = 0.04
    rho: Positive = 10.0
    iterations: Count = 1
    corrections: Natural = 1
    snr: Positive = 0.16
    transition: Transition = DDIM(eta=1.0)
    noise: Treatment = "known"

    reference: ClassVar[str] = "chung2023mbir"
    family: ClassVar[str] = "volume"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 + corrections denoisers, iterations + 1 operators and adjoints"

    @classmethod
    @course(2000, between("log", 756.0, 0.02), "levels at equal distances in ln sigma")
    def published(cls) -> DiffusionMBIR:
        """The authors' setting for sparse views: y taken as exact, lam 0.04, rho 10, one iteration,
        one correction of snr 0.16."""
        return cls(noise="ignored")

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> _State:
        return x, no_split(x)

    def rows(self, state: _State) -> Tensor:
        return state[0]

    def step(
        self, post: Posterior, state: _State, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[_State, Info]:
        x, split = state
        x = self.transition(post.prior.denoise, x, sigma, s, rng)
        for _ in range(self.corrections if bool(s > 0) else 0):
            score, z = (post.prior.denoise(x, s) - x) / float(s) ** 2, rng.normal(x)
            # Where the score is 0 it gives no step size; the row waits.
            size = dot(score, score)
            h = (size > 0) * 2 * self.snr**2 * dot(z, z) / size.clamp(min=1e-30)
            x = x + per_row(h, x) * score + per_row((2 * h).sqrt(), x) * z
        w = 0.0
        if self.noise == "known":
            open_ = float(s) ** 2 if bool(s > 0) else post.prior.know().error(sigma)
            w = post.likelihood.std**2 / open_
        return self.data_step(post, x, split, w), {}

    def data_step(self, post: Posterior, x: Tensor, split: Split, w: float = 0.0) -> _State:
        """One round of ADMM from x (B, *E), and the new split."""
        solver = tied(post, self.lam, self.rho, 1, self.iterations, 0.0)
        like = post.likelihood
        return solver.solve(like.linear, like.y, x, split, w=w, toward=x if w else None)
