"""What a covariance of noise is asked: functions of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.told import Told

Of = Callable[[Tensor], Tensor]
# Relative, of variances along the axes of one covariance.
_ROUNDING = 1e-9


class NoiseCovariance(ABC):
    """A symmetric positive definite Sigma on images (B, *E), real or complex.

    words: what differs from what under such noise, for errors: "this prior knows no denoiser under
    noise with {words}".
    """

    words: ClassVar[str]

    @abstractmethod
    def applied(self, f: Of, x: Tensor) -> Tensor:
        """f(Sigma) x, row by row: (B, *E) -> (B, *E) in the precision of x. f is of the variances
        along the axes of Sigma, number by number, float64."""

    def told(self, x: Tensor) -> Told | None:
        """What a network is told of Sigma on images like x (B, *E); None where that does not say
        which Sigma it is."""
        return None

    def power(self, x: Tensor, p: float) -> Tensor:
        """Sigma^p x."""
        return self.applied(lambda v: v**p, x)

    def is_white(self, like: Tensor) -> bool:
        """Whether all variances on images like those of ``like`` (B, *E) are one, to rounding."""
        seen: list[Tensor] = []

        def noted(v: Tensor) -> Tensor:
            seen.append(v)
            return v

        self.applied(noted, like[:1])
        v = torch.cat([part.flatten() for part in seen])
        return bool(v.max() <= v.min() * (1 + _ROUNDING))

    def dense(self, like: Tensor, p: float = 1.0) -> Tensor:
        """Sigma^p as a matrix (d, d) over flattened real images like those of ``like``
        (B, *E)."""
        d = like[0].numel()
        eye = torch.eye(d, dtype=like.dtype, device=like.device).view(d, *like.shape[1:])
        return self.power(eye, p).flatten(1)

    def diagonal(self, one: Tensor) -> Tensor:
        """The variance of each number of an image like ``one`` (*E), float64. By default from the
        matrix."""
        return self.dense(one.real.double()[None]).diagonal().view(one.shape)

    def log_det(self, like: Tensor) -> float:
        """log det Sigma on images like those of ``like`` (B, *E). By default from the axes, or the
        matrix."""
        found = self.axes_of(like)
        if found is not None:
            return float(found[0].log().sum())
        return float(torch.linalg.slogdet(self.dense(like.real.double()[:1]))[1])

    def axes_of(self, like: Tensor) -> tuple[Tensor, Of, Of] | None:
        """Sigma = Q diag(v) Q^H on images like those of ``like`` (B, *E): the variances v (d,),
        float64, Q and Q^H as maps (B, d) <-> (B, *E). None where they are not worked out."""
        return None


def check_variances(member: NoiseCovariance, variances: Tensor) -> None:
    """Raise ``ValueError`` for variances of a member that are not finite numbers > 0."""
    bad = ~((variances > 0) & variances.isfinite())
    if bool(bad.any()):
        raise ValueError(
            f"{type(member).__name__}: variances are finite numbers > 0, {int(bad.sum())} of "
            f"{bad.numel()} are not, such as {float(variances[bad][0]):g}; give the smallest that "
            f"you trust where there is no noise"
        )
