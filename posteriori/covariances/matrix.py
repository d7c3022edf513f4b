"""Any covariance of few numbers, as a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posteriori.covariances.base import NoiseCovariance, Of


@dataclass(frozen=True, eq=False)
class MatrixNoise(NoiseCovariance):
    """matrix: (d, d), real, symmetric and positive definite, over flattened images; float64.

    Raises ``ValueError`` for another one.
    """

    words: ClassVar[str] = "a covariance matrix"
    matrix: Tensor

    def __post_init__(self) -> None:
        C = self.matrix.double()
        if C.ndim != 2 or C.shape[0] != C.shape[1] or not bool(C.isfinite().all()):
            raise ValueError(
                f"a covariance is a finite square matrix, got one of shape {tuple(C.shape)}"
            )
        if not float((C - C.T).abs().max()) <= 1e-9 * float(C.abs().max()):
            raise ValueError("a covariance matrix is symmetric, this one is not")
        v, Q = torch.linalg.eigh(C)
        if not float(v[0]) > 1e-14 * float(v[-1]):
            raise ValueError(
                f"a covariance matrix is positive definite, the smallest eigenvalue here is "
                f"{float(v[0]):.3g} and the largest {float(v[-1]):.3g}"
            )
        object.__setattr__(self, "matrix", C)
        object.__setattr__(self, "_axes", (v, Q))

    @property
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (d,) and orthonormal eigenvectors as columns (d, d)."""
        return self.__dict__["_axes"]

    def applied(self, f: Of, x: Tensor) -> Tensor:
        v, Q = self.eigen
        of = (Q * f(v)) @ Q.T
        return (x.flatten(1) @ of.to(x)).view(x.shape)

    def diagonal(self, one: Tensor) -> Tensor:
        return self.matrix.diagonal().view(one.shape).to(one.device)

    def axes_of(self, like: Tensor) -> tuple[Tensor, Of, Of]:
        v, Q = (t.to(like.device) for t in self.eigen)
        shape = like.shape[1:]
        return v, lambda c: (c @ Q.T.to(c)).view(-1, *shape), lambda x: x.flatten(1) @ Q.to(x)
