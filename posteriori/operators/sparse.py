"""Any sparse matrix."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriori.memo import kept
from posteriori.operators.base import LinearOperator
from posteriori.settings import Count


class Sparse(LinearOperator):
    """y = matrix x for images of ``shape`` whose last axes, flattened row by row, are the columns;
    the axes before them are as many images of their own.

    matrix: a sparse matrix of SciPy, real, (m, d). out_shape: of the m numbers, by default (m,).
    axes: how many last axes of an image are flattened, by default as few as have d numbers.
    The adjoint is the exact transpose, of the same values in another order, so that the two never
    differ; both are differentiable any number of times.

    Raises ``ValueError`` for a matrix that is not real, is not finite, or does not fit the shapes.
    """

    values: Tensor
    back_order: Tensor

    def __init__(
        self,
        matrix: Any,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...] | None = None,
        axes: Count | None = None,
    ) -> None:
        super().__init__(shape)
        forward = matrix.tocsr()
        if forward.dtype.kind != "f" or not np.isfinite(forward.data).all():
            raise ValueError(
                f"Sparse takes a matrix of finite real numbers, got {forward.dtype}; convert whole "
                "numbers with astype(float)"
            )
        m, d = forward.shape
        self._rays = (m,) if out_shape is None else tuple(out_shape)
        self._axes = _trailing(self.in_shape, d) if axes is None else int(axes)
        if math.prod(self._image) != d:
            raise ValueError(f"Sparse: images {self._image} do not fit a matrix of {d} columns")
        if math.prod(self._rays) != m:
            raise ValueError(
                f"Sparse: out_shape {self._rays} has {math.prod(self._rays)} numbers, the matrix "
                f"{m} rows"
            )
        # Plain index and value tensors, put together at each use: they convert, move and save like
        # any other buffer.
        forward.sort_indices()
        back = forward.copy()
        back.data = np.arange(back.nnz, dtype=np.int32)
        back = back.T.tocsr()
        back.sort_indices()
        for name, part in (("forward", forward), ("back", back)):
            self.register_buffer(f"{name}_rows", torch.from_numpy(part.indptr.astype(np.int32)))
            self.register_buffer(f"{name}_columns", torch.from_numpy(part.indices.astype(np.int32)))
        self.register_buffer("values", torch.from_numpy(forward.data))
        self.register_buffer("back_order", torch.from_numpy(back.data))
        with warnings.catch_warnings():
            # torch says once that its sparse matrices are in beta; products are all that is used
            # here, and they are tested.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            self._sparse("forward", torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        y = self._sparse("forward", x.dtype) @ x.reshape(-1, math.prod(self._image)).T
        return y.T.reshape(*x.shape[: -self._axes], *self._rays)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        x = self._sparse("back", y.dtype) @ y.reshape(-1, math.prod(self._rays)).T
        return x.T.reshape(-1, *self.in_shape)

    @property
    def _image(self) -> tuple[int, ...]:
        return self.in_shape[-self._axes :]

    def _sparse(self, name: str, dtype: torch.dtype) -> Tensor:
        size = math.prod(self._rays), math.prod(self._image)
        rows, columns = (self.get_buffer(f"{name}_{part}") for part in ("rows", "columns"))
        values, order = self.values, self.back_order
        if name == "back":
            values = kept(self, "back", lambda: self.values[order], values, order)
            size = size[::-1]
        return torch.sparse_csr_tensor(
            rows, columns, values.to(dtype), size=size, check_invariants=False
        )


def _trailing(shape: tuple[int, ...], count: int) -> int:
    """How many last axes of a shape have ``count`` numbers."""
    for axes in range(1, len(shape) + 1):
        if math.prod(shape[-axes:]) == count:
            return axes
    raise ValueError(f"Sparse: no last axes of images {shape} have the matrix's {count} columns")
