"""A noise level for each frequency of the cosine transform, as a blur whose border is mirrored
between pixels leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of, check_variances
from posteriori.linalg import cosine


@dataclass(frozen=True, eq=False)
class CosineNoise(NoiseCovariance):
    """C^T diag(variances) C, C the orthonormal cosine transform over the last two axes (the second
    kind, ``linalg.cosine``). variances: > 0, float64, (..., H, W), broadcasting against E."""

    words: ClassVar[str] = "a level for each frequency of the cosine transform"
    variances: Tensor

    def __post_init__(self) -> None:
        check_variances(self, self.variances)

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return cosine(f(self.variances).to(x.real) * cosine(x), inverse=True)
