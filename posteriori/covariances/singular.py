"""A noise level for each singular coordinate of an operator, whatever these are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of, check_variances


@dataclass(frozen=True, eq=False)
class SingularNoise(NoiseCovariance):
    """V diag(variances) V^H. V, Vh: (B, n) <-> (B, *E), unitary and inverse to each other, the
    coordinates possibly complex; variances: (n,) > 0, float64.

    The member of every operator with a spectrum; of use to priors known in closed form alone, since
    no network is trained for the coordinates of one operator.
    """

    words: ClassVar[str] = "a level for each singular coordinate of an operator"
    variances: Tensor
    V: Callable[[Tensor], Tensor]
    Vh: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        check_variances(self, self.variances)

    def applied(self, f: Of, x: Tensor) -> Tensor:
        return self.V(f(self.variances).to(x.real) * self.Vh(x))
