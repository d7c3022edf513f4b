"""What an instrument is: a map A from images x to clean measurements y. No noise, no clipping, no
range.

    A : (B, *E) -> (B, *O)

An operator author writes ``forward`` and, for a linear operator, ``adjoint`` (left out, it is the
exact transpose by automatic differentiation). A closed form, where one is known, is offered as
``spectrum()``, a nearby one as ``preconditioner(r2, s2)``. The questions ``solve``, ``gain``,
``pinv``, ``norm2``, ``matrix`` and ``log_det`` are functions that answer for every linear operator,
with the spectrum when there is one and conjugate gradients otherwise; no caller asks which kind of
operator it holds.

An operator computes in the precision of the images it is given: its own numbers are cast, never the
image.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn

from posteriori import identity
from posteriori.covariances import NoiseCovariance, SingularNoise
from posteriori.linalg import Map, note_solver
from posteriori.operators.norm import measured_norm, norm_at
from posteriori.operators.normal_equations import Preconditioner, SolveError, normal_solve
from posteriori.operators.spectrum import Spectrum, apart_from_rounding
from posteriori.operators.transpose import (
    AdjointError,
    Linear,
    dot_test,
    followed,
    repeat_test,
    transposed,
)
from posteriori.packing import Shapes
from posteriori.settings import Checked


class Operator(nn.Module, metaclass=Checked):
    """A differentiable map (B, *E) -> (B, *O).

    Attributes
    ----------
    in_shape: E, the shape of one image.
    complex_in, complex_out: whether images and measurements are complex tensors.
    affine: whether A(x) - A(0) is known to be linear in x, so that the derivative is the same
        everywhere.
    """

    affine: bool = False

    def __init__(
        self, in_shape: tuple[int, ...], *, complex_in: bool = False, complex_out: bool = False
    ) -> None:
        super().__init__()
        self.in_shape = tuple(int(n) for n in in_shape)
        self.complex_in, self.complex_out = complex_in, complex_out
        if not self.in_shape or min(self.in_shape) < 1:
            raise ValueError(
                f"{type(self).__name__}: image shape {self.in_shape} must have positive sides"
            )

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x for a batch."""

    def __matmul__(self, other: Operator) -> Operator:
        """A @ B: A after B. Linear when both are."""
        from posteriori.operators.compose import Chain, Compose

        if isinstance(self, LinearOperator) and isinstance(other, LinearOperator):
            return Compose(self, other)
        return Chain(self, other)

    def _apply(self, fn: Map, recurse: bool = True) -> Operator:
        # Module.double() and .float() pass over complex buffers, and .to(float64) drops their
        # imaginary part: show them as pairs of reals.
        def pairs(t: Tensor) -> Tensor:
            return (
                torch.view_as_complex(fn(torch.view_as_real(t.resolve_conj())))
                if t.is_complex()
                else fn(t)
            )

        return super()._apply(pairs, recurse)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """O, the shape of one measurement."""
        if "_out_shape" not in self.__dict__:
            with torch.no_grad():
                self.__dict__["_out_shape"] = tuple(self(self.probe(torch.zeros)).shape[1:])
        return self.__dict__["_out_shape"]

    def probe(
        self, draw: Callable[..., Tensor], rows: int = 1, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A batch of images made by ``draw`` (``torch.zeros``, ``torch.randn``, ...) on the
        operator's device."""
        tensors = [*self.parameters(), *self.buffers()]
        device = tensors[0].device if tensors else None
        if dtype is None:
            floats = [t.dtype for t in tensors if t.is_floating_point() or t.is_complex()]
            dtype = floats[0].to_real() if floats else torch.float32
        return draw(
            rows,
            *self.in_shape,
            dtype=dtype.to_complex() if self.complex_in else dtype,
            device=device,
        )

    def layout(self, y: Tensor) -> Tensor:
        """One measurement (*O) as it lies before the instrument, to be looked at: NaN where nothing
        was measured. By default y."""
        return y

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        """A(x), and the map u -> (dA/dx)^H u."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = self(leaf)

        def pull(u: Tensor) -> Tensor:
            (pulled,) = torch.autograd.grad(
                y, leaf, u, retain_graph=True, create_graph=u.requires_grad
            )
            return pulled

        return y.detach(), pull

    def differential(self, x: Tensor) -> tuple[Tensor, Map, Map]:
        """A(x), and the maps v -> (dA/dx) v and u -> (dA/dx)^H u, the derivative being that of
        ``linearize``."""
        y, pull = self.linearize(x)
        return y, transposed(pull, y), pull

    @property
    def steady_norm(self) -> float | None:
        """||dA/dx|| where it is the same for every x, as of a linear operator; None otherwise."""
        return None

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns of a measurement, from its border on, that depend on what is assumed
        beyond the border of the image."""
        return 0, 0

    @property
    def in_parts(self) -> Shapes | None:
        """Of an operator on several tensors that are packed into one vector: their shapes by name,
        in order. None for one image."""
        return None

    def told(self, x: Tensor) -> dict[str, Tensor]:
        """Of an instrument with unknown parameters: these as a person reads them, by a name with
        its unit, from x (B, *E) -> (B, *P). Empty for an instrument that is known."""
        return {}

    def counting(self, other: Operator) -> Operator:
        """``other``, whose calls count as this operator's where these are counted."""
        return other

    @property
    def label(self) -> str:
        """What errors call this operator: its class, or that of the operator it only watches."""
        return type(self).__name__

    def surrogate(self) -> Operator | None:
        """The smooth operator whose derivative ``linearize`` gives in place of A's own, for an A
        that rounds; None when it is A's own."""
        return None

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        """h^+(y): (B, *O) -> (B, *E), an image with h(h^+(h(x))) = h(x). Raises ``TypeError`` for
        an operator that knows none."""
        raise TypeError(f"this needs an operator with a pseudo-inverse, {self.label} has none")

    def record(self) -> dict[str, Any]:
        """What this operator is by content, as JSON values; see ``posteriori.identity``. To be
        overridden where numbers live elsewhere."""
        return identity.content(self)

    def __repr__(self) -> str:
        kinds = [
            f"{list(shape)}{' complex' if flag else ''}"
            for shape, flag in (
                (self.in_shape, self.complex_in),
                (self.out_shape, self.complex_out),
            )
        ]
        return f"{self.label}({kinds[0]} -> {kinds[1]})"

    def check_input(self, x: Tensor) -> None:
        """Raise ``ValueError`` naming both shapes, or both kinds of number, when x is not a batch
        of this operator's images."""
        self._check(
            x,
            self.in_shape,
            self.complex_in,
            "takes images",
            "make an operator for this size, or add the batch axis with x[None]",
        )

    def check_measurement(self, y: Tensor) -> None:
        """Raise ``ValueError`` naming both shapes, or both kinds of number, when y is not a batch
        of this operator's measurements."""
        self._check(
            y,
            self.out_shape,
            self.complex_out,
            "makes measurements",
            "add the batch axis with y[None] if it is missing",
        )

    def _check(
        self, t: Tensor, shape: tuple[int, ...], complex: bool, what: str, cure: str
    ) -> None:
        if tuple(t.shape[1:]) != shape:
            raise ValueError(
                f"{self.label} {what} of shape {shape} in a batch (B, ...), "
                f"got {tuple(t.shape)}; {cure}"
            )
        if t.is_complex() != complex:
            want, got = ("complex", "real") if complex else ("real", "complex")
            raise ValueError(
                f"{self.label} {what.replace(' ', f' {want} ')}, got {got} numbers ({t.dtype})"
            )


class LinearOperator(Operator):
    """An operator with A(a x + b u) = a A x + b A u, and hence an adjoint: Re<A x, u> = Re<x, A^H
    u>.

    Its derivatives of any order are A and ``adjoint`` themselves, so neither has to be
    differentiable inside. Numbers of the operator that are to be learned are registered as buffers
    or parameters; while one of them asks for a gradient, ``forward`` is differentiated.
    """

    affine = True

    def __call__(self, x: Tensor) -> Tensor:
        return self._mapped(x, super().__call__, self.adjoint)

    def _mapped(self, x: Tensor, there: Map, back: Map) -> Tensor:
        if followed(x) and not any(t.requires_grad for t in (*self.parameters(), *self.buffers())):
            return Linear.apply(x, there, back)
        return there(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^H y for a batch. By default the exact transpose of ``forward`` by automatic
        differentiation."""
        zero = self.probe(torch.zeros, rows=y.shape[0], dtype=y.real.dtype).to(y.device)
        with torch.enable_grad():
            zero.requires_grad_()
            out = self.forward(zero)
        # In the precision of y, which an operator written for one precision only may need.
        self.__dict__.setdefault("_out_shape", tuple(out.shape[1:]))
        self.check_measurement(y)
        return torch.autograd.grad(out, zero, y, create_graph=y.requires_grad)[0]

    def linearize(self, x: Tensor) -> tuple[Tensor, Map]:
        return self(x), lambda u: self._mapped(u, self.adjoint, self.forward)

    def differential(self, x: Tensor) -> tuple[Tensor, Map, Map]:
        y, pull = self.linearize(x)
        return y, self, pull

    @property
    def steady_norm(self) -> float:
        return measured_norm(self)

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        return pinv(self, y)

    @property
    def coordinates(self) -> int:
        """n of ``Spectrum``: the numbers of an image, counted as complex ones when the measurement
        is complex."""
        return math.prod(self.in_shape) // (2 if self.complex_out and not self.complex_in else 1)

    def spectrum(self) -> Spectrum | None:
        """A closed-form singular value decomposition, or None when no cheap one is known."""
        return None

    def posterior_covariance(self, r2: float, s2: float) -> NoiseCovariance | None:
        """(I / r2 + A^H A / s2)^-1, r2 and s2 > 0: the covariance of x given A x + sqrt(s2) z for
        x ~ N(., r2 I), as a member of ``posteriori.covariances``; None where it is none that is
        known.

        By default that of the singular coordinates, where these are known.
        """
        spectrum = self.spectrum()
        if spectrum is None:
            return None
        s = torch.nn.functional.pad(spectrum.s.double(), (0, self.coordinates - spectrum.s.numel()))
        return SingularNoise(1 / (1 / r2 + s.square() / s2), spectrum.V, spectrum.Vh)

    def preconditioner(self, r2: float, s2: float) -> Preconditioner | None:
        """What solves by conjugate gradients quickly at r2, s2 > 0; None when nothing is known."""

    def cosine_power(self) -> Tensor | None:
        """What A^H A multiplies each frequency of ``linalg.cosine`` by, nearly, broadcasting
        against E; None when nothing is known."""
        return None

    def fourier_power(self) -> Tensor | None:
        """What A^H A multiplies each Fourier frequency (of the last two axes) by, exactly,
        broadcasting against E; else None."""
        return None

    def measured_power(self) -> Tensor | None:
        """Nearly what A leaves of each frequency of ``linalg.cosine``, as power, broadcasting
        against O; None when nothing is known."""
        return None


def solve(
    A: LinearOperator,
    b: Tensor,
    r2: Tensor | float,
    s2: Tensor | float,
    *,
    rtol: float | None = None,
    max_iter: int = 1000,
) -> Tensor:
    """(r2 A A^H + s2 I)^-1 b, row by row: (B, *O) -> (B, *O).

    r2, s2: numbers or 0-d tensors >= 0, not both 0. With s2 = 0 it is the pseudo-inverse of r2 A
    A^H, in which singular values below 1e-6 of the largest (1.5e-8 in float64) count as 0; without
    a spectrum, b must then lie in the range of A. With a spectrum the answer is closed form;
    otherwise conjugate gradients to ``rtol`` (1e-5 in float32, 1e-10 in float64). Raises
    ``SolveError`` with the operator, iteration and residual when conjugate gradients stall, meet
    negative curvature, or show that ``adjoint`` is not the transpose of ``forward``.
    """
    real = b.real.dtype
    r, s = (torch.as_tensor(v, dtype=real, device=b.device) for v in (r2, s2))
    if not bool((r >= 0) & (s >= 0) & (r + s > 0)):
        raise ValueError(
            f"solve: r2={float(r):.3g} and s2={float(s):.3g} must be numbers >= 0, and not both 0"
        )
    spectrum = A.spectrum()
    if spectrum is None:
        offered = A.preconditioner(float(r), float(s)) if bool((r > 0) & (s > 0)) else None
        if offered is not None and offered.exact:
            note_solver("closed form")
            return offered.near(b)
        return normal_solve(
            A, A.adjoint, A, (r, s), b, rtol or (1e-10 if real == torch.float64 else 1e-5), max_iter
        )
    note_solver("closed form")
    c = spectrum.Uh(b)
    a = apart_from_rounding(spectrum.s).to(s)
    width = s.expand(c.shape[1]).clone()
    width[: a.numel()] += r * a**2
    if not bool(s > 0):
        # What is measured through a small s has a small width and counts all the same; only what is
        # not measured is left out.
        every = torch.nn.functional.pad(a, (0, width.numel() - a.numel()))
        width[every <= min(torch.finfo(real).eps ** 0.5, 1e-6) * a.max()] = math.inf
    return spectrum.U(c / width)


def pinv(A: LinearOperator, y: Tensor, *, rtol: float = 1e-6) -> Tensor:
    """The minimum-norm least-squares image A^+ y: (B, *O) -> (B, *E). Singular values below
    ``rtol`` times the largest count as 0.

    Without a spectrum, (A^H A + d^2 I)^-1 A^H y by conjugate gradients with d = max(rtol, 1e-3)
    ||A||: equal to A^+ y up to (d/s)^2 on a singular value s, and damped below d. Raises
    ``SolveError`` as ``solve`` does.
    """
    spectrum = A.spectrum()
    if spectrum is None:
        top = norm2(A)
        weights = (one := y.real.new_ones(()), one * (max(rtol, 1e-3) * top) ** 2)
        offered = A.preconditioner(1.0, float(weights[1])) if top > 0 else None
        if offered is not None and not offered.images:
            return A.adjoint(solve(A, y, *weights))
        # Left-multiplied by A^H, the right-hand side lies in the range, where conjugate gradients
        # behave well.
        c = A.adjoint(y)
        if not top > 0:
            return c
        tolerance = 1e-8 if one.dtype == torch.float64 else 1e-5
        return normal_solve(A, A, A.adjoint, weights, c, tolerance, 5000)
    c = spectrum.Uh(y)
    s = spectrum.s.to(c.real)
    keep = s > rtol * s.max()
    c = torch.where(keep, c[:, : s.numel()] / torch.where(keep, s, 1.0), 0.0)
    return spectrum.V(torch.nn.functional.pad(c, (0, A.coordinates - s.numel())))


@overload
def norm2(A: LinearOperator) -> float: ...
@overload
def norm2(A: Operator, x: Tensor) -> Tensor: ...
def norm2(A: Operator, x: Tensor | None = None) -> float | Tensor:
    """The largest singular value of a linear A, or that of dA/dx at each image of x (B, *E): (B,).

    Of a linear A measured once: from the spectrum, or by Lanczos's method, within 1e-4 from below.
    Of another A by 16 power iterations at x, from below, unless its derivative is the same
    everywhere.
    """
    steady = A.steady_norm
    if x is None and steady is None:
        raise TypeError(
            f"norm2: {A.label} is not linear, its derivative has a norm at images x: norm2(A, x)"
        )
    if x is None:
        return steady  # type: ignore[return-value]
    return norm_at(A, x) if steady is None else x.real.new_full((len(x),), steady)


def closed_spectrum(A: LinearOperator) -> Spectrum:
    """The spectrum of A. Raises ``TypeError`` for an operator that offers none."""
    spectrum = A.spectrum()
    if spectrum is None:
        raise TypeError(
            f"this needs an operator with a closed-form spectrum, {A.label} has none here; "
            "DDS or DiffPIR need none"
        )
    return spectrum


__all__ = [
    "AdjointError",
    "LinearOperator",
    "Map",
    "Operator",
    "Preconditioner",
    "SolveError",
    "Spectrum",
    "closed_spectrum",
    "dot_test",
    "norm2",
    "pinv",
    "repeat_test",
    "solve",
]
