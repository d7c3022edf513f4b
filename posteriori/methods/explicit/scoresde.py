"""ScoreSDE: after each step the measured part of the image is replaced by the noised
measurement."""

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
    """Sampling with replacement: after each step the measured part of the image is replaced by the
    measurement with fresh noise on it.

        x' <- transition(D)
        x' <- x' + lam M (y + s A z + sqrt(2 / c - 1) v n - A x'),   c = 1 - s^2 / sigma^2

        then ``corrections`` times, each followed by another replacement:
        x' <- x' + h (D(x', s) - x') / s^2 + sqrt(2 h) z,   h = 2 (snr ||z|| / ||score||)^2

        known      M = A^H (A A^H + v^2 / (c s^2) I)^-1                (default)
        ignored    M = A^+, v n left out                               the paper's; also where v = 0

    x is the image at noise level sigma, x' the image at level s, D = D(x, sigma) the denoised
    image, z and n are fresh, v is the noise level of y, P = A^+ A.

    lam: share of the replacement, in [0, 1]; 1 by default (published).
    corrections: Langevin steps at each level, >= 0; 0 by default (published: 1).
    snr: sets their size h, above 0; 0.206 by default (published).
    transition: how x' is drawn from x and D, see ``posteriori.methods.transitions``; ancestral
        sampling by default (published).
    noise: how the noise of y is treated.
        known: both x' and y tell of A x0, with the variances a^2 s^2 and v^2 where the singular
            value is a. M weighs them by these, and z and n keep the variance of x' around x0 at
            s^2. y counts with the share c of the noise that the step removes, so that many small
            steps do not take it for many measurements. Where a is far below v / s, x' is left alone
            there. At s = 0 all of x' is left alone.
        ignored: the part P x' is replaced by A^+ (y + s A z) (published). At s = 0 that is the
            final merge: A x = y for a y in the range of A. Where A has no spectrum, A^+ is damped
            for singular values below 1e-3 ||A||, and what they measure is met only nearly.

    Raises ``ValueError`` for a ``lam`` outside [0, 1], fewer than 0 ``corrections`` or an ``snr``
    that is not above 0.

    Reference: Song, Sohl-Dickstein, Kumar, Kingma, Ermon, Poole, Score-based generative modeling
        through stochastic differential equations, 2021, appendix I.2; for any A: Song, Shen, Xing,
        Ermon, Solving inverse problems in medical imaging, 2022, algorithm 1.
    Cost per step: 1 + corrections denoisers, as many replacements (one operator and one
        pseudo-inverse each).
    Assumes: linear A. "ignored" takes y as noiseless and fits its noise, magnified where A^+ is
        large: a blur then has no use of it.
    Exact when: no noise, and P x independent of (I - P) x under the prior, such as a white one.
        Otherwise the measured part, noised anew at each step, does not agree with the rest: the
        rest follows the measurement too little (.267 of it where .5 is right; tested).
    Departs from the authors' code: the snr is that of each row, not of the batch; complex images
        keep their imaginary part; the measured part is that of the pseudo-inverse, where theirs
        needs a mask in an orthogonal basis; the noise of y is known.
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
        """The medical setting: full replacement by a y taken as noiseless, one correction,
        snr 0.206."""
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
    """The measured part anew of images x (B, *E) that come from level sigma to s, as in
    ``ScoreSDE``.

        x + lam M (y + s A z + sqrt(2 / c - 1) v n - A x)

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
