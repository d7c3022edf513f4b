"""ScoreSDE: after each step the measured part of the image is replaced by the measurement with
fresh noise on it.

    x' = transition(D, x)
    x' = x' + lam M (y + s A z + sqrt(2 / c - 1) v n - A x'),
    z and n fresh, v the noise level of y, c = 1 - s^2 / sigma^2
    corrections times:  x' = x' + h (D(x', s) - x') / s^2 + sqrt(2 h) z,
    h = 2 (snr ||z|| / ||score||)^2,      and replaced again

noise "known" (default): M = A^H (A A^H + v^2 / (c s^2) I)^-1. Both x' and y tell of A x0, with the
variances a^2 s^2 and v^2 where the singular value is a: M weighs them by these, and z and n keep
the variance of x' around x0 at s^2. y counts with the share c of the noise that the step removes,
so that many small steps do not take it for many measurements. Where a << v / s, x' is left alone.
noise "ignored", the paper's, and both where v = 0: M = A^+, v n left out: the part P x' with P =
A^+ A is replaced by A^+ (y + s A z). At s = 0 that is the final merge: A x = y for a y in the range
of A; with noise known x' is then left alone. Where A has no spectrum, A^+ is damped for singular
values below 1e-3 ||A||, and what they measure is met only nearly.
Reference: Song, Sohl-Dickstein, Kumar, Kingma, Ermon, Poole, Score-based generative modeling
through stochastic differential equations, 2021, appendix I.2; for any A: Song, Shen, Xing, Ermon,
Solving inverse problems in medical imaging, 2022, algorithm 1. Cost per step: 1 + corrections
denoisers, as many replacements (one operator and one pseudo-inverse each).
Assumes: linear A. "ignored" takes y as noiseless and fits its noise, magnified where A^+ is large:
a blur then has no use of it. Exact when: no noise, and P x independent of (I - P) x under the
prior, such as a white one. Otherwise the measured part, noised anew at each step, does not agree
with the rest: the rest follows the measurement too little (.267 of it where .5 is right; tested).
Departs from the authors' code: the snr is that of each row, not of the batch; complex images keep
their imaginary part; the measured part is that of the pseudo-inverse, where theirs needs a mask in
an orthogonal basis; the noise of y is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import dot, per_row
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.transitions import DDIM, Transition
from posteriori.operators.base import pinv
from posteriori.operators.gain import gain
from posteriori.rng import Rng
from posteriori.settings import Fraction, Natural, Positive

Treatment = Literal["known", "ignored"]


@dataclass(frozen=True)
class ScoreSDE(Method[Tensor]):
    """Sampling with replacement, ``lam`` in [0, 1] of it, and ``corrections`` Langevin steps at
    each level; see the module for ``noise``.

    Raises ``ValueError`` for a ``lam`` outside [0, 1], fewer than 0 ``corrections`` or an ``snr``
    that is not > 0.
    """

    lam: Fraction = 1.0
    corrections: Natural = 0
    snr: Positive = 0.206
    transition: Transition = DDIM(eta=1.0)
    noise: Treatment = "known"

    reference: ClassVar[str] = "song2022medical"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 + corrections denoisers, as many solves or pseudo-inverses"

    @classmethod
    @course(1000, "log")
    def published(cls) -> ScoreSDE:
        """The medical setting: full replacement by a y taken as noiseless, one correction, snr
        0.206."""
        return cls(lam=1.0, corrections=1, snr=0.206, transition=DDIM(eta=1.0), noise="ignored")

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        x = replace_measured(
            post,
            self.transition(post.prior.denoise, state, sigma, s, rng),
            sigma,
            s,
            rng,
            self.noise,
            self.lam,
        )
        for _ in range(self.corrections if bool(s > 0) else 0):
            score, z = (post.prior.denoise(x, s) - x) / float(s) ** 2, rng.normal(x)
            # Where the score is 0 it gives no step size; the row waits.
            size = dot(score, score)
            h = (size > 0) * 2 * self.snr**2 * dot(z, z) / size.clamp(min=1e-30)
            x = replace_measured(
                post,
                x + per_row(h, x) * score + per_row((2 * h).sqrt(), x) * z,
                sigma,
                s,
                rng,
                self.noise,
                self.lam,
            )
        return x, {}


def replace_measured(
    post: Posterior,
    x: Tensor,
    sigma: Tensor,
    s: Tensor,
    rng: Rng,
    noise: Treatment = "known",
    lam: float = 1.0,
) -> Tensor:
    """x + lam M (y + s A z + sqrt(2 / c - 1) v n - A x) of the module: images x (B, *E) come from
    sigma to s, the measured part anew.

    Draws z, and n where the noise is known and not 0; nothing where x is left alone.
    """
    A, y, noisy = post.likelihood.linear, post.likelihood.y, bool(s > 0)
    v = post.likelihood.std if noise == "known" else 0.0
    if lam == 0 or (v > 0 and not noisy):
        return x
    gap = y - A(x.sub(rng.normal(x), alpha=float(s)) if noisy else x)
    if v > 0:
        share = 1 - float(s / sigma) ** 2
        gap = gap.add(rng.normal(gap), alpha=v * (2 / share - 1) ** 0.5)
        return x.add(gain(A, gap, share * float(s) ** 2, v**2), alpha=lam * share * float(s) ** 2)
    x = x.add(pinv(A, gap), alpha=lam)
    # An iterative A^+ is damped where A is weak: the final merge takes up what it left. With
    # lam < 1 the gap is meant to stay.
    return x if noisy or lam < 1 else x + pinv(A, y - A(x))
