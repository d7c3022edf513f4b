"""Which library made an operator, and what its conventions are.

    scipy, pylops, astra   shape, matvec, rmatvec of flat NumPy vectors; ``dims`` and ``dimsd``, or
                           ``vshape`` and ``sshape``, are the shapes before flattening
    sigpy                  ishape, oshape, and H, of complex NumPy arrays of any shape
    deepinv                A, A_adjoint of batches of tensors
    mrpro                  a call and ``adjoint`` of batches of tensors that return a tuple of one

An amplitude, a sign, an order of coordinates or a centre is what the library makes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.linalg import Map
from posteriori.operators.foreign.maps import ForeignLinear, row_by_row

_Shape = tuple[int, ...]


def from_matvec(thing: Any, in_shape: _Shape | None, kinds: dict[str, bool]) -> ForeignLinear:
    """``scipy.sparse.linalg.LinearOperator`` and what looks like it (pylops, ASTRA's ``OpTomo``);
    sparse and dense matrices.

    in_shape: of an image, where the operator states none. An operator of complex dtype takes and
    gives complex numbers, unless ``kinds`` says otherwise.
    Raises ``RuntimeError`` for a projector of ASTRA that needs a GPU where there is none.
    """
    if not hasattr(thing, "rmatvec"):
        from scipy.sparse.linalg import aslinearoperator

        thing = aslinearoperator(thing)
    _check_gpu(thing)
    m, n = (int(side) for side in thing.shape)
    shape = _stated(thing, ("dims", "vshape"), n) or (n,)
    if in_shape is not None:
        if math.prod(in_shape) != n:
            raise ValueError(
                f"in_shape {tuple(in_shape)} has {math.prod(in_shape)} numbers, "
                f"{_name(thing)} takes {n}"
            )
        shape = tuple(in_shape)
    out = _stated(thing, ("dimsd", "sshape"), m) or (m,)
    dtype = np.dtype(thing.dtype if getattr(thing, "dtype", None) is not None else np.float64)
    complex = dtype.kind == "c"
    kinds = {"complex_in": complex, "complex_out": complex} | kinds
    there = row_by_row(_flat(thing.matvec, dtype, kinds["complex_in"], out))
    back = row_by_row(_flat(thing.rmatvec, dtype, kinds["complex_out"], shape))
    return ForeignLinear(there, back, shape, source=_name(thing), **kinds)


def from_sigpy(thing: Any, in_shape: _Shape | None, kinds: dict[str, bool]) -> ForeignLinear:
    """``sigpy.linop.Linop``: complex arrays of ``ishape`` and ``oshape``, in single precision."""
    _must_be(thing, in_shape, tuple(thing.ishape))
    kinds = {"complex_in": True, "complex_out": True} | kinds
    reverse = thing.H
    return ForeignLinear(
        row_by_row(thing), row_by_row(reverse), tuple(thing.ishape), source=_name(thing), **kinds
    )


def from_deepinv(thing: Any, in_shape: _Shape | None, kinds: dict[str, bool]) -> ForeignLinear:
    """``deepinv.physics.LinearPhysics``: ``A`` and ``A_adjoint`` without its noise model.

    in_shape: of an image (C, H, W), which the library's operators need not know.
    """
    stated = getattr(thing, "img_size", None)
    if in_shape is None and stated is not None:
        in_shape = tuple(int(n) for n in stated)
    if in_shape is None:
        raise ValueError(f"{_name(thing)} does not state img_size: give in_shape")
    return ForeignLinear(
        _without_graph(thing.A),
        _without_graph(thing.A_adjoint),
        in_shape,
        source=_name(thing),
        **kinds,
    )


def from_mrpro(thing: Any, in_shape: _Shape | None, kinds: dict[str, bool]) -> ForeignLinear:
    """``mrpro.operators.LinearOperator``: complex batches; the first axis is ours, the library's
    "other" axes are among the rest."""
    if in_shape is None:
        raise ValueError(f"{_name(thing)} does not state the shape of an image: give in_shape")
    kinds = {"complex_in": True, "complex_out": True} | kinds
    return ForeignLinear(
        _without_graph(lambda x: thing(x)[0]),
        _without_graph(lambda y: thing.adjoint(y)[0]),
        in_shape,
        source=_name(thing),
        **kinds,
    )


Reader = Callable[[Any, _Shape | None, dict[str, bool]], ForeignLinear]


def reader_of(thing: Any) -> Reader | None:
    """What reads an operator of a library; None where none is known."""
    if _from(thing, "sigpy"):
        return from_sigpy
    if _from(thing, "mrpro"):
        return from_mrpro
    if _from(thing, "deepinv") and hasattr(thing, "A_adjoint"):
        return from_deepinv
    matrix = isinstance(thing, np.ndarray) or _from(thing, "scipy.sparse")
    if (hasattr(thing, "matvec") and hasattr(thing, "rmatvec")) or matrix:
        return from_matvec
    return None


def _flat(
    function: Callable[[np.ndarray], Any], dtype: np.dtype, complex: bool, shape: _Shape
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of vectors as one of arrays, in the precision that its library computes in."""
    real = np.empty(0, dtype).real.dtype
    kind = np.result_type(real, np.complex64) if complex else real

    def of_array(x: np.ndarray) -> np.ndarray:
        return np.asarray(function(x.reshape(-1).astype(kind))).reshape(shape)

    return of_array


def _without_graph(function: Map) -> Map:
    def called(x: Tensor) -> Tensor:
        with torch.no_grad():
            return function(x)

    return called


def _check_gpu(thing: Any) -> None:
    """ASTRA's three-dimensional projectors are for GPUs alone; without one the first call ends the
    process, and no exception can be caught."""
    if not _from(thing, "astra") or len(np.atleast_1d(thing.vshape)) < 3:
        return
    import astra

    if not astra.use_cuda():
        raise RuntimeError(
            "ASTRA's projectors of volumes need a GPU, and it sees none here; operators.ConeBeam "
            "takes small volumes on a CPU, and a slice at a time is Slicewise of a projector of "
            "images"
        )


def _stated(thing: Any, names: tuple[str, ...], count: int) -> _Shape | None:
    """A shape that an operator states under one of ``names``, where it has ``count`` numbers."""
    for name in names:
        value = getattr(thing, name, None)
        if value is not None:
            shape = tuple(int(n) for n in np.atleast_1d(value))
            if math.prod(shape) == count:
                return shape
    return None


def _must_be(thing: Any, given: _Shape | None, stated: _Shape) -> None:
    if given is not None and tuple(given) != stated:
        raise ValueError(f"in_shape {tuple(given)}, but {_name(thing)} takes {stated}")


def _from(thing: Any, package: str) -> bool:
    """Whether a class of an object, or one that it derives from, is of a package."""
    return any(
        base.__module__ == package or base.__module__.startswith(f"{package}.")
        for base in type(thing).__mro__
    )


def _name(thing: Any) -> str:
    """'scipy 1.16.0 LinearOperator'."""
    package = next(_packages(thing))
    try:
        number = f" {version(_DISTRIBUTIONS.get(package, package))}"
    except PackageNotFoundError:
        number = ""
    return f"{package}{number} {type(thing).__name__}"


def _packages(thing: Any) -> Iterator[str]:
    yield type(thing).__module__.split(".")[0]


_DISTRIBUTIONS = {"astra": "astra-toolbox"}
