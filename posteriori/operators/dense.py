"""Any matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Spectrum


class Dense(LinearOperator):
    """y = matrix x for flat images (d,), or for images of ``shape`` with d numbers flattened row by
    row.

    matrix: (m, d), real or complex (then images are complex).
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor, shape: tuple[int, ...] | None = None) -> None:
        if matrix.ndim != 2 or not (matrix.is_floating_point() or matrix.is_complex()):
            raise ValueError(
                "Dense needs a real or complex matrix (m, d), "
                f"got {matrix.dtype} {tuple(matrix.shape)}"
            )
        complex = matrix.is_complex()
        super().__init__(shape or (matrix.shape[1],), complex_in=complex, complex_out=complex)
        if torch.Size(self.in_shape).numel() != matrix.shape[1]:
            raise ValueError(
                f"Dense: shape {self.in_shape} has {torch.Size(self.in_shape).numel()} numbers, "
                f"the matrix {matrix.shape[1]} columns"
            )
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return x.flatten(1) @ self.matrix.T.to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return (y @ self.matrix.conj().to(y.dtype)).reshape(-1, *self.in_shape)

    def spectrum(self) -> Spectrum:
        # The decomposition costs far more than a product.
        U, s, Vh = kept(
            self, "svd", lambda: torch.linalg.svd(self.matrix, full_matrices=True), self.matrix
        )
        return Spectrum(
            s,
            V=lambda c: (c @ Vh.conj().to(c.dtype)).reshape(-1, *self.in_shape),
            Vh=lambda x: x.flatten(1) @ Vh.T.to(x.dtype),
            U=lambda c: c @ U.T.to(c.dtype),
            Uh=lambda y: y @ U.conj().to(y.dtype),
        )
