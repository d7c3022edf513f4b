"""One instrument on every slice of a volume."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from posteriori.operators.base import LinearOperator, Map
from posteriori.operators.normal_equations import Preconditioner
from posteriori.operators.spectrum import Spectrum


class Slicewise(LinearOperator):
    """y[d] = A x[d] for the slices d of x, (D, *E) -> (D, *O): D slices are D rows to A, and what A
    knows of itself holds for it.

    A: a linear operator on one slice. depth: D. at_once: slices that A is given at a time, all when
    None; results do not depend on it, memory beside x and y does. Raises ``TypeError`` for an
    operator that is not linear, ``ValueError`` for a depth or ``at_once`` below 1. Slices seen by
    instruments of their own are a ``Stack`` of operators on the volume.
    """

    def __init__(self, A: LinearOperator, depth: int, *, at_once: int | None = None) -> None:
        if not isinstance(A, LinearOperator):
            raise TypeError(f"Slicewise takes a linear operator; {type(A).__name__} is not linear")
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
            raise ValueError(
                f"Slicewise: depth is the number of slices, an integer >= 1, got {depth!r}"
            )
        if at_once is not None and (
            not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1
        ):
            raise ValueError(f"Slicewise: at_once must be an integer >= 1, got {at_once!r}")
        super().__init__((depth, *A.in_shape), complex_in=A.complex_in, complex_out=A.complex_out)
        self.A, self.depth, self.at_once = A, depth, at_once

    @property
    def inner(self) -> LinearOperator:
        return cast(LinearOperator, self.A)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self._by_slices(self.inner.forward, x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return self._by_slices(self.inner.adjoint, y)

    def layout(self, y: Tensor) -> Tensor:
        return self.inner.layout(y)

    def _by_slices(self, of: Map, t: Tensor) -> Tensor:
        rows = t.flatten(0, 1)
        parts = rows.split(self.at_once) if self.at_once else [rows]
        return torch.cat([of(part) for part in parts]).unflatten(0, (-1, self.depth))

    def spectrum(self) -> Spectrum | None:
        own = self.inner.spectrum()
        if own is None:
            return None
        k = own.s.numel()

        def there(of: Map) -> Map:
            # The coordinates that A sees of all slices come first, then those that it does not.
            def coordinates(t: Tensor) -> Tensor:
                c = self._by_slices(of, t)
                return torch.cat([c[..., :k].flatten(1), c[..., k:].flatten(1)], 1)

            return coordinates

        def back(of: Map) -> Map:
            def images(c: Tensor) -> Tensor:
                seen, rest = c[:, : self.depth * k], c[:, self.depth * k :]
                parts = [seen.unflatten(1, (self.depth, -1)), rest.reshape(len(c), self.depth, -1)]
                return of(torch.cat(parts, 2).flatten(0, 1)).unflatten(0, (-1, self.depth))

            return images

        return Spectrum(
            own.s.repeat(self.depth), back(own.V), there(own.Vh), back(own.U), there(own.Uh)
        )

    def preconditioner(self, r2: float, s2: float) -> Preconditioner | None:
        own = self.inner.preconditioner(r2, s2)
        return (
            None
            if own is None
            else Preconditioner(lambda v: self._by_slices(own.near, v), own.images)
        )

    def cosine_power(self) -> Tensor | None:
        return self.inner.cosine_power()
