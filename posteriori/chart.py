"""Charts: one map from the coordinates u that the sampler moves to the x that a user reads.

A range of images, several tensors packed into one vector, a decoder of latents are one idea:

    x = push(u),   y = A(x) + noise as a likelihood of u:   pull(likelihood)

A linear A and Gaussian noise stay so where the chart allows it. A prior makes its chart, a
``Posterior`` holds it, and nothing else in the library converts ranges or units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from posteriori.linalg import Map
from posteriori.operators.affine import Affine
from posteriori.operators.base import LinearOperator, Operator
from posteriori.operators.compose import Chain, Compose
from posteriori.operators.units import Units
from posteriori.packing import Shapes, pack, packed_size, unpack

if TYPE_CHECKING:
    from posteriori.likelihood import Likelihood

Ends = tuple[float, float]


class Chart(Protocol):
    """A map from u (B, *U) to x.

    Attributes
    ----------
    shape: U, of what the sampler moves.
    log_volume: log |du/dx| for each real number that is measured, where ``pull`` gives y in other
        units: what log p(y) in the sampler's coordinates lacks to the user's. 0 where y stays as
        it is, None where |du/dx| is no constant.
    straight: a, b with x = a u + b, number by number (numbers, or tensors of shape U); None for a
        chart of another kind.
    image_shape: E, of x as A takes it.
    shapes, ranges: of the parts that x is packed from, by name; None for one tensor.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def log_volume(self) -> float | None: ...
    @property
    def straight(self) -> tuple[float | Tensor, float | Tensor] | None: ...
    @property
    def image_shape(self) -> tuple[int, ...]: ...
    @property
    def shapes(self) -> Shapes | None: ...
    @property
    def ranges(self) -> dict[str, Ends | None] | None: ...

    def push(self, u: Tensor) -> Tensor | dict[str, Tensor]:
        """x (B, *E), or its parts by name; ``packing.pack`` makes of these what A takes."""

    def lift(self, x: Tensor) -> Tensor:
        """u of x (B, *E) as A takes it: the inverse of ``push``, or what stands for it."""

    def pull(self, likelihood: Likelihood) -> Likelihood:
        """The likelihood of x as one of u."""


@dataclass(frozen=True)
class AffineChart:
    """x = a u + b with numbers a and b: images in another range.

    For a linear A and Gaussian noise of level sigma,

        y = A(a u + b) + sigma z   <=>   (y - A b) / a = A u + (sigma / a) z,

    otherwise A is composed with u -> a u + b. shape: U = E. range: of x, where it has one.
    """

    a: float
    b: float
    shape: tuple[int, ...]
    range: Ends | None = None
    shapes: None = field(default=None, init=False, repr=False)
    ranges: None = field(default=None, init=False, repr=False)

    @classmethod
    def between(cls, source: Ends, target: Ends, shape: tuple[int, ...]) -> AffineChart:
        """The chart that takes u in the range ``source`` to x in ``target``."""
        a = (target[1] - target[0]) / (source[1] - source[0])
        return cls(a, target[0] - a * source[0], shape, target)

    @property
    def log_volume(self) -> float:
        return -math.log(abs(self.a))

    @property
    def straight(self) -> tuple[float, float]:
        return self.a, self.b

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def trivial(self) -> bool:
        """Whether x is u."""
        return (self.a, self.b) == (1.0, 0.0)

    def push(self, u: Tensor) -> Tensor:
        return u if self.trivial else self.a * u + self.b

    def lift(self, x: Tensor) -> Tensor:
        return x if self.trivial else (x - self.b) / self.a

    def pull(self, likelihood: Likelihood) -> Likelihood:
        if self.trivial:
            return likelihood
        A, y, a, b = likelihood.A, likelihood.y, self.a, self.b
        ends = likelihood.range
        inner = None if ends is None else ((ends[0] - b) / a, (ends[1] - b) / a)
        if not likelihood.conjugate:
            return replace(likelihood, A=Affine(A, a, b), range=inner)
        offset = 0.0
        if b:
            offset = A(A.probe(torch.ones, dtype=y.real.dtype).to(y.device) * b)[0]
        noise = likelihood.noise.scaled(1 / a)
        return replace(likelihood, y=(y - offset) / a, noise=noise, range=inner)


@dataclass(frozen=True)
class Pair:
    """Several tensors packed into one vector, each divided by a unit of its own.

        u = (u_1, u_2, ...),   x_i = parts_i(units_i u_i)

    names: of the parts, in order. parts: the chart of each, from its prior's coordinates to the
    user's. units: of each, > 0; a noise level sigma of u is one of units_i sigma in part i.

    A takes x packed, (B, d). An A that says of what its images consist (``in_parts``) must have
    these, by name, shape and order. Raises ``ValueError`` otherwise.
    """

    names: tuple[str, ...]
    parts: Sequence[AffineChart]
    units: tuple[float, ...]

    @property
    def shapes(self) -> Shapes:
        return {name: part.shape for name, part in zip(self.names, self.parts, strict=True)}

    @property
    def shape(self) -> tuple[int, ...]:
        return (packed_size(self.shapes),)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def log_volume(self) -> float:
        return 0.0  # y stays as it was measured

    @property
    def ranges(self) -> dict[str, Ends | None]:
        """In which each part is expressed."""
        return {name: part.range for name, part in zip(self.names, self.parts, strict=True)}

    @property
    def straight(self) -> tuple[Tensor, Tensor]:
        sizes = [math.prod(part.shape) for part in self.parts]
        pairs = list(zip(self.parts, self.units, sizes, strict=True))
        a = [torch.full((n,), part.a * unit, dtype=torch.float64) for part, unit, n in pairs]
        b = [torch.full((n,), part.b, dtype=torch.float64) for part, _, n in pairs]
        return torch.cat(a), torch.cat(b)

    def push(self, u: Tensor) -> dict[str, Tensor]:
        inner = unpack(u, self.shapes)
        return {
            name: part.push(unit * inner[name])
            for name, part, unit in zip(self.names, self.parts, self.units, strict=True)
        }

    def lift(self, x: Tensor) -> Tensor:
        a, b = self.straight
        return (x - b.to(x)) / a.to(x)

    def pull(self, likelihood: Likelihood) -> Likelihood:
        A, y, (a, b) = likelihood.A, likelihood.y, self.straight
        self._check(A)
        if not isinstance(A, LinearOperator):
            return replace(likelihood, A=Chain(A, Pushed(self, A.complex_in)))
        inner = Compose(A, Units(a.to(y.device), complex_images=A.complex_in))
        if not b.any():
            return replace(likelihood, A=inner)
        if not likelihood.conjugate:
            return replace(likelihood, A=Chain(A, Pushed(self, A.complex_in)))
        ones = A.probe(torch.ones, dtype=y.real.dtype).to(y.device)
        return replace(likelihood, A=inner, y=y - A(ones * b.to(ones))[0])

    def _check(self, A: Operator) -> None:
        if A.in_parts is not None and list(A.in_parts.items()) != list(self.shapes.items()):
            raise ValueError(
                f"the prior's parts are {_said(self.shapes)}, {A.label} takes {_said(A.in_parts)}: "
                "give both the same names and shapes, in one order"
            )


class Codec(Protocol):
    """An autoencoder between images x (B, *E) in its own range and unscaled latents z (B, *U)."""

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...

    @property
    def matrix(self) -> Tensor | None:
        """W (d, k) where decoding is z -> W z; None for any other."""


@dataclass(frozen=True, eq=False)
class Decoder:
    """Images decoded from scaled latents,

        x = a Dec(u / scale + shift) + b,    u = (Enc((x - b) / a) - shift) scale.

    autoencoder: Dec and Enc. scale, shift: of the latents, numbers or tensors that broadcast with
    one. shape: U, of a latent. image_shape: E. a, b: from the autoencoder's range to that of x.
    at_once: images that are decoded, encoded or differentiated together. range: of x.

    A likelihood of x is one of u by A after the decoder, which is not linear, with y as it is. It
    stays linear where Dec(z) = W z.
    """

    autoencoder: Codec
    scale: float | Tensor
    shift: float | Tensor
    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    a: float = 1.0
    b: float = 0.0
    at_once: int = 1
    range: Ends | None = None
    shapes: None = field(default=None, init=False, repr=False)
    ranges: None = field(default=None, init=False, repr=False)
    straight: None = field(default=None, init=False, repr=False)

    @property
    def log_volume(self) -> float:
        return 0.0  # y stays as it was measured

    @property
    def affine(self) -> tuple[Tensor, Tensor] | None:
        """M (d, k) and b (d,) with x = M u + b, flattened, of a linear decoder."""
        W = self.autoencoder.matrix
        if W is None:
            return None
        # In the precision of W: a float would pass through single precision.
        scale, shift = (
            torch.as_tensor(t, dtype=W.dtype, device=W.device).expand(self.shape).flatten()
            for t in (self.scale, self.shift)
        )
        return W * (self.a / scale), self.a * (W @ shift) + self.b

    def push(self, u: Tensor) -> Tensor:
        return self._cut(self._decode, u)

    def lift(self, x: Tensor) -> Tensor:
        return self._cut(self._encode, x)

    def pull(self, likelihood: Likelihood) -> Likelihood:
        """Without the range and the frame, which are those of x."""
        A, y, straight = likelihood.A, likelihood.y, self.affine
        inner: Operator
        if (
            isinstance(A, LinearOperator)
            and straight is not None
            and (likelihood.conjugate or not bool(straight[1].any()))
        ):
            M, b = (t.to(device=y.device, dtype=y.real.dtype) for t in straight)
            inner = Compose(A, Expansion(M, self.shape, self.image_shape))
            y = y - A(b.view(1, *self.image_shape))[0] if bool(b.any()) else y
        else:
            inner = Chain(A, Pushed(self))
        return replace(likelihood, y=y, A=inner, range=None, frame=None, check=False)

    def _decode(self, u: Tensor) -> Tensor:
        x = self.autoencoder.decode(u / self._like(self.scale, u) + self._like(self.shift, u))
        return self.a * x + self.b

    def _encode(self, x: Tensor) -> Tensor:
        z = self.autoencoder.encode((x - self.b) / self.a)
        return (z - self._like(self.shift, z)) * self._like(self.scale, z)

    def _cut(self, of: Map, t: Tensor) -> Tensor:
        """``of`` on a few rows at a time."""
        return (
            of(t) if len(t) <= self.at_once else torch.cat([of(p) for p in t.split(self.at_once)])
        )

    @staticmethod
    def _like(value: float | Tensor, t: Tensor) -> float | Tensor:
        return value.to(t) if isinstance(value, Tensor) else value


class Expansion(LinearOperator):
    """x = M u: images of ``image_shape``, E, from coordinates of ``shape``, U; M (d, k)."""

    M: Tensor

    def __init__(self, M: Tensor, shape: tuple[int, ...], image_shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.__dict__["_out_shape"] = tuple(image_shape)
        self.register_buffer("M", M)

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return (x.flatten(1) @ self.M.T.to(x.dtype)).view(-1, *self.out_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        self.check_measurement(y)
        return (y.flatten(1) @ self.M.to(y.dtype)).view(-1, *self.in_shape)


class Pushed(Operator):
    """u -> x packed as A takes it, for an A that is not linear, or a chart that is curved.

    Of more rows than a ``Decoder`` works on at once J^T v is computed anew for as many at a time,
    at one more decoding each, so that memory does not grow with the batch.
    """

    def __init__(self, chart: Chart, complex_images: bool = False) -> None:
        super().__init__(chart.shape, complex_in=complex_images, complex_out=complex_images)
        self.__dict__["_out_shape"] = chart.image_shape
        self.chart = chart

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return pack(self.chart.push(x))

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        return _linearize_by_parts(self, super().linearize, x, _rows_at_once(self.chart))


class Lifted(Operator):
    """x -> u of a chart: its encoder."""

    def __init__(self, chart: Chart, complex_images: bool = False) -> None:
        super().__init__(chart.image_shape, complex_in=complex_images, complex_out=complex_images)
        self.__dict__["_out_shape"] = chart.shape
        self.chart = chart

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.chart.lift(x)

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        return _linearize_by_parts(self, super().linearize, x, _rows_at_once(self.chart))


def _rows_at_once(chart: Chart) -> int | None:
    return chart.at_once if isinstance(chart, Decoder) else None


def _linearize_by_parts(
    f: Operator, linearize: Callable[[Tensor], tuple[Tensor, Map]], x: Tensor, rows: int | None
) -> tuple[Tensor, Map]:
    if rows is None or len(x) <= rows:
        return linearize(x)
    with torch.no_grad():
        y = f(x)

    def pull(u: Tensor) -> Tensor:
        parts = zip(x.split(rows), u.split(rows), strict=True)
        return torch.cat([linearize(part)[1](v) for part, v in parts])

    return y, pull


def _said(shapes: Shapes) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
