"""Priors made of other priors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances import NoiseCovariance, Of, PixelNoise, RowsNoise, WhiteNoise
from posteriori.linalg import real_view
from posteriori.priors.base import Prior, Pull, check_shape, limits_of
from posteriori.priors.knowledge import Anisotropic, ClosedForm, Knowledge
from posteriori.rng import Rng


class ComplexImages(Prior):
    """Complex images x = u[0] + i u[1] from a prior over real pairs u.

    Parameters
    ----------
    pairs: a real prior of shape (2, *E).

    Its noise has unit variance in the real and in the imaginary part, and ``variance`` is that of
    one part. Gradients are those of the real inner product Re<u, v>.
    """

    def __init__(self, pairs: Prior) -> None:
        if pairs.complex or len(pairs.shape) < 2 or pairs.shape[0] != 2:
            kind = "complex" if pairs.complex else "real"
            raise ValueError(
                "ComplexImages needs a real prior of shape (2, ...), "
                f"got a {kind} one of shape {pairs.shape}"
            )
        super().__init__(pairs.shape[1:], range=pairs.range, complex=True, **limits_of(pairs))
        self.pairs = pairs

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return join(self.pairs.denoise(split(x), sigma))

    def linearize(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Pull]:
        x0, pull = self.pairs.linearize(split(x), sigma)
        return join(x0), lambda u: join(pull(split(u)))

    def at(self, /, **leaves: Tensor) -> Prior:
        return ComplexImages(self.pairs.at(**leaves))

    def know(self) -> Knowledge:
        """That of the pairs, without what is said of single real numbers: errors by frequency and
        predicted variances."""
        known = self.pairs.know()
        closed = None if known.closed is None else _ComplexClosed(known.closed)
        name = type(self).__name__
        return replace(
            known,
            name=name,
            spectrum=None,
            covariance=None,
            predicted=None,
            anisotropic=_ComplexUnder(known.anisotropic),
            closed=closed,
        )

    def start(self, z: Tensor, sigma: Tensor) -> Tensor:
        return join(self.pairs.start(split(z), sigma))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        super()._check_shape(shape)
        check_shape(self.pairs, (2, *shape))


@dataclass(frozen=True, eq=False)
class _Pairs(NoiseCovariance):
    """The covariance of pairs u whose complex images have the covariance ``images``."""

    words: ClassVar[str] = "levels that are those of complex numbers, but not of pixels"
    images: NoiseCovariance

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return split(self.images.applied(f, join(x)))


@dataclass(frozen=True)
class _ComplexUnder:
    """The denoiser of complex images under noise, from that of pairs: a level for each complex
    number is that of its two parts."""

    pairs: Anisotropic

    def refuses(self, covariance: NoiseCovariance) -> str | None:
        return self.pairs.refuses(self._of_pairs(covariance))

    def denoise(self, mu: Tensor, covariance: NoiseCovariance) -> Tensor:
        return join(self.pairs.denoise(split(mu), self._of_pairs(covariance)))

    def _of_pairs(self, covariance: NoiseCovariance) -> NoiseCovariance:
        if isinstance(covariance, WhiteNoise):
            return covariance
        if isinstance(covariance, PixelNoise):
            return PixelNoise(covariance.variances[None])
        if isinstance(covariance, RowsNoise):
            members = tuple(map(self._of_pairs, covariance.members))
            return RowsNoise(members, covariance.which)
        return _Pairs(covariance)


@dataclass(frozen=True)
class _ComplexClosed:
    """The closed form of complex images, from that of pairs. Densities are over the real and
    imaginary parts."""

    pairs: ClosedForm

    def log_prob(self, x: Tensor, sigma: Tensor | float = 0.0) -> Tensor:
        return self.pairs.log_prob(split(x), sigma)

    def draw_given(self, x: Tensor, sigma: Tensor, rng: Rng) -> Tensor:
        return join(self.pairs.draw_given(split(x), sigma, rng))

    def condition(self, matrix: Tensor, y: Tensor, sigma: float) -> tuple[Prior, float]:
        """matrix (m, d) and y (m,) are complex; sigma is the noise level of the real part, and of
        the imaginary part."""
        real, imag = (
            (matrix.real, matrix.imag)
            if matrix.is_complex()
            else (matrix, torch.zeros_like(matrix))
        )
        block = torch.cat([torch.cat([real, -imag], 1), torch.cat([imag, real], 1)])
        parts = torch.cat([y.real, y.imag if y.is_complex() else torch.zeros_like(y)])
        conditioned, log_p = self.pairs.condition(block, parts, sigma)
        return ComplexImages(conditioned), log_p

    def sample(
        self, n: int, seed: int = 0, *, steps: int = 50, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        return join(
            self.pairs.sample(n, seed, steps=steps, shape=None if shape is None else (2, *shape))
        )


def split(x: Tensor) -> Tensor:
    """(B, *E) complex -> (B, 2, *E) real."""
    return real_view(x).movedim(-1, 1).contiguous()


def join(u: Tensor) -> Tensor:
    """(B, 2, *E) real -> (B, *E) complex."""
    return torch.view_as_complex(u.movedim(1, -1).contiguous())
