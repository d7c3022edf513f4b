"""ScoreSDE: after each step the measured part of the image is replaced by the measurement with fresh noise on it.

    x' = transition(D, x)
    x' = (I - P) x' + A^+ (y + s A z),   P = A^+ A, z fresh;   lam < 1 moves x' only that share of the way
    corrections times:  x' = x' + h (D(x', s) - x') / s^2 + sqrt(2 h) z,   h = 2 (snr ||z|| / ||score||)^2,   and replaced again

At s = 0 there is no noise to add, and the replacement is the final merge: A x = y for a y in the range of A. Where A has no spectrum,
A^+ is damped for singular values below 1e-3 ||A||, and what they measure is met only nearly.
Reference: Song, Sohl-Dickstein, Kumar, Kingma, Ermon, Poole, Score-based generative modeling through stochastic differential
equations, 2021, appendix I.2; for any A: Song, Shen, Xing, Ermon, Solving inverse problems in medical imaging, 2022, algorithm 1.
Cost per step: 1 + corrections denoisers, as many replacements (one operator and one pseudo-inverse each).
Assumes: linear A, no noise on y: the noise level is not used and the noise of y is fitted, the more so where A^+ is large.
Exact when: no noise, and P x independent of (I - P) x under the prior, such as a white one. Otherwise the measured part, noised anew at
each step, does not agree with the rest: the rest follows the measurement too little (.267 of it where .5 is right; tested).
Departs from the authors' code: the snr is that of each row, not of the batch; complex images keep their imaginary part; the measured
part is that of the pseudo-inverse, where theirs needs a mask in an orthogonal basis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.kernels import DDIM, Transition
from posteriori.operators.base import pinv
from posteriori.rng import Noise


@dataclass(frozen=True)
class ScoreSDE(Method[Tensor]):
    """Sampling with replacement, ``lam`` in [0, 1] of it, and ``corrections`` Langevin steps at each level.

    Raises ``ValueError`` for a ``lam`` outside [0, 1], fewer than 0 ``corrections`` or an ``snr`` that is not > 0.
    """

    lam: float = 1.0
    corrections: int = 0
    snr: float = 0.206
    transition: Transition = DDIM(eta=1.0)

    reference: ClassVar[str] = "song2022medical"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 + corrections denoisers, as many pseudo-inverses"

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1 or self.corrections < 0 or not self.snr > 0:
            got = f"lam={self.lam}, corrections={self.corrections}, snr={self.snr}"
            raise ValueError(f"ScoreSDE needs lam in [0, 1], corrections >= 0 and snr > 0, got {got}")

    @classmethod
    def published(cls) -> ScoreSDE:
        """The medical setting: full replacement, one correction with snr 0.206; meant for 1000 steps and ``grid="log"``."""
        return cls(lam=1.0, corrections=1, snr=0.206, transition=DDIM(eta=1.0))

    def step(self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Noise) -> tuple[Tensor, Info]:
        x = replace_measured(post, self.transition(post.prior.denoise, state, sigma, s, rng), s, rng, self.lam)
        for _ in range(self.corrections if bool(s > 0) else 0):
            score, z = (post.prior.denoise(x, s) - x) / float(s) ** 2, rng.normal(x)
            # Where the score is 0 it gives no step size; the row waits.
            size = dot(score, score)
            h = (size > 0) * 2 * self.snr**2 * dot(z, z) / size.clamp(min=1e-30)
            x = replace_measured(post, x + per_row(h, x) * score + per_row((2 * h).sqrt(), x) * z, s, rng, self.lam)
        return x, {}


def replace_measured(post: Posterior, x: Tensor, s: Tensor, rng: Noise, lam: float = 1.0) -> Tensor:
    """x + lam A^+ (y + s A z - A x): images x (B, *E) at the level s with the measured part drawn anew. Draws nothing when lam = 0."""
    if lam == 0:
        return x
    A, noisy = post.likelihood.linear, bool(s > 0)
    gap = post.likelihood.y - A(x.sub(rng.normal(x), alpha=float(s)) if noisy else x)
    x = x.add(pinv(A, gap), alpha=lam)
    # An iterative A^+ is damped where A is weak: the final merge takes up what it left. With lam < 1 the gap is meant to stay.
    return x if noisy or lam < 1 else x + pinv(A, post.likelihood.y - A(x))
