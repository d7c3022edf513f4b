"""Maps of other libraries, or of the user's own, as operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori import identity
from posteriori.linalg import Map, real_view
from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.transpose import dot_test, repeat_test

Rows = Callable[[np.ndarray], Any]


class _Shared:
    """What another library made, by reference: a copy of the operator shares it."""

    def __init__(self, maps: tuple[Map, ...]) -> None:
        self.maps = maps

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class ForeignLinear(LinearOperator):
    """A linear map whose two directions are functions of batches.

    there: (B, *E) -> (B, *O). back: its adjoint, (B, *O) -> (B, *E), in the inner products Re<x, u>
    = Re sum conj(x) u of both spaces. Neither has to be differentiable: every derivative of the
    operator, forward and reverse, is one of the two. source: what made them, in words, for
    messages.
    """

    def __init__(
        self,
        there: Map,
        back: Map,
        in_shape: tuple[int, ...],
        *,
        complex_in: bool = False,
        complex_out: bool = False,
        source: str = "two functions",
    ) -> None:
        super().__init__(in_shape, complex_in=complex_in, complex_out=complex_out)
        self.source = source
        self._shared = _Shared((there, back))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return _as(self._shared.maps[0](x.detach()), x, self.complex_out, self.source)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return _as(self._shared.maps[1](y.detach()), y, self.complex_in, self.source)

    @property
    def label(self) -> str:
        return f"the operator of {self.source}"

    def record(self) -> dict[str, Any]:
        return _seen(self)

    def check(self, rtol: float) -> None:
        """Raise ``ValueError`` unless A(x) repeats itself, ``AdjointError`` unless ``adjoint`` is
        that of ``forward``, both within ``rtol``, and ``ValueError`` where A is no linear map."""
        repeat_test(self, rtol)
        check_linear(self, rtol)
        dot_test(self, rtol)


class ForeignMap(Operator):
    """A map of batches (B, *E) -> (B, *O), which automatic differentiation follows, or a black box.

    gradient: False for a black box, which can be called and nothing else: ``linearize`` raises
    ``TypeError``, and methods without derivatives take it.
    """

    def __init__(
        self,
        there: Map,
        in_shape: tuple[int, ...],
        *,
        gradient: bool = True,
        complex_in: bool = False,
        complex_out: bool = False,
        source: str = "a function",
    ) -> None:
        super().__init__(in_shape, complex_in=complex_in, complex_out=complex_out)
        self.source, self.gradient = source, gradient
        self._shared = _Shared((there,))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        if self.gradient:
            return _as(self._shared.maps[0](x), x, self.complex_out, self.source)
        with torch.no_grad():
            return _as(self._shared.maps[0](x.detach()), x, self.complex_out, self.source)

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        if self.gradient:
            return super().linearize(x)
        raise TypeError(
            f"{self.label} is a black box (gradient=False) and has no derivative; methods that "
            "need none, such as EnKG and CBG, take it"
        )

    @property
    def label(self) -> str:
        return f"the operator of {self.source}"

    def record(self) -> dict[str, Any]:
        return _seen(self)

    def check(self, rtol: float) -> None:
        """Raise ``ValueError`` unless A(x) repeats itself and, where derivatives are taken, unless
        one can be."""
        repeat_test(self, rtol)
        if not self.gradient:
            return
        x = self.probe(torch.ones)
        try:
            y, pull = self.linearize(x)
            pull(torch.ones_like(y))
        except RuntimeError as error:
            raise ValueError(
                f"{self.label}: automatic differentiation does not pass through it "
                f"({str(error).splitlines()[0]}). State gradient=False for methods that need no "
                "derivative, or give its adjoint as well where it is linear"
            ) from None


def row_by_row(function: Rows) -> Map:
    """A function of one NumPy image as a map of batches of tensors."""

    def of_batch(x: Tensor) -> Tensor:
        rows = [np.asarray(function(row)) for row in x.detach().cpu().resolve_conj().numpy()]
        return torch.from_numpy(np.ascontiguousarray(np.stack(rows))).to(x.device)

    return of_batch


def check_linear(A: LinearOperator, rtol: float) -> None:
    """Raise ``ValueError`` where A(2 x - 3 v) and 2 A x - 3 A v differ by more than ``rtol`` of
    their size."""
    draw = _drawing(torch.randn)
    with torch.no_grad():
        x, v = A.probe(draw), A.probe(draw)
        left, right = A(2 * x - 3 * v), 2 * A(x) - 3 * A(v)
        rest = A(torch.zeros_like(x))
    size = float(real_view(right).norm() + real_view(left).norm())
    gap = float(real_view(left - right).norm())
    if gap > rtol * max(size, 1e-30):
        offset = float(real_view(rest).norm())
        why = (
            f"A(0) has the norm {offset:.3g}, not 0: subtract it from A and from y"
            if offset > rtol * size
            else "leave linear=True out"
        )
        raise ValueError(
            f"{A.label} is not linear: A(2 x - 3 v) and 2 A x - 3 A v differ by "
            f"{gap / size:.2g} of their size; {why}"
        )


def _drawing(law: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For ``Operator.probe``: draws of a law of torch, the same in every process and on any
    device."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
        return law(*size, dtype=dtype, generator=generator).to(device)

    return draw


def _as(y: Any, x: Tensor, complex: bool, source: str) -> Tensor:
    """What a foreign function gave, in the precision and on the device of x. Raises ``TypeError``
    for no tensor, ``ValueError`` for another kind of number or count of rows."""
    if not isinstance(y, Tensor):
        raise TypeError(
            f"the operator of {source} gives {type(y).__name__}, a torch tensor is needed; state "
            "numpy=True where it takes and gives one NumPy array at a time"
        )
    if y.ndim < 1 or len(y) != len(x):
        raise ValueError(
            f"the operator of {source} makes {tuple(y.shape)} of a batch {tuple(x.shape)}: row k "
            "of the one is that of row k of the other; state numpy=True where it takes one image"
        )
    if y.is_complex() != complex:
        kinds = ("complex", "real") if y.is_complex() else ("real", "complex")
        raise ValueError(
            f"the operator of {source} gives {kinds[0]} numbers where {kinds[1]} ones are "
            f"expected: state complex_in and complex_out"
        )
    real = x.real.dtype
    return y.to(device=x.device, dtype=real.to_complex() if complex else real)


def _seen(A: Operator) -> dict[str, Any]:
    """A foreign operator by content: its source, its shapes, and what it makes of one image."""
    draw = _drawing(torch.rand)
    with torch.no_grad():
        y = A(A.probe(draw))
    return {
        "class": f"{type(A).__module__}.{type(A).__qualname__}",
        "source": getattr(A, "source", ""),
        "in_shape": list(A.in_shape),
        "of one image": identity.content(y),
    }
