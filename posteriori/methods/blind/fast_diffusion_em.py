"""Fast diffusion EM: one round of EM for the instrument in each step of a posterior sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.blind.beliefs import (
    exact_belief,
    linear_refusal,
    maximised,
    normal_equations,
)
from posteriori.methods.blind.berkson import drawn_images, regression_on_denoised
from posteriori.methods.blind.pair import BlindPair, blind_pair, linear_pair_refusal
from posteriori.packing import in_a_row
from posteriori.rng import Rng
from posteriori.settings import Count


@dataclass(frozen=True)
class FastDiffusionEM(Method[Tensor]):
    """A point estimate of the instrument, and samples of the image given it: one round of
    expectation maximisation within each step of a posterior sampler.

        M:  k    = argmax log p(k) + sum_i log p(y | x_i, k) / n      one for the n rows of a cloud
        E:  x_i  ~ N(x; D_i, C) p(y | x, k)
            x_i' = x_i + s z                        the draw, with the next level's noise

    D_i is the denoised image of row i at noise level sigma, x_i' the image at the next level s, C
    what the prior does not know of x0 at sigma, by frequency where that was measured, k the
    parameters, z standard normal.

    The M-step is one linear system: the normal equations of all images are summed, and p(k) is the
    Gaussian that is believed of k. Any other belief enters by half-quadratic splitting, one round a
    level:

        k <- D_k( argmax log N(k; k_before, rho^2 I) + sum_i log p(y | x_i, k) / n, rho )

    with the denoiser D_k of the parameters' prior and rho the level sigma in their unit; k is then
    made feasible (a kernel has taps >= 0 of sum 1) and, with the images, brought to the middle
    where y does not tell its place. For a given k the E-step with its renoising is ``DAPS``.

    samples: n, the rows that share a kernel, >= 1; 4 by default.
    expectation: what is taken for x_i in the M-step.
        "denoised"  D_i, with the error of D as noise of y (see ``blind.berkson``); the default.
            The authors' fast form takes D_i without that error.
        "draw"      an image of the E-step for the k before. It fits y by that k, so that k moves by
            little where y has little noise.
        "mean"      the mean of these; log p(y | k) may fall.

    Raises ``ValueError`` for a setting out of its range.

    Reference: Laroche, Almansa, Coupete, Fast diffusion EM: a diffusion model for blind inverse
        problems with application to deconvolution, 2024, algorithm 2.
    Cost per step: one denoiser of image and parameters, one of the parameters, one solve, one
        linear system of the size of k.
    Assumes: a ``Parametric`` instrument linear in image and parameters (a kernel), Gaussian noise,
        a ``Joint`` prior.
    Exact when: k is known and the prior Gaussian. It returns one k for a cloud, a maximum of
        p(k) p(y | k) at best: the spread of k says nothing of what is not known of it.
    Departs from the paper: the guidance is a draw in closed form in the place of DPS or PiGDM; one
        round of splitting a level at a weight that follows the level, in the place of ten at a
        fixed one; channels are summed, not averaged after the solve; the mean over samples weighs
        the belief alike for any n.
    """

    samples: Count = 4
    expectation: Literal["denoised", "draw", "mean"] = "denoised"

    reference: ClassVar[str] = "laroche2024fastem"
    family: ClassVar[str] = "blind"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "1 denoiser, 1 solve"

    @property
    def group(self) -> int:
        return self.samples

    def refuses(self, post: Posterior) -> str | None:
        name = "FastDiffusionEM"
        said = linear_pair_refusal(post, name) or linear_refusal(post, name)
        return said or super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Tensor:
        image, _ = (pair := blind_pair(post)).split(x)
        return in_a_row((image, pair.expected(image)))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        pair, (c, d) = blind_pair(post), blind_pair(post).units
        x0 = c * pair.split(post.prior.denoise(state, sigma))[0]
        phi = d * pair.split(state)[1]
        x0, k = self._fitted(pair, x0, phi, sigma, rng)
        x = drawn_images(pair, x0, pair.chart.parts[1].push(k), c * sigma, self.samples, rng) / c
        x = x + float(s) * rng.normal(x) if float(s) > 0 else x
        return in_a_row((x, k / d)), {}

    def _fitted(
        self, pair: BlindPair, x0: Tensor, phi: Tensor, sigma: Tensor, rng: Rng
    ) -> tuple[Tensor, Tensor]:
        """The M-step from denoised images x0 and the k before, in the coordinates of their own
        priors: these images, moved where k was, and k (B, *P)."""
        (c, d), n, own = pair.units, self.samples, pair.chart.parts[1]
        told = own.push(phi)
        if self.expectation == "denoised":
            each = regression_on_denoised(pair, x0, told, c * sigma, n, rng)
        else:
            source: Rng = rng if self.expectation == "draw" else Still()
            x = drawn_images(pair, x0, told, c * sigma, n, source)
            each = normal_equations(pair, pair.chart.parts[0].push(x), pair.noise(len(x)))
        equations = each.summed(n).over(n)
        k = maximised(pair, equations, phi[::n].flatten(1), float(d * sigma))
        k = k.repeat_interleave(n, 0).to(phi).view_as(phi)
        if exact_belief(pair):
            return x0, k
        x0, told = pair.A.in_the_middle(x0, own.push(k))
        return x0, (pair.A.feasible(told) - own.b) / own.a


class Still:
    """No randomness: a Gaussian draw becomes its mean."""

    def normal(self, like: Tensor) -> Tensor:
        return like.new_zeros(like.shape)

    def uniform(self, count: int) -> Tensor:
        raise NotImplementedError("the mean of a law takes no uniform numbers")
