"""A method of one's own: a frozen dataclass of settings and one pure step. Settings are checked by
their annotations.

Guidance by moment matching. With x = x0 + sigma z, D the prior's E[x0 | x] and r2 the variance of
x0 given x,

    E[x0 | x, y] ~ D + scale r2 A^T (r2 A A^T + sigma_y^2 I)^-1 (y - A D),

which is exact for scale = 1 where pixels are independent Gaussians of one variance. A transition
takes it from level to level. ``posteriori.testing.check_method(MyMethod(), posterior)`` says
whether it keeps the rules of a method.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from posteriori import Posterior
from posteriori.methods import Heun, Method
from posteriori.methods.base import Info
from posteriori.methods.transitions import Transition
from posteriori.rng import Rng
from posteriori.settings import NonNegative


@dataclass(frozen=True)
class MyMethod(Method):
    """scale: strength of the guidance. transition: how the image goes from a level to the next."""

    reference = "me2026"  # a key of your bibliography
    family = "explicit"
    cost = "2 denoisers"
    needs = frozenset({"linear", "gaussian"})

    scale: NonNegative = 1.0
    transition: Transition = Heun()

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        def guided(x: Tensor, level: Tensor) -> Tensor:
            x0, r2 = post.prior.denoise(x, level), post.prior.know().error(level)
            return x0 + self.scale * r2 * post.likelihood.widen(r2).score(x0)

        return self.transition(guided, state, sigma, s, rng), {}
