"""Rows of a batch seen by instruments of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from posteriori.covariances import NoiseCovariance, RowsNoise
from posteriori.memo import kept
from posteriori.operators.base import LinearOperator, Map, norm2
from posteriori.operators.spectrum import Spectrum


class RowWise(LinearOperator):
    """y[k] = A_k x[k] for row k of a batch of B = len(operators) rows: what ``sample_each`` gives
    to methods.

    operators: A_k, linear, of equal shapes and kinds of number. Where all are one object, a batch
    may have any number of rows.

    Its spectrum is known where all A_k know theirs and have the same singular values, as masks with
    equally many places do; ``solve`` takes conjugate gradients otherwise, row by row. ``norm2`` is
    the largest ||A_k||, which is that of the whole map.
    Raises ``TypeError`` for an operator that is not linear, ``ValueError`` for none, for different
    shapes, and for a batch of another number of rows.
    """

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        if not operators:
            raise ValueError("RowWise needs at least one operator")
        for A in operators:
            if not isinstance(A, LinearOperator):
                raise TypeError(f"RowWise takes linear operators; {type(A).__name__} is not linear")
        kinds = [(A.in_shape, A.out_shape, A.complex_in, A.complex_out) for A in operators]
        for k, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise ValueError(
                    f"RowWise: operator 0 is {operators[0]!r}, "
                    f"operator {k} is {operators[k]!r}; rows have one shape"
                )
        first = operators[0]
        super().__init__(first.in_shape, complex_in=first.complex_in, complex_out=first.complex_out)
        self.__dict__["_out_shape"] = first.out_shape
        distinct = {id(A): A for A in operators}
        places = {key: j for j, key in enumerate(distinct)}
        self.which = [places[id(A)] for A in operators]
        self.parts = nn.ModuleList(distinct.values())

    def _each(self) -> list[LinearOperator]:
        return [A for A in self.parts if isinstance(A, LinearOperator)]

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return _by_rows([A.forward for A in self._each()], self.which, x)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return _by_rows([A.adjoint for A in self._each()], self.which, y)

    @property
    def steady_norm(self) -> float:
        return max(norm2(A) for A in self._each())

    def spectrum(self) -> Spectrum | None:
        return kept(
            self, "spectrum", lambda: _joined([A.spectrum() for A in self._each()], self.which)
        )

    def posterior_covariance(self, r2: float, s2: float) -> NoiseCovariance | None:
        """Of each row by its own instrument."""
        found = [A.posterior_covariance(r2, s2) for A in self._each()]
        known = tuple(member for member in found if member is not None)
        if len(known) < len(found):
            return None
        return known[0] if len(known) == 1 else RowsNoise(known, tuple(self.which))

    def cosine_power(self) -> Tensor | None:
        return _common([A.cosine_power() for A in self._each()])

    def fourier_power(self) -> Tensor | None:
        return _common([A.fourier_power() for A in self._each()])

    def measured_power(self) -> Tensor | None:
        return _common([A.measured_power() for A in self._each()])


def _by_rows(maps: Sequence[Map], which: Sequence[int], t: Tensor) -> Tensor:
    """Row k of t by maps[which[k]]; rows of one map go through it together."""
    if len(maps) == 1:
        return maps[0](t)
    if len(t) != len(which):
        raise ValueError(f"RowWise holds operators for {len(which)} rows, the batch has {len(t)}")
    rows: list[list[int]] = [[] for _ in maps]
    for k, j in enumerate(which):
        rows[j].append(k)
    out = torch.cat([of(t[some]) for of, some in zip(maps, rows, strict=True)])
    order = torch.tensor([k for some in rows for k in some], device=t.device)
    return out[order.argsort()]


def _joined(spectra: Sequence[Spectrum | None], which: Sequence[int]) -> Spectrum | None:
    """One spectrum of all rows, where each has one with the same singular values."""
    known = [own for own in spectra if own is not None]
    if len(known) < len(spectra) or any(not torch.equal(own.s, known[0].s) for own in known):
        return None

    def rows(of: Callable[[Spectrum], Map]) -> Map:
        return lambda t: _by_rows([of(own) for own in known], which, t)

    return Spectrum(
        known[0].s,
        rows(lambda a: a.V),
        rows(lambda a: a.Vh),
        rows(lambda a: a.U),
        rows(lambda a: a.Uh),
    )


def _common(answers: Sequence[Tensor | None]) -> Tensor | None:
    """The answer that all give, else None."""
    known = [answer for answer in answers if answer is not None]
    same = len(known) == len(answers) and all(torch.equal(answer, known[0]) for answer in known)
    return known[0] if same else None
