"""SNIPS: Langevin steps in the singular coordinates of A, the noise of y a part of that on x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.methods.data_steps import svd_coordinates
from posteriori.operators.base import Spectrum
from posteriori.rng import Rng
from posteriori.settings import Count, Positive


@dataclass(frozen=True)
class SNIPS(Method[Tensor]):
    """Annealed Langevin dynamics in the singular coordinates of A, with the noise of y as a part of
    the noise on x.

    ``n_steps`` times at each level s, coordinate by coordinate:

        x <- x + h ((1 - w) (D - x) + w (u / a - x)) + s sqrt(c h (2 - h k)) z

        q <= 1     w = q,  c = 1 - q
        q > 1      w = 1,  c = 1 - 1 / q

        matched    k = 1 - (1 - w) e / s^2,   e = error(s)     (default)
        langevin   k = 0

    A = U diag(a) V^T, v is the noise level of y, u = U^T y, q = (a s / v)^2, h is ``rate``, D the
    coordinates of the denoised image, z standard normal.

    For q <= 1 y still adds to x, whose noise is a part of that of y: u - a x has variance
    v^2 - a^2 s^2. For q > 1 x is u / a and noise of variance s^2 - v^2 / a^2, whatever the prior.
    The step is x + h P grad log p(x | y) + sqrt(2 h P) z with the paper's preconditioner P = s^2 c,
    multiplied out: nothing is divided by v^2 - a^2 s^2, and at q = 1, where P is 0, both rules
    agree. P is at most the inverse curvature, so that any h < 2 is stable. The run ends with D,
    which is E[x0 | x, y], for q <= 1, and with u / a for q > 1 (known better than the smallest
    level).

    n_steps: Langevin steps at each level, at least 1; 3 by default (published: 5).
    rate: h, a share of the preconditioner, in (0, 2); 1 by default (published: 0.033).
    noise: how much is added in a step. "langevin" is the paper's steps (published), which leave a
        variance 1 / (1 - h / 2) times too large. "matched" has the mean curvature k, for which the
        variance is right at any h. On photographs, 100 denoisers of "matched" noise are 10 dB
        better.

    Raises ``ValueError`` for fewer than one step or a rate outside (0, 2) (unstable).

    Reference: Kawar, Vaksman, Elad, SNIPS: solving noisy inverse problems stochastically, 2021,
        algorithm 1.
    Cost per step: ``n_steps`` denoisers; the data step is closed form.
    Assumes: linear A with a spectrum, Gaussian noise, possibly of level 0. Singular values below
        1e-6 of the largest count as 0.
    Exact when: many levels, the smallest far below v / max a and every width of the prior. At a
        fixed level, coordinates with q > 1 are stationary at N(u / a, s^2 - v^2 / a^2) (langevin:
        that variance / (1 - h / 2)), for any h and any prior (tested).
    Departs from the authors' code: the last image is denoised (theirs keeps the noise of the last
        level); where every direction is measured theirs follows the prior alone, by an index -0.
    """

    n_steps: Count = 3
    rate: Positive = 1.0
    noise: Literal["matched", "langevin"] = "matched"

    reference: ClassVar[str] = "kawar2021snips"
    family: ClassVar[str] = "explicit"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian", "spectrum"})
    cost: ClassVar[str] = "n_steps denoisers"
    claims: ClassVar[frozenset[str]] = frozenset(
        {
            "flat likelihood gives the prior",
            "exact for a white Gaussian prior",
            "exact for a Gaussian prior",
        }
    )

    def __post_init__(self) -> None:
        if not self.rate < 2:
            raise ValueError(
                f"SNIPS: rate must be below 2, where the Langevin steps are unstable, got "
                f"{self.rate}"
            )

    @classmethod
    @course(
        500,
        courses.between("log", 180.0, 0.02),
        "levels from 90 to 0.01 of images in [0, 1] evenly spaced in their logarithm",
    )
    def published(cls) -> SNIPS:
        """The authors' setting for faces: five steps a level of 0.033 (3.3e-6 / 0.01^2)."""
        return cls(n_steps=5, rate=0.033, noise="langevin")

    def step(
        self, post: Posterior, state: Tensor, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Tensor, Info]:
        f = svd_coordinates.frame(post, sigma, s)
        spectrum = f.spectrum
        if not bool(s > 0):
            x0 = spectrum.Vh(post.prior.denoise(state, sigma))
            return spectrum.V(torch.where(f.tau < float(sigma), f.u, x0)), {}
        # v^2 / (a s)^2, kept as 1 / q: it is finite at v = 0, and infinite where nothing is seen.
        inverse = (f.tau / float(s)) ** 2
        x = state
        for _ in range(self.n_steps):
            x = self.langevin(post, spectrum, x, s, f.u, inverse, rng)
        return x, {}

    def langevin(
        self,
        post: Posterior,
        spectrum: Spectrum,
        x: Tensor,
        s: Tensor,
        centre: Tensor,
        inverse: Tensor,
        rng: Rng,
    ) -> Tensor:
        """One inner step at level s. centre: u / a in coordinates (1, n); inverse: 1 / q (n,)."""
        trust = 1 / inverse.clamp(min=1.0)
        curvature = (
            1 - (1 - trust) * min(post.prior.know().error(s) / float(s) ** 2, 1.0)
            if self.noise == "matched"
            else 0.0
        )
        width = (
            float(s)
            * (self.rate * (2 - self.rate * curvature) * (1 - torch.minimum(inverse, trust))).sqrt()
        )
        aim = torch.lerp(
            spectrum.Vh(post.prior.denoise(x, s)), centre.expand(len(x), -1), trust.to(centre)
        )
        coordinates = torch.lerp(spectrum.Vh(x), aim, self.rate)
        return spectrum.V(coordinates + width.to(x.real) * spectrum.Vh(rng.normal(x)))
