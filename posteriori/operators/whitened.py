"""An instrument whose measurements are taken to where their noise is white."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from posteriori.covariances import Whitening
from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Spectrum
from posteriori.operators.dense_matrix import matrix
from posteriori.packing import Shapes

# A decomposition of so many numbers is worked out where no structure gives it.
_DENSE = 2**20


class Whitener(LinearOperator):
    """y -> g W y, W a ``Whitening`` of measurements of ``shape``, with g so that det(g W) = 1.

    level: g, the geometric mean of the levels of the noise. complex_numbers: of complex
    measurements.
    """

    def __init__(
        self, whitening: Whitening, shape: tuple[int, ...], complex_numbers: bool = False
    ) -> None:
        super().__init__(shape, complex_in=complex_numbers, complex_out=complex_numbers)
        self.__dict__["_out_shape"] = self.in_shape
        self.whitening = whitening
        like = self.probe(torch.zeros, dtype=torch.float64)
        self.level = math.exp(-whitening.log_det(like) / like.numel())

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.level * self.whitening.whiten(x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self.level * self.whitening.adjoint(y)

    def spectrum(self) -> Spectrum | None:
        found = self.whitening.spectrum(self.probe(torch.zeros, dtype=torch.float64))
        if found is None:
            return None
        d, back, there = found
        return Spectrum(self.level * d, V=back, Vh=there, U=back, Uh=there)


class Whitened(LinearOperator):
    """g W A x, after a linear A.

    The spectrum stays in closed form

        where W is diagonal in the coordinates U of A = U S V^H: the singular values are those of A
            times W's, as of a mask under levels of its own or a circular blur under stationary
            noise;
        where A A^H = c^2 I and W has a spectrum: they are c times W's, as of block means;
        where A has one and is small: by decomposition of the matrix.

    ``solve`` takes conjugate gradients otherwise.
    """

    def __init__(self, A: LinearOperator, whitener: Whitener) -> None:
        super().__init__(A.in_shape, complex_in=A.complex_in, complex_out=A.complex_out)
        self.__dict__["_out_shape"] = A.out_shape
        self.A, self.whitener = A, whitener

    def forward(self, x: Tensor) -> Tensor:
        return self.whitener(self.A(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.A.adjoint(self.whitener.adjoint(y))

    @property
    def label(self) -> str:
        return self.A.label

    @property
    def in_parts(self) -> Shapes | None:
        return self.A.in_parts

    @property
    def reach(self) -> tuple[int, int]:
        return self.A.reach

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    def spectrum(self) -> Spectrum | None:
        inner = self.A.spectrum()
        if inner is None:
            return None
        d = kept(self, "levels", lambda: _diagonal(inner, self.whitener, self.out_shape))
        if d is not None:
            return replace(inner, s=inner.s.double() * d[: inner.s.numel()])
        known = self.whitener.spectrum()
        if known is not None and _rows_orthonormal(inner, self.out_shape):
            return _through(inner, known)
        size = math.prod(self.out_shape) * math.prod(self.in_shape)
        if size > _DENSE or self.complex_in != self.complex_out:
            return None
        return _decomposed(self)


def _diagonal(inner: Spectrum, W: Whitener, shape: tuple[int, ...]) -> Tensor | None:
    """d where W = U diag(d) U^H, seen on three draws of coordinates; else None."""
    m, g = math.prod(shape), torch.Generator().manual_seed(0)
    c = torch.randn(3, m, dtype=torch.complex128 if W.complex_out else torch.float64, generator=g)
    out = inner.Uh(W(inner.U(c)))
    d = out[0] / c[0]
    same = (d * c - out).abs().amax() <= 1e-9 * out.abs().amax()
    real = not d.is_complex() or bool((d.imag.abs() <= 1e-9 * d.abs()).all())
    return d.real if bool(same) and real and bool((d.real > 0).all()) else None


def _rows_orthonormal(inner: Spectrum, shape: tuple[int, ...]) -> bool:
    s = inner.s
    return s.numel() == math.prod(shape) and bool((s - s[0]).abs().max() <= 1e-6 * s[0])


def _through(inner: Spectrum, known: Spectrum) -> Spectrum:
    """Of W A with A = c Q, Q Q^H = I, and W = F diag(d) F^H: F diag(c d) (F^H Q)."""
    m = inner.s.numel()

    def there(x: Tensor) -> Tensor:
        c = inner.Vh(x)
        return torch.cat([known.Uh(inner.U(c[:, :m])), c[:, m:]], 1)

    def back(c: Tensor) -> Tensor:
        return inner.V(torch.cat([inner.Uh(known.U(c[:, :m])), c[:, m:]], 1))

    return Spectrum(inner.s.double() * known.s, V=back, Vh=there, U=known.U, Uh=known.Uh)


def _decomposed(A: Whitened) -> Spectrum:
    def work() -> tuple[Tensor, Tensor, Tensor]:
        return torch.linalg.svd(matrix(A, dtype=torch.float64), full_matrices=True)

    U, s, Vh = kept(A, "svd", work)
    return Spectrum(
        s,
        V=lambda c: (c @ Vh.conj().to(c.dtype)).reshape(-1, *A.in_shape),
        Vh=lambda x: x.flatten(1) @ Vh.T.to(x.dtype),
        U=lambda c: (c @ U.T.to(c.dtype)).reshape(-1, *A.out_shape),
        Uh=lambda y: y.flatten(1) @ U.conj().to(y.dtype),
    )
