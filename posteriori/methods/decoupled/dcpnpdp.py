"""DC-PnPDP: data and prior by turns, tied by the dual variable of ADMM, whose colour is made
white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from posteriori.likelihood import Posterior
from posteriori.linalg import cg
from posteriori.methods import courses
from posteriori.methods.base import Info, Method
from posteriori.methods.courses import course
from posteriori.rng import Rng
from posteriori.settings import Count, NonNegative, Positive

# Neighbouring frequencies over which the power of a residual is averaged, along each axis; the
# least share of white noise that stays.
WINDOW, FLOOR = 7, 1e-6


class Coupled(NamedTuple):
    """The image v as the prior has it and the scaled dual u, both (B, *E)."""

    v: Tensor
    u: Tensor


@dataclass(frozen=True)
class DCPnPDP(Method[Coupled]):
    """Dual-coupled plug-and-play: ADMM whose prior step is the denoiser. The dual variable sums up
    by how much data and prior have disagreed. An estimator, no sampler.

        x   ~ argmin_x  1/2 ||y - A x||^2 + w/2 ||x - (v - u)||^2     by conjugate gradients
        v'  = D(x + u + n, sigma)
        u'  = (s / sigma)^2 (u + x - v')

        matched      w = lam sigma_y^2 / sigma^2                                        (default)
        noiseless    w = 0, by a few iterations from v - u                            (published)

        homogenised  F n = sigma sqrt(max(1 - P / (sigma^2 N), 1e-6)) F z               (default)
                     P the power |F (x + u - v)|^2, a mean over 7 x 7 frequencies
        white        n = sigma z
        none         n = 0

    v is the image as the prior has it, at first the prior's mean (0 for a network), u the scaled
    dual, at first 0, sigma the noise level, s the next one, D the denoiser, z standard normal, F
    the Fourier transform over the last two axes, of N numbers, sigma_y the standard deviation of
    the noise of y.

    D is made for white noise of level sigma, and x + u - v is neither white nor of that level: n
    fills up what is missing at each frequency.

    lam: the weight on the prior, > 0; 1 by default.
    weighting: w, as above; "matched" by default.
    iterations: conjugate gradients, >= 1; 10 by default (published: 50).
    rtol: relative residual at which they stop early, >= 0; 1e-4 by default (published: 0).
    dual: "rescaled" by default. u is a gradient times sigma^2: it falls with the levels. "kept"
        leaves it as it is (published), "off" keeps it at 0.
    noise: n, as above; "homogenised" by default (published).

    Raises ``ValueError`` for a setting out of its range.

    For a Gaussian prior the fixed point at one level, without n, is x = v = the maximum of
    p(x | y), that of p(x) p(y | x)^(1 / lam) with lam, at every level; with "rescaled" it is then
    the same state at all levels. Without dual and with white noise it is DiffPIR whose noise is
    all fresh (all tested).

    Reference: Du, Tian, Wu, Liu, Yu, Wei, Zhang, Plug-and-play diffusion meets ADMM: dual-variable
        coupling for robust medical image reconstruction, 2026, algorithm 1.
    Cost per step: one denoiser, ``iterations`` + 1 operators and adjoints. No back-propagation
        through the denoiser.
    Assumes: linear A, Gaussian noise, possibly of level 0.
    Exact when: never as a sampler. What differs between rows is what n has left of itself, not what
        y leaves open: read no interval of it.
    Departs from the authors' code: the noise of y sets w; u follows the level; P is that of each
        image, and its mean wraps, where theirs is of all images of a batch and loses the lowest
        frequencies to zeros beyond the border; v starts at the prior's mean, theirs at a filtered
        back-projection.
    """

    lam: Positive = 1.0
    weighting: Literal["matched", "noiseless"] = "matched"
    iterations: Count = 10
    rtol: NonNegative = 1e-4
    dual: Literal["rescaled", "kept", "off"] = "rescaled"
    noise: Literal["homogenised", "white", "none"] = "homogenised"

    reference: ClassVar[str] = "du2026dcpnpdp"
    family: ClassVar[str] = "decoupled"
    needs: ClassVar[frozenset[str]] = frozenset({"linear", "gaussian"})
    cost: ClassVar[str] = "1 denoiser, iterations + 1 operators and adjoints"

    @classmethod
    @course(50, courses.between("karras", 2.0, 0.002), "levels from 2 to 0.002 as Karras et al.")
    def published(cls) -> DCPnPDP:
        """The authors' sparse-view tomography: y taken as exact, 50 conjugate gradients, a dual
        that does not follow the level."""
        return cls(weighting="noiseless", iterations=50, rtol=0.0, dual="kept")

    def init(self, post: Posterior, x: Tensor, rng: Rng) -> Coupled:
        mean = post.prior.start(torch.zeros_like(x), x.real.new_zeros(()))
        return Coupled(mean, torch.zeros_like(x))

    def rows(self, state: Coupled) -> Tensor:
        return state.v

    def step(
        self, post: Posterior, state: Coupled, sigma: Tensor, s: Tensor, rng: Rng
    ) -> tuple[Coupled, Info]:
        v, u = state
        info: Info = {}
        x = self.consistent(post, v - u, sigma, info)
        noisy = x + u
        if self.noise != "none":
            noisy = noisy + self.fresh(noisy - v, sigma, rng)
        new = post.prior.denoise(noisy, sigma)
        if self.dual == "off":
            return Coupled(new, u), info
        share = float(s / sigma) ** 2 if self.dual == "rescaled" else 1.0
        return Coupled(new, share * (u + x - new)), info

    def consistent(
        self, post: Posterior, toward: Tensor, sigma: Tensor, info: Info | None = None
    ) -> Tensor:
        """x from v - u: (B, *E)."""
        like, A = post.likelihood, post.likelihood.linear
        w = self.lam * (like.std / float(sigma)) ** 2 if self.weighting == "matched" else 0.0
        # Divided by 1 + w, so that a flat likelihood does not leave the range of single precision.
        unit = 1 / (1 + w)
        solved = cg(
            lambda d: (w * unit) * d + unit * A.adjoint(A(d)),
            unit * A.adjoint(like.residual(toward)),
            max_iter=self.iterations,
            rtol=self.rtol,
            attainable=True,
        )
        if info is not None:
            info["residual"] = solved.residual
        return toward + solved.x

    def fresh(self, gap: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        """n beside the residual x + u - v: (B, *E)."""
        z = float(sigma) * rng.normal(gap)
        if self.noise == "white":
            return z
        axes = tuple(range(max(1, gap.ndim - 2), gap.ndim))
        n = torch.fft.ifftn(missing(gap, sigma).sqrt() * torch.fft.fftn(z, dim=axes), dim=axes)
        return n if gap.is_complex() else n.real


def missing(gap: Tensor, sigma: Tensor) -> Tensor:
    """The share of the power of white noise of level sigma that a residual (B, *E) lacks at each
    frequency of its last two axes, at least ``FLOOR``: (B, *E)."""
    axes = tuple(range(max(1, gap.ndim - 2), gap.ndim))
    power = torch.fft.fftn(gap, dim=axes).abs().square()
    for axis in axes:
        reach = (min(WINDOW, gap.shape[axis]) - 1) // 2
        power = torch.stack([power.roll(k, axis) for k in range(-reach, reach + 1)]).mean(0)
    parts = 2 if gap.is_complex() else 1  # a complex number of noise has two of them
    white = parts * float(sigma) ** 2 * math.prod(gap.shape[axis] for axis in axes)
    return (1 - power / white).clamp(min=FLOOR)
