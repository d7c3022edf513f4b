"""A linear operator whose measurements count with weights of their own, such as the inverse of
their noise level."""

from __future__ import annotations

from torch import Tensor

from posteriori.operators.base import LinearOperator, Preconditioner, norm2
from posteriori.operators.norm import measured_norm
from posteriori.operators.small_inverse import small_inverse
from posteriori.packing import Shapes


class Weighted(LinearOperator):
    """y = w A x, number by number. With w = 1 / sigma for each number, noise of many levels becomes
    that of one, 1.

    weights: w, > 0, real and finite, broadcasting against one measurement of A, or (B, *O) for the
    rows of a batch of B. Raises ``ValueError`` for others.
    """

    weights: Tensor

    def __init__(self, A: LinearOperator, weights: Tensor) -> None:
        if not weights.is_floating_point() or not bool((weights.isfinite() & (weights > 0)).all()):
            raise ValueError(
                "Weighted takes finite real weights > 0, "
                f"got {weights.dtype} from {float(weights.real.min()):.4g}"
            )
        super().__init__(A.in_shape, complex_in=A.complex_in, complex_out=A.complex_out)
        try:
            (weights[0] if weights.ndim > len(A.out_shape) else weights).expand(A.out_shape)
        except RuntimeError:
            raise ValueError(
                f"Weighted: weights of shape {tuple(weights.shape)} do not fit measurements "
                f"of shape {A.out_shape}"
            ) from None
        self.A = A
        self.register_buffer("weights", weights)

    def forward(self, x: Tensor) -> Tensor:
        y = self.A(x)
        return self.weights.to(y.real.dtype) * y

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self.A.adjoint(self.weights.to(y.real.dtype) * y)

    @property
    def _by_rows(self) -> bool:
        return self.weights.ndim > len(self.A.out_shape) and len(self.weights) > 1

    @property
    def steady_norm(self) -> float:
        """Of weights by rows a bound of the largest, max w ||A||."""
        if self._by_rows:
            return float(self.weights.max()) * norm2(self.A)
        return measured_norm(self)

    @property
    def in_parts(self) -> Shapes | None:
        return self.A.in_parts

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    def preconditioner(self, r2: float, s2: float) -> Preconditioner | None:
        """That of A with the mean square of the weights, where A has one for images; else the exact
        inverse of a small image, where all rows have one."""
        inner = self.A.preconditioner(r2 * float(self.weights.double().square().mean()), s2)
        if inner is None:
            return None if self._by_rows else small_inverse(self, r2, s2)
        return inner if inner.images else None
