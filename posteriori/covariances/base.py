"""What a covariance of noise is asked: functions of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.told import Told

Of = Callable[[Tensor], Tensor]


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

    def dense(self, like: Tensor, p: float = 1.0) -> Tensor:
        """Sigma^p as a matrix (d, d) over flattened real images like those of ``like``
        (B, *E)."""
        d = like[0].numel()
        eye = torch.eye(d, dtype=like.dtype, device=like.device).view(d, *like.shape[1:])
        return self.power(eye, p).flatten(1)
