"""One operator after another."""

from __future__ import annotations

import math

from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Map, Operator, Spectrum
from posteriori.packing import Shapes


class Compose(LinearOperator):
    """A B x: the linear operator A after the linear operator B. Also written ``A @ B``; order
    matters (mask a blur, or blur a mask).

    Has a spectrum when one of the two is unitary and the other has one. Raises ``TypeError`` for an
    operator that is not linear, ``ValueError`` when A does not take what B makes.
    """

    def __init__(self, A: LinearOperator, B: LinearOperator) -> None:
        for operator in (A, B):
            if not isinstance(operator, LinearOperator):
                raise TypeError(
                    "Compose takes linear operators; "
                    f"{type(operator).__name__} is not linear, use Chain(A, B) or A @ B"
                )
        _fits(A, B)
        super().__init__(B.in_shape, complex_in=B.complex_in, complex_out=A.complex_out)
        self.A, self.B = A, B

    def forward(self, x: Tensor) -> Tensor:
        return self.A(self.B(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.B.adjoint(self.A.adjoint(y))

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    @property
    def in_parts(self) -> Shapes | None:
        return self.B.in_parts

    @property
    def reach(self) -> tuple[int, int]:
        return _reach(self.A, self.B)

    def spectrum(self) -> Spectrum | None:
        A, B = self.A, self.B
        if _unitary(B) and (s := A.spectrum()):
            V, Vh = s.V, s.Vh
            return Spectrum(s.s, V=lambda c: B.adjoint(V(c)), Vh=lambda x: Vh(B(x)), U=s.U, Uh=s.Uh)
        if _unitary(A) and (s := B.spectrum()):
            U, Uh = s.U, s.Uh
            return Spectrum(s.s, V=s.V, Vh=s.Vh, U=lambda c: A(U(c)), Uh=lambda y: Uh(A.adjoint(y)))
        return None


class Chain(Operator):
    """A(B(x)) when A or B is not linear, for example an instrument after a decoder. Also written
    ``A @ B``."""

    def __init__(self, A: Operator, B: Operator) -> None:
        _fits(A, B)
        super().__init__(B.in_shape, complex_in=B.complex_in, complex_out=A.complex_out)
        self.A, self.B = A, B

    def forward(self, x: Tensor) -> Tensor:
        return self.A(self.B(x))

    def layout(self, y: Tensor) -> Tensor:
        return self.A.layout(y)

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        middle, pull_B = self.B.linearize(x)
        y, pull_A = self.A.linearize(middle)
        return y, lambda u: pull_B(pull_A(u))

    @property
    def in_parts(self) -> Shapes | None:
        return self.B.in_parts

    @property
    def reach(self) -> tuple[int, int]:
        return _reach(self.A, self.B)

    def surrogate(self) -> Operator | None:
        # Where a curved A follows a B that rounds, the two derivatives differ by the rounding: A's
        # is taken at another image.
        smooth = self.A.surrogate(), self.B.surrogate()
        return None if smooth == (None, None) else Chain(smooth[0] or self.A, smooth[1] or self.B)


def _reach(A: Operator, B: Operator) -> tuple[int, int]:
    """That of both where A makes pictures as large as those it takes; what becomes of B's elsewhere
    is not known."""
    same = A.out_shape[-2:] == A.in_shape[-2:]
    return (A.reach[0] + B.reach[0], A.reach[1] + B.reach[1]) if same else A.reach


def _fits(A: Operator, B: Operator) -> None:
    if A.in_shape != B.out_shape or A.complex_in != B.complex_out:
        kinds = ["complex" if flag else "real" for flag in (A.complex_in, B.complex_out)]
        raise ValueError(
            f"{type(A).__name__} after {type(B).__name__}: "
            f"the first takes {kinds[0]} images of shape {A.in_shape}, "
            f"the second makes {kinds[1]} measurements of shape {B.out_shape}"
        )


def _unitary(A: LinearOperator) -> bool:
    """Whether A is known to be unitary: as many coordinates of images as of measurements, all
    meeting with s = 1."""

    def known() -> bool:
        spectrum = A.spectrum()
        return (
            spectrum is not None
            and spectrum.s.numel() == A.coordinates == math.prod(A.out_shape)
            and bool((spectrum.s == 1).all())
        )

    return kept(A, "unitary", known)
