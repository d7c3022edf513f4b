"""Operators of other libraries, and functions of the user's own, in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from posteriori.linalg import Map
from posteriori.operators.base import Operator
from posteriori.operators.foreign.libraries import reader_of
from posteriori.operators.foreign.maps import ForeignLinear, ForeignMap, row_by_row


def wrap(
    thing: Any,
    in_shape: tuple[int, ...] | None = None,
    *,
    linear: bool = False,
    gradient: bool = True,
    numpy: bool = False,
    complex_in: bool | None = None,
    complex_out: bool | None = None,
    rtol: float = 1e-4,
) -> Operator:
    """An instrument that somebody else wrote, as an ``Operator``.

        wrap(scipy.sparse.linalg.LinearOperator(...), (1, 64, 64))     also pylops, astra OpTomo
        wrap(matrix, (1, 64, 64))                                      dense or sparse
        wrap(physics, (3, 64, 64))                                     deepinv LinearPhysics
        wrap(linop)                                                    sigpy
        wrap(operator, (1, 1, 64, 64))                                 mrpro
        wrap((forward, adjoint), (1, 64, 64))                          two functions
        wrap(forward, (1, 64, 64), linear=True)                        the transpose by autograd
        wrap(forward, (1, 64, 64))                                     not linear, autograd
        wrap(simulator, (1, 64, 64), gradient=False)                   a black box

    Functions take batches of torch tensors (B, *E) and give (B, *O), or, with numpy=True, one NumPy
    array at a time. Row k of a measurement depends on row k of the images alone. Both functions of
    a pair may be anything: gradients use the one for the other, also forward ones and those of
    ``torch.func``.

    in_shape: E, where the thing does not state it. linear: of one function, whether A(a x + b v) =
    a A x + b A v. gradient: False where no derivative may be taken. complex_in, complex_out:
    whether images and measurements are complex; by default what the library says, else both real.
    rtol: relative errors that rounding explains, in single precision.

    Everything is measured before it is returned: that A(x) is the same at each call; of a linear A
    that it is linear and ``adjoint`` its transpose (a projector whose back-projection is another
    discretisation is refused, with both numbers); that a derivative can be taken. Its norm is
    ``norm2(A)``. Units are those of the other library, and so are amplitude, sign, order and centre
    of its transforms: docs/operators.md has a table.

    Raises ``TypeError`` for what is none of these, ``ValueError`` for a missing or wrong shape or
    kind of number, an A that draws something at each call or is not linear, ``AdjointError``, and
    ``RuntimeError`` for ASTRA's projectors of volumes without a GPU, which would end the process.
    """
    if isinstance(thing, Operator):
        return thing
    kinds = {
        name: flag
        for name, flag in (("complex_in", complex_in), ("complex_out", complex_out))
        if flag is not None
    }
    reader = reader_of(thing)
    A = (
        reader(thing, in_shape, kinds)
        if reader
        else _function(thing, in_shape, linear, gradient, numpy, kinds)
    )
    A.check(rtol)
    return A


def _function(
    thing: Any,
    in_shape: tuple[int, ...] | None,
    linear: bool,
    gradient: bool,
    numpy: bool,
    kinds: dict[str, bool],
) -> ForeignLinear | ForeignMap:
    """Functions as an operator."""
    parts = thing if isinstance(thing, tuple | list) else (thing,)
    if not 1 <= len(parts) <= 2 or not all(callable(part) for part in parts):
        raise TypeError(
            f"wrap takes an operator of scipy, pylops, astra, sigpy, deepinv or mrpro, a matrix, a "
            f"function, or a pair (forward, adjoint), got {_said(thing)}"
        )
    if in_shape is None:
        raise ValueError(f"{_said(thing)} does not state the shape of an image: give in_shape")
    maps: list[Map] = [row_by_row(part) if numpy else part for part in parts]
    source = _said(parts[0])
    if len(maps) == 2:
        return ForeignLinear(maps[0], maps[1], in_shape, source=source, **kinds)
    if not gradient:
        return ForeignMap(maps[0], in_shape, gradient=False, source=source, **kinds)
    if numpy:
        raise ValueError(
            f"{source}: automatic differentiation does not pass through NumPy; give a pair "
            "(forward, adjoint) where it is linear, or state gradient=False"
        )
    A = ForeignMap(maps[0], in_shape, source=source, **kinds)
    if not linear:
        return A
    # The transpose of a linear map is its derivative's, at whatever image.
    return ForeignLinear(_quiet(maps[0]), _transpose(A), in_shape, source=source, **kinds)


def _transpose(A: ForeignMap) -> Map:
    def back(y: Tensor) -> Tensor:
        zero = A.probe(torch.zeros, len(y), y.real.dtype).to(y.device)
        return A.linearize(zero)[1](y)

    return back


def _quiet(function: Callable[[Tensor], Tensor]) -> Map:
    def there(x: Tensor) -> Tensor:
        with torch.no_grad():
            return function(x)

    return there


def _said(thing: Any) -> str:
    """What a user calls a function, or the class of something else."""
    if isinstance(thing, tuple | list):
        return f"({', '.join(_said(part) for part in thing)})"
    if isinstance(thing, nn.Module):
        return type(thing).__name__
    return getattr(thing, "__name__", type(thing).__name__)


__all__ = ["ForeignLinear", "ForeignMap", "wrap"]
