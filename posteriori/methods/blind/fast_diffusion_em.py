"""Fast diffusion EM: one round of EM for the instrument in each step of a posterior sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods.base import Info, Method
from posteriori.methods.blind.beliefs import belief_refusal, normal_equations
from posteriori.methods.blind.pair import blind_pair, linear_pair_refusal
from posteriori.packing import in_a_row
from posteriori.rng import Rng
from posteriori.settings import Count


@dataclass(frozen=True)
class FastDiffusionEM(Method[Tensor]):
    """A point estimate of the instrument, and samples of the image given it: one round of
    expectation maximisation within each step of a posterior sampler.

        E:  x_i  ~ N(x; D_i, r2 I) p(y | x, k)
        M:  k    = argmax log p(k) + sum_i log p(y | x_i, k) / n      one for the n rows of a cloud
            x_i' = x_i + s z                        the draw, with the next level's noise

    D_i is the denoised image of row i at noise level sigma, x_i' the image at the next level s, r2
    what the prior does not know of x0 at sigma, k the parameters, z standard normal.

    The M-step is one linear system, the normal equations of all x_i and the Gaussian belief p(k)
    summed. For a given k the E-step with its renoising is ``DAPS`` with exact draws, which samples
    the posterior of a Gaussian prior. EM needs draws, or their second moments: with "mean" in their
    place, which is what the authors' fast form takes (D itself), log p(y | k) may fall.

    samples: n, the rows that share a kernel, >= 1; 4 by default.
    expectation: x_i, "draw" or "mean", the mean of that law; "draw" by default.

    Raises ``ValueError`` for a setting out of its range.

    Reference: Laroche, Almansa, Coupete, Fast diffusion EM: a diffusion model for blind inverse
        problems with application to deconvolution, 2024, algorithm 2.
    Cost per step: one denoiser, one solve by row, one linear system of the size of k.
    Assumes: a ``Parametric`` instrument linear in image and parameters (a kernel), Gaussian noise,
        a ``Joint`` prior whose belief in the parameters is one Gaussian.
    Exact when: k is known and the prior Gaussian. It returns one k for a cloud, a maximum of
        p(k) p(y | k) at best: the spread of k says nothing of what is not known of it.
    Departs from the paper: the guidance is a draw in closed form in the place of DPS or PiGDM; the
        prior of the kernel is the belief, by normal equations rather than half-quadratic splitting
        with a plug-and-play denoiser; channels are summed, not averaged after the solve; the mean
        over samples weighs the belief alike for any n.
    """

    samples: Count = 4
    expectation: Literal["draw", "mean"] = "draw"

    reference: ClassVar[str] = "laroche2024fastem"
    family: ClassVar[str] = "blind"
    needs: ClassVar[frozenset[str]] = frozenset({"gaussian", "noisy"})
    cost: ClassVar[str] = "1 denoiser, 1 solve"

    @property
    def group(self) -> int:
        return self.samples

    def refuses(self, post: Posterior) -> str | None:
        name = "FastDiffusionEM"
        said = linear_pair_refusal(post, name) or belief_refusal(post, name, linear=True)
        return said or super().refuses(post)

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Tensor:
        image, _ = (pair := blind_pair(post)).split(x)
        return in_a_row((image, pair.expected(image)))

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        pair, noise = blind_pair(post), blind_pair(post).noise(len(state))
        (c, d), phi = pair.units, pair.split(state)[1]
        x0, told = pair.split(post.prior.denoise(state, sigma))[0], pair.told(state)[1]
        r2 = pair.image.know().error(c * sigma)
        source: Rng = rng if self.expectation == "draw" else Still()
        x = pair.draw_images(c * x0, told, r2, noise, source) / c
        seen = pair.told(in_a_row((x, phi)))[0]
        each = normal_equations(pair, seen, noise * self.samples**0.5)
        k = each.summed(self.samples).best().repeat_interleave(self.samples, 0)
        x = x + float(s) * rng.normal(x) if float(s) > 0 else x
        return in_a_row((x, k.view_as(phi) / d)), {}


class Still:
    """No randomness: a Gaussian draw becomes its mean."""

    def normal(self, like: Tensor) -> Tensor:
        return like.new_zeros(like.shape)

    def uniform(self, count: int) -> Tensor:
        raise NotImplementedError("the mean of a law takes no uniform numbers")
